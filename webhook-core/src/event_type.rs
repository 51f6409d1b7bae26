//! What kind of thing an event reports.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The most characters of an event type or a pattern.
pub(crate) const MAX_LEN: usize = 256;

/// The type of an event, such as `order.created`.
///
/// One or more segments of `A-Za-z0-9_-/:` with a `.` between them, 256 characters at most. Cloning is cheap.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EventType(Arc<str>);

/// The text cannot be an event type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "an event type is 1 to 256 characters: segments of A-Z, a-z, 0-9, '_', '-', '/' and ':' with a '.' between them"
)]
pub struct ParseEventTypeError;

impl EventType {
    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its segments, first to last; there is at least one.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.0.split('.')
    }
}

/// Whether the text can stand between two dots.
pub(crate) fn is_segment(text: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'/' | b':');
    !text.is_empty() && text.bytes().all(legal)
}

impl FromStr for EventType {
    type Err = ParseEventTypeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > MAX_LEN || !text.split('.').all(is_segment) {
            return Err(ParseEventTypeError);
        }
        Ok(Self(Arc::from(text)))
    }
}

impl TryFrom<String> for EventType {
    type Error = ParseEventTypeError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<EventType> for String {
    fn from(event_type: EventType) -> Self {
        event_type.0.as_ref().to_owned()
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_types_are_segments_with_dots_between() {
        for text in ["a", "order.created", "v1/order:line-item.price_changed.2", &"x".repeat(256)] {
            let event_type: EventType = text.parse().unwrap();
            assert_eq!(event_type.to_string(), text);
            assert!(event_type.segments().eq(text.split('.')));
        }
        for text in ["", ".", "a.", ".a", "a..b", "a b", "a*", "*", "ä", "a\n", &"x".repeat(257)] {
            assert_eq!(text.parse::<EventType>(), Err(ParseEventTypeError), "{text}");
        }
    }

    #[test]
    fn json_is_a_checked_string() {
        let event_type: EventType = serde_json::from_str(r#""order.created""#).unwrap();
        assert_eq!(serde_json::to_string(&event_type).unwrap(), r#""order.created""#);
        assert!(serde_json::from_str::<EventType>(r#""order created""#).is_err());
    }
}
