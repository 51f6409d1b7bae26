//! Which messages are asked for.

use std::borrow::Cow;

use url::form_urlencoded;
use webhook_core::Timestamp;

use crate::message::fold;
use crate::refusal::Invalid;

const DEFAULT_LIMIT: i64 = 50;
const MAX_LIMIT: i64 = 100;

/// A page of the messages for which all that is given holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Filter {
    pub(crate) limit: i64,
    pub(crate) offset: i64,
    pub(crate) from: Option<String>,
    /// Microseconds since the Unix epoch, inclusive.
    pub(crate) since: Option<i64>,
    /// In lower case.
    pub(crate) q: Option<String>,
}

impl Default for Filter {
    fn default() -> Self {
        Self { limit: DEFAULT_LIMIT, offset: 0, from: None, since: None, q: None }
    }
}

impl Filter {
    /// From a query string; of a repeated parameter the last one counts, an empty one counts as none.
    pub(crate) fn parse(query: &str) -> Result<Self, Invalid> {
        let mut filter = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            if value.is_empty() {
                continue;
            }
            match &*name {
                "limit" => filter.limit = number("limit", &value, 1..=MAX_LIMIT, "a number from 1 to 100")?,
                "offset" => filter.offset = number("offset", &value, 0..=i64::MAX, "a number from 0 on")?,
                "from" => filter.from = Some(without_nul("from", plus(value))?),
                "since" => filter.since = Some(since(&plus(value))?),
                "q" => filter.q = Some(fold(&without_nul("q", value)?)),
                _ => {}
            }
        }
        Ok(filter)
    }
}

/// A bare `+` in a query means a space, and nobody writes one here: it was a `+`.
fn plus(value: Cow<'_, str>) -> Cow<'_, str> {
    if value.contains(' ') { value.replace(' ', "+").into() } else { value }
}

fn number(
    name: &'static str,
    text: &str,
    range: std::ops::RangeInclusive<i64>,
    expected: &'static str,
) -> Result<i64, Invalid> {
    text.parse().ok().filter(|number| range.contains(number)).ok_or(Invalid::parameter(name, expected))
}

fn since(text: &str) -> Result<i64, Invalid> {
    let zoned = chrono::DateTime::parse_from_rfc3339(text).ok().map(|time| time.timestamp_micros());
    // Also without a zone, and without a time of day.
    zoned
        .or_else(|| text.parse::<Timestamp>().ok().map(|time| time.as_millis() * 1000))
        .ok_or(Invalid::parameter("since", "a timestamp such as 2025-01-15T10:00:00Z"))
}

fn without_nul(name: &'static str, text: Cow<'_, str>) -> Result<String, Invalid> {
    if text.contains('\0') {
        return Err(Invalid::parameter(name, "the character U+0000 is not allowed"));
    }
    Ok(text.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_hold_where_nothing_is_given() {
        for query in ["", "limit=&offset=&from=&since=&q=", "unknown=1"] {
            assert_eq!(Filter::parse(query).unwrap(), Filter::default(), "{query}");
        }
    }

    #[test]
    fn a_bare_plus_is_a_plus() {
        for query in ["from=+919876543210", "from=%2B919876543210", "from=%20919876543210"] {
            assert_eq!(Filter::parse(query).unwrap().from.as_deref(), Some("+919876543210"), "{query}");
        }
        for query in
            ["2025-01-15T10:00:00Z", "2025-01-15T11:00:00+01:00", "2025-01-15T10:00:00", "2025-01-15T10:00:00%2B00:00"]
        {
            let since = Filter::parse(&format!("since={query}")).unwrap().since;
            assert_eq!(since, Some(1_736_935_200_000_000), "{query}");
        }
        assert_eq!(Filter::parse("since=2025-01-15T10:00:00.000001Z").unwrap().since, Some(1_736_935_200_000_001));
        assert_eq!(
            Filter::parse("q=%CE%9F%CE%94%CE%A5%CE%A3").unwrap().q.as_deref(),
            Some("οδυσ"),
            "no word ends here"
        );
        assert_eq!(Filter::parse("q=a+B%C3%89").unwrap().q.as_deref(), Some("a bé"), "elsewhere it is a space");
    }

    #[test]
    fn what_is_out_of_range_is_named() {
        for (query, name) in [
            ("limit=0", "limit"),
            ("limit=101", "limit"),
            ("limit=ten", "limit"),
            ("limit=1.5", "limit"),
            ("offset=-1", "offset"),
            ("offset=99999999999999999999", "offset"),
            ("since=yesterday", "since"),
            ("q=%00", "q"),
            ("from=%00", "from"),
        ] {
            let invalid = Filter::parse(query).expect_err(query);
            assert_eq!(invalid.fields().collect::<Vec<_>>(), [name], "{query}");
        }
        assert_eq!(Filter::parse("limit=1&limit=100&offset=0").unwrap().limit, 100);
    }
}
