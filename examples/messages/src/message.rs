//! A message, and what makes it one.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::refusal::Invalid;

/// Characters of a message id at most.
const MAX_ID: usize = 255;
/// Characters of a text at most.
const MAX_TEXT: usize = 4096;

/// A message as it is shown: what the sender sent, letter by letter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Message {
    pub(crate) message_id: String,
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) ts: String,
    pub(crate) text: Option<String>,
}

impl Message {
    /// The message in `body`, or everything that is wrong with it.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, Invalid> {
        let Ok(value) = serde_json::from_slice::<Value>(body) else {
            return Err(Invalid::body("the body is not JSON"));
        };
        let Value::Object(mut fields) = value else { return Err(Invalid::body("the body is not a JSON object")) };
        let mut invalid = Invalid::default();
        let mut take = |name, check| text(&mut fields, name, check).map_err(|fault| invalid.push(name, fault)).ok();
        let message_id = take("message_id", check_id);
        let (from, to) = (take("from", check_number), take("to", check_number));
        let ts = take("ts", check_ts);
        let text = match fields.get("text") {
            None | Some(Value::Null) => Some(None),
            Some(_) => {
                text(&mut fields, "text", check_text).map_err(|fault| invalid.push("text", fault)).ok().map(Some)
            }
        };
        match (message_id, from, to, ts, text) {
            (Some(message_id), Some(from), Some(to), Some(ts), Some(text)) => {
                Ok(Self { message_id, from, to, ts, text })
            }
            _ => Err(invalid),
        }
    }

    /// Its time in microseconds since the Unix epoch.
    pub(crate) fn micros(&self) -> i64 {
        time(&self.ts).map_or(0, |time| time.timestamp_micros())
    }

    /// Its text as it is searched.
    pub(crate) fn folded(&self) -> String {
        self.text.as_deref().map(fold).unwrap_or_default()
    }
}

/// In lower case, each character by itself, and every sigma alike: it is written otherwise at the end of a word, and a part of
/// a text may end where no word does.
pub(crate) fn fold(text: &str) -> String {
    text.chars().flat_map(char::to_lowercase).map(|small| if small == 'ς' { 'σ' } else { small }).collect()
}

/// A point in time with its zone, which must be UTC.
fn time(text: &str) -> Option<DateTime<Utc>> {
    let time = DateTime::parse_from_rfc3339(text).ok()?;
    (time.offset().local_minus_utc() == 0).then(|| time.to_utc())
}

fn text(
    fields: &mut Map<String, Value>,
    name: &str,
    check: fn(&str) -> Result<(), &'static str>,
) -> Result<String, &'static str> {
    match fields.remove(name) {
        None => Err("field required"),
        Some(Value::String(text)) => check(&text).map(|()| text),
        Some(_) => Err("not a string"),
    }
}

fn check_id(text: &str) -> Result<(), &'static str> {
    if !(1..=MAX_ID).contains(&text.chars().count()) {
        return Err("1 to 255 characters are allowed");
    }
    no_nul(text)
}

/// ITU-T E.164: a plus and at most 15 digits, the first of which is not 0.
fn check_number(text: &str) -> Result<(), &'static str> {
    let legal = text.strip_prefix('+').is_some_and(|digits| {
        (2..=15).contains(&digits.len()) && !digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit())
    });
    if legal { Ok(()) } else { Err("not an E.164 number such as +14155550100") }
}

fn check_ts(text: &str) -> Result<(), &'static str> {
    time(text).map(drop).ok_or("not a UTC timestamp such as 2025-01-15T10:00:00Z")
}

fn check_text(text: &str) -> Result<(), &'static str> {
    if text.chars().count() > MAX_TEXT {
        return Err("at most 4096 characters are allowed");
    }
    no_nul(text)
}

/// PostgreSQL cannot store it in a text, and what one database takes the other should take too.
fn no_nul(text: &str) -> Result<(), &'static str> {
    if text.contains('\0') { Err("the character U+0000 is not allowed") } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn with(name: &str, value: Value) -> Result<Message, Invalid> {
        let mut body = json!({
            "message_id": "m1", "from": "+919876543210", "to": "+14155550100", "ts": "2025-01-15T10:00:00Z", "text": "Hello",
        });
        body[name] = value;
        Message::parse(body.to_string().as_bytes())
    }

    #[test]
    fn a_message_is_kept_letter_by_letter() {
        let message = with("text", json!("Grüße, \u{1F600}\n")).unwrap();
        assert_eq!(message.ts, "2025-01-15T10:00:00Z");
        assert_eq!(message.text.as_deref(), Some("Grüße, \u{1F600}\n"));
        assert_eq!(message.micros(), 1_736_935_200_000_000);
        assert_eq!(with("more", json!({"than": "needed"})).unwrap().message_id, "m1");
    }

    #[test]
    fn what_is_allowed_is_allowed() {
        for (name, value) in [
            ("message_id", json!("x".repeat(255))),
            ("from", json!("+12")),
            ("to", json!("+123456789012345")),
            ("ts", json!("2025-01-15T10:00:00.123456Z")),
            ("ts", json!("2025-01-15T10:00:00+00:00")),
            ("text", json!("é".repeat(4096))),
            ("text", json!("")),
            ("text", json!(null)),
        ] {
            assert!(with(name, value.clone()).is_ok(), "{name}: {value}");
        }
    }

    #[test]
    fn what_is_not_allowed_is_named() {
        for (name, value) in [
            ("message_id", json!("")),
            ("message_id", json!(1)),
            ("message_id", json!(null)),
            ("message_id", json!("x".repeat(256))),
            ("message_id", json!("a\0b")),
            ("from", json!("919876543210")),
            ("from", json!("+")),
            ("from", json!("+0123456")),
            ("from", json!("+1234567890123456")),
            ("from", json!("+1 415 555")),
            ("from", json!("+١٢٣")),
            ("to", json!("+1415x")),
            ("to", json!(["+14155550100"])),
            ("ts", json!("2025-01-15T10:00:00")),
            ("ts", json!("2025-01-15T10:00:00+01:00")),
            ("ts", json!("2025-02-30T10:00:00Z")),
            ("ts", json!("2025-01-15")),
            ("ts", json!(1_736_935_200)),
            ("text", json!("é".repeat(4097))),
            ("text", json!("\0")),
            ("text", json!(1)),
        ] {
            let invalid = with(name, value.clone()).expect_err(name);
            assert_eq!(invalid.fields().collect::<Vec<_>>(), [name], "{value}");
        }
        let invalid = Message::parse(b"{}").unwrap_err();
        assert_eq!(invalid.fields().collect::<Vec<_>>(), ["message_id", "from", "to", "ts"]);
        for body in ["", "[]", "null", "{", "\u{feff}{}"] {
            assert!(Message::parse(body.as_bytes()).is_err(), "{body}");
        }
    }
}
