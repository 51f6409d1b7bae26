//! Figures of the routes through the `metrics` facade; nothing without that feature. A route is its template, never
//! the path that was asked for; what matches none counts as `unmatched`.

#[cfg(feature = "metrics")]
mod recorded {
    use axum::extract::MatchedPath;
    use http::{Method, StatusCode};
    use metrics::{counter, histogram};
    use tokio::time::Instant;

    pub(crate) struct Figure {
        method: &'static str,
        route: Option<MatchedPath>,
        start: Instant,
    }

    pub(crate) fn start(method: &Method, route: Option<&MatchedPath>) -> Figure {
        Figure { method: known(method), route: route.cloned(), start: Instant::now() }
    }

    impl Figure {
        pub(crate) fn end(self, status: StatusCode) {
            let route = self.route.as_ref().map_or("unmatched", MatchedPath::as_str);
            let route = match route.trim_end_matches('/') {
                "" => "/".to_owned(),
                route => route.to_owned(),
            };
            let status = status.as_str().to_owned();
            counter!("http_requests_total", "method" => self.method, "route" => route.clone(), "status" => status)
                .increment(1);
            histogram!("http_request_duration_seconds", "method" => self.method, "route" => route)
                .record(self.start.elapsed().as_secs_f64());
        }
    }

    /// Callers may invent methods; labels must stay few.
    fn known(method: &Method) -> &'static str {
        match method.as_str() {
            "GET" => "GET",
            "HEAD" => "HEAD",
            "POST" => "POST",
            "PUT" => "PUT",
            "PATCH" => "PATCH",
            "DELETE" => "DELETE",
            "OPTIONS" => "OPTIONS",
            _ => "other",
        }
    }
}

#[cfg(not(feature = "metrics"))]
mod recorded {
    use axum::extract::MatchedPath;
    use http::{Method, StatusCode};

    pub(crate) struct Figure;

    pub(crate) fn start(_: &Method, _: Option<&MatchedPath>) -> Figure {
        Figure
    }

    impl Figure {
        pub(crate) fn end(self, _: StatusCode) {}
    }
}

pub(crate) use recorded::start;
