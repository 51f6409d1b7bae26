//! The transport on reqwest against receivers on real sockets.
#![cfg(all(feature = "http", feature = "tls-ring"))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod receiver;

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use receiver::{Receiver, read_request};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::{self, ServerConfig, pki_types::CertificateDer};
use webhook_core::transport::{
    BuildTransportError, HttpTransportBuilder, MAX_RESPONSE_KEPT, Resolver, Transport as _, TransportError,
};
use webhook_core::{AddressGuard, Blocked, Deadlines, ErrorKind, HttpTransport, OutboundRequest, OutboundResponse};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A guard that allows loopback.
fn loopback() -> AddressGuard {
    AddressGuard::new().allow_network("127.0.0.0/8".parse().unwrap()).allow_network("::1/128".parse().unwrap())
}

/// Deadlines for behaviours that end by them.
fn short() -> Deadlines {
    Deadlines::default().with_total(Duration::from_millis(300))
}

fn post(url: impl AsRef<str>) -> OutboundRequest {
    OutboundRequest::new(Method::POST, url.as_ref().parse().unwrap()).with_body("{}")
}

async fn send(guard: AddressGuard, request: OutboundRequest) -> Result<OutboundResponse, TransportError> {
    HttpTransport::builder(guard).build().unwrap().send(request).await
}

/// Sends to `receiver` with short deadlines, and checks that they hold.
async fn send_short(receiver: &Receiver) -> Result<OutboundResponse, TransportError> {
    let started = Instant::now();
    let result = send(loopback(), post(format!("http://{}/", receiver.addr)).with_deadlines(short())).await;
    assert!(started.elapsed() < Duration::from_secs(2), "took {:?}", started.elapsed());
    result
}

/// Answers every name with the same addresses.
#[derive(Debug)]
struct Fixed(Vec<IpAddr>);

#[async_trait]
impl Resolver for Fixed {
    async fn resolve(&self, _: &str) -> io::Result<Vec<IpAddr>> {
        Ok(self.0.clone())
    }
}

fn resolving(guard: AddressGuard, addrs: &[&str]) -> HttpTransportBuilder {
    let addrs = addrs.iter().map(|addr| addr.parse().unwrap()).collect();
    HttpTransport::builder(guard).with_resolver(Arc::new(Fixed(addrs)))
}

#[tokio::test]
async fn sends_what_it_is_given_and_returns_what_comes() {
    let mut receiver =
        Receiver::answering("HTTP/1.1 202 Accepted\r\nx-answer: yes\r\ncontent-length: 2\r\n\r\nok").await;
    let mut headers = HeaderMap::new();
    headers.insert("webhook-id", HeaderValue::from_static("evt_1"));
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    let request = post(format!("http://{}/hooks?a=1", receiver.addr)).with_headers(headers).with_body("{ \"a\":1 }");
    let response = send(loopback(), request).await.unwrap();
    assert_eq!((response.status, response.truncated), (StatusCode::ACCEPTED, false));
    assert_eq!(response.headers["x-answer"], "yes");
    assert_eq!(response.body, "ok");

    let request = receiver.request().await;
    assert!(request.starts_with("POST /hooks?a=1 HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("\r\nwebhook-id: evt_1\r\n") && request.ends_with("\r\n\r\n{ \"a\":1 }"), "{request}");
    assert!(!request.contains("accept-encoding") && !request.contains("referer"), "{request}");
}

#[tokio::test]
async fn a_post_without_body_says_so() {
    let mut receiver = Receiver::answering(OK).await;
    send(loopback(), post(format!("http://{}/", receiver.addr)).with_body("")).await.unwrap();
    assert!(receiver.request().await.contains("\r\ncontent-length: 0\r\n"));
}

#[tokio::test]
async fn frames_requests_itself() {
    let mut receiver = Receiver::answering(OK).await;
    let mut headers = HeaderMap::new();
    headers.insert("content-length", HeaderValue::from_static("0"));
    headers.insert("transfer-encoding", HeaderValue::from_static("chunked"));
    headers.insert("host", HeaderValue::from_static("elsewhere"));
    send(loopback(), post(format!("http://{}/", receiver.addr)).with_headers(headers)).await.unwrap();
    let request = receiver.request().await;
    assert!(request.contains("\r\ncontent-length: 2\r\n") && request.ends_with("\r\n\r\n{}"), "{request}");
    assert!(request.contains(&format!("host: {}\r\n", receiver.addr)) && !request.contains("chunked"), "{request}");
}

#[tokio::test]
async fn keeps_connections_for_the_next_request() {
    let receiver = Receiver::answering(OK).await;
    let transport = HttpTransport::builder(loopback()).build().unwrap();
    for _ in 0..5 {
        transport.send(post(format!("http://{}/", receiver.addr))).await.unwrap();
    }
    assert_eq!(receiver.connections(), 1);
}

#[tokio::test]
async fn refuses_literals_without_dialling() {
    let receiver = Receiver::answering(OK).await;
    let port = receiver.addr.port();
    for host in ["127.0.0.1", "2130706433", "0x7f.1", "127.1", "[::ffff:127.0.0.1]", "[::1]", "0"] {
        let error = send(AddressGuard::new().allow_http(), post(format!("http://{host}:{port}/"))).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Blocked, "{host}");
        assert!(!error.is_retryable());
    }
    assert_eq!(receiver.connections(), 0);
}

