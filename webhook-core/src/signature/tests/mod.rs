mod signing;

use http::HeaderMap;
use serde_json::Value;

use super::*;

pub(crate) const WHSEC: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
pub(crate) const OTHER_WHSEC: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
/// Bytes that a JSON library would not write again as they are.
pub(crate) const BODY: &[u8] = br#"{"b": 1.0,  "a":"\u00e9"}"#;

pub(crate) fn vectors(of: &str) -> Vec<Value> {
    let all: Value = serde_json::from_str(include_str!("../../../tests/vectors/signatures.json")).unwrap();
    all[of].as_array().unwrap().clone()
}

pub(crate) fn body(vector: &Value) -> Vec<u8> {
    match vector["body_hex"].as_str() {
        Some(digits) => hex::decode(digits).unwrap(),
        None => vector["body"].as_str().unwrap().as_bytes().to_vec(),
    }
}

pub(crate) fn at_secs(seconds: i64) -> Timestamp {
    Timestamp::from_millis(seconds * 1000)
}

pub(crate) fn signed(signer: &dyn Signer, message: &Message<'_>, secrets: &[&str]) -> Result<HeaderMap, SignError> {
    let secrets: Vec<_> = secrets.iter().map(|text| Secret::new(*text)).collect();
    let mut headers = HeaderMap::new();
    signer.sign(message, &secrets, &mut headers).map(|()| headers)
}
