//! Senders' own libraries, from PyPI and npm, agree with this crate: what they sign verifies here, and what is signed here
//! verifies there.
//!
//! They are installed, at fixed versions, when these tests run for the first time; without `python3` with pip, or `npm`,
//! or the registries, the tests fail.

#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests: a broken promise panics")]

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::{HeaderMap, HeaderName};
use serde_json::{Value, json};
use sha1::Sha1;
use sha2::Sha256;
use webhook_core::verify::{
    GitHub, Inbound, LiveSecrets, Slack, StandardWebhooks, Stripe, Twilio, Verifier, VerifyFailure,
};
use webhook_core::{Clock as _, Message, PlainSigner, Secret, Signer, StandardSigner, SystemClock, Timestamp};

const WHSEC: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
/// Bodies that a library which parses and writes them again would change.
const BODIES: [&str; 4] =
    [r#"{"id":"evt_1"}"#, r#"{ "b": 1.0,  "a":"é\u00e9\u2028" }"#, "payload=%7B%7D&text=a+b", "\u{1F600}\r\n"];
const TWILIO_URL: &str = "https://mycompany.com/myapp.php?foo=1&bar=2";

/// Where a registry's packages are kept: the directory is complete when it has its final name.
fn installed(name: &str, files: &[&str], install: impl FnOnce(&Path) -> Output) -> PathBuf {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock();
    let content: String = files.iter().map(|file| std::fs::read_to_string(source(file)).unwrap()).collect();
    let digest = hex::encode(<Sha256 as sha2::Digest>::digest(content));
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("interop-{name}-{}", &digest[..16]));
    if !home.exists() {
        let fresh = home.with_extension(format!("{}", std::process::id()));
        std::fs::create_dir_all(&fresh).unwrap();
        let output = install(&fresh);
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        // Another process may have been as fast.
        if std::fs::rename(&fresh, &home).is_err() {
            std::fs::remove_dir_all(&fresh).unwrap();
        }
    }
    home
}

fn source(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop").join(file)
}

fn run(command: &mut Command, cases: &[Value]) -> Vec<Value> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(Value::from(cases).to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let answers: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answers.len(), cases.len());
    answers
}

fn python(cases: &[Value]) -> Vec<Value> {
    let home = installed("pypi", &["requirements.txt"], |home| {
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target"]).arg(home);
        pip.arg("--requirement").arg(source("requirements.txt")).output().unwrap()
    });
    run(Command::new("python3").arg(source("libraries.py")).env("PYTHONPATH", home), cases)
}

fn node(cases: &[Value]) -> Vec<Value> {
    let home = installed("npm", &["package.json"], |home| {
        std::fs::copy(source("package.json"), home.join("package.json")).unwrap();
        let mut npm = Command::new("npm");
        npm.args(["install", "--silent", "--no-audit", "--no-fund"]).current_dir(home).output().unwrap()
    });
    run(Command::new("node").arg(source("libraries.mjs")).current_dir(home), cases)
}

fn headers(signed: &Value) -> HeaderMap {
    let fields = signed.as_object().unwrap().iter();
    fields
        .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.as_str().unwrap().parse().unwrap()))
        .collect()
}

fn as_json(headers: &HeaderMap) -> Value {
    headers.iter().map(|(name, value)| (name.to_string(), json!(value.to_str().unwrap()))).collect()
}

fn secrets(secret: &str) -> LiveSecrets {
    LiveSecrets::one(secret.to_owned()).unwrap()
}

