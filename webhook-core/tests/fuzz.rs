//! Whatever text reaches the address guard, the retry rules and the filters: an answer that holds, and no panic.
//!
//! Together they run for `FUZZ_SECONDS`, ten by default.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::fmt::Debug;
use std::net::IpAddr;

use http::HeaderValue;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use webhook_core::{AddressGuard, EventPattern, EventType, MAX_RETRY_AFTER, Timestamp, parse_retry_after, testing};

/// What shares the time.
const TARGETS: u32 = 6;

/// Tries values for a share of the time, and a few in any case.
fn fuzz<S: Strategy<Value: Debug>>(values: &S, test: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    testing::fuzz(testing::fuzz_time(10) / TARGETS, values, test);
}

/// Where to begin, how much to take away, and what to put there.
fn changes(pieces: &'static [&'static str]) -> impl Strategy<Value = Vec<(prop::sample::Index, usize, String)>> {
    let piece = prop_oneof![4 => prop::sample::select(pieces).prop_map(str::to_owned), 1 => "\\PC{0,4}"];
    prop::collection::vec((any::<prop::sample::Index>(), 0_usize..12, piece), 1..5)
}

fn changed(text: &str, changes: &[(prop::sample::Index, usize, String)]) -> String {
    let mut characters: Vec<char> = text.chars().collect();
    for (at, remove, insert) in changes {
        let at = at.index(characters.len() + 1);
        let end = (at + remove).min(characters.len());
        characters.splice(at..end, insert.chars());
    }
    characters.into_iter().collect()
}

/// What makes a URL mean something else.
const OF_URLS: &[&str] = &[
    "@",
    ":",
    "/",
    "//",
    "\\",
    "#",
    "?",
    "%",
    "%00",
    "%2e",
    "%31",
    ".",
    "..",
    "[",
    "]",
    "[::1]",
    "::ffff:127.0.0.1",
    "0x7f",
    "0177",
    "127.1",
    "2130706433",
    "localhost",
    ".local",
    "。",
    "①",
    "\u{ad}",
    "\t",
    "\n",
    " ",
    ":22",
    ":443",
    ":0",
    "http",
    "https://",
    "user:password@",
    "metadata.google.internal",
    "169.254.169.254",
    "xn--",
    "١",
];

/// Whether a resolver that reads addresses as `inet_aton` does takes it for a number.
fn is_number(label: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit());
    digits(label) || label.strip_prefix("0x").is_some_and(|hex| hex.bytes().all(|digit| digit.is_ascii_hexdigit()))
}

/// `url` judged it, and whatever `http::Uri` makes of the request has the same host, which the guard lets through.
fn guarded(text: &str) -> Result<(), TestCaseError> {
    let local = AddressGuard::new().allow_network("127.0.0.0/8".parse().unwrap());
    for (guard, is_local) in [(AddressGuard::new(), false), (local.clone(), true), (local.allow_http(), true)] {
        let Ok(url) = guard.parse_target(text) else { continue };
        let uri: http::Uri = url.as_str().parse().unwrap();
        prop_assert_eq!(uri.host(), url.host_str());
        prop_assert_eq!(uri.port_u16(), url.port());
        prop_assert_eq!(guard.check_url(&url), Ok(()));
        let host = uri.host().unwrap();
        let literal: Option<IpAddr> = host.trim_start_matches('[').trim_end_matches(']').parse().ok();
        match literal {
            Some(addr) => prop_assert_eq!(guard.check_addr(addr), Ok(()), "{}", host),
            None => prop_assert!(!host.trim_end_matches('.').rsplit('.').next().is_some_and(is_number), "{}", host),
        }
        prop_assert!(is_local || host.trim_end_matches('.').rsplit('.').next() != Some("localhost"), "{}", host);
        prop_assert!(url.username().is_empty() && url.password().is_none() && url.fragment().is_none());
    }
    Ok(())
}

#[test]
fn what_passes_the_guard_is_what_is_dialled_however_it_is_spelled() {
    fuzz(&"(https?:/?/?)?[a-z0-9.:@/\\\\%\\[\\]#? ⓪①。]{0,40}|\\PC{0,60}", |text| guarded(&text));
    let right = prop::sample::select(vec![
        "https://example.com/hook?x=1",
        "https://127.0.0.1/",
        "https://[::ffff:10.0.0.1]:443/",
        "http://127.0.0.1:8080/a",
        "https://8.8.8.8/",
    ]);
    fuzz(&(right, changes(OF_URLS)), |(right, changes)| guarded(&changed(right, &changes)));
}

#[test]
fn no_retry_after_waits_for_longer_than_an_hour() {
    let bounded = |text: &str, now: i64| {
        let Ok(value) = HeaderValue::from_bytes(text.as_bytes()) else { return Ok(()) };
        let wait = parse_retry_after(&value, Timestamp::from_millis(now));
        prop_assert!(wait.is_none_or(|wait| wait <= MAX_RETRY_AFTER), "{text:?} at {now}: {wait:?}");
        Ok(())
    };
    fuzz(&("[-+0-9. ]{0,40}|\\PC{0,40}", any::<i64>()), |(text, now)| bounded(&text, now));
    let right = prop::sample::select(vec![
        "120",
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
    ]);
    let pieces: &[&str] = &["-", "+", "9999999999999999999", "00", "29 Feb", "GMT", "60", "24:", "99", " ", ",", "1e9"];
    fuzz(&(right, changes(pieces), any::<i64>()), |(right, changes, now)| bounded(&changed(right, &changes), now));
}

/// By the definition, without any cleverness.
fn selects(pattern: &[&str], event_type: &[&str]) -> bool {
    match (pattern, event_type) {
        ([], []) => true,
        (["**"], rest) => !rest.is_empty(),
        (["*", pattern @ ..], [_, rest @ ..]) => selects(pattern, rest),
        ([one, pattern @ ..], [other, rest @ ..]) => one == other && selects(pattern, rest),
        _ => false,
    }
}

#[test]
fn filters_select_what_their_definition_says() {
    let agree = |pattern: &str, event_type: &str| {
        let parsed = pattern.parse::<EventPattern>();
        if let Ok(pattern) = &parsed {
            prop_assert_eq!(pattern.as_str().parse::<EventPattern>(), Ok(pattern.clone()));
            prop_assert_eq!(pattern.matches(None), pattern.as_str() == "**");
        }
        if let (Ok(parsed), Ok(parsed_type)) = (parsed, event_type.parse::<EventType>()) {
            let (wanted, given): (Vec<_>, Vec<_>) = (pattern.split('.').collect(), event_type.split('.').collect());
            prop_assert_eq!(parsed.matches(Some(&parsed_type)), selects(&wanted, &given), "{} {}", pattern, event_type);
        }
        Ok(())
    };
    fuzz(&("([ab*]{0,2}\\.){0,4}[ab*]{0,2}", "([ab]{0,2}\\.){0,4}[ab]{1,2}"), |(one, other)| agree(&one, &other));
    fuzz(&("\\PC{0,300}", "\\PC{0,300}"), |(one, other)| agree(&one, &other));
}
