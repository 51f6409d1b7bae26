//! Hostile requests over raw sockets at a capture path: what was sent is what is read back, or it was refused; nothing
//! is answered with 2xx and lost.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::{Duration, sleep, timeout};

use crate::support::PATIENCE;
use crate::support::client::{Client, read_answer};
use crate::support::place::Place;
use crate::support::server::Server;

/// What of a request has to be read back.
#[derive(Clone, Debug)]
struct Sent {
    method: String,
    path: String,
    query: Option<String>,
    /// Without the fields of the framing, sorted by name, those of one name in their order.
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
    trailers: Vec<(String, Vec<u8>)>,
}

struct Case {
    name: String,
    /// Written one after the other, with a pause in between.
    parts: Vec<Vec<u8>>,
    /// In order, each with the status that it must be answered with.
    requests: Vec<(u16, Sent)>,
}

fn sent(method: &str, target: &str, headers: &[(&str, &[u8])], body: &[u8]) -> Sent {
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query.to_owned())),
        None => (target, None),
    };
    let mut headers: Vec<_> = headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.to_vec())).collect();
    headers.sort_by(|one, other| one.0.cmp(&other.0));
    Sent { method: method.to_owned(), path: path.to_owned(), query, headers, body: body.to_vec(), trailers: Vec::new() }
}

/// The bytes of a request, with its length announced.
fn plain(sent: &Sent) -> Vec<u8> {
    let mut bytes = head(sent);
    bytes.extend_from_slice(format!("content-length: {}\r\n\r\n", sent.body.len()).as_bytes());
    bytes.extend_from_slice(&sent.body);
    bytes
}

