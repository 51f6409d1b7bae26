//! A server as a child process.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(90);

#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    pub(crate) pid: u32,
    pub(crate) addr: SocketAddr,
}

impl Process {
    /// This program as a server with those arguments, once it listens. What it logs goes to that file.
    pub(crate) async fn start(program: &Path, arguments: &[String], log: &Path) -> Self {
        let file = File::options().create(true).append(true).open(log).expect("the log opens");
        let mut child = Command::new(program)
            .arg("node")
            .args(arguments)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(file)
            .kill_on_drop(true)
            .spawn()
            .expect("the program runs");
        let pid = child.id().expect("the server runs");
        let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let line = timeout(PATIENCE, lines.next_line()).await.expect("a server starts in time").expect("it is text");
        match line.as_deref().and_then(|line| line.strip_prefix("listening ")) {
            Some(addr) => Self { child, pid, addr: addr.parse().expect("an address") },
            None => panic!("the server did not start:\n{}", fs::read_to_string(log).unwrap_or_default()),
        }
    }

    pub(crate) async fn kill(mut self) {
        self.child.kill().await.expect("a child can be killed");
    }

    pub(crate) async fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.pid.to_string()]).status().await;
        assert!(status.expect("kill runs").success(), "{name} was not sent");
    }

    /// Stops it cleanly; whether that went well.
    pub(crate) async fn stop(mut self) -> bool {
        self.signal("TERM").await;
        self.ended().await.is_some_and(|status| status.success())
    }

    /// How it ended; none if it does not.
    pub(crate) async fn ended(&mut self) -> Option<ExitStatus> {
        timeout(PATIENCE, self.child.wait()).await.ok().map(|status| status.expect("a child can be waited for"))
    }
}

/// A figure of `/proc/PID/status` in MiB; none when the process has gone.
pub(crate) fn memory(pid: u32, name: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().ok().map(|kib| kib / 1024)
}

/// Open descriptors; none when the process has gone.
pub(crate) fn descriptors(pid: u32) -> Option<usize> {
    Some(fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count())
}
