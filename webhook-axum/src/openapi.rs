//! The API's description, gathered from the handlers.

use utoipa::openapi::path::{Operation, ParameterBuilder, ParameterIn, PathItem};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ContentBuilder, Ref, RefOr, Required, ResponseBuilder, Schema};
use utoipa::{Modify, OpenApi};

use crate::problem::ProblemDocument;
use crate::routes;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Webhook API",
        description = "Sends webhooks: subscriptions say where events go, deliveries and attempts show how they fare. \
                       Captures them: paths keep every request that reaches them, byte for byte.",
    ),
    servers((url = ".", description = "Where this description was read")),
    paths(
        routes::subscriptions::create_subscription,
        routes::subscriptions::list_subscriptions,
        routes::subscriptions::get_subscription,
        routes::subscriptions::replace_subscription,
        routes::subscriptions::update_subscription,
        routes::subscriptions::delete_subscription,
        routes::secrets::get_secret,
        routes::secrets::rotate_secret,
        routes::subscription_history::test_subscription,
        routes::subscription_history::recover_subscription,
        routes::subscription_history::list_subscription_attempts,
        routes::subscription_history::list_subscription_deliveries,
        routes::stats::get_subscription_stats,
        routes::events::create_event,
        routes::batch::create_events,
        routes::events::list_events,
        routes::events::get_event,
        routes::events::get_event_status,
        routes::ingest::ingest,
        routes::deliveries::list_deliveries,
        routes::deliveries::get_delivery,
        routes::deliveries::retry_delivery,
        routes::deliveries::cancel_delivery,
        routes::stats::get_stats,
        routes::stats::list_activity,
        routes::paths::create_path,
        routes::paths::list_paths,
        routes::paths::get_path,
        routes::paths::update_path,
        routes::paths::delete_path,
        routes::paths::get_path_stats,
        routes::paths::get_dashboard_stats,
        routes::capture::capture_request,
        routes::captured::list_captured_requests,
        routes::captured::get_captured_request,
        routes::captured::get_captured_body,
        routes::captured::delete_captured_request,
        routes::captured::delete_captured_requests,
        routes::captured::replay_captured_request,
        routes::follow::stream_captured_requests,
        routes::follow::wait_for_captured_request,
        routes::export::export_captured_requests,
        routes::health::get_health,
        routes::health::get_liveness,
        routes::health::get_readiness,
        routes::health::get_metrics,
    ),
    components(schemas(ProblemDocument)),
    modifiers(&ApiKey, &Pages, &Problems),
    security(("api_key" = [])),
)]
struct Description;

/// The OpenAPI description of all routes, as `/openapi.json` serves it.
pub fn document(version: &str) -> utoipa::openapi::OpenApi {
    let mut document = Description::openapi();
    version.clone_into(&mut document.info.version);
    document
}

/// The credentials of the ready authenticator.
struct ApiKey;

impl Modify for ApiKey {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("api_key", SecurityScheme::Http(scheme));
    }
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.put, &mut item.post, &mut item.patch, &mut item.delete].into_iter().flatten()
}

/// The parameters that choose a page.
struct Pages;

impl Modify for Pages {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let whole = || utoipa::openapi::ObjectBuilder::new().schema_type(utoipa::openapi::Type::Integer).build();
        let text = || utoipa::openapi::ObjectBuilder::new().schema_type(utoipa::openapi::Type::String).build();
        let parameter = |name: &str, description: &str, schema: utoipa::openapi::Object| {
            ParameterBuilder::new()
                .name(name)
                .parameter_in(ParameterIn::Query)
                .required(Required::False)
                .description(Some(description))
                .schema(Some(Schema::Object(schema)))
                .build()
        };
        for operation in document.paths.paths.values_mut().flat_map(operations) {
            let id = operation.operation_id.as_deref().unwrap_or_default();
            if id.starts_with("list_") && id != "list_activity" {
                operation.parameters.get_or_insert_default().extend([
                    RefOr::T(parameter("limit", "Items on a page, 1 to 1000 (default 50)", whole())),
                    RefOr::T(parameter("cursor", "The next_cursor of the page before", text())),
                    RefOr::T(parameter("offset", "Instead of a cursor: so many items are skipped", whole())),
                    RefOr::T(parameter("page", "Instead of a cursor: which page, from 1", whole())),
                ]);
            }
        }
    }
}

/// The errors that an operation may answer, as what it takes suggests.
struct Problems;

impl Modify for Problems {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        for (path, item) in &mut document.paths.paths {
            let has_id = path.contains('{');
            for operation in operations(item) {
                let id = operation.operation_id.clone().unwrap_or_default();
                let capture = id == "capture_request";
                let public = capture || path.starts_with("/health");
                let takes_body = operation.request_body.is_some();
                let takes_json = takes_body && id != "ingest" && !capture;
                let takes_query = operation.parameters.as_ref().is_some_and(|given| !given.is_empty()) || takes_body;
                let conflicts = takes_body && !capture || matches!(id.as_str(), "retry_delivery" | "cancel_delivery");
                let possible = [
                    (takes_body || has_id, "400", "The body is not JSON, or the id is not a UUID"),
                    (!public, "401", "The credentials are missing or not valid"),
                    (!public, "403", "The credentials do not allow this"),
                    (has_id || path == "/metrics", "404", "There is no such thing"),
                    (conflicts, "409", "It contradicts what is"),
                    (takes_body, "413", "The body is too large"),
                    (takes_body, "408", "The body took too long to arrive"),
                    (takes_json, "415", "The body is not JSON"),
                    (takes_query && !capture, "422", "Something given is not acceptable: `errors` names the fields"),
                    (true, "500", "Something went wrong"),
                    (true, "503", "Not possible at present: ask again"),
                ];
                let responses = &mut operation.responses.responses;
                for (_, status, description) in possible.into_iter().filter(|(possible, ..)| *possible) {
                    responses.entry(status.to_owned()).or_insert_with(|| RefOr::T(problem(description)));
                }
            }
        }
    }
}

fn problem(description: &str) -> utoipa::openapi::Response {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    ResponseBuilder::new().description(description).content("application/problem+json", content).build()
}