#[tokio::test]
async fn refuses_names_by_their_addresses() {
    let receiver = Receiver::answering(OK).await;
    let url = format!("http://hooks.example.com:{}/", receiver.addr.port());
    for addrs in [&["127.0.0.1"][..], &["::ffff:127.0.0.1"], &["1.1.1.1", "127.0.0.1"], &["127.0.0.1", "1.1.1.1"]] {
        let transport = resolving(AddressGuard::new().allow_http(), addrs).build().unwrap();
        let error = transport.send(post(&url)).await.unwrap_err();
        assert_eq!((error.kind(), error.message()), (ErrorKind::Blocked, "the target is not allowed"), "{addrs:?}");
        assert!(cause::<Blocked>(&error).is_some_and(|blocked| blocked.range() == "loopback"));
    }
    assert_eq!(receiver.connections(), 0);
}

fn cause<E: std::error::Error + 'static>(error: &TransportError) -> Option<&E> {
    std::iter::successors(std::error::Error::source(error), |error| error.source()).find_map(|e| e.downcast_ref())
}

#[tokio::test]
async fn localhost_needs_an_allowed_network() {
    let receiver = Receiver::answering(OK).await;
    let url = format!("http://localhost:{}/", receiver.addr.port());
    let error = send(AddressGuard::new().allow_http(), post(&url)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Blocked);
    let elsewhere = AddressGuard::new().allow_network("10.0.0.0/8".parse().unwrap());
    let error = send(elsewhere, post(&url)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Blocked, "loopback is not the allowed network");
    assert_eq!(receiver.connections(), 0);
    assert!(send(loopback(), post(&url)).await.is_ok());
}

#[tokio::test]
async fn http_to_a_name_stays_in_allowed_networks() {
    let receiver = Receiver::answering(OK).await;
    let url = format!("http://hooks.example.com:{}/", receiver.addr.port());
    assert!(resolving(loopback(), &["127.0.0.1"]).build().unwrap().send(post(&url)).await.is_ok());
    for addrs in [&["1.1.1.1"][..], &["127.0.0.1", "1.1.1.1"]] {
        let error = resolving(loopback(), addrs).build().unwrap().send(post(&url)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Blocked, "{addrs:?}");
    }
}

#[tokio::test]
async fn a_name_without_address_is_a_dns_failure() {
    let error = resolving(loopback(), &[]).build().unwrap().send(post("https://example.com/")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Dns);
}

#[tokio::test]
async fn returns_redirects() {
    let elsewhere = Receiver::answering(OK).await;
    let answer = format!("HTTP/1.1 307 Moved\r\nlocation: http://{}/\r\ncontent-length: 0\r\n\r\n", elsewhere.addr);
    let receiver = Receiver::answering(answer).await;
    let response = send_short(&receiver).await.unwrap();
    assert_eq!(response.status, StatusCode::TEMPORARY_REDIRECT);
    assert_eq!(elsewhere.connections(), 0);
}

#[tokio::test]
async fn leaves_compressed_bodies_alone() {
    let gzip = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
    let mut answer = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 10\r\n\r\n".to_vec();
    answer.extend_from_slice(&gzip);
    let response = send_short(&Receiver::answering(answer).await).await.unwrap();
    assert_eq!(response.body, gzip[..]);
    assert_eq!(response.headers["content-encoding"], "gzip");
}

#[tokio::test]
async fn no_answer_is_a_timeout() {
    let receiver = Receiver::answering("").await;
    let error = send_short(&receiver).await.unwrap_err();
    assert_eq!((error.kind(), error.status()), (ErrorKind::Timeout, None));
}

