//! The API's description, and the page that shows it.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION};
use http::{HeaderValue, StatusCode};
use utoipa_swagger_ui::Config;

use crate::api::{ApiState, Routes};
use crate::openapi;
use crate::problem::Problem;

/// Swagger UI styles its elements one by one; nothing else may be inline, and nothing may come from elsewhere.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
                      font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// The files of Swagger UI that the page needs.
const FILES: [&str; 3] = ["swagger-ui.css", "swagger-ui-bundle.js", "favicon-32x32.png"];
const INITIALIZER: &str = include_str!("docs/initializer.js");
const PAGE: &str = include_str!("docs/index.html");

pub(crate) fn routes(routes: Routes) -> Routes {
    let redirect = |to: &'static str| get(move || async move { (StatusCode::PERMANENT_REDIRECT, [(LOCATION, to)]) });
    routes
        .route("/openapi.json", get(get_openapi_json))
        .route("/openapi.yaml", get(get_openapi_yaml))
        .route_apart("/docs", get(async || page("docs/")), get(async || page("")))
        .route("/docs/{file}", get(file))
        .route_apart("/redoc", redirect("docs"), redirect("../docs"))
        .route_apart("/api-docs", redirect("docs"), redirect("../docs"))
}

async fn get_openapi_json(State(state): State<Arc<ApiState>>) -> Result<Response, Problem> {
    let json = openapi::document(&state.options.version).to_pretty_json().map_err(|error| unwritten(&error))?;
    Ok(answer("application/json", json.into()))
}

async fn get_openapi_yaml(State(state): State<Arc<ApiState>>) -> Result<Response, Problem> {
    let yaml = openapi::document(&state.options.version).to_yaml().map_err(|error| unwritten(&error))?;
    Ok(answer("application/yaml", yaml.into()))
}

fn unwritten(error: &(dyn std::error::Error + 'static)) -> Problem {
    tracing::error!(error, "the API's description cannot be written");
    Problem::internal()
}

/// The page; `base` leads from its own address to its files.
fn page(base: &str) -> Response {
    let mut response = answer("text/html; charset=utf-8", PAGE.replace("{base}", base).into());
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    response
}

async fn file(Path(named): Path<Vec<(String, String)>>) -> Response {
    let name = named.iter().rev().find(|(name, _)| name == "file").map_or("", |(_, file)| file.as_str());
    if name == "initializer.js" {
        return answer("text/javascript; charset=utf-8", INITIALIZER.into());
    }
    let known = FILES.iter().find(|file| **file == name);
    let found = known.and_then(|name| utoipa_swagger_ui::serve(name, Arc::new(Config::default())).ok().flatten());
    let Some(file) = found else { return Problem::not_found("there is no such file").into_response() };
    let mut response = Response::new(Body::from(file.bytes.into_owned()));
    if let Ok(content_type) = HeaderValue::try_from(file.content_type) {
        response.headers_mut().insert(CONTENT_TYPE, content_type);
    }
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=86400"));
    response
}

fn answer(content_type: &'static str, body: Body) -> Response {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
