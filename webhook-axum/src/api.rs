//! The routers, and what they are built from.

use std::fmt;
use std::sync::Arc;

use axum::Router;
use axum::routing::MethodRouter;
use tokio::sync::Semaphore;
use webhook_core::Webhooks;

use crate::auth::{Authenticator, NoAuth};
use crate::capture_budget::CaptureBudget;
use crate::envelope::EnvelopeLayer;
use crate::options::ApiOptions;
use crate::problem::unknown_method;
use crate::readiness::{Duty, Readiness};
use crate::routes;

/// The HTTP API on an engine. It gives no router before it knows who is calling: see [`Api::authenticator`].
#[derive(Clone, Debug)]
#[must_use]
pub struct Api<A> {
    webhooks: Webhooks,
    options: ApiOptions,
    readiness: Readiness,
    duty: Duty,
    metrics: Renderer,
    answer: A,
}

/// It is not said yet who is calling.
#[derive(Clone, Copy, Debug)]
pub struct Unanswered;

/// An authenticator says who is calling.
#[derive(Clone, Debug)]
pub struct Answered {
    authenticator: Arc<dyn Authenticator>,
}

/// What the handlers share.
#[derive(Debug)]
pub(crate) struct ApiState {
    pub(crate) webhooks: Webhooks,
    pub(crate) authenticator: Arc<dyn Authenticator>,
    pub(crate) options: ApiOptions,
    pub(crate) readiness: Readiness,
    pub(crate) duty: Duty,
    pub(crate) metrics: Renderer,
    pub(crate) capture_budget: CaptureBudget,
    /// Places for streams and waits.
    pub(crate) followers: Arc<Semaphore>,
}

/// Writes the figures in the text format of Prometheus, where the host has some.
#[derive(Clone, Default)]
pub(crate) struct Renderer(pub(crate) Option<Arc<dyn Fn() -> String + Send + Sync>>);

impl fmt::Debug for Renderer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Renderer(..)" } else { "Renderer(none)" })
    }
}

impl Api<Unanswered> {
    /// The API of that engine.
    pub fn new(webhooks: Webhooks) -> Self {
        Self {
            webhooks,
            options: ApiOptions::default(),
            readiness: Readiness::default(),
            duty: Duty::default(),
            metrics: Renderer::default(),
            answer: Unanswered,
        }
    }

    /// `authenticator` says who is calling, and what they may do.
    pub fn authenticator(self, authenticator: Arc<dyn Authenticator>) -> Api<Answered> {
        Api {
            webhooks: self.webhooks,
            options: self.options,
            readiness: self.readiness,
            duty: self.duty,
            metrics: self.metrics,
            answer: Answered { authenticator },
        }
    }

    /// Everybody who reaches the routes may do everything, as the tenant `default`: only behind something that lets
    /// nobody else through.
    pub fn danger_no_auth(self) -> Api<Answered> {
        self.authenticator(Arc::new(NoAuth))
    }
}

impl<A> Api<A> {
    /// Names and limits.
    pub fn options(mut self, options: ApiOptions) -> Self {
        self.options = options;
        self
    }

    /// `/metrics` answers with what `render` writes, in the text format of Prometheus. Without it there is no such
    /// route.
    pub fn metrics(mut self, render: impl Fn() -> String + Send + Sync + 'static) -> Self {
        self.metrics = Renderer(Some(Arc::new(render)));
        self
    }

    /// What `/health/ready` answers for: requests, unless this says otherwise.
    pub fn duty(mut self, duty: Duty) -> Self {
        self.duty = duty;
        self
    }

    /// The switch by which the host tells `/health/ready` that it is stopping.
    pub fn readiness(&self) -> Readiness {
        self.readiness.clone()
    }
}

impl Api<Answered> {
    /// The routes about subscriptions, events, deliveries and ingest.
    pub fn sending_router<S>(&self) -> Router<S>
    where
        S: Clone + Send + Sync + 'static,
    {
        self.finish(routes::sending())
    }

    /// The routes about capture paths, and `/webhook/…`, which is public.
    pub fn capturing_router<S>(&self) -> Router<S>
    where
        S: Clone + Send + Sync + 'static,
    {
        self.finish(routes::capturing())
    }

    /// Health, metrics and the API's description.
    pub fn operating_router<S>(&self) -> Router<S>
    where
        S: Clone + Send + Sync + 'static,
    {
        self.finish(routes::operating())
    }

    /// Health and metrics alone: for a process that only delivers.
    pub fn health_router<S>(&self) -> Router<S>
    where
        S: Clone + Send + Sync + 'static,
    {
        self.finish(routes::health())
    }

    /// All routes. Unknown ones are the host's to answer: see [`crate::not_found`].
    pub fn router<S>(&self) -> Router<S>
    where
        S: Clone + Send + Sync + 'static,
    {
        self.sending_router().merge(self.capturing_router()).merge(self.operating_router())
    }

    fn finish<S>(&self, routes: Routes) -> Router<S> {
        let largest = self.webhooks.options().capture_prefix;
        let state = Arc::new(ApiState {
            webhooks: self.webhooks.clone(),
            authenticator: Arc::clone(&self.answer.authenticator),
            options: self.options.clone(),
            readiness: self.readiness.clone(),
            duty: self.duty,
            metrics: self.metrics.clone(),
            capture_budget: CaptureBudget::new(self.options.capture_budget, largest),
            followers: Arc::new(Semaphore::new(self.options.max_followers.min(Semaphore::MAX_PERMITS))),
        });
        let envelope = EnvelopeLayer(Arc::clone(&state));
        routes.0.method_not_allowed_fallback(unknown_method).layer(envelope).with_state(state)
    }
}

/// Routes that ignore a trailing slash.
#[derive(Debug)]
pub(crate) struct Routes(Router<Arc<ApiState>>);

impl Routes {
    pub(crate) fn new() -> Self {
        Self(Router::new())
    }

    /// One path, with and without a trailing slash.
    pub(crate) fn route(self, path: &str, methods: MethodRouter<Arc<ApiState>>) -> Self {
        self.route_apart(path, methods.clone(), methods)
    }

    /// Everything below one path and its slash.
    pub(crate) fn route_below(self, path: &str, methods: MethodRouter<Arc<ApiState>>) -> Self {
        Self(self.0.route(&format!("{path}/{{*below}}"), methods))
    }

    /// One path whose answer depends on the trailing slash.
    pub(crate) fn route_apart(
        self,
        path: &str,
        without: MethodRouter<Arc<ApiState>>,
        with: MethodRouter<Arc<ApiState>>,
    ) -> Self {
        Self(self.0.route(path, without).route(&format!("{path}/"), with))
    }
}
