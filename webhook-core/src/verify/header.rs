//! Reading of headers, each of which may come once.

use http::{HeaderMap, HeaderName};

use super::VerifyFailure;

/// The longest message id that is taken, in bytes.
const MAX_ID: usize = 255;

/// The value of a header, if it is there.
pub(super) fn optional<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a [u8]>, VerifyFailure> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() {
        return Err(VerifyFailure::Repeated { header: name.clone() });
    }
    Ok(first.map(|value| value.as_bytes()))
}

/// The value of a header that must be there.
pub(super) fn required<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<&'a [u8], VerifyFailure> {
    optional(headers, name)?.ok_or_else(|| VerifyFailure::Missing { header: name.clone() })
}

/// The value of the header that carries the signature.
pub(super) fn signature<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<&'a [u8], VerifyFailure> {
    optional(headers, name)?.ok_or(VerifyFailure::Unsigned)
}

/// A message id from a header: visible ASCII, at most 255 of it.
pub(super) fn id(headers: &HeaderMap, name: &HeaderName) -> Result<Option<String>, VerifyFailure> {
    let Some(value) = optional(headers, name)? else { return Ok(None) };
    let sane = (1..=MAX_ID).contains(&value.len()) && value.iter().all(u8::is_ascii_graphic);
    match std::str::from_utf8(value) {
        Ok(text) if sane => Ok(Some(text.to_owned())),
        _ => Err(malformed(name)),
    }
}

/// A number without a sign, of at most `digits` digits: number parsers take more than that.
pub(super) fn number(text: &[u8], digits: usize) -> Option<i64> {
    if text.is_empty() || text.len() > digits || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

pub(super) fn malformed(name: &HeaderName) -> VerifyFailure {
    VerifyFailure::Malformed { header: name.clone() }
}

pub(super) fn mismatch(name: &HeaderName) -> VerifyFailure {
    VerifyFailure::Mismatch { header: name.clone() }
}
