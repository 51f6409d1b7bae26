//! Captured requests: kept in batches, forwarded, replayed, watched, and gone when their time is over.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;
use webhook_core::store::{CaptureStore, PageRequest, ReadLimit};
use webhook_core::testing::{ManualClock, PausedClock};
use webhook_core::{
    AddressGuard, CaptureFilter, Conflict, CustomResponse, DeliveryState, EncryptionKey, Error, IncomingRequest,
    Keyring, MemoryStore, Options, PathDraft, Refusal, ReplayRequest, RetrySchedule, Role, Secret, SubscriptionDraft,
    TenantId, Timestamp, WatchEvent, Webhooks, WebhooksBuilder,
};

use crate::receiver::{Answer, Receiver};

const BASE: Timestamp = Timestamp::from_millis(1_700_000_000_000);

fn builder(store: &Arc<MemoryStore>) -> WebhooksBuilder {
    Webhooks::builder(Arc::<MemoryStore>::clone(store))
        .guard(AddressGuard::new().allow_network("127.0.0.0/8".parse().unwrap()))
        .retry(Arc::new(RetrySchedule::new([20, 20].map(Duration::from_millis)).unwrap()))
}

fn post(body: impl Into<bytes::Bytes>) -> IncomingRequest {
    let mut request = IncomingRequest::new("POST", "/webhook/p").with_body(body);
    request.headers.push(("content-type".to_owned(), "text/x; charset=latin1".into()));
    request
}

/// Runs an engine until the token is cancelled.
fn run(webhooks: &Webhooks) -> CancellationToken {
    let shutdown = CancellationToken::new();
    let (webhooks, token) = (webhooks.clone(), shutdown.clone());
    tokio::spawn(async move { webhooks.run(Role::Worker, token).await });
    shutdown
}

#[tokio::test]
async fn what_is_captured_is_delivered_with_all_guarantees() {
    let webhooks = builder(&Arc::default()).build().unwrap();
    let shutdown = run(&webhooks);
    let tenant = TenantId::default();
    let receiver = Receiver::start(|_, count| Answer::Status(if count < 2 { 500 } else { 200 })).await;
    let new = webhooks.subscribe(&tenant, SubscriptionDraft::new(receiver.url("/hook"))).await.unwrap();
    let mut draft = PathDraft::new();
    draft.settings.forward_to = vec![new.subscription.id];
    let path = webhooks.create_path(&tenant, draft).await.unwrap();
    let captured = webhooks.capture(&path.path_id, post(&b"\x00\xff bytes"[..]), None).await.unwrap();
    assert!(captured.refusal.is_none());
    let refused = webhooks.capture(&path.path_id, post("refused"), Some(Refusal::Incomplete)).await.unwrap();
    assert_eq!(refused.refusal, Some(Refusal::Incomplete));
    let seen = receiver.wait_for(2).await;
    assert_eq!((&*seen[0].body, &*seen[1].body), (&b"\x00\xff bytes"[..], &b"\x00\xff bytes"[..]), "and retried");
    assert_eq!(seen[0].header("content-type"), "text/x; charset=latin1");
    assert_eq!(seen[0].header("webhook-id"), seen[1].header("webhook-id"));
    assert!(!seen[0].header("webhook-signature").is_empty());
    let page = webhooks.deliveries(&tenant, &Default::default(), PageRequest::newest(10)).await.unwrap();
    assert_eq!(page.items.len(), 1, "the refused one is kept, and not forwarded");
    shutdown.cancel();
}

#[tokio::test]
async fn a_burst_is_kept_in_order_of_its_commits_and_none_is_lost() {
    let webhooks = builder(&Arc::default()).build().unwrap();
    let tenant = TenantId::default();
    let path = webhooks.create_path(&tenant, PathDraft::new()).await.unwrap();
    let mut watch = webhooks.watch(&tenant, &path.path_id, None).await.unwrap();
    let calls = (0..500).map(|number: u32| webhooks.capture(&path.path_id, post(number.to_string()), None));
    let answers = join_all(calls).await;
    let mut ids: Vec<_> = answers.into_iter().map(|answer| answer.unwrap().id).collect();
    ids.sort();
    for (number, id) in (1..).zip(ids) {
        match watch.next().await.unwrap() {
            WatchEvent::Request(captured) => assert_eq!((captured.number, captured.id), (number, id)),
            WatchEvent::Gap => panic!("a gap before {number}"),
        }
    }
}

