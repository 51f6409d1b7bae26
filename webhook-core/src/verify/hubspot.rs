//! HubSpot.

use http::HeaderName;
use sha2::{Digest as _, Sha256};

use super::code::{Hash, matching};
use super::freshness::{FIVE_MINUTES, MILLIS_DIGITS};
use super::{Encoding, Inbound, LiveSecrets, Tolerance, Verified, Verifier, VerifyFailure, header};
use crate::Timestamp;

const SIGNATURE: HeaderName = HeaderName::from_static("x-hubspot-signature");
const VERSION: HeaderName = HeaderName::from_static("x-hubspot-signature-version");
const SIGNATURE_V3: HeaderName = HeaderName::from_static("x-hubspot-signature-v3");
const TIMESTAMP: HeaderName = HeaderName::from_static("x-hubspot-request-timestamp");

/// What HubSpot leaves encoded in a URL that it signs, and what it decodes.
const DECODED: [(&str, char); 12] = [
    ("%3A", ':'),
    ("%2F", '/'),
    ("%3F", '?'),
    ("%40", '@'),
    ("%21", '!'),
    ("%24", '$'),
    ("%27", '\''),
    ("%28", '('),
    ("%29", ')'),
    ("%2A", '*'),
    ("%2C", ','),
    ("%3B", ';'),
];

/// HubSpot, in one of its three versions; the header `X-HubSpot-Signature-Version` does not choose it.
///
/// - **v3**: `X-HubSpot-Signature-v3: <base64>`, an HMAC-SHA256 of method, URL, body and the time in milliseconds of
///   `X-HubSpot-Request-Timestamp`, which must not be older than five minutes; exactly five minutes are still good, and a
///   time in the future is accepted, as in HubSpot's own libraries.
/// - **v2**: `X-HubSpot-Signature: <hex>`, the SHA-256 of secret, method, URL and body.
/// - **v1**: the same header, the SHA-256 of secret and body.
///
/// v1 and v2 are no HMACs: whoever has one signed request can append to its body and sign the result without the secret.
/// Take v3 wherever HubSpot offers it. There is no message id; each event of a v1 body has an `eventId`.
///
/// Source: HubSpot Developers, "Validating requests from HubSpot"
/// (<https://developers.hubspot.com/docs/apps/legacy-apps/authentication/validating-requests>), and hubspot-api-nodejs
/// `src/utils/signature.ts`.
#[derive(Clone, Debug)]
pub struct HubSpot {
    secrets: LiveSecrets,
    version: Version,
    tolerance: Tolerance,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    V1,
    V2,
    V3,
}

impl HubSpot {
    /// Version 1, with the app's client secrets.
    pub const fn v1(secrets: LiveSecrets) -> Self {
        Self::new(secrets, Version::V1)
    }

    /// Version 2.
    pub const fn v2(secrets: LiveSecrets) -> Self {
        Self::new(secrets, Version::V2)
    }

    /// Version 3.
    pub const fn v3(secrets: LiveSecrets) -> Self {
        Self::new(secrets, Version::V3)
    }

    const fn new(secrets: LiveSecrets, version: Version) -> Self {
        Self { secrets, version, tolerance: Tolerance::past(FIVE_MINUTES) }
    }

    /// With another window; only version 3 has one.
    #[must_use]
    pub const fn with_tolerance(mut self, tolerance: Tolerance) -> Self {
        self.tolerance = tolerance;
        self
    }

    /// Versions 1 and 2: a hash that begins with the secret.
    fn check_hash(&self, request: &Inbound<'_>, version: &str, content: &[&[u8]]) -> Result<Verified, VerifyFailure> {
        let value = header::signature(request.headers, &SIGNATURE)?;
        if header::optional(request.headers, &VERSION)?.is_some_and(|named| named != version.as_bytes()) {
            return Err(VerifyFailure::NoKnownVersion { header: SIGNATURE });
        }
        let given = Encoding::Hex.decode(value, 32).ok_or_else(|| header::malformed(&SIGNATURE))?;
        let hash = |key: &[u8]| {
            let mut hash = Sha256::new_with_prefix(key);
            for part in content {
                hash.update(part);
            }
            hash.finalize()
        };
        matching(self.secrets.keys(), &[given], hash).ok_or_else(|| header::mismatch(&SIGNATURE))?;
        Ok(Verified::new())
    }

    fn check_v3(&self, request: &Inbound<'_>, url: &str, now: Timestamp) -> Result<Verified, VerifyFailure> {
        let value = header::signature(request.headers, &SIGNATURE_V3)?;
        let timestamp = header::required(request.headers, &TIMESTAMP)?;
        let millis = header::number(timestamp, MILLIS_DIGITS).ok_or_else(|| header::malformed(&TIMESTAMP))?;
        let given = Encoding::Base64.decode(value, 32).ok_or_else(|| header::malformed(&SIGNATURE_V3))?;
        let url = decoded(url);
        let content: [&[u8]; 4] = [request.method.as_str().as_bytes(), url.as_bytes(), request.body, timestamp];
        matching(self.secrets.keys(), &[given], |key| Hash::Sha256.hmac(key, &content))
            .ok_or_else(|| header::mismatch(&SIGNATURE_V3))?;
        Ok(Verified::new().with_signed_at(self.tolerance.check_millis(millis, now)?))
    }
}

impl Verifier for HubSpot {
    fn scheme(&self) -> &'static str {
        "hubspot"
    }

    fn verify(&self, request: &Inbound<'_>, now: Timestamp) -> Result<Verified, VerifyFailure> {
        let url = || request.url.ok_or(VerifyFailure::NoUrl);
        match self.version {
            Version::V1 => self.check_hash(request, "v1", &[request.body]),
            Version::V2 => {
                let content = [request.method.as_str().as_bytes(), url()?.as_bytes(), request.body];
                self.check_hash(request, "v2", &content)
            }
            Version::V3 => self.check_v3(request, url()?, now),
        }
    }
}

/// The URL with the few escapes decoded that HubSpot decodes, in one pass.
fn decoded(url: &str) -> String {
    let mut text = String::with_capacity(url.len());
    let mut rest = url;
    while let Some(at) = rest.find('%') {
        text.push_str(&rest[..at]);
        let escape = rest.get(at..at + 3).unwrap_or("%");
        match DECODED.iter().find(|(code, _)| code.eq_ignore_ascii_case(escape)) {
            Some((code, character)) => {
                text.push(*character);
                rest = &rest[at + code.len()..];
            }
            None => {
                text.push('%');
                rest = &rest[at + 1..];
            }
        }
    }
    text.push_str(rest);
    text
}
