//! What strangers send, and what paths answer, harms nobody who looks at it in a browser.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::browser::{Opened, open};
use crate::support::client::Client;
use crate::support::server::Server;

/// What the page at that address becomes.
async fn dom(url: &str) -> String {
    match open(url).await {
        Opened::Page(dom) => dom,
        Opened::Download => panic!("{url} is no page"),
    }
}

/// What a page shows when its script ran. No page contains the word itself.
const RAN: &str = "script-ran";

/// Markup that tries in several ways to run, and to call a path that tells.
fn attack(beacon: &str) -> String {
    format!(
        r#"<!doctype html><html><body><h1>harmless</h1>
        <script>document.body.append("script-" + "ran"); fetch("{beacon}?fetch"); localStorage.x = 1;</script>
        <img src="x:" onerror='document.body.append("script-" + "ran")'><img src="{beacon}?img">
        <svg onload='document.body.append("script-" + "ran")'></svg>
        <link rel="stylesheet" href="{beacon}?css"><iframe src="{beacon}?iframe"></iframe></body></html>"#
    )
}

/// Markup that tries to lead the browser to a path that tells.
fn lure(beacon: &str) -> String {
    format!(
        r#"<html><head><meta http-equiv="refresh" content="0;url={beacon}?refresh"></head><body><h1>harmless</h1>
        <form id="f" action="{beacon}?form"></form><script>document.getElementById("f").submit()</script></body></html>"#
    )
}

fn svg(beacon: &str) -> String {
    format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg"><text>harmless</text><script>
        const text = document.createElementNS("http://www.w3.org/2000/svg", "text");
        text.textContent = "script-" + "ran"; document.documentElement.append(text);
        fetch("{beacon}?svg");</script></svg>"#
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn markup_and_scripts_from_strangers_harm_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), &[]).await;
    let base = format!("http://{}", server.addr());
    let mut client = server.client();
    client.post("/api/paths", &json!({"path_id": "beacon"})).await.unwrap().expect(201);
    let beacon = format!("{base}/webhook/beacon");

    // The control: without what guards a path's answers, all of this works.
    let plain = serve_plainly(attack(&beacon)).await;
    assert!(dom(&format!("http://{plain}/")).await.contains(RAN), "the attack works in this browser");
    let plain = serve_plainly(lure(&beacon)).await;
    assert!(!dom(&format!("http://{plain}/")).await.contains("harmless"), "the lure works in this browser");
    let calls = calls(&mut client).await;
    for way in ["fetch", "img", "css", "iframe"] {
        assert!(calls.iter().any(|call| call == way), "{way} is not in {calls:?}");
    }
    client.send("DELETE", "/api/paths/beacon/logs", b"").await.unwrap();

    for (name, media, markup) in [
        ("html", "text/html", attack(&beacon)),
        ("xhtml", "application/xhtml+xml", attack(&beacon).replace("<!doctype html>", "")),
        ("svg", "image/svg+xml", svg(&beacon)),
        ("lure", "text/html", lure(&beacon)),
        ("unnamed", "", attack(&beacon)),
        ("wrong", "x/y", attack(&beacon)),
    ] {
        let headers = if media.is_empty() { json!({}) } else { json!({"Content-Type": media}) };
        let path = json!({"path_id": name, "response": {"body": markup, "headers": headers}});
        client.post("/api/paths", &path).await.unwrap().expect(201);
        match open(&format!("{base}/webhook/{name}")).await {
            Opened::Page(page) => assert!(!page.contains(RAN), "{name}: {page}"),
            Opened::Download => assert_eq!(name, "wrong"),
        }
    }

    let id = captured(&mut server.client(), &attack(&beacon)).await;
    for page in [
        format!("/api/paths/target/logs/{id}"),
        "/api/paths/target/logs".to_owned(),
        "/api/paths/target".to_owned(),
        "/api/dashboard/stats".to_owned(),
        "/webhook/target/<img src=x onerror=alert(1)>".replace(' ', "%20"),
        "/webhook/nowhere/%3Cscript%3E".to_owned(),
    ] {
        let shown = dom(&format!("{base}{page}")).await;
        assert!(!shown.contains(RAN), "{page}: {shown}");
    }
    for file in ["export?format=json", "export?format=csv", "export?format=har", &format!("logs/{id}/body")] {
        match open(&format!("{base}/api/paths/target/{file}")).await {
            Opened::Download => {}
            // At times it ends without the file, but it never shows what is in it.
            Opened::Page(page) => assert_eq!(page.trim(), "", "{file}"),
        }
    }
    assert_eq!(self::calls(&mut server.client()).await, [""; 0], "no page called the path that tells");
    server.stop().await;
}

/// The queries that the path that tells was called with.
async fn calls(client: &mut Client) -> Vec<String> {
    let logs = client.get("/api/paths/beacon/logs").await.unwrap().expect(200);
    let query = |log: &Value| log["query_string"].as_str().unwrap_or_default().to_owned();
    logs["data"].as_array().unwrap().iter().map(query).collect()
}

/// A request full of markup, in its path, query, headers and body; its id.
async fn captured(client: &mut Client, markup: &str) -> String {
    client.post("/api/paths", &json!({"path_id": "target", "description": markup})).await.unwrap().expect(201);
    let line = markup.replace('\n', " ");
    let mut sender = Client::new(client.addr())
        .with_header("x-attack", &line)
        .with_header("user-agent", &line)
        .with_header("referer", "javascript:alert(1)");
    let answer = sender.send("POST", "/webhook/target/%3Cscript%3E?q=%3Cscript%3E", markup.as_bytes()).await.unwrap();
    answer.expect(200)["request_id"].as_str().unwrap().to_owned()
}

/// Serves markup as a careless server would.
async fn serve_plainly(markup: String) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{markup}",
                markup.len()
            );
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    addr
}