#[tokio::test]
async fn a_head_without_end_is_a_timeout() {
    let receiver = Receiver::answering_then("HTTP/1.1 200 OK\r\n", |mut stream| async move {
        while stream.write_all(b"x: y\r\n").await.is_ok() {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert_eq!(send_short(&receiver).await.unwrap_err().kind(), ErrorKind::Timeout);
}

async fn dripping(head: &'static str) -> Receiver {
    Receiver::answering_then(head, |mut stream| async move {
        while stream.write_all(b"x").await.is_ok() {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await
}

#[tokio::test]
async fn a_dripping_body_fails_a_success() {
    let receiver = dripping("HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n").await;
    let error = send_short(&receiver).await.unwrap_err();
    assert_eq!((error.kind(), error.status()), (ErrorKind::Timeout, Some(StatusCode::OK)));
}

#[tokio::test]
async fn the_body_has_a_deadline_of_its_own() {
    let receiver = dripping("HTTP/1.1 200 OK\r\n\r\n").await;
    let deadlines = Deadlines::default().with_body(Duration::from_millis(100));
    let started = Instant::now();
    let request = post(format!("http://{}/", receiver.addr)).with_deadlines(deadlines);
    assert_eq!(send(loopback(), request).await.unwrap_err().kind(), ErrorKind::Timeout);
    assert!(started.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn a_dripping_body_does_not_hide_another_status() {
    let receiver = dripping("HTTP/1.1 503 Busy\r\nretry-after: 7\r\ncontent-length: 100000\r\n\r\n").await;
    let response = send_short(&receiver).await.unwrap();
    assert_eq!(response.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.headers["retry-after"], "7");
    assert!(response.truncated && response.body.starts_with(b"x"));
}

#[tokio::test]
async fn keeps_the_start_of_a_body_without_end() {
    // Whoever reads on reads until the deadline.
    let receiver = Receiver::answering_then("HTTP/1.1 200 OK\r\n\r\n", |mut stream| async move {
        while stream.write_all(&[b'x'; 64 * 1024]).await.is_ok() {}
    })
    .await;
    let response = send_short(&receiver).await.unwrap();
    assert_eq!((response.body.len(), response.truncated), (MAX_RESPONSE_KEPT, true));
}

#[tokio::test]
async fn gives_a_huge_body_up() {
    let (written, mut total) = tokio::sync::mpsc::unbounded_channel();
    let receiver =
        Receiver::answering_then("HTTP/1.1 200 OK\r\ncontent-length: 104857600\r\n\r\n", move |mut stream| {
            let written = written.clone();
            async move {
                let mut chunks = 0;
                while chunks < 1600 && stream.write_all(&[b'x'; 64 * 1024]).await.is_ok() {
                    chunks += 1;
                }
                let _ = written.send(chunks);
            }
        })
        .await;
    let response = send_short(&receiver).await.unwrap();
    assert_eq!((response.body.len(), response.truncated), (MAX_RESPONSE_KEPT, true));
    assert!(total.recv().await.unwrap() < 800, "what fits the sockets' buffers is a small part of 100 MiB");
}

#[tokio::test]
async fn a_body_of_the_kept_size_is_whole() {
    for (extra, truncated) in [(0, false), (1, true)] {
        let length = MAX_RESPONSE_KEPT + extra;
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{}", "x".repeat(length));
        let response = send_short(&Receiver::answering(answer).await).await.unwrap();
        assert_eq!((response.body.len(), response.truncated), (MAX_RESPONSE_KEPT, truncated));
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_fails_a_success() {
    let receiver = Receiver::answering_then("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf", |_| async {}).await;
    let error = send_short(&receiver).await.unwrap_err();
    assert_eq!((error.kind(), error.status()), (ErrorKind::Protocol, Some(StatusCode::OK)));
}

#[tokio::test]
async fn nobody_listening_is_a_connection_failure() {
    let addr = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = send(loopback(), post(format!("http://{addr}/"))).await.unwrap_err();
    assert_eq!((error.kind(), error.message()), (ErrorKind::Connect, "the connection was refused"));
}

#[tokio::test]
async fn garbage_is_a_protocol_failure() {
    let error = send_short(&Receiver::answering("SSH-2.0-OpenSSH_9.9\r\n\r\n").await).await.unwrap_err();
    assert_eq!((error.kind(), error.message()), (ErrorKind::Protocol, "no valid HTTP answer"));
}

#[tokio::test]
async fn hanging_up_without_an_answer_is_a_protocol_failure_and_not_sent_again() {
    let receiver = Receiver::answering_then("", |_| async {}).await;
    assert_eq!(send_short(&receiver).await.unwrap_err().kind(), ErrorKind::Protocol);
    assert_eq!(receiver.connections(), 1);
}

#[tokio::test]
async fn a_reset_is_a_protocol_failure_and_not_sent_again() {
    // Closing with unread bytes makes the kernel send a reset.
    let receiver = Receiver::behaving(|stream| async move { stream.readable().await.unwrap() }).await;
    assert_eq!(send_short(&receiver).await.unwrap_err().kind(), ErrorKind::Protocol);
    assert_eq!(receiver.connections(), 1);
}

#[tokio::test]
async fn a_late_connection_is_a_timeout() {
    /// Never answers.
    #[derive(Debug)]
    struct Silent;

    #[async_trait]
    impl Resolver for Silent {
        async fn resolve(&self, _: &str) -> io::Result<Vec<IpAddr>> {
            std::future::pending().await
        }
    }

    let builder = HttpTransport::builder(AddressGuard::new()).with_resolver(Arc::new(Silent));
    let transport = builder.with_connect_timeout(Duration::from_millis(50)).build().unwrap();
    let error = transport.send(post("https://example.com/")).await.unwrap_err();
    assert_eq!((error.kind(), error.message()), (ErrorKind::Timeout, "no connection within the deadline"));
}

/// A receiver with a certificate of its own for 127.0.0.1 and hooks.example.com.
async fn tls_receiver() -> (Receiver, CertificateDer<'static>) {
    let names = vec!["127.0.0.1".to_owned(), "hooks.example.com".to_owned()];
    let rcgen::CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(names).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let key = signing_key.serialize_der().try_into().unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![cert.der().clone()], key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let receiver = Receiver::behaving(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            while read_request(&mut stream).await.is_some() {
                stream.write_all(OK.as_bytes()).await.unwrap();
            }
        }
    })
    .await;
    (receiver, cert.der().clone())
}

#[tokio::test]
async fn trusts_the_given_roots_only() {
    let (receiver, certificate) = tls_receiver().await;
    let url = format!("https://{}/", receiver.addr);
    let error = send(loopback(), post(&url)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Tls);
    let transport = HttpTransport::builder(loopback()).with_root_certificate(certificate).build().unwrap();
    assert_eq!(transport.send(post(&url)).await.unwrap().status, StatusCode::OK);
}

#[tokio::test]
async fn checks_the_name_of_the_url_against_the_certificate() {
    let (receiver, certificate) = tls_receiver().await;
    let transport = resolving(loopback(), &[&Ipv4Addr::LOCALHOST.to_string()]).with_root_certificate(certificate);
    let transport = transport.build().unwrap();
    let port = receiver.addr.port();
    assert!(transport.send(post(format!("https://hooks.example.com:{port}/"))).await.is_ok());
    let error = transport.send(post(format!("https://other.example.com:{port}/"))).await.unwrap_err();
    assert_eq!((error.kind(), error.message()), (ErrorKind::Tls, "the certificate is for another name"));
}

#[tokio::test]
async fn https_to_a_plain_receiver_is_a_tls_failure() {
    let plain = Receiver::behaving(|mut stream| async move {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    })
    .await;
    let error = send(loopback(), post(format!("https://{}/", plain.addr))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Tls);
}

#[tokio::test]
async fn takes_the_tls_configuration_of_the_host() {
    let (receiver, certificate) = tls_receiver().await;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let transport = HttpTransport::builder(loopback()).with_tls_config(config.clone()).build().unwrap();
    assert!(transport.send(post(format!("https://{}/", receiver.addr))).await.is_ok());

    let both = HttpTransport::builder(loopback()).with_tls_config(config).with_root_certificate(certificate).build();
    assert!(matches!(both, Err(BuildTransportError::RootsBesideConfig)));
}

#[tokio::test]
async fn an_error_shows_neither_addresses_nor_the_query() {
    let addr = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let transport = resolving(loopback(), &["127.0.0.1"]).build().unwrap();
    let url = format!("http://hooks.example.com:{}/?token=s3cret", addr.port());
    let error = transport.send(post(url)).await.unwrap_err();
    assert!(!error.to_string().contains("127.0.0.1"), "{error}");
    assert!(!format!("{error:?}").contains("s3cret"), "{error:?}");
}

/// The environment belongs to the process, so the other test runs this one in a process of its own.
#[tokio::test]
#[ignore = "run by ignores_proxies_of_the_environment"]
async fn child_with_a_proxy_in_the_environment() {
    assert!(std::env::var_os("HTTP_PROXY").is_some());
    let receiver = Receiver::answering(OK).await;
    assert!(send_short(&receiver).await.is_ok());
    let error = send(AddressGuard::new().allow_http(), post("http://localhost:8080/")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Blocked);
}

#[test]
fn ignores_proxies_of_the_environment() {
    let proxy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    proxy.set_nonblocking(true).unwrap();
    let url = format!("http://{}", proxy.local_addr().unwrap());
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    child.args(["--ignored", "--exact", "child_with_a_proxy_in_the_environment"]);
    child.envs(["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"].map(|name| (name, &url)));
    child.env_remove("NO_PROXY").env_remove("no_proxy");
    let output = child.output().unwrap();
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && shown.contains("1 passed"), "{shown}");
    assert_eq!(proxy.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock, "the proxy was called");
}
