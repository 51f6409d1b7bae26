//! Subscriptions.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use serde_json::Value;
use sha2::{Digest, Sha256};
use webhook_core::{Conflict, Error, SecretChange, Subscribed, SubscriptionDraft, SubscriptionId};

use crate::api::ApiState;
use crate::auth::{Caller, Scopes};
use crate::body;
use crate::extract::{IdempotencyKey, PathId, Reader, Writer};
use crate::json;
use crate::problem::Problem;
use crate::query::Query;
use crate::wire;

/// How often a patch is tried against somebody else's changes.
const PATCH_TRIES: usize = 5;

/// Create a subscription
///
/// The answer has the signing secret, which no other list or read shows. A repeat with the same `Idempotency-Key` shows
/// it again, unless the API key lacks the scope `secrets`: then `secret` is absent and header values are `[redacted]`.
#[cfg_attr(feature = "openapi", utoipa::path(
    post, path = "/subscriptions", tag = "Subscriptions",
    params(("Idempotency-Key" = Option<String>, Header, description = "A repeat within 24 hours gives the first answer")),
    request_body = wire::SubscriptionInput,
    responses((status = 201, description = "Created", body = wire::CreatedSubscription)),
))]
pub(crate) async fn create_subscription(
    State(state): State<Arc<ApiState>>,
    caller: Writer,
    IdempotencyKey(key): IdempotencyKey,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let body = body::read_json(&headers, body, body::SMALL).await?;
    let draft = read(&body)?;
    let show = |new: &webhook_core::NewSubscription| {
        shown(&state, &caller.0, new.subscription.clone()).with_secret(new.secret.clone())
    };
    let Some(key) = key else {
        let new = state.webhooks.subscribe(caller.tenant(), draft).await?;
        return Ok(json::answer(StatusCode::CREATED, &show(&new)));
    };
    let answer = |new: &webhook_core::NewSubscription| serde_json::to_vec(&show(new)).unwrap_or_default();
    let fingerprint = Sha256::digest(&body).into();
    Ok(match state.webhooks.subscribe_once(caller.tenant(), draft, key, fingerprint, answer).await? {
        Subscribed::Created(new) => json::answer(StatusCode::CREATED, &show(&new)),
        Subscribed::Repeated(answer) => repeated(&caller.0, answer)?,
    })
}

/// The first answer again: what it shows of secrets, only a key with the scope may see. Another one than this caller's
/// may have asked first.
fn repeated(caller: &Caller, answer: Vec<u8>) -> Result<Response, Problem> {
    if caller.scopes.contains(Scopes::SECRETS) {
        return Ok(json::written(StatusCode::CREATED, answer));
    }
    let mut answer: serde_json::Map<String, Value> = serde_json::from_slice(&answer).map_err(|error| {
        tracing::error!(error = &error as &(dyn std::error::Error + 'static), "a stored answer cannot be read");
        Problem::internal()
    })?;
    answer.remove("secret");
    if let Some(Value::Object(headers)) = answer.get_mut("headers") {
        headers.values_mut().for_each(|value| *value = wire::REDACTED.into());
    }
    Ok(json::answer(StatusCode::CREATED, &answer))
}

/// List subscriptions
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/subscriptions", tag = "Subscriptions",
    responses((status = 200, description = "A page, newest first", body = wire::List<wire::Subscription>)),
))]
pub(crate) async fn list_subscriptions(
    State(state): State<Arc<ApiState>>,
    caller: Reader,
    mut query: Query,
) -> Result<Response, Problem> {
    let paging = query.paging();
    query.finish()?;
    let page = state.webhooks.subscriptions(caller.tenant(), paging.request).await?;
    let list = paging.answer(page, |item| item.id.as_uuid(), |item| shown(&state, &caller.0, item));
    Ok(json::answer(StatusCode::OK, &list))
}

/// Read a subscription
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/subscriptions/{id}", tag = "Subscriptions", params(("id" = wire::Id, Path)),
    responses((status = 200, description = "The subscription", body = wire::Subscription)),
))]
pub(crate) async fn get_subscription(
    State(state): State<Arc<ApiState>>,
    caller: Reader,
    PathId(id): PathId,
) -> Result<Response, Problem> {
    let subscription = state.webhooks.subscription(caller.tenant(), id.into()).await?;
    Ok(json::answer(StatusCode::OK, &shown(&state, &caller.0, subscription)))
}

