//! One request that verifies for each scheme, from the vectors, to change in every way.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signer as _, SigningKey};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::Value;

use crate::signature::SecretError;
use crate::signature::tests::{OTHER_WHSEC, at_secs, body, vectors};
use crate::verify::*;
use crate::{Secret, Timestamp};

pub(super) type Make = fn(LiveSecrets) -> Result<Box<dyn Verifier>, SecretError>;

#[derive(Clone)]
pub(super) struct Scene {
    pub(super) name: &'static str,
    pub(super) make: Make,
    pub(super) key: String,
    /// A key of the same form, which is not the one.
    pub(super) other_key: String,
    pub(super) method: Method,
    pub(super) url: Option<String>,
    /// Those that the signature needs, the signature first.
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Vec<u8>,
    pub(super) now: Timestamp,
    pub(super) covers_body: bool,
}

impl Scene {
    fn new(name: &'static str, make: Make, key: &str, other_key: &str) -> Self {
        Self {
            name,
            make,
            key: key.to_owned(),
            other_key: other_key.to_owned(),
            method: Method::POST,
            url: None,
            headers: Vec::new(),
            body: Vec::new(),
            now: Timestamp::EPOCH,
            covers_body: true,
        }
    }

    fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    fn url(mut self, url: &str) -> Self {
        self.url = Some(url.to_owned());
        self
    }

    fn at(mut self, seconds: i64) -> Self {
        self.now = at_secs(seconds);
        self
    }

    pub(super) fn verifier(&self, keys: &[&str]) -> Result<Box<dyn Verifier>, SecretError> {
        (self.make)(LiveSecrets::new(keys.iter().map(|key| Secret::new(*key)))?)
    }

