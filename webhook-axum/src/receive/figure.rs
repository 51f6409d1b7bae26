//! What became of received requests, through the `metrics` facade; nothing without that feature.

/// How a request ended. The names are few and fixed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// It was handed to the handler.
    Accepted,
    /// Its sender asked whether this is its endpoint, and was answered.
    Handshake,
    /// It is not believed.
    Refused,
    /// It was handled before.
    Repeated,
    /// It is being handled.
    Busy,
    /// Something else was sent under its id.
    Conflict,
}

#[cfg(feature = "metrics")]
pub(super) fn count(scheme: &'static str, ending: Ending) {
    let result = match ending {
        Ending::Accepted => "accepted",
        Ending::Handshake => "handshake",
        Ending::Refused => "refused",
        Ending::Repeated => "repeated",
        Ending::Busy => "busy",
        Ending::Conflict => "conflict",
    };
    metrics::counter!("webhook_received_total", "scheme" => scheme, "result" => result).increment(1);
}

#[cfg(not(feature = "metrics"))]
pub(super) fn count(_: &'static str, _: Ending) {}
