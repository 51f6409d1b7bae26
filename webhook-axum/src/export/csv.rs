//! RFC 4180, with everything that a spreadsheet would take for a formula defused.

use crate::wire::{Captured, Encoding};

pub(super) const HEAD: &str = "id,timestamp,method,path,query_string,http_version,ip_address,user_agent,response_status,\
                               body_size,body_sha256,body_truncated,headers,body_encoding,body\r\n";

pub(super) fn push(out: &mut Vec<u8>, captured: &Captured) {
    let headers = serde_json::to_string(&captured.headers).unwrap_or_default();
    let encoding = match captured.body_encoding {
        Some(Encoding::Utf8) => "utf8",
        Some(Encoding::Base64) => "base64",
        None => "",
    };
    let fields = [
        &captured.id.0.to_string(),
        &captured.timestamp.0.to_string(),
        &captured.method,
        &captured.path,
        captured.query_string.as_deref().unwrap_or_default(),
        &captured.http_version,
        captured.ip_address.as_deref().unwrap_or_default(),
        captured.user_agent.as_deref().unwrap_or_default(),
        &captured.response_status.to_string(),
        &captured.body_size.to_string(),
        &captured.body_sha256,
        &captured.body_truncated.to_string(),
        &headers,
        encoding,
        captured.body.as_deref().unwrap_or_default(),
    ];
    for (index, field) in fields.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        push_field(out, field);
    }
    out.extend_from_slice(b"\r\n");
}

/// A field that begins as a formula gets an apostrophe in front, which spreadsheets do not show.
fn push_field(out: &mut Vec<u8>, field: &str) {
    let formula = field.starts_with(['=', '+', '-', '@', '\t', '\r', '\n', '|', '%']);
    if !formula && !field.contains(['"', ',', '\r', '\n']) {
        out.extend_from_slice(field.as_bytes());
        return;
    }
    out.push(b'"');
    if formula {
        out.push(b'\'');
    }
    out.extend_from_slice(field.replace('"', "\"\"").as_bytes());
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(field: &str) -> String {
        let mut out = Vec::new();
        push_field(&mut out, field);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn formulas_are_defused_and_separators_quoted() {
        assert_eq!(written("plain text"), "plain text");
        assert_eq!(written(""), "");
        assert_eq!(written("a,b"), "\"a,b\"");
        assert_eq!(written("a\"b\r\n"), "\"a\"\"b\r\n\"");
        for formula in ["=1+1", "+1", "-1", "@x", "\t=1", "\r=1", "|x", "%x"] {
            assert_eq!(written(formula), format!("\"'{formula}\""));
        }
        assert_eq!(written("=cmd|' /C calc'!A0,\""), "\"'=cmd|' /C calc'!A0,\"\"\"");
    }
}
