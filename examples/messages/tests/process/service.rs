//! The service as a child process, which ends with the test.

use std::net::SocketAddr;
use std::process::{Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};
use webhook_test_servers::TestDatabase;

use crate::client::{Client, SECRET};

/// Longer than anything takes, so that only what would never happen fails by it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Service {
    child: Child,
    pub(crate) client: Client,
    lines: Arc<Mutex<Vec<String>>>,
    pub(crate) directory: TempDir,
    _database: Option<TestDatabase>,
}

/// The program, without the variables of whoever runs the tests.
pub(crate) fn program(directory: &TempDir) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_webhook-messages"));
    command.env_clear().current_dir(directory).stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// Runs the program to its end.
pub(crate) async fn output(command: &mut Command) -> Output {
    timeout(PATIENCE, command.output()).await.expect("the program does not end").unwrap()
}

impl Service {
    /// On the default database, in a folder of its own.
    pub(crate) async fn on_sqlite() -> Self {
        Self::start(tempfile::tempdir().unwrap(), None).await
    }

    pub(crate) async fn on_postgres() -> Self {
        let database = tokio::task::spawn_blocking(TestDatabase::fresh).await.unwrap();
        Self::start(tempfile::tempdir().unwrap(), Some(database)).await
    }

    pub(crate) async fn start(directory: TempDir, database: Option<TestDatabase>) -> Self {
        let url = database.as_ref().map(|database| database.url().to_owned());
        Self { _database: database, ..Self::start_on(directory, url.as_deref()).await }
    }

    pub(crate) async fn start_on(directory: TempDir, url: Option<&str>) -> Self {
        let mut command = program(&directory);
        command.envs([("WEBHOOK_SECRET", SECRET), ("LISTEN_ADDR", "127.0.0.1:0")]);
        if let Some(url) = url {
            command.env("DATABASE_URL", url);
        }
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = Arc::default();
        follow(&lines, child.stdout.take().unwrap());
        follow(&lines, child.stderr.take().unwrap());
        let deadline = Instant::now() + PATIENCE;
        let addr: SocketAddr = loop {
            let known = lines.lock().unwrap().clone();
            if let Some(addr) = known.iter().find_map(|line| addr(line)) {
                break addr;
            }
            assert!(child.try_wait().unwrap().is_none() && Instant::now() < deadline, "does not listen: {known:?}");
            sleep(Duration::from_millis(5)).await;
        };
        Self { child, client: Client(addr), lines, directory, _database: None }
    }

    /// Waits for a line of the log that `wanted` takes.
    pub(crate) async fn line(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let lines = self.lines.lock().unwrap().clone();
            if let Some(line) =
                lines.iter().filter_map(|line| serde_json::from_str(line).ok()).find(|line| wanted(line))
            {
                return line;
            }
            assert!(Instant::now() < deadline, "no such line: {lines:?}");
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// kill -9; what is left is a folder.
    pub(crate) async fn kill(mut self) -> TempDir {
        self.child.kill().await.unwrap();
        self.directory
    }

    /// Stops it cleanly; what is left is its log.
    pub(crate) async fn stop(mut self) -> Vec<String> {
        let id = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").args(["-s", "TERM", &id]).status().await.unwrap().success());
        let status = timeout(PATIENCE, self.child.wait()).await.expect("does not end").unwrap();
        assert!(status.success(), "{status}");
        self.lines.lock().unwrap().clone()
    }
}

fn addr(line: &str) -> Option<SocketAddr> {
    let line: Value = serde_json::from_str(line).ok()?;
    (line["message"] == "listening").then(|| line["addr"].as_str().unwrap().parse().unwrap())
}

fn follow(lines: &Arc<Mutex<Vec<String>>>, stream: impl AsyncRead + Unpin + Send + 'static) {
    let lines = Arc::clone(lines);
    tokio::spawn(async move {
        let mut reader = BufReader::new(stream).lines();
        while let Ok(Some(line)) = reader.next_line().await {
            lines.lock().unwrap().push(line);
        }
    });
}
