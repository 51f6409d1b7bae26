//! RFC 4180, with everything that a spreadsheet would take for a formula defused: for looking at. What has to be exact is
//! exported as JSON.

use crate::wire::{Captured, Encoding};

pub(super) const HEAD: &str = "id,timestamp,method,path,query_string,http_version,ip_address,user_agent,response_status,\
                               body_size,body_sha256,body_truncated,headers,trailers,body_encoding,body\r\n";

pub(super) fn push(out: &mut Vec<u8>, captured: &Captured) {
    let headers = serde_json::to_string(&captured.headers).unwrap_or_default();
    let trailers = serde_json::to_string(&captured.trailers).unwrap_or_default();
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
        &trailers,
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

/// Always in quotes. Whatever a spreadsheet would take for a formula gets an apostrophe in front, at the beginning and
/// wherever one that goes by another separator, or by none of the quotes, would begin a cell (OWASP, "CSV Injection").
fn push_field(out: &mut Vec<u8>, field: &str) {
    out.push(b'"');
    let mut begins = true;
    if field.starts_with('\n') {
        out.push(b'\'');
    }
    for letter in field.chars() {
        if begins && is_formula(letter) {
            out.push(b'\'');
        }
        if letter == '"' {
            out.push(b'"');
        }
        out.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
        begins = matches!(letter, ',' | ';' | '\t' | '\r' | '\n' | '"');
    }
    out.push(b'"');
}

/// The last four are full-width forms, which some spreadsheets take for the same.
const fn is_formula(letter: char) -> bool {
    matches!(
        letter,
        '=' | '+' | '-' | '@' | '\t' | '\r' | '|' | '%' | '\u{ff1d}' | '\u{ff0b}' | '\u{ff0d}' | '\u{ff20}'
    )
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
    fn every_field_is_quoted() {
        assert_eq!(written("plain text"), "\"plain text\"");
        assert_eq!(written(""), "\"\"");
        assert_eq!(written("a,b"), "\"a,b\"");
        assert_eq!(written("a\"b\r\n"), "\"a\"\"b\r\n\"");
        assert_eq!(written("a-b=c+d@e|f%g \u{20ac}"), "\"a-b=c+d@e|f%g \u{20ac}\"");
    }

    #[test]
    fn formulas_are_defused() {
        for formula in ["=1+1", "+1", "-1", "@x", "\tx", "\rx", "\nx", "|x", "%x", "\u{ff1d}1"] {
            assert_eq!(written(formula), format!("\"'{formula}\""));
        }
        assert_eq!(written("=cmd|' /C calc'!A0,\""), "\"'=cmd|' /C calc'!A0,\"\"\"");
    }

    #[test]
    fn formulas_are_defused_behind_whatever_separates_cells() {
        assert_eq!(written("x;=cmd|'/c calc'!A1;"), "\"x;'=cmd|'/c calc'!A1;\"");
        for separator in [";", ",", "\n", "\r", "\t"] {
            assert!(written(&format!("x{separator}=1")).ends_with(&format!("{separator}'=1\"")), "{separator:?}");
            // In another spreadsheet's eyes these quotes begin a cell.
            assert!(written(&format!("x{separator}\"=1")).ends_with("\"\"'=1\""), "{separator:?}");
        }
    }
}
