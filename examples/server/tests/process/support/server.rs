//! The server as a child process, which ends with the test.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::client::Client;
use super::{PATIENCE, until};

/// The program, without the variables of whoever runs the tests.
pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_webhook-server"));
    command.env_clear().stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// Runs the program to its end.
pub(crate) async fn output(command: &mut Command) -> Output {
    timeout(PATIENCE, command.output()).await.expect("the program does not end").unwrap()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub(crate) struct Server {
    child: Child,
    addr: SocketAddr,
    lines: Lines,
}

/// What a process has written so far.
#[derive(Clone, Default)]
pub(crate) struct Lines(Arc<Mutex<Vec<String>>>);

impl Server {
    /// On a file in `directory` and a free port, with loopback targets allowed and JSON logs.
    pub(crate) async fn start(directory: &Path, arguments: &[&str]) -> Self {
        Self::on(&sqlite_url(directory), arguments).await
    }

    /// The same on the database at that URL.
    pub(crate) async fn on(database_url: &str, arguments: &[&str]) -> Self {
        let mut command = program();
        command
            .args(["--listen=127.0.0.1:0", "--allow-network=127.0.0.0/8", "--log-format=json", "--database-url"])
            .arg(database_url)
            .args(arguments);
        Self::spawn(&mut command).await
    }

    /// As the command says, once it listens.
    pub(crate) async fn spawn(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = Lines::default();
        lines.follow(child.stdout.take().unwrap());
        lines.follow(child.stderr.take().unwrap());
        let addr = until("the server listens", async || {
            if let Some(status) = child.try_wait().unwrap() {
                panic!("the server ended with {status}: {:?}", lines.all());
            }
            lines.json().iter().find(|line| line["message"] == "listening")?["addr"].as_str()?.parse().ok()
        })
        .await;
        Self { child, addr, lines }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(self.addr)
    }

    /// What `/metrics` says of one figure; zero where there is none yet.
    pub(crate) async fn figure(&self, name: &str) -> f64 {
        let figures = self.client().get("/metrics").await.unwrap();
        let text = String::from_utf8(figures.body).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().unwrap())
    }

    pub(crate) fn lines(&self) -> &Lines {
        &self.lines
    }

    /// kill -9.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Sends a signal by its name.
    pub(crate) async fn signal(&self, name: &str) {
        let id = self.child.id().expect("the server runs").to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().await.unwrap().success());
    }

    pub(crate) async fn ended(&mut self) -> ExitStatus {
        match timeout(PATIENCE, self.child.wait()).await {
            Ok(status) => status.unwrap(),
            Err(_) => {
                let lines = self.lines.all();
                panic!("the server does not end; it last wrote {:#?}", &lines[lines.len().saturating_sub(30)..]);
            }
        }
    }

    /// Stops it cleanly.
    pub(crate) async fn stop(mut self) {
        self.signal("TERM").await;
        let status = self.ended().await;
        assert!(status.success(), "{status}: {:?}", self.lines.all());
    }
}

pub(crate) fn database_url(directory: &Path) -> String {
    format!("--database-url={}", sqlite_url(directory))
}

pub(crate) fn sqlite_url(directory: &Path) -> String {
    format!("sqlite://{}", directory.join("webhook.db").display())
}

impl Lines {
    fn follow(&self, stream: impl AsyncRead + Unpin + Send + 'static) {
        let lines = self.clone();
        tokio::spawn(async move {
            let mut reader = BufReader::new(stream).lines();
            while let Ok(Some(line)) = reader.next_line().await {
                lines.0.lock().unwrap().push(line);
            }
        });
    }

    pub(crate) fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    pub(crate) fn json(&self) -> Vec<Value> {
        self.all().iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}
