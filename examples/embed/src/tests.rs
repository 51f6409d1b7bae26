use axum::body::Body;
use axum::http::{Request, header};
use http_body_util::BodyExt;
use tower::ServiceExt;

use super::*;

#[tokio::test]
async fn an_order_is_an_event_and_the_api_is_below_webhooks_for_those_with_a_key() {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(directory.path().join("embed.db").to_str().unwrap()).await.unwrap();
    let webhooks = Webhooks::builder(Arc::new(store)).build().unwrap();
    let app = app(webhooks, ApiKeys::new().with_spec("key=default").unwrap());

    let order = Request::post("/orders").body(Body::from(r#"{"item":"a teapot"}"#)).unwrap();
    assert_eq!(app.clone().oneshot(order).await.unwrap().status(), StatusCode::ACCEPTED);

    let events = || Request::get("/webhooks/events");
    let anonymous = app.clone().oneshot(events().body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(anonymous.status(), StatusCode::UNAUTHORIZED);

    let known = events().header(header::AUTHORIZATION, "Bearer key").body(Body::empty()).unwrap();
    let answer = app.oneshot(known).await.unwrap().into_body().collect().await.unwrap().to_bytes();
    let answer: serde_json::Value = serde_json::from_slice(&answer).unwrap();
    assert_eq!(answer["data"][0]["event_type"], "order.created");
    assert_eq!(answer["data"].as_array().unwrap().len(), 1);
}