fn head(sent: &Sent) -> Vec<u8> {
    let query = sent.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
    let mut bytes = format!("{} {}{query} HTTP/1.1\r\nhost: x\r\n", sent.method, sent.path).into_bytes();
    for (name, value) in &sent.headers {
        bytes.extend_from_slice(name.as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |name: String, parts: Vec<Vec<u8>>, requests: Vec<(u16, Sent)>| {
        cases.push(Case { name, parts, requests });
    };
    for method in
        ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PURGE", "PROPFIND", "m", "A-!#$%&'*+.^_`|~9"]
    {
        let request = sent(method, "/webhook/p", &[], b"body");
        add(format!("method {method}"), vec![plain(&request)], vec![(200, request)]);
    }
    for target in [
        "/webhook/p",
        "/webhook/p/",
        "/webhook/p//",
        "/webhook/p?",
        "/webhook/p/..//%2e%2e/%00/%ff?a=%zz&a=1&&=&?",
        "/webhook/p/;/@:!$&'()*+,=~|^[]\\{}\"?{script}&x=`|'[]\\^",
        "/webhook/p/\u{e9}\u{1f980}?\u{e9}",
    ] {
        let request = sent("POST", target, &[], b"x");
        add(format!("target {target}"), vec![plain(&request)], vec![(200, request)]);
    }
    for (name, body) in bodies() {
        let request = sent("POST", "/webhook/p", &[("content-type", b"application/json")], &body);
        add(format!("body {name}"), vec![plain(&request)], vec![(200, request.clone())]);
        let mut chunked = head(&request);
        chunked.extend_from_slice(b"transfer-encoding: chunked\r\n\r\n");
        for chunk in request.body.chunks(7.max(request.body.len() / 50)) {
            chunked.extend_from_slice(format!("{:X};ext=\"a;b\"\r\n", chunk.len()).as_bytes());
            chunked.extend_from_slice(chunk);
            chunked.extend_from_slice(b"\r\n");
        }
        chunked.extend_from_slice(b"000\r\n\r\n");
        add(format!("chunked body {name}"), vec![chunked], vec![(200, request)]);
    }
    let many: Vec<_> = (0..90).map(|number| (format!("x-{number}"), vec![b'v'; 100])).collect();
    let many: Vec<_> = many.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
    for (name, headers) in [
        ("duplicates", vec![("X-A", &b"1"[..]), ("x-b", b"b"), ("x-a", b"2"), ("X-a", b"1")]),
        ("bytes", vec![("x-a", &b"\xff\xfe\x80"[..]), ("x-b", b"a\tb"), ("x-c", b"\xc3\xa9")]),
        ("empty values", vec![("x-a", &b""[..]), ("x-a", b"")]),
        (
            "markup",
            vec![("x-a", &b"<script>alert(1)</script>"[..]), ("cookie", b"a=\"b\"; c"), ("user-agent", b"'\"\\")],
        ),
        ("many", many),
        ("a long one", vec![("x-a", &[b'l'; 8000][..])]),
        ("forwarded", vec![("x-forwarded-for", &b"1.2.3.4"[..]), ("x-request-id", b"mine")]),
    ] {
        let request = sent("POST", "/webhook/p", &headers, b"x");
        add(format!("headers: {name}"), vec![plain(&request)], vec![(200, request)]);
    }
    odd_framing(&mut add);
    cases
}

fn bodies() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("empty", Vec::new()),
        ("NUL", b"\x00".to_vec()),
        ("all bytes", (0..=255).collect()),
        ("no UTF-8", b"\xff\xfe\xc3\x28".to_vec()),
        ("broken JSON", br#"{"a":1,"a":2,}"#.to_vec()),
        ("gzip", b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\x03\x00\x00\x00\x00\x00\x00\x00\x00\x00".to_vec()),
        ("a request", b"POST /webhook/p HTTP/1.1\r\ncontent-length: 0\r\n\r\n".to_vec()),
        (
            "multipart",
            b"--x\r\ncontent-disposition: form-data; name=\"f\"; filename=\"../a\"\r\n\r\n\x00\r\n--x--".to_vec(),
        ),
        ("a mebibyte", (0..1 << 20).map(|number: u32| (number % 251) as u8).collect()),
    ]
}

/// Pipelining, slow senders and unusual framing.
fn odd_framing(add: &mut impl FnMut(String, Vec<Vec<u8>>, Vec<(u16, Sent)>)) {
    let three = ["one", "two", "three"].map(|body| sent("POST", &format!("/webhook/p/{body}"), &[], body.as_bytes()));
    let pipelined = three.iter().flat_map(plain).collect();
    add("pipelined".to_owned(), vec![pipelined], three.iter().map(|sent| (200, sent.clone())).collect());

    let dripped = sent("POST", "/webhook/p", &[("x-a", b"b")], b"dripped");
    let drops = plain(&dripped).into_iter().map(|byte| vec![byte]).collect();
    add("byte by byte".to_owned(), drops, vec![(200, dripped)]);

    let mut trailed = sent("POST", "/webhook/p", &[("trailer", b"x-sum")], b"abc");
    let mut bytes = head(&trailed);
    bytes.extend_from_slice(
        b"transfer-encoding: chunked\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\nX-Sum: 1\r\nx-sum: \xff\r\n\r\n",
    );
    trailed.trailers = vec![("x-sum".to_owned(), b"1".to_vec()), ("x-sum".to_owned(), b"\xff".to_vec())];
    add("trailers".to_owned(), vec![bytes], vec![(200, trailed)]);

    let absolute = sent("POST", "/webhook/p?x", &[], b"x");
    let bytes = b"POST http://elsewhere.example/webhook/p?x HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\nx".to_vec();
    add("absolute form".to_owned(), vec![bytes], vec![(200, absolute)]);

    // No request target has a fragment (RFC 9112 section 3.2). The HTTP library cuts it off, and shows nobody that it did.
    for (target, cut) in [("/webhook/p/a#b?c", "/webhook/p/a"), ("/webhook/p?a#b", "/webhook/p?a")] {
        let bytes = format!("POST {target} HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\nx").into_bytes();
        add(format!("a fragment that is cut off: {target}"), vec![bytes], vec![(200, sent("POST", cut, &[], b"x"))]);
    }

    let expecting = sent("POST", "/webhook/p", &[("expect", b"100-continue")], b"expected");
    add("expect".to_owned(), vec![plain(&expecting)], vec![(200, expecting)]);

    let spaced = sent("POST", "/webhook/p", &[("x-a", b"spaced")], b"x");
    let bytes = b"POST /webhook/p HTTP/1.1\r\nhost: x\r\nx-a: \t  spaced \t \r\ncontent-length: 1\r\n\r\nx".to_vec();
    add("blanks around a value".to_owned(), vec![bytes], vec![(200, spaced)]);

    let mut large = sent("POST", "/webhook/p", &[], &vec![b'l'; (1 << 20) + 1]);
    add("more than is kept".to_owned(), vec![plain(&large)], vec![(200, large.clone())]);
    large.body = vec![b'l'; 17 << 20];
    add("more than is read".to_owned(), vec![plain(&large)], vec![(413, large)]);
}

/// What the parser has to turn away, or the path does not answer with 2xx: by none of them may anything be lost that was
/// answered so.
fn refused() -> Vec<(&'static str, Vec<u8>)> {
    let with = |framing: &str, body: &[u8]| {
        [format!("POST /webhook/p HTTP/1.1\r\nhost: x\r\n{framing}\r\n\r\n").as_bytes(), body].concat()
    };
    vec![
        ("two lengths", with("content-length: 1\r\ncontent-length: 2", b"ab")),
        ("a negative length", with("content-length: -1", b"")),
        ("a length in hex", with("content-length: 0x1", b"a")),
        ("an unknown coding", with("transfer-encoding: zip", b"a")),
        ("a chunk without a size", with("transfer-encoding: chunked", b"\r\na\r\n0\r\n\r\n")),
        ("a chunk with a bad size", with("transfer-encoding: chunked", b"zz\r\na\r\n0\r\n\r\n")),
        ("an endless chunk size", with("transfer-encoding: chunked", b"fffffffffffffffff\r\na\r\n")),
        ("a chunk that is too long", with("transfer-encoding: chunked", b"1\r\nabc\r\n0\r\n\r\n")),
        ("NUL in the path", b"POST /webhook/p/\x00 HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n".to_vec()),
        ("no UTF-8 in the path", b"POST /webhook/p/\xff HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n".to_vec()),
        // RFC 3986 has no such characters in a URI.
        ("markup in the path", b"POST /webhook/p/<b> HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n".to_vec()),
        ("markup in the query", b"POST /webhook/p?<b> HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n".to_vec()),
        ("a blank in the path", b"POST /webhook/p/a b HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n".to_vec()),
        ("NUL in a header", with("x-a: \x00\r\ncontent-length: 0", b"")),
        ("a folded header", with("x-a: b\r\n c\r\ncontent-length: 0", b"")),
        ("a blank before the colon", with("x-a : b\r\ncontent-length: 0", b"")),
        ("a method of bytes", b"P\xffST /webhook/p HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n".to_vec()),
        ("an unknown version", b"POST /webhook/p HTTP/3.7\r\nhost: x\r\ncontent-length: 0\r\n\r\n".to_vec()),
        ("a huge head", with(&format!("x-a: {}\r\ncontent-length: 0", "h".repeat(600_000)), b"")),
        ("101 headers", with(&format!("{}content-length: 0", "x-a: b\r\n".repeat(99)), b"")),
        ("500 headers", with(&format!("{}content-length: 0", "x-a: b\r\n".repeat(500)), b"")),
        ("CONNECT", b"CONNECT /webhook/p HTTP/1.1\r\nhost: x\r\n\r\n".to_vec()),
        ("another path", b"POST /webhook/P HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n".to_vec()),
        ("an encoded name", b"POST /webhook/%70 HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n".to_vec()),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_sent_is_read_back_from_sqlite_or_was_refused() {
    send_all(&Place::sqlite()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_sent_is_read_back_from_postgres_or_was_refused() {
    send_all(&Place::postgres().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_sent_is_read_back_from_memory_or_was_refused() {
    send_all(&Place::memory()).await;
}

async fn send_all(place: &Place) {
    let server = place.launch(&["--log-level=info"]).await;
    let mut client = server.client();
    client.post("/api/paths", &json!({"path_id": "p"})).await.unwrap().expect(201);
    let (mut wrong, mut accepted) = (Vec::new(), 0);
    for case in cases() {
        accepted += case.requests.iter().filter(|(status, _)| *status == 200).count();
        if let Err(why) = check(&server, &mut client, &case).await {
            wrong.push(format!("{}: {why}", case.name));
        }
    }
    for (name, bytes) in refused() {
        let status = first_status(&server, &bytes).await;
        if status.is_none_or(|status| !(400..500).contains(&status)) {
            wrong.push(format!("{name}: answered {status:?}"));
        }
    }
    // A request whose length and coding contradict each other is refused or taken by the coding, and nothing smuggled.
    let both = b"POST /webhook/p HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n\
                 1\r\na\r\n0\r\n\r\n";
    let status = first_status(&server, both).await;
    accepted += usize::from(status == Some(200));
    assert!(status.is_some_and(|status| status == 200 || (400..500).contains(&status)), "{status:?}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for query in ["method=%00", "method=%00&q=x", "method=P%00ST&offset=0", "q=%00no%00such%00text&limit=1"] {
        let none = client.get(&format!("/api/paths/p/logs?{query}")).await.unwrap().expect(200);
        assert_eq!(none["data"], json!([]), "{query}");
    }
    let stats = client.get("/api/paths/p/stats").await.unwrap().expect(200);
    let exported = client.get("/api/paths/p/logs?limit=1000&include_body=false").await.unwrap().expect(200);
    let logs = exported["data"].as_array().unwrap();
    let good = logs.iter().filter(|log| log["response_status"] == 200).count();
    assert_eq!(good, accepted, "as many are stored as were answered with 200");
    println!("{accepted} requests answered with 200 and read back equal; {} stored in all", stats["total_requests"]);
    assert_eq!(server.client().get("/health/ready").await.unwrap().status, 200);
    let lines = server.lines().clone();
    server.stop().await;
    for line in lines.json() {
        assert!(line["level"] != "ERROR" && line["status"].as_u64().is_none_or(|status| status < 500), "{line}");
        assert!(!line.to_string().contains("alert(1)"), "captured headers are in no log line: {line}");
    }
}

/// The status of the first answer, if there is one.
async fn first_status(server: &Server, bytes: &[u8]) -> Option<u16> {
    let mut stream = BufReader::new(TcpStream::connect(server.addr()).await.unwrap());
    let _ = stream.write_all(bytes).await;
    let answer = timeout(PATIENCE, read_answer(&mut stream)).await.expect("the server keeps silent");
    answer.ok().map(|answer| answer.status)
}

async fn check(server: &Server, client: &mut Client, case: &Case) -> Result<(), String> {
    let mut stream = BufReader::new(TcpStream::connect(server.addr()).await.unwrap());
    for (index, part) in case.parts.iter().enumerate() {
        if index > 0 {
            sleep(Duration::from_millis(1)).await;
        }
        // The server may have answered before it has read all.
        if stream.write_all(part).await.is_err() {
            break;
        }
    }
    for (status, sent) in &case.requests {
        let mut answer = timeout(PATIENCE, read_answer(&mut stream)).await.map_err(|_| "no answer".to_owned())?;
        if answer.as_ref().is_ok_and(|answer| answer.status == 100) {
            answer = timeout(PATIENCE, read_answer(&mut stream)).await.map_err(|_| "no answer".to_owned())?;
        }
        let answer = answer.map_err(|error| format!("no answer: {error}"))?;
        if answer.status != *status {
            return Err(format!("{status} expected, not {}", answer.status));
        }
        let csp = answer.headers.get("content-security-policy").map(|value| value.to_str().unwrap());
        if csp != Some("sandbox; default-src 'none'") || answer.headers["x-content-type-options"] != "nosniff" {
            return Err("an answer that a browser might run".to_owned());
        }
        let newest = client.get("/api/paths/p/logs?limit=1&include_body=false").await.unwrap().expect(200);
        let id = match *status {
            200 => answer.json()["request_id"].clone(),
            _ => newest["data"][0]["id"].clone(),
        };
        let id = id.as_str().ok_or("no id")?;
        let log = client.get(&format!("/api/paths/p/logs/{id}")).await.unwrap().expect(200);
        compare(&log, sent, *status)?;
        let download = client.get(&format!("/api/paths/p/logs/{id}/body")).await.unwrap();
        if !sent.body.starts_with(&download.body) || download.body.len() != sent.body.len().min(1 << 20) {
            return Err(format!("the download has {} bytes", download.body.len()));
        }
    }
    let mut rest = Vec::new();
    drop(timeout(Duration::from_millis(1), stream.read_to_end(&mut rest)).await);
    if rest.is_empty() { Ok(()) } else { Err(format!("one answer too many: {:?}", String::from_utf8_lossy(&rest))) }
}

fn compare(log: &Value, sent: &Sent, status: u16) -> Result<(), String> {
    use sha2::Digest;
    let same = |what: &str, got: &Value, expected: Value| {
        if *got == expected { Ok(()) } else { Err(format!("{what} is {got}, not {expected}")) }
    };
    same("method", &log["method"], json!(sent.method))?;
    same("path", &log["path"], json!(sent.path))?;
    same("query", &log["query_string"], json!(sent.query))?;
    same("status", &log["response_status"], json!(status))?;
    same("trailers", &log.get("trailers").cloned().unwrap_or(json!([])), fields(&sent.trailers))?;
    let framing = ["host", "content-length", "transfer-encoding"];
    let mut headers: Vec<Value> = log["headers"].as_array().unwrap().clone();
    headers.retain(|field| !framing.contains(&field[0].as_str().unwrap()));
    headers.sort_by_key(|field| field[0].as_str().unwrap().to_owned());
    same("headers", &json!(headers), fields(&sent.headers))?;
    let kept = sent.body.len().min(1 << 20);
    same("truncated", &log["body_truncated"], json!(kept < sent.body.len()))?;
    if status == 200 {
        same("size", &log["body_size"], json!(sent.body.len()))?;
        same("hash", &log["body_sha256"], json!(hex(&sha2::Sha256::digest(&sent.body))))?;
    }
    let body = log["body"].as_str().unwrap();
    let body = if log["body_encoding"] == "base64" { STANDARD.decode(body).unwrap() } else { body.as_bytes().to_vec() };
    if body == sent.body[..kept] { Ok(()) } else { Err(format!("the body has {} bytes", body.len())) }
}

fn fields(fields: &[(String, Vec<u8>)]) -> Value {
    let value = |value: &[u8]| match std::str::from_utf8(value) {
        Ok(text) => json!(text),
        Err(_) => json!({"base64": STANDARD.encode(value)}),
    };
    fields.iter().map(|(name, bytes)| json!([name, value(bytes)])).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_goes_away_in_the_middle_leaves_what_came_and_no_success() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), &[]).await;
    let mut client = server.client();
    client.post("/api/paths", &json!({"path_id": "p"})).await.unwrap().expect(201);
    for number in 0..5 {
        let mut stream = TcpStream::connect(server.addr()).await.unwrap();
        let head = format!("POST /webhook/p/{number} HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nhalf a body");
        stream.write_all(head.as_bytes()).await.unwrap();
        if number % 2 == 0 {
            // Until the server has the body's beginning.
            sleep(Duration::from_millis(20)).await;
        }
        drop(stream);
    }
    let logs = crate::support::until("all are kept", async || {
        let logs = client.get("/api/paths/p/logs").await.unwrap().expect(200);
        (logs["data"].as_array().unwrap().len() == 5).then_some(logs)
    })
    .await;
    for log in logs["data"].as_array().unwrap() {
        assert_eq!((&log["body_truncated"], &log["response_status"]), (&json!(true), &json!(400)), "{log}");
        assert_eq!(log["body"], "half a body");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_sent_all_of_a_request_may_go_and_may_close_its_half() {
    const EACH: usize = 50;
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), &[]).await;
    let mut client = server.client();
    client.post("/api/paths", &json!({"path_id": "p"})).await.unwrap().expect(201);
    for number in 0..2 * EACH {
        let mut stream = TcpStream::connect(server.addr()).await.unwrap();
        let request = format!("POST /webhook/p/{number} HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nall");
        stream.write_all(request.as_bytes()).await.unwrap();
        if number % 2 == 0 {
            stream.shutdown().await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 200"), "{number}: {answer:?}");
        }
    }
    let logs = crate::support::until("all are kept", async || {
        let logs = client.get("/api/paths/p/logs?limit=1000").await.unwrap().expect(200);
        (logs["data"].as_array().unwrap().len() == 2 * EACH).then_some(logs)
    })
    .await;
    assert!(logs["data"].as_array().unwrap().iter().all(|log| log["body"] == "all" && log["response_status"] == 200));
    server.stop().await;
}

/// A stranger's path is in the access log, and somebody's terminal shows it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_terminal_would_obey_is_escaped_in_the_log() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), &[]).await;
    let mut stream = TcpStream::connect(server.addr()).await.unwrap();
    let head = "GET /webhook/p/\u{9b}31m\u{202e}txt HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.read_to_end(&mut Vec::new()).await.unwrap();
    let line = crate::support::until("it is logged", async || {
        server.lines().all().into_iter().find(|line| line.contains("31m"))
    })
    .await;
    assert!(line.is_ascii(), "{line:?}");
    assert!(line.contains(r"\u009b31m\u202etxt"), "{line:?}");
    server.stop().await;
}
