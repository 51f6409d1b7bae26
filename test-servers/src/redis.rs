//! A private Redis server.

use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;

use crate::binaries;
use crate::home::{Home, wait_for};
use crate::port::Port;
use crate::resp::ask;

const START: Duration = Duration::from_secs(20);
const ATTEMPTS: usize = 5;

/// A private Redis server on loopback, without a password. It writes nothing to the disk by itself.
#[derive(Debug)]
pub struct RedisServer {
    home: Home,
    port: Port,
    /// Where a node of a cluster listens to the others; reserved too, as the default can be taken.
    bus_port: Option<Port>,
    binary: PathBuf,
    arguments: Vec<String>,
}

impl RedisServer {
    /// A new, empty server.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// A new, empty server with further arguments, such as `["--maxmemory", "1mb"]`.
    pub fn start_with(arguments: &[&str]) -> Self {
        Self::start_on(arguments, || (Port::reserve(), None))
    }

    /// A node of a cluster that does not know of the others yet.
    pub(crate) fn start_node(arguments: &[&str]) -> Self {
        Self::start_on(arguments, || (Port::reserve(), Some(Port::reserve())))
    }

    fn start_on(arguments: &[&str], ports: impl Fn() -> (Port, Option<Port>)) -> Self {
        let home = Home::new("redis", "KILL");
        let arguments = arguments.iter().map(ToString::to_string).collect();
        let (port, bus_port) = ports();
        let mut server = Self { home, port, bus_port, binary: binaries::redis_server(), arguments };
        for _ in 0..ATTEMPTS {
            if server.launch() {
                return server;
            }
            assert!(server.home.log().contains("Address already in use"), "no start:\n{}", server.home.log());
            (server.port, server.bus_port) = ports();
        }
        panic!("the server found no free port:\n{}", server.home.log());
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("redis://{}", self.addr())
    }

    /// Where it listens; the same after a restart.
    pub fn addr(&self) -> SocketAddr {
        self.port.addr()
    }

    pub(crate) fn bus_port(&self) -> Option<u16> {
        self.bus_port.as_ref().map(Port::number)
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        self.home.path()
    }

    /// Its process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.home.pid()
    }

    /// `kill -9`.
    pub fn kill(&self) {
        self.home.end(Signal::KILL);
    }

    /// Starts it with what it last saved, or empty if it never did; kills it first if it runs.
    pub fn restart(&self) {
        self.kill();
        assert!(self.launch(), "the server did not start again:\n{}", self.home.log());
    }

    /// Starts it without anything that it held; kills it first if it runs.
    pub fn restart_empty(&self) {
        self.kill();
        let _ = fs::remove_file(self.home.path().join("dump.rdb"));
        assert!(self.launch(), "the server did not start again:\n{}", self.home.log());
    }

    /// Freezes it.
    pub fn pause(&self) {
        self.home.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.home.signal(Signal::CONT);
    }

    /// What a command answers: a line, a number or a string; an error starts with `-`.
    pub fn command(&self, command: &[&str]) -> String {
        ask(self.addr(), command).unwrap_or_else(|error| panic!("{command:?}: {error}"))
    }

    /// What it wrote to its log.
    pub fn log(&self) -> String {
        self.home.log()
    }

    /// False when the process ended instead of getting ready.
    fn launch(&self) -> bool {
        let port = self.port.number().to_string();
        let mut command: Vec<OsString> = vec![self.binary.clone().into()];
        command.extend(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"].map(Into::into));
        command.extend(["--dir".into(), self.home.path().into()]);
        if let Some(bus_port) = self.bus_port() {
            command.extend(["--cluster-port".into(), bus_port.to_string().into()]);
        }
        command.extend(self.arguments.iter().map(Into::into));
        self.home.spawn(command);
        let mut ended = false;
        let started = wait_for(START, || {
            ended = self.home.ended();
            ended || ask(self.addr(), &["PING"]).is_ok_and(|answer| answer == "PONG")
        });
        assert!(started, "the server did not get ready:\n{}", self.home.log());
        !ended
    }
}
