//! A private PostgreSQL server.

use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::binaries;
use crate::home::{Home, send, wait_for};
use crate::port::Port;

const START: Duration = Duration::from_secs(60);
const ATTEMPTS: usize = 5;

/// Small enough that recovery after a kill takes seconds. Everything else is PostgreSQL's default, `fsync` included.
const SETTINGS: [&str; 5] = [
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",
    "max_connections=200",
    "max_wal_size=256MB",
    "checkpoint_timeout=30s",
];

/// A private PostgreSQL server on loopback: user and database `postgres`, no password.
#[derive(Debug)]
pub struct PostgresServer {
    home: Home,
    port: Port,
    binaries: PathBuf,
    settings: Vec<String>,
}

impl PostgresServer {
    /// A new, empty server that is as durable as one in production.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// A new, empty server with further settings, each `name=value`.
    pub fn start_with(settings: &[&str]) -> Self {
        let binaries = binaries::postgres_dir();
        // The immediate shutdown: nothing of its shared memory stays.
        let home = Home::new("postgres", "QUIT");
        if let Some(user) = unprivileged_user() {
            chown(home.path(), Some(user), None).expect("root may give a directory away");
        }
        let initdb = run(as_server(binaries.join("initdb"))
            .args(["--username=postgres", "--auth=trust", "--no-locale", "--encoding=UTF8", "--no-sync", "-D"])
            .arg(home.path().join("data")));
        assert!(initdb.0, "initdb failed:\n{}", initdb.1);
        let settings = settings.iter().map(ToString::to_string).collect();
        let mut server = Self { home, port: Port::reserve(), binaries, settings };
        for _ in 0..ATTEMPTS {
            if server.launch() {
                return server;
            }
            assert!(server.home.log().contains("Address already in use"), "no start:\n{}", server.home.log());
            server.port = Port::reserve();
        }
        panic!("the server found no free port:\n{}", server.home.log());
    }

    /// The URL of the database `postgres`.
    pub fn url(&self) -> String {
        format!("postgres://postgres@{}/postgres", self.addr())
    }

    /// Where it listens; the same after a restart.
    pub fn addr(&self) -> SocketAddr {
        self.port.addr()
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        self.home.path()
    }

    /// The postmaster's process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.home.pid()
    }

    /// `kill -9` of the postmaster. Its sessions end too, as soon as they notice.
    pub fn kill(&self) {
        self.home.end(Signal::KILL);
    }

    /// The immediate shutdown: no checkpoint, recovery at the next start.
    pub fn stop_immediate(&self) {
        self.home.end(Signal::QUIT);
    }

    /// The fast shutdown: sessions are ended, and a checkpoint is made.
    pub fn stop_fast(&self) {
        self.home.end(Signal::INT);
    }

    /// Starts it on the same data and port; stops it fast first if it runs.
    pub fn restart(&self) {
        self.stop_fast();
        // Sessions of a killed postmaster hold its shared memory for a moment.
        for _ in 0..100 {
            if self.launch() {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("the server did not start again:\n{}", self.home.log());
    }

    /// `kill -9` of one client's session, if there is any: PostgreSQL then ends all sessions and recovers. Returns the
    /// session's process.
    pub fn kill_one_backend(&self) -> Option<u32> {
        let backends = "select pid from pg_stat_activity where backend_type = 'client backend' \
                        and pid <> pg_backend_pid() limit 1";
        let pid = self.sql(&self.url(), backends).trim().parse().ok()?;
        send(pid, Signal::KILL);
        Some(pid)
    }

    /// Freezes the postmaster and all its sessions.
    pub fn pause(&self) {
        self.signal_all(Signal::STOP);
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.signal_all(Signal::CONT);
    }

    /// What a statement answers, without any decoration, in the database of this URL.
    pub fn sql(&self, url: &str, statement: &str) -> String {
        psql(&self.binaries, url, statement)
    }

    /// What it wrote to its log.
    pub fn log(&self) -> String {
        self.home.log()
    }

    /// False when the process ended instead of getting ready.
    fn launch(&self) -> bool {
        let data = self.home.path().join("data");
        let mut command: Vec<OsString> = Vec::new();
        let postgres = as_server(self.binaries.join("postgres"));
        command.push(postgres.get_program().to_owned());
        command.extend(postgres.get_args().map(ToOwned::to_owned));
        command.extend(["-D".into(), data.clone().into(), "-p".into(), self.port.number().to_string().into()]);
        for setting in SETTINGS.into_iter().chain(self.settings.iter().map(String::as_str)) {
            command.extend(["-c".into(), setting.into()]);
        }
        self.home.spawn(command);
        let mut ended = false;
        let started = wait_for(START, || {
            ended = self.home.ended();
            ended || self.home.pid().is_some_and(|pid| is_ready(&data, pid))
        });
        assert!(started, "the server did not get ready:\n{}", self.home.log());
        !ended
    }

    fn signal_all(&self, signal: Signal) {
        let postmaster = self.home.pid().expect("the server runs");
        let children = fs::read_to_string(format!("/proc/{postmaster}/task/{postmaster}/children"));
        // The parent first: it starts nothing new then.
        send(postmaster, signal);
        for child in children.unwrap_or_default().split_whitespace() {
            send(child.parse().expect("the kernel lists numbers"), signal);
        }
    }
}

/// The last line that the postmaster writes to its lock file says so; the first one has its number.
fn is_ready(data: &Path, pid: u32) -> bool {
    let Ok(lock) = fs::read_to_string(data.join("postmaster.pid")) else { return false };
    lock.lines().next() == Some(&pid.to_string()) && lock.lines().nth(7).is_some_and(|line| line.trim() == "ready")
}

pub(crate) fn psql(binaries: &Path, url: &str, statement: &str) -> String {
    let (ok, output) = run(Command::new(binaries.join("psql"))
        .args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1", "--command"])
        .arg(statement)
        .arg(url));
    assert!(ok, "psql failed: {statement}\n{output}");
    output
}

/// PostgreSQL refuses to run as root.
pub(crate) fn as_server(binary: PathBuf) -> Command {
    if unprivileged_user().is_none() {
        return Command::new(binary);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]).arg(binary);
    command
}

/// Whom the server runs as when this process is root.
pub(crate) fn unprivileged_user() -> Option<u32> {
    if !rustix::process::getuid().is_root() {
        return None;
    }
    let (ok, output) = run(Command::new("id").args(["-u", "postgres"]));
    let user = output.trim().parse().ok().filter(|_| ok);
    Some(user.expect("PostgreSQL refuses to run as root, and there is no user postgres: create one"))
}

fn run(command: &mut Command) -> (bool, String) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?} does not run: {error}"));
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        text.push_str(&String::from_utf8_lossy(&output.stderr));
    }
    (output.status.success(), text)
}
