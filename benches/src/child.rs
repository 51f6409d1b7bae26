//! Processes of the benchmark, and what they have used.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::Error;
use crate::histogram::Percentiles;

/// A part of this program in a process of its own, which ends with it.
#[derive(Debug)]
pub(crate) struct Part {
    process: Child,
    pub(crate) addr: SocketAddr,
}

impl Part {
    pub(crate) async fn start(arguments: &[&str]) -> Result<Self, Error> {
        let mut process =
            Command::new(std::env::current_exe()?).args(arguments).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
        let stdout = process.stdout.take().ok_or("the part has no output")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).await?;
        let addr = line.trim().parse().map_err(|_| format!("the part did not start: {line}"))?;
        Ok(Self { process, addr })
    }

    pub(crate) fn usage(&self) -> Usage {
        self.process.id().map(Usage::of).unwrap_or_default()
    }

    /// The figures of a receiver: all by `GET`, only the number by `OPTIONS`; `DELETE` forgets them.
    pub(crate) async fn figures(&self, method: &str) -> Result<Percentiles, Error> {
        let mut stream = TcpStream::connect(self.addr).await?;
        stream.write_all(format!("{method} / HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await?;
        let mut answer = Vec::new();
        loop {
            stream.read_buf(&mut answer).await?;
            if let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n")
                && let Ok(figures) = serde_json::from_slice(&answer[end + 4..])
            {
                return Ok(figures);
            }
        }
    }
}

/// What a process has used.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    pub(crate) cpu_seconds: f64,
    pub(crate) peak_mib: f64,
    /// Resident now.
    pub(crate) mib: f64,
}

impl Usage {
    pub(crate) fn of_this_process() -> Self {
        Self::of(std::process::id())
    }

    fn of(process: u32) -> Self {
        let folder = Path::new("/proc").join(process.to_string());
        let stat = std::fs::read_to_string(folder.join("stat")).unwrap_or_default();
        // Past the name in parentheses, user and system time are fields 12 and 13, in hundredths of a second.
        let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |field: usize| fields.get(field).and_then(|ticks| ticks.parse().ok()).unwrap_or(0.0);
        let status = std::fs::read_to_string(folder.join("status")).unwrap_or_default();
        let mib = |name| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
        };
        Self { cpu_seconds: (ticks(11) + ticks(12)) / 100.0, peak_mib: mib("VmHWM:"), mib: mib("VmRSS:") }
    }
}
