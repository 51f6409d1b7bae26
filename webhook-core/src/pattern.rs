//! Which events a subscription wants.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::EventType;
use crate::event_type::{MAX_LEN, is_segment};

const ONE: &str = "*";
const REST: &str = "**";

/// Selects events by their type.
///
/// - `order.created` is that type alone.
/// - `*` stands for exactly one segment, in any place: `order.*`, `*.created`.
/// - `**` as the last segment stands for one or more: `order.**` is `order.created` and `order.line.added`, not `order`.
/// - `**` alone is every event, also one without a type, which no other pattern selects.
///
/// At most 256 characters. Cloning is cheap.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EventPattern(Arc<str>);

/// The text cannot be a pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseEventPatternError {
    /// Nothing, or too much.
    #[error("a pattern is 1 to 256 characters")]
    Length,
    /// A segment is neither a wildcard nor part of an event type.
    #[error("the pattern segment {segment:?} is neither '*' nor '**' nor made of A-Z, a-z, 0-9, '_', '-', '/' and ':'")]
    Segment {
        /// The segment.
        segment: String,
    },
    /// `**` before the end.
    #[error("'**' can only be the last segment of a pattern")]
    RestNotLast,
}

/// A part of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Segment<'a> {
    /// This very segment.
    Exactly(&'a str),
    /// Any one segment.
    One,
    /// One or more segments up to the end; on its own, anything.
    Rest,
}

impl EventPattern {
    /// `**`: every event, with a type or without.
    pub fn any() -> Self {
        Self(Arc::from(REST))
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it selects events of this type, or events without one.
    pub fn matches(&self, event_type: Option<&EventType>) -> bool {
        let Some(event_type) = event_type else { return self.as_str() == REST };
        let mut given = event_type.segments();
        for wanted in self.segments() {
            let Some(segment) = given.next() else { return false };
            match wanted {
                Segment::Exactly(text) if text != segment => return false,
                Segment::Exactly(_) | Segment::One => {}
                Segment::Rest => return true,
            }
        }
        given.next().is_none()
    }

    pub(crate) fn segments(&self) -> impl Iterator<Item = Segment<'_>> {
        self.0.split('.').map(|segment| match segment {
            ONE => Segment::One,
            REST => Segment::Rest,
            text => Segment::Exactly(text),
        })
    }
}

impl FromStr for EventPattern {
    type Err = ParseEventPatternError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() || text.len() > MAX_LEN {
            return Err(ParseEventPatternError::Length);
        }
        let mut segments = text.split('.').peekable();
        while let Some(segment) = segments.next() {
            match segment {
                REST if segments.peek().is_some() => return Err(ParseEventPatternError::RestNotLast),
                ONE | REST => {}
                text if is_segment(text) => {}
                text => return Err(ParseEventPatternError::Segment { segment: text.to_owned() }),
            }
        }
        Ok(Self(Arc::from(text)))
    }
}

impl TryFrom<String> for EventPattern {
    type Error = ParseEventPatternError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<EventPattern> for String {
    fn from(pattern: EventPattern) -> Self {
        pattern.0.as_ref().to_owned()
    }
}

impl From<EventType> for EventPattern {
    /// The pattern of that type alone.
    fn from(event_type: EventType) -> Self {
        Self(Arc::from(event_type.as_str()))
    }
}

impl fmt::Display for EventPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for EventPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selected<'a>(pattern: &str, event_types: &[&'a str]) -> Vec<&'a str> {
        let pattern: EventPattern = pattern.parse().unwrap();
        event_types.iter().copied().filter(|text| pattern.matches(Some(&text.parse().unwrap()))).collect()
    }

    #[test]
    fn wildcards_select_by_segment() {
        let all = ["order", "order.created", "order.line.added", "user.created", "orders.created", "order.line.x.y"];
        for (pattern, wanted) in [
            ("order", vec!["order"]),
            ("order.created", vec!["order.created"]),
            ("*", vec!["order"]),
            ("order.*", vec!["order.created"]),
            ("*.created", vec!["order.created", "user.created", "orders.created"]),
            ("order.*.added", vec!["order.line.added"]),
            ("*.*", vec!["order.created", "user.created", "orders.created"]),
            ("order.**", vec!["order.created", "order.line.added", "order.line.x.y"]),
            ("*.line.**", vec!["order.line.added", "order.line.x.y"]),
            ("*.*.**", vec!["order.line.added", "order.line.x.y"]),
            ("**", all.to_vec()),
            ("ORDER", vec![]),
        ] {
            assert_eq!(selected(pattern, &all), wanted, "{pattern}");
        }
    }

    #[test]
    fn only_any_selects_events_without_a_type() {
        assert!(EventPattern::any().matches(None));
        for pattern in ["*", "*.**", "order.**", "order"] {
            assert!(!pattern.parse::<EventPattern>().unwrap().matches(None), "{pattern}");
        }
    }

    #[test]
    fn refuses_what_is_no_pattern() {
        use ParseEventPatternError::*;
        let segment = |text: &str| Err(Segment { segment: text.to_owned() });
        for (text, reason) in [
            ("", Err(Length)),
            (&"x".repeat(257), Err(Length)),
            ("a..b", segment("")),
            ("order.", segment("")),
            ("ord*", segment("ord*")),
            ("order.***", segment("***")),
            ("order created", segment("order created")),
            ("**.created", Err(RestNotLast)),
            ("order.**.x", Err(RestNotLast)),
            ("**.**", Err(RestNotLast)),
        ] {
            assert_eq!(text.parse::<EventPattern>(), reason, "{text}");
        }
    }

    #[test]
    fn json_is_a_checked_string() {
        let pattern: EventPattern = serde_json::from_str(r#""order.*""#).unwrap();
        assert_eq!(serde_json::to_string(&pattern).unwrap(), r#""order.*""#);
        assert!(serde_json::from_str::<EventPattern>(r#""ord*""#).is_err());
    }
}