fn hmac(secret: &str, content: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(content.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

/// What the library signed verifies here, and nothing else does.
fn check(verifier: &dyn Verifier, signed: &Value, body: &str, now: Timestamp) {
    let headers = headers(signed);
    let verified = verifier.verify(&Inbound::new(&headers, body.as_bytes()), now);
    assert!(verified.is_ok(), "{}: {verified:?}: {signed}: {body}", verifier.scheme());
    let changed = format!("{body} ");
    let refused = verifier.verify(&Inbound::new(&headers, changed.as_bytes()), now);
    assert!(matches!(refused, Err(VerifyFailure::Mismatch { .. })), "{}: {refused:?}", verifier.scheme());
}

/// One case for each scheme and body, to sign or, with what was signed here, to verify.
fn cases(schemes: &[(&str, &str)], now: i64, signed: impl Fn(&str, &str) -> Option<HeaderMap>) -> Vec<Value> {
    let mut cases = Vec::new();
    for (scheme, secret) in schemes {
        for body in BODIES {
            let mut case = json!({ "do": "sign", "scheme": scheme, "secret": secret, "body": body, "id": "msg_1", "timestamp": now });
            if let Some(headers) = signed(scheme, body) {
                case["do"] = json!("verify");
                case["headers"] = as_json(&headers);
                let mut changed = case.clone();
                changed["body"] = json!(format!("{body} "));
                cases.push(changed);
            }
            cases.push(case);
        }
    }
    cases
}

/// As the providers document it, where this crate signs itself by its signers.
fn sign(scheme: &str, secret: &str, body: &str, now: Timestamp) -> HeaderMap {
    let message = Message::new("msg_1", now, body.as_bytes());
    let mut headers = HeaderMap::new();
    let seconds = now.as_secs();
    match scheme {
        "standard" => StandardSigner.sign(&message, &[Secret::new(secret)], &mut headers).unwrap(),
        "github" => PlainSigner::X_HUB_SIGNATURE_256.sign(&message, &[Secret::new(secret)], &mut headers).unwrap(),
        "stripe" => {
            let code = hex::encode(hmac(secret, &format!("{seconds}.{body}")));
            headers.insert("stripe-signature", format!("t={seconds},v1={code}").parse().unwrap());
        }
        "slack" => {
            let code = hex::encode(hmac(secret, &format!("v0:{seconds}:{body}")));
            headers.insert("x-slack-signature", format!("v0={code}").parse().unwrap());
            headers.insert("x-slack-request-timestamp", seconds.to_string().parse().unwrap());
        }
        other => panic!("{other}"),
    }
    headers
}

fn verifier(scheme: &str, secret: &str) -> Box<dyn Verifier> {
    match scheme {
        "standard" => Box::new(StandardWebhooks::new(secrets(secret)).unwrap()),
        "github" => Box::new(GitHub::new(secrets(secret))),
        "stripe" => Box::new(Stripe::new(secrets(secret))),
        "slack" => Box::new(Slack::new(secrets(secret))),
        other => panic!("{other}"),
    }
}

fn both_agree(schemes: &[(&str, &str)], library: impl Fn(&[Value]) -> Vec<Value>) {
    let now = SystemClock.now();
    let ask = cases(schemes, now.as_secs(), |_, _| None);
    for (case, signed) in ask.iter().zip(library(&ask)) {
        let text = |name: &str| case[name].as_str().unwrap();
        check(&*verifier(text("scheme"), text("secret")), &signed, text("body"), now);
    }
    let secret = |scheme: &str| schemes.iter().find(|(known, _)| *known == scheme).unwrap().1;
    let ask = cases(schemes, now.as_secs(), |scheme, body| Some(sign(scheme, secret(scheme), body, now)));
    for (pair, verdicts) in ask.chunks(2).zip(library(&ask).chunks(2)) {
        assert_ne!(verdicts[0], json!(true), "a changed body passes there: {}", pair[0]);
        // Standard Webhooks' libraries parse the body once it is verified, and then fail on one that is no JSON.
        let parsed = pair[1]["scheme"] == "standard" && !pair[1]["body"].as_str().unwrap().starts_with('{');
        let expected = if parsed { verdicts[1].clone() } else { json!(true) };
        assert_eq!(verdicts[1], expected, "{}", pair[1]);
        assert!(
            !parsed || !verdicts[1].as_str().unwrap_or("").contains("Verification"),
            "{}: {}",
            pair[1],
            verdicts[1]
        );
    }
}

#[test]
fn libraries_of_pypi_agree() {
    both_agree(&[("standard", WHSEC), ("stripe", "whsec_test"), ("slack", "8f742231b10e8888")], python);
}

#[test]
fn libraries_of_npm_agree() {
    both_agree(&[("standard", WHSEC), ("github", "It's a Secret to Everybody")], node);
}

/// As Twilio documents it: HMAC-SHA1 of the URL with the names and values of the form, in their order and each once.
fn twilio_code(secret: &str, url: &str, form: &Value) -> String {
    let mut content = url.to_owned();
    for (name, value) in form.as_object().unwrap() {
        let values = value.as_array().cloned().unwrap_or_else(|| vec![value.clone()]);
        let values: BTreeSet<_> = values.iter().map(|value| value.as_str().unwrap()).collect();
        content.extend(values.into_iter().flat_map(|value| [name, value]));
    }
    let mut mac = Hmac::<Sha1>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(content.as_bytes());
    STANDARD.encode(mac.finalize().into_bytes())
}

#[test]
fn twilios_library_agrees_about_json() {
    let verifier = Twilio::new(secrets("12345"));
    let mut checks = Vec::new();
    for body in BODIES {
        let digest = hex::encode(<Sha256 as sha2::Digest>::digest(body));
        let url = format!("https://mycompany.com/a?foo=1&bodySHA256={digest}");
        let case = json!({ "do": "sign", "scheme": "twilio-json", "secret": "12345", "url": url, "body": body });
        let signed = python(std::slice::from_ref(&case)).remove(0);
        let mut headers = headers(&signed);
        headers.insert("content-type", "application/json".parse().unwrap());
        let request = |body| Inbound::new(&headers, body).with_url(&url);
        assert!(verifier.verify(&request(body.as_bytes()), Timestamp::EPOCH).is_ok(), "{case}");
        assert!(verifier.verify(&request(b"{}"), Timestamp::EPOCH).is_err(), "{case}");
        let mut check = case;
        check["do"] = json!("verify");
        check["headers"] = json!({ "x-twilio-signature": twilio_code("12345", &url, &json!({})) });
        checks.push(check.clone());
        check["body"] = json!("{}");
        checks.push(check);
    }
    let verdicts = python(&checks);
    assert!(verdicts.chunks(2).all(|pair| pair == [json!(true), json!(false)]), "{verdicts:?}");
}

#[test]
fn twilios_library_agrees() {
    let forms = [
        json!({ "CallSid": "CA1", "From": "+14158675309", "To": "+18005551212" }),
        json!({ "b": "ä & ö", "a": "", "B": "=%", "aa": "\u{1F600}" }),
        json!({ "Sid": "CA123", "Digits": ["5678", "1234", "1234"] }),
        json!({}),
    ];
    let urls = [TWILIO_URL, "https://mycompany.com:8443/a", "http://mycompany.com/a?b=%20c"];
    let case = |url: &str, form: &Value| json!({ "do": "sign", "scheme": "twilio", "secret": "12345", "url": url, "form": form });
    let ask: Vec<_> = urls.iter().flat_map(|url| forms.iter().map(|form| case(url, form))).collect();
    let verifier = Twilio::new(secrets("12345"));
    let mut checks = Vec::new();
    for (case, signed) in ask.iter().zip(python(&ask)) {
        let mut encoded = url::form_urlencoded::Serializer::new(String::new());
        for (name, value) in case["form"].as_object().unwrap() {
            for value in value.as_array().unwrap_or(&vec![value.clone()]) {
                encoded.append_pair(name, value.as_str().unwrap());
            }
        }
        let body = encoded.finish();
        let mut headers = headers(&signed);
        headers.insert("content-type", "application/x-www-form-urlencoded".parse().unwrap());
        let request = Inbound::new(&headers, body.as_bytes());
        let url = case["url"].as_str().unwrap();
        assert!(verifier.verify(&request.with_url(url), Timestamp::EPOCH).is_ok(), "{case}");
        assert!(verifier.verify(&request.with_url(&format!("{url}x")), Timestamp::EPOCH).is_err(), "{case}");
        let mut check = case.clone();
        check["do"] = json!("verify");
        check["headers"] = signed;
        checks.push(check);
    }
    assert!(python(&checks).iter().all(|verdict| *verdict == json!(true)), "it does not believe itself");
    for check in &mut checks {
        let code = twilio_code("12345", check["url"].as_str().unwrap(), &check["form"]);
        check["headers"] = json!({ "x-twilio-signature": code });
    }
    assert!(python(&checks).iter().all(|verdict| *verdict == json!(true)), "what is signed here is not believed there");
    let own = STANDARD.encode(hmac("12345", TWILIO_URL));
    let mut foreign = checks[3].clone();
    foreign["headers"] = json!({ "x-twilio-signature": own });
    assert_eq!(python(&[foreign]), [json!(false)], "SHA-256 is not Twilio's");
}