#[tokio::test]
async fn a_nul_where_http_has_none_is_refused_by_its_place() {
    let webhooks = builder(&Arc::new(MemoryStore::new())).build().unwrap();
    let path = webhooks.create_path(&TenantId::default(), PathDraft::new()).await.unwrap().path_id;
    let mut request = IncomingRequest::new("PO\0ST", "/webhook/\0").with_body("\0");
    request.query = Some("\0".to_owned());
    let refused = webhooks.capture(&path, request, None).await.unwrap_err();
    let Error::Invalid(invalid) = refused else { panic!("{refused}") };
    let fields: Vec<_> = invalid.errors().iter().map(|(field, _)| field.as_str()).collect();
    assert_eq!(fields, ["method", "path", "query"]);
    webhooks.capture(&path, IncomingRequest::new("POST", "/").with_body("\0"), None).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_watch_sees_what_other_processes_capture() {
    let store = Arc::default();
    let clock = Arc::new(PausedClock::new(BASE));
    let [here, there] = [0, 1].map(|_| builder(&store).clock(clock.clone()).build().unwrap());
    let tenant = TenantId::default();
    let path = here.create_path(&tenant, PathDraft::new()).await.unwrap();
    let mut watch = here.watch(&tenant, &path.path_id, None).await.unwrap();
    there.capture(&path.path_id, post("other"), None).await.unwrap();
    there.capture(&path.path_id, post("wanted"), None).await.unwrap();
    let wanted = |captured: &webhook_core::CapturedRequest| captured.request.body == "wanted";
    let found = watch.wait_for(wanted, Duration::from_secs(5)).await.unwrap();
    assert_eq!(found.map(|captured| captured.number), Some(2));
    assert_eq!(watch.wait_for(wanted, Duration::from_secs(5)).await.unwrap(), None);
    there.delete_path(&tenant, &path.path_id).await.unwrap();
    assert!(matches!(watch.next().await, Err(Error::NotFound(_))));
}

#[tokio::test]
async fn a_change_elsewhere_counts_for_the_next_request() {
    let store = Arc::default();
    let [here, there] = [0, 1].map(|_| builder(&store).build().unwrap());
    let tenant = TenantId::default();
    let path = here.create_path(&tenant, PathDraft::new()).await.unwrap();
    assert!(here.capture(&path.path_id, post(""), None).await.unwrap().response.is_none());
    let draft = PathDraft::new().with_response(CustomResponse::new(202));
    there.replace_path(&tenant, &path.path_id, draft, None).await.unwrap();
    let captured = here.capture(&path.path_id, post(""), None).await.unwrap();
    assert_eq!(captured.response.map(|response| response.status), Some(202));
    there.delete_path(&tenant, &path.path_id).await.unwrap();
    let late = here.capture(&path.path_id, post(""), None).await;
    assert!(matches!(late, Err(Error::NotFound(_))));
    let stranger: TenantId = "stranger".parse().unwrap();
    there.create_path(&stranger, PathDraft::named(path.path_id.clone())).await.unwrap();
    here.capture(&path.path_id, post("theirs"), None).await.unwrap();
    let page = PageRequest::newest(10);
    let theirs = here.captured_requests(&stranger, &path.path_id, &CaptureFilter::new(), page, 100).await.unwrap();
    assert_eq!(theirs.items.len(), 1, "the name is another path now");
}

#[tokio::test]
async fn a_path_ends_with_its_time_and_its_name_is_free() {
    let store = Arc::default();
    let clock = Arc::new(ManualClock::new(BASE));
    let webhooks = builder(&store).clock(clock.clone()).build().unwrap();
    let tenant = TenantId::default();
    let mut draft = PathDraft::named("p".parse().unwrap());
    draft.settings.ttl = Some(Duration::from_secs(60));
    let path = webhooks.create_path(&tenant, draft.clone()).await.unwrap();
    assert_eq!(path.expires_at, Some(BASE + Duration::from_secs(60)));
    webhooks.capture(&path.path_id, post("x"), None).await.unwrap();

    clock.advance(Duration::from_secs(30));
    draft.settings.description = Some("the time does not begin anew".to_owned());
    let same = webhooks.replace_path(&tenant, &path.path_id, draft.clone(), None).await.unwrap();
    assert_eq!(same.expires_at, path.expires_at);
    draft.settings.ttl = Some(Duration::from_secs(100));
    let longer = webhooks.replace_path(&tenant, &path.path_id, draft.clone(), None).await.unwrap();
    assert_eq!(longer.expires_at, Some(BASE + Duration::from_secs(130)), "it does when it changes");

    let taken = webhooks.create_path(&tenant, draft.clone()).await;
    assert!(matches!(taken, Err(Error::Conflict(Conflict::PathTaken))));
    clock.advance(Duration::from_secs(100));
    assert!(matches!(webhooks.capture(&path.path_id, post("late"), None).await, Err(Error::NotFound(_))));
    assert!(matches!(webhooks.capture_path(&tenant, &path.path_id).await, Err(Error::NotFound(_))));
    let page = webhooks.capture_paths(&tenant, PageRequest::newest(10)).await.unwrap();
    assert!(page.items.is_empty());
    let again = webhooks.create_path(&tenant, draft).await.unwrap();
    assert_eq!(again.usage.requests, 0);
}

#[tokio::test(start_paused = true)]
async fn the_sweeper_removes_what_is_too_old() {
    let store: Arc<MemoryStore> = Arc::default();
    let mut options = Options::default();
    options.capture_retention = Duration::from_secs(10 * 3600);
    let clock = Arc::new(PausedClock::new(BASE));
    let webhooks = builder(&store).clock(clock).options(options).build().unwrap();
    let tenant = TenantId::default();
    let path = webhooks.create_path(&tenant, PathDraft::new()).await.unwrap();
    let mut draft = PathDraft::new();
    draft.settings.ttl = Some(Duration::from_secs(3600));
    let short = webhooks.create_path(&tenant, draft).await.unwrap();
    let shutdown = run(&webhooks);
    webhooks.capture(&path.path_id, post("old"), None).await.unwrap();
    tokio::time::sleep(Duration::from_secs(5 * 3600)).await;
    assert_eq!(store.find_path(&short.path_id).await.unwrap(), None);
    webhooks.capture(&path.path_id, post("young"), None).await.unwrap();
    tokio::time::sleep(Duration::from_secs(7 * 3600)).await;
    let left = webhooks.captured_after(&tenant, &path.path_id, None, ReadLimit::requests(10)).await.unwrap();
    assert_eq!(left.iter().map(|captured| captured.request.body.clone()).collect::<Vec<_>>(), ["young"]);
    shutdown.cancel();
}

#[tokio::test]
async fn answers_are_sealed_at_rest() {
    let store: Arc<MemoryStore> = Arc::default();
    let key = EncryptionKey::new("k1".parse().unwrap(), [7; 32]);
    let webhooks = builder(&store).keyring(Keyring::new([key]).unwrap()).build().unwrap();
    let tenant = TenantId::default();
    let response = CustomResponse::new(200).with_header("x-token", "canary").with_body("canary");
    let path = webhooks.create_path(&tenant, PathDraft::new().with_response(response.clone())).await.unwrap();
    let stored = store.find_path(&path.path_id).await.unwrap().unwrap().response.unwrap();
    assert!(!stored.as_bytes().windows(6).any(|window| window == b"canary"));
    assert!(!format!("{path:?}").contains("canary"));
    assert_eq!(webhooks.capture_path(&tenant, &path.path_id).await.unwrap().response, Some(response));
    let keyless = builder(&store).build().unwrap();
    assert!(matches!(keyless.capture(&path.path_id, post(""), None).await, Err(Error::Unreadable(_))));
}

#[tokio::test]
async fn a_replay_is_retried_and_recorded_like_any_delivery() {
    let webhooks = builder(&Arc::default()).build().unwrap();
    let shutdown = run(&webhooks);
    let tenant = TenantId::default();
    let receiver = Receiver::start(|_, count| Answer::Status(if count < 2 { 503 } else { 200 })).await;
    let path = webhooks.create_path(&tenant, PathDraft::new()).await.unwrap();
    let mut request = IncomingRequest::new("PUT", "/webhook/p").with_body("x");
    request.headers = vec![("x-keep".to_owned(), "1".into()), ("cookie".to_owned(), "a=b".into())];
    let captured = webhooks.capture(&path.path_id, request, None).await.unwrap();
    let mut replay = ReplayRequest::new(receiver.url("/again"));
    replay.headers = vec![("x-more".to_owned(), Secret::new("2"))];
    let replayed = webhooks.replay(&tenant, &path.path_id, captured.id, replay).await.unwrap();
    assert_eq!(replayed.stripped_headers, ["cookie"]);
    let seen = receiver.wait_for(2).await;
    for request in &seen {
        assert_eq!((&*request.path, &*request.body), ("/again", &b"x"[..]));
        assert_eq!((request.header("x-keep"), request.header("x-more"), request.header("cookie")), ("1", "2", ""));
        assert!(!request.headers.contains_key("content-type"), "there was none");
    }
    let delivered = async {
        loop {
            let view = webhooks.delivery(&tenant, replayed.delivery).await.unwrap();
            if view.delivery.state == DeliveryState::Delivered {
                return view.delivery.attempts;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert_eq!(tokio::time::timeout(Duration::from_secs(20), delivered).await.unwrap(), 2);
    shutdown.cancel();
}
