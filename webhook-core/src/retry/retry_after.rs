use std::time::Duration;

use chrono::{Datelike, NaiveDateTime, Weekday};
use http::HeaderValue;

use crate::Timestamp;

/// The longest wait that an answer can ask for: one hour.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(60 * 60);

/// The wait that a `Retry-After` field asks for (RFC 9110 section 10.2.3): whole seconds, or a date in one of the three
/// forms of section 5.6.7.
///
/// A date in the past or a negative number is no wait, anything longer than [`MAX_RETRY_AFTER`] is that. `None` when
/// the value is neither a number of seconds nor a date.
pub fn parse_retry_after(value: &HeaderValue, now: Timestamp) -> Option<Duration> {
    let text = value.to_str().ok()?.trim_matches([' ', '\t']);
    let wait = match seconds(text) {
        Some(wait) => wait,
        None => http_date(text, now)?.since(now),
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

fn seconds(text: &str) -> Option<Duration> {
    let (digits, is_negative) = match text.strip_prefix('-') {
        Some(digits) => (digits, true),
        None => (text, false),
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    if is_negative {
        return Some(Duration::ZERO);
    }
    // Only an overflow is left to fail.
    Some(digits.parse().map_or(Duration::MAX, Duration::from_secs))
}

fn http_date(text: &str, now: Timestamp) -> Option<Timestamp> {
    let imf_fixdate = || NaiveDateTime::parse_from_str(text, "%a, %d %b %Y %H:%M:%S GMT").ok();
    let asctime = || NaiveDateTime::parse_from_str(text, "%a %b %e %H:%M:%S %Y").ok();
    let date = imf_fixdate().or_else(|| rfc_850(text, now)).or_else(asctime)?;
    Some(Timestamp::from_millis(date.and_utc().timestamp_millis()))
}

/// A date with a two-digit year: the latest such year that is not more than 50 years ahead.
fn rfc_850(text: &str, now: Timestamp) -> Option<NaiveDateTime> {
    const CENTURY: i32 = 100;
    let (weekday, rest) = text.split_once(", ")?;
    let weekday: Weekday = weekday.parse().ok()?;
    let date = NaiveDateTime::parse_from_str(rest, "%d-%b-%y %H:%M:%S GMT").ok()?;

    let now = chrono::DateTime::from_timestamp_millis(now.as_millis())?.naive_utc();
    let horizon = now.checked_add_months(chrono::Months::new(50 * 12))?;
    let this_century = now.year() - now.year() % CENTURY;
    let date = [CENTURY, 0, -CENTURY]
        .into_iter()
        .filter_map(|offset| date.with_year(this_century + offset + date.year() % CENTURY))
        .find(|date| *date <= horizon)?;
    (date.weekday() == weekday).then_some(date)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(time: &str) -> Timestamp {
        time.parse().unwrap()
    }

    fn parse(value: &str, now: Timestamp) -> Option<Duration> {
        parse_retry_after(&HeaderValue::from_str(value).unwrap(), now)
    }

    #[test]
    fn reads_seconds() {
        for (value, wait) in [
            ("120", Some(120)),
            (" 7\t", Some(7)),
            ("0", Some(0)),
            ("-5", Some(0)),
            ("3600", Some(3600)),
            ("3601", Some(3600)),
            ("99999999999999999999999999", Some(3600)),
            ("-99999999999999999999999999", Some(0)),
            ("", None),
            ("-", None),
            ("--5", None),
            ("+5", None),
            ("1.5", None),
            ("1e3", None),
            ("0x10", None),
            ("inf", None),
            ("NaN", None),
            ("5 5", None),
            ("5, 6", None),
            ("soon", None),
        ] {
            assert_eq!(parse(value, Timestamp::EPOCH), wait.map(Duration::from_secs), "{value:?}");
        }
    }

    #[test]
    fn reads_the_three_forms_of_a_date() {
        let now = at("1994-11-06T08:49:07Z");
        for value in ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"] {
            assert_eq!(parse(value, now), Some(Duration::from_secs(30)), "{value}");
            assert_eq!(parse(value, at("2026-01-01T00:00:00Z")), Some(Duration::ZERO), "{value}");
            assert_eq!(parse(value, at("1990-01-01T00:00:00Z")), Some(MAX_RETRY_AFTER), "{value}");
        }
        for value in [
            "Mon, 06 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 06 Nov 1994 08:49:37 PST",
            "Sun, 31 Feb 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 25:49:37 GMT",
            "1994-11-06T08:49:37Z",
        ] {
            assert_eq!(parse(value, now), None, "{value}");
        }
    }

    #[test]
    fn a_two_digit_year_is_at_most_fifty_years_ahead() {
        let minute = Some(Duration::from_secs(60));
        assert_eq!(parse("Friday, 02-Jan-26 03:05:05 GMT", at("2026-01-02T03:04:05Z")), minute);
        assert_eq!(parse("Friday, 01-Jan-00 00:00:30 GMT", at("2099-12-31T23:59:30Z")), minute, "the next century");
        assert_eq!(parse("Sunday, 06-Nov-94 08:49:37 GMT", at("2026-01-02T03:04:05Z")), Some(Duration::ZERO), "1994");
        assert_eq!(parse("Tuesday, 29-Feb-00 00:00:00 GMT", at("2000-02-28T23:59:00Z")), minute, "a leap day");
    }

    #[test]
    fn a_value_that_is_not_ascii_is_no_wait() {
        assert_eq!(parse_retry_after(&HeaderValue::from_bytes(b"12\xff").unwrap(), Timestamp::EPOCH), None);
        assert_eq!(parse_retry_after(&HeaderValue::from_bytes("１２".as_bytes()).unwrap(), Timestamp::EPOCH), None);
    }

    proptest! {
        #[test]
        fn any_value_is_bounded(bytes: Vec<u8>, now: i64) {
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                let wait = parse_retry_after(&value, Timestamp::from_millis(now));
                prop_assert!(wait.is_none_or(|wait| wait <= MAX_RETRY_AFTER));
            }
        }

        #[test]
        fn anything_like_a_date_is_bounded(
            value in "(Sun|Monday|Fri)?,? ?[0-9+-]{0,8}[ -](Jan|Feb|Dec)[ -][+-]?[0-9]{1,12} [0-9]{1,3}:[0-9]{2}:[0-9]{2}( GMT| [0-9]{4,12})?",
            now: i64,
        ) {
            let wait = parse(&value, Timestamp::from_millis(now));
            prop_assert!(wait.is_none_or(|wait| wait <= MAX_RETRY_AFTER));
        }

        #[test]
        fn a_date_is_the_time_until_it(now in 0_i64..250_000_000_000, ahead in 0_u64..3600) {
            let now = Timestamp::from_millis(now * 1000);
            let date = chrono::DateTime::from_timestamp_millis((now + Duration::from_secs(ahead)).as_millis()).unwrap();
            for form in ["%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"] {
                let value = date.format(form).to_string();
                prop_assert_eq!(parse(&value, now), Some(Duration::from_secs(ahead)), "{}", value);
            }
        }
    }
}
