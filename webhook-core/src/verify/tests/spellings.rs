//! URLs as senders write them before they sign them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;

use super::scenes::{HUBSPOT_SECRET, twilio};
use crate::verify::*;
use crate::{Secret, Timestamp};

#[test]
fn twilio_may_have_signed_with_the_port_or_without() {
    for (signed, configured) in [
        ("https://example.com:443/a?b=c", "https://example.com/a?b=c"),
        ("https://example.com/a?b=c", "https://example.com:8443/a?b=c"),
        ("http://example.com:80/", "http://example.com/"),
        ("https://[::1]/a", "https://[::1]:8443/a"),
        ("https://[::1]:443/a", "https://[::1]/a"),
        ("https://user:pass@example.com/a", "https://user:pass@example.com:8443/a"),
        ("https://example.com:443?q", "https://example.com?q"),
    ] {
        let code = STANDARD.encode(Hash::Sha1.hmac(b"12345", &[signed.as_bytes()]));
        let scene = twilio(configured, &code);
        assert!(scene.ask(&scene.header_map(), b"", scene.now).is_ok(), "{signed} for {configured}");
        let elsewhere = configured.replace("example.com", "example.org").replace("::1", "::2");
        let scene = twilio(&elsewhere, &code);
        assert!(scene.ask(&scene.header_map(), b"", scene.now).is_err(), "{signed} for {elsewhere}");
    }
}

#[test]
fn hubspot_decodes_a_few_escapes_once() {
    let now = Timestamp::from_millis(1_700_000_000_000);
    let verifier = HubSpot::v3(LiveSecrets::one(Secret::new(HUBSPOT_SECRET)).unwrap());
    for (called, signed) in [
        ("https://example.com/a%3Ab%2fc%3F%40%21%24%27%28%29%2A%2C%3B", "https://example.com/a:b/c?@!$'()*,;"),
        ("https://example.com/%20%2B%25%3D", "https://example.com/%20%2B%25%3D"),
        ("https://example.com/%253A", "https://example.com/%253A"),
        ("https://example.com/100%", "https://example.com/100%"),
        ("https://example.com/%3", "https://example.com/%3"),
        ("https://example.com/%é", "https://example.com/%é"),
    ] {
        let code = Hash::Sha256.hmac(HUBSPOT_SECRET.as_bytes(), &[b"POST", signed.as_bytes(), b"{}", b"1700000000000"]);
        let mut headers = HeaderMap::new();
        headers.insert("x-hubspot-signature-v3", STANDARD.encode(code).parse().unwrap());
        headers.insert("x-hubspot-request-timestamp", "1700000000000".parse().unwrap());
        assert!(verifier.verify(&Inbound::new(&headers, b"{}").with_url(called), now).is_ok(), "{called}");
    }
}
