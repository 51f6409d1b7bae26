//! What reqwest's errors mean.

use std::error::Error;
use std::io;
use std::iter::successors;

use rustls::CertificateError;

use super::TransportError;
use super::dns::NoAddress;
use crate::ErrorKind;
use crate::transport::Blocked;

/// The error of a request that got no answer.
pub(super) fn before_answer(error: reqwest::Error) -> TransportError {
    let (kind, message) = judge(&error);
    TransportError::new(kind, message).with_source(error.without_url())
}

/// The error of an answer whose head had arrived.
pub(super) fn in_body(error: reqwest::Error) -> TransportError {
    TransportError::new(ErrorKind::Protocol, "the answer's body broke off").with_source(error.without_url())
}

fn judge(error: &reqwest::Error) -> (ErrorKind, &'static str) {
    if find::<Blocked>(error).is_some() {
        return (ErrorKind::Blocked, "the target is not allowed");
    }
    if find::<NoAddress>(error).is_some() {
        return (ErrorKind::Dns, "the host name has no address");
    }
    if let Some(tls) = find::<rustls::Error>(error) {
        return (ErrorKind::Tls, tls_message(tls));
    }
    // Before is_connect, which is true of a late connection too.
    if error.is_timeout() {
        return (ErrorKind::Timeout, "no connection within the deadline");
    }
    let io = find::<io::Error>(error).map(io::Error::kind);
    if error.is_connect() {
        return match io {
            // Where TCP is up, only the handshake is left to end early.
            Some(io::ErrorKind::UnexpectedEof) => (ErrorKind::Tls, "the TLS handshake broke off"),
            Some(io::ErrorKind::ConnectionRefused) => (ErrorKind::Connect, "the connection was refused"),
            Some(io::ErrorKind::ConnectionReset) => (ErrorKind::Connect, "the connection was reset"),
            Some(io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable) => {
                (ErrorKind::Connect, "the host is unreachable")
            }
            _ => (ErrorKind::Connect, "no connection"),
        };
    }
    if error.is_builder() {
        // The guard lets no URL through that the client cannot read.
        return (ErrorKind::Blocked, "the target is not allowed");
    }
    match io {
        Some(_) => (ErrorKind::Protocol, "the connection broke off before an answer"),
        None => (ErrorKind::Protocol, "no valid HTTP answer"),
    }
}

fn tls_message(error: &rustls::Error) -> &'static str {
    let rustls::Error::InvalidCertificate(certificate) = error else { return "the TLS handshake failed" };
    match certificate {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "the certificate has expired",
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "the certificate is for another name"
        }
        CertificateError::UnknownIssuer => "the certificate is not from a trusted authority",
        _ => "the certificate is not valid",
    }
}

/// The first cause of type `E`.
fn find<E: Error + 'static>(error: &reqwest::Error) -> Option<&E> {
    let first: &(dyn Error + 'static) = error;
    successors(Some(first), |error| cause(*error)).find_map(|error| error.downcast_ref::<E>())
}

/// An I/O error that wraps another error does not name it as its source, so it is opened here.
fn cause<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(inner) => Some(inner),
        None => error.source(),
    }
}