/// Replace a subscription
///
/// Absent fields return to their defaults. Secrets stay unless they are given.
#[cfg_attr(feature = "openapi", utoipa::path(
    put, path = "/subscriptions/{id}", tag = "Subscriptions", params(("id" = wire::Id, Path)),
    request_body = wire::SubscriptionInput,
    responses((status = 200, description = "The subscription as it is now", body = wire::Subscription)),
))]
pub(crate) async fn replace_subscription(
    State(state): State<Arc<ApiState>>,
    caller: Writer,
    PathId(id): PathId,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let body = body::read_json(&headers, body, body::SMALL).await?;
    let draft = read(&body)?;
    may_change_secrets(&caller.0, &draft)?;
    let subscription = state.webhooks.replace_subscription(caller.tenant(), id.into(), draft, None).await?;
    Ok(json::answer(StatusCode::OK, &shown(&state, &caller.0, subscription)))
}

/// Change a subscription
///
/// A merge patch (RFC 7396): only what is given changes, and null takes a field back to its default.
#[cfg_attr(feature = "openapi", utoipa::path(
    patch, path = "/subscriptions/{id}", tag = "Subscriptions", params(("id" = wire::Id, Path)),
    request_body(content(
        (wire::SubscriptionPatch = "application/merge-patch+json"),
        (wire::SubscriptionPatch = "application/json"),
    )),
    responses((status = 200, description = "The subscription as it is now", body = wire::Subscription)),
))]
pub(crate) async fn update_subscription(
    State(state): State<Arc<ApiState>>,
    caller: Writer,
    PathId(id): PathId,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let body = body::read_json(&headers, body, body::SMALL).await?;
    let json::Unique(patch): json::Unique<json::Distinct> = json::parse(body::text(&body)?)?;
    let id: SubscriptionId = id.into();
    let mut tries = 1;
    loop {
        let current = state.webhooks.subscription(caller.tenant(), id).await?;
        let version = current.version;
        let draft = patched(current, &patch)?;
        may_change_secrets(&caller.0, &draft)?;
        match state.webhooks.replace_subscription(caller.tenant(), id, draft, Some(version)).await {
            Err(Error::Conflict(Conflict::Changed)) if tries < PATCH_TRIES => tries += 1,
            result => return Ok(json::answer(StatusCode::OK, &shown(&state, &caller.0, result?))),
        }
    }
}

/// Delete a subscription
///
/// Its pending deliveries are cancelled; history stays until retention.
#[cfg_attr(feature = "openapi", utoipa::path(
    delete, path = "/subscriptions/{id}", tag = "Subscriptions", params(("id" = wire::Id, Path)),
    responses((status = 204, description = "Deleted")),
))]
pub(crate) async fn delete_subscription(
    State(state): State<Arc<ApiState>>,
    caller: Writer,
    PathId(id): PathId,
) -> Result<Response, Problem> {
    state.webhooks.unsubscribe(caller.tenant(), id.into()).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

fn read(body: &[u8]) -> Result<SubscriptionDraft, Problem> {
    let json::Object(input): json::Object<wire::SubscriptionInput> = json::parse(body::text(body)?)?;
    Ok(input.into_draft()?)
}

/// Giving a subscription another secret is rotating it, and needs the same scope.
fn may_change_secrets(caller: &Caller, draft: &SubscriptionDraft) -> Result<(), Problem> {
    let changes = draft.secret.is_some() || draft.ingest_secret != SecretChange::Keep;
    if changes && !caller.scopes.contains(Scopes::SECRETS) {
        Err(Problem::forbidden("the key lacks the scope secrets"))
    } else {
        Ok(())
    }
}

fn shown(state: &ApiState, caller: &Caller, subscription: webhook_core::Subscription) -> wire::Subscription {
    let headers = match caller.scopes.contains(Scopes::SECRETS) {
        true => wire::Headers::Shown,
        false => wire::Headers::Redacted,
    };
    wire::Subscription::of(subscription, state.webhooks.options().timeout, headers)
}

/// The draft that is the subscription's present form with the patch merged in.
fn patched(
    current: webhook_core::Subscription,
    patch: &BTreeMap<String, json::Distinct>,
) -> Result<SubscriptionDraft, Problem> {
    let mut document = wire::Settings::document(current).map_err(|error| {
        tracing::error!(error = &error as &(dyn std::error::Error + 'static), "a subscription has no JSON form");
        Problem::internal()
    })?;
    // A null stays at this level: it is an absent field, and removes an ingest secret.
    for (field, json::Distinct(value)) in patch {
        json::merge(&mut document[field.as_str()], value);
    }
    let input: wire::SubscriptionInput = json::from_value(document)?;
    Ok(input.into_draft()?)
}
