//! Which captured requests are wanted.

use super::CapturedRequest;
use super::IncomingRequest;
use crate::Timestamp;

/// Which captured requests are wanted; all conditions must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CaptureFilter {
    /// Only this method, in any ASCII case.
    pub method: Option<String>,
    /// Only from this time on, inclusive.
    pub since: Option<Timestamp>,
    /// Only before this time, exclusive.
    pub until: Option<Timestamp>,
    /// Only where these bytes, in any ASCII case, are in the path, the query, the block of header fields, that of the
    /// trailers, or what is kept of the body. They are not found across two of these.
    pub text: Option<String>,
}

impl CaptureFilter {
    /// Everything.
    pub fn new() -> Self {
        Self::default()
    }

    /// Only this method, in any ASCII case.
    #[must_use]
    pub fn with_method(mut self, method: impl Into<String>) -> Self {
        self.method = Some(method.into());
        self
    }

    /// Only where this text is, in any ASCII case.
    #[must_use]
    pub fn with_text(mut self, text: impl Into<String>) -> Self {
        self.text = Some(text.into());
        self
    }

    /// Only from `since` on.
    #[must_use]
    pub fn with_since(mut self, since: Timestamp) -> Self {
        self.since = Some(since);
        self
    }

    /// Only before `until`.
    #[must_use]
    pub fn with_until(mut self, until: Timestamp) -> Self {
        self.until = Some(until);
        self
    }

    /// Whether a request is wanted: what every store must find. The request must have all of its body that is kept.
    pub fn matches(&self, captured: &CapturedRequest) -> bool {
        let request = &captured.request;
        self.method.as_ref().is_none_or(|method| request.method.eq_ignore_ascii_case(method))
            && self.since.is_none_or(|since| captured.received_at >= since)
            && self.until.is_none_or(|until| captured.received_at < until)
            && self.text.as_ref().is_none_or(|text| has_text(request, text.as_bytes()))
    }
}

fn has_text(request: &IncomingRequest, text: &[u8]) -> bool {
    contains(request.path.as_bytes(), text)
        || request.query.as_ref().is_some_and(|query| contains(query.as_bytes(), text))
        || contains(&IncomingRequest::lines_of(&request.headers), text)
        || contains(&IncomingRequest::lines_of(&request.trailers), text)
        || contains(&request.body, text)
}

/// Whether `needle` is in `haystack`, in any ASCII case.
fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    let Some((first, rest)) = needle.split_first() else { return true };
    let (lower, upper) = (first.to_ascii_lowercase(), first.to_ascii_uppercase());
    let mut from = haystack;
    while let Some(at) = from.iter().position(|byte| *byte == lower || *byte == upper) {
        let after = &from[at + 1..];
        if after.get(..rest.len()).is_some_and(|candidate| candidate.eq_ignore_ascii_case(rest)) {
            return true;
        }
        from = after;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_found_in_any_ascii_case_and_nothing_else_is() {
        assert!(contains(b"\x00\xffOrder.PAID\x00", b"order.paid"));
        assert!(contains(b"aab", b"AB"));
        assert!(contains(b"x", b""));
        assert!(contains("Größe".as_bytes(), "größe".as_bytes()));
        assert!(!contains("GRÖSSE".as_bytes(), "größe".as_bytes()), "only ASCII has a case here");
        assert!(!contains(b"ab", b"abc"));
        assert!(!contains(b"", b"a"));
    }
}