    pub(super) fn header_map(&self) -> HeaderMap {
        self.headers.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    /// With other headers, another body, at another time.
    pub(super) fn ask(&self, headers: &HeaderMap, body: &[u8], now: Timestamp) -> Result<Verified, VerifyFailure> {
        self.ask_with(&[&self.key], headers, body, now)
    }

    pub(super) fn ask_with(
        &self,
        keys: &[&str],
        headers: &HeaderMap,
        body: &[u8],
        now: Timestamp,
    ) -> Result<Verified, VerifyFailure> {
        let mut request = Inbound::new(headers, body).with_method(&self.method);
        if let Some(url) = &self.url {
            request = request.with_url(url);
        }
        self.verifier(keys).unwrap().verify(&request, now)
    }

    /// With the value of its first header.
    pub(super) fn ask_signed(&self, signature: &str) -> Result<Verified, VerifyFailure> {
        let mut headers = self.header_map();
        headers.insert(self.headers[0].0, HeaderValue::from_str(signature).unwrap());
        self.ask(&headers, &self.body, self.now)
    }

    pub(super) fn signature_header(&self) -> HeaderName {
        HeaderName::from_static(self.headers[0].0)
    }
}

fn text(vector: &Value, name: &str) -> String {
    vector[name].as_str().unwrap().to_owned()
}

fn first(of: &str) -> Value {
    vectors(of)[0].clone()
}

fn own(verifier: impl Verifier) -> Result<Box<dyn Verifier>, SecretError> {
    Ok(Box::new(verifier))
}

pub(super) const HUBSPOT_SECRET: &str = "yyyyyyyy-yyyy-yyyy-yyyy-yyyyyyyyyyyy";
pub(super) const HUBSPOT_URL: &str = "https://www.example.com/webhook_uri";
const HUBSPOT_V1_BODY: &str = r#"[{"eventId":1,"subscriptionId":12345,"portalId":62515,"occurredAt":1564113600000,"subscriptionType":"contact.creation","attemptNumber":0,"objectId":123,"changeSource":"CRM","changeFlag":"NEW","appId":54321}]"#;

/// One of each scheme.
pub(super) fn all() -> Vec<Scene> {
    let mut scenes = vec![standard(0), standard(2)];
    let github = first("github");
    scenes.push(
        Scene::new("github", |secrets| own(GitHub::new(secrets)), &text(&github, "secret"), "another")
            .header("x-hub-signature-256", format!("sha256={}", text(&github, "sha256_hex")))
            .body(body(&github)),
    );
    scenes.push(
        Scene::new(
            "hmac",
            |secrets| own(HmacVerifier::new(HeaderName::from_static("x-signature"), secrets)),
            "s3cr3t",
            "x",
        )
        .header("x-signature", text(&vectors("github")[1], "sha256_hex"))
        .body(body(&vectors("github")[1])),
    );
    scenes.push(Scene {
        covers_body: false,
        ..Scene::new("gitlab", |secrets| own(GitLab::token(secrets)), "a secret token", "a secret tokem")
            .header("x-gitlab-token", "a secret token")
            .body("{}")
    });
    scenes.push(Scene { name: "gitlab", make: |secrets| own(GitLab::signing(secrets)?), ..standard(0) });
    let stripe = first("stripe");
    scenes.push(
        Scene::new("stripe", |secrets| own(Stripe::new(secrets)), &text(&stripe, "secret"), "whsec_other")
            .header("stripe-signature", format!("t={},v1={}", stripe["timestamp"], text(&stripe, "v1")))
            .body(body(&stripe))
            .at(stripe["timestamp"].as_i64().unwrap()),
    );
    let slack = first("slack");
    scenes.push(
        Scene::new("slack", |secrets| own(Slack::new(secrets)), &text(&slack, "secret"), "another")
            .header("x-slack-signature", format!("v0={}", text(&slack, "v0")))
            .header("x-slack-request-timestamp", slack["timestamp"].to_string())
            .body(body(&slack))
            .at(slack["timestamp"].as_i64().unwrap()),
    );
    let shopify = first("shopify");
    scenes.push(
        Scene::new("shopify", |secrets| own(Shopify::new(secrets)), &text(&shopify, "secret"), "another")
            .header("x-shopify-hmac-sha256", text(&shopify, "base64"))
            .body(body(&shopify)),
    );
    let square = first("square");
    scenes.push(
        Scene::new("square", |secrets| own(Square::new(secrets)), &text(&square, "key"), "another")
            .header("x-square-hmacsha256-signature", text(&square, "base64"))
            .url(square["url"].as_str().unwrap())
            .body(body(&square)),
    );
    let paddle = first("paddle");
    scenes.push(
        Scene::new("paddle", |secrets| own(Paddle::new(secrets)), &text(&paddle, "secret"), "another")
            .header("paddle-signature", format!("ts={};h1={}", paddle["timestamp"], text(&paddle, "h1")))
            .body(body(&paddle))
            .at(paddle["timestamp"].as_i64().unwrap()),
    );
    let linear = first("linear");
    scenes.push(
        Scene::new("linear", |secrets| own(Linear::new(secrets)), &text(&linear, "secret"), "another")
            .header("linear-signature", text(&linear, "hex"))
            .body(body(&linear))
            .at(1_700_000_000),
    );
    let zoom = first("zoom");
    scenes.push(
        Scene::new("zoom", |secrets| own(Zoom::new(secrets)), &text(&zoom, "secret"), "another")
            .header("x-zm-signature", format!("v0={}", text(&zoom, "v0")))
            .header("x-zm-request-timestamp", zoom["timestamp"].to_string())
            .body(body(&zoom))
            .at(zoom["timestamp"].as_i64().unwrap()),
    );
    scenes.push(mailgun());
    scenes.push(
        Scene::new("hubspot", |secrets| own(HubSpot::v1(secrets)), HUBSPOT_SECRET, "another")
            .header("x-hubspot-signature", "232db2615f3d666fe21a8ec971ac7b5402d33b9a925784df3ca654d05f4817de")
            .body(HUBSPOT_V1_BODY),
    );
    scenes.push(
        Scene::new("hubspot", |secrets| own(HubSpot::v2(secrets)), HUBSPOT_SECRET, "another")
            .header("x-hubspot-signature", "9569219f8ba981ffa6f6f16aa0f48637d35d728c7e4d93d0d52efaa512af7900")
            .url(HUBSPOT_URL)
            .body(r#"{"example_field":"example_value"}"#),
    );
    scenes.push(
        Scene::new("hubspot", |secrets| own(HubSpot::v3(secrets)), HUBSPOT_SECRET, "another")
            .header("x-hubspot-signature-v3", "rQEKkaNUiu+1qGF//O/pw4BCzstSqO1PyUnGICmf+7o=")
            .header("x-hubspot-request-timestamp", "1700000000000")
            .url(HUBSPOT_URL)
            .body(r#"{"example_field":"example_value"}"#)
            .at(1_700_000_000),
    );
    scenes.extend([discord(r#"{"type":2,"id":"846462639134605312"}"#), sendgrid(), twilio_form(), twilio_json()]);
    scenes
}

pub(super) fn named(name: &str) -> Scene {
    all().into_iter().find(|scene| scene.name == name).unwrap()
}

/// By the secret of the first two vectors, or by the public key of the third.
pub(super) fn standard(index: usize) -> Scene {
    let vector = &vectors("standard_webhooks")[index];
    let (key, other) = match vector["public"].as_str() {
        Some(key) => (key, "whpk_11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="),
        None => (vector["key"].as_str().unwrap(), OTHER_WHSEC),
    };
    Scene::new("standard", |secrets| own(StandardWebhooks::new(secrets)?), key, other)
        .header("webhook-signature", text(vector, "signature"))
        .header("webhook-id", text(vector, "id"))
        .header("webhook-timestamp", vector["timestamp"].to_string())
        .body(body(vector))
        .at(vector["timestamp"].as_i64().unwrap())
}

pub(super) const MAILGUN_TOKEN: &str = "0123456789abcdef0123456789abcdef0123456789abcdef01";

fn mailgun() -> Scene {
    let signature = "66fb2fd23ecf7d0717976cfe129522272dec49647d6ffee8aaf94480309503b2";
    let body = format!(
        r#"{{"signature":{{"timestamp":"1700000000","token":"{MAILGUN_TOKEN}","signature":"{signature}"}},"event-data":{{}}}}"#
    );
    Scene {
        covers_body: false,
        ..Scene::new("mailgun", |secrets| own(Mailgun::new(secrets)), "key-test", "key-other")
            .body(body)
            .at(1_700_000_000)
    }
}

pub(super) fn discord(body: &str) -> Scene {
    let key = SigningKey::from_bytes(&[7; 32]);
    let content = [b"1700000000", body.as_bytes()].concat();
    let other = SigningKey::from_bytes(&[8; 32]).verifying_key();
    Scene::new(
        "discord",
        |secrets| own(Discord::new(secrets)?),
        &hex::encode(key.verifying_key().as_bytes()),
        &hex::encode(other.as_bytes()),
    )
    .header("x-signature-ed25519", hex::encode(key.sign(&content).to_bytes()))
    .header("x-signature-timestamp", "1700000000")
    .body(body)
    .at(1_700_000_000)
}

fn sendgrid() -> Scene {
    let vector = first("sendgrid");
    let key = text(&vector, "public_key");
    // The same curve, another point: the generator.
    let prefix = &STANDARD.decode(&key).unwrap()[..26];
    let generator = hex::decode(
        "046b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c2964fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5",
    )
    .unwrap();
    let other = STANDARD.encode([prefix, &generator].concat());
    Scene::new("sendgrid", |secrets| own(SendGrid::new(secrets)?), &key, &other)
        .header("x-twilio-email-event-webhook-signature", text(&vector, "signature"))
        .header("x-twilio-email-event-webhook-timestamp", text(&vector, "timestamp"))
        .body(body(&vector))
        .at(1_600_112_502)
}

pub(super) fn twilio(url: &str, signature: &str) -> Scene {
    Scene::new("twilio", |secrets| own(Twilio::new(secrets)), "12345", "another")
        .header("x-twilio-signature", signature)
        .url(url)
}

fn twilio_form() -> Scene {
    let vector = first("twilio");
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    // Not in their order.
    for (name, value) in vector["params"].as_object().unwrap().iter().rev() {
        form.append_pair(name, value.as_str().unwrap());
    }
    let scene = twilio(vector["url"].as_str().unwrap(), vector["base64"].as_str().unwrap()).body(form.finish());
    scene.header("content-type", "application/x-www-form-urlencoded; charset=UTF-8")
}

pub(super) fn twilio_json() -> Scene {
    let digest = "0a1ff7634d9ab3b95db5c9a2dfe9416e41502b283a80c7cf19632632f96e6620";
    let url = format!("https://mycompany.com/myapp.php?foo=1&bar=2&bodySHA256={digest}");
    twilio(&url, "a9nBmqA0ju/hNViExpshrM61xv4=").body(r#"{"property": "value", "boolean": true}"#)
}
