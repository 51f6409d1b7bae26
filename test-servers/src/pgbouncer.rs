//! A private PgBouncer before a PostgreSQL server.

use std::ffi::OsString;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::chown;
use std::path::PathBuf;
use std::time::Duration;

use crate::binaries;
use crate::home::{Home, wait_for};
use crate::port::Port;
use crate::postgres::{as_server, unprivileged_user};

const START: Duration = Duration::from_secs(20);
const ATTEMPTS: usize = 5;

/// A private PgBouncer in transaction mode: each transaction may get another session of the few that there are.
#[derive(Debug)]
pub struct PgBouncer {
    home: Home,
    port: Port,
    binary: PathBuf,
    upstream: SocketAddr,
}

impl PgBouncer {
    /// Before the server at `upstream`, whose users need no password, with so many sessions for each database.
    pub fn start(upstream: SocketAddr, sessions: u32) -> Self {
        let home = Home::new("pgbouncer", "KILL");
        let mut pooler = Self { home, port: Port::reserve(), binary: binaries::pgbouncer(), upstream };
        for _ in 0..ATTEMPTS {
            if pooler.launch(sessions) {
                return pooler;
            }
            assert!(pooler.home.log().contains("ddress already in use"), "no start:\n{}", pooler.home.log());
            pooler.port = Port::reserve();
        }
        panic!("PgBouncer found no free port:\n{}", pooler.home.log());
    }

    /// The URL of a database of the server, by way of this pooler.
    pub fn rewrite(&self, url: &str) -> String {
        url.replace(&self.upstream.to_string(), &self.port.addr().to_string())
    }

    /// False when the process ended instead of getting ready.
    fn launch(&self, sessions: u32) -> bool {
        let settings = format!(
            "[databases]\n* = host={} port={} user=postgres\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {}\nunix_socket_dir =\nauth_type = any\n\
             pool_mode = transaction\ndefault_pool_size = {sessions}\nserver_idle_timeout = 2\nmax_client_conn = 500\n\
             ignore_startup_parameters = extra_float_digits\n",
            self.upstream.ip(),
            self.upstream.port(),
            self.port.number(),
        );
        let file = self.home.path().join("pgbouncer.ini");
        fs::write(&file, settings).expect("the directory is writable");
        // It refuses to run as root, too.
        if let Some(user) = unprivileged_user() {
            chown(self.home.path(), Some(user), None).expect("root may give a directory away");
        }
        let pgbouncer = as_server(self.binary.clone());
        let mut command: Vec<OsString> = vec![pgbouncer.get_program().to_owned()];
        command.extend(pgbouncer.get_args().map(ToOwned::to_owned));
        command.push(file.into());
        self.home.spawn(command);
        let mut ended = false;
        let started = wait_for(START, || {
            ended = self.home.ended();
            ended || TcpStream::connect(self.port.addr()).is_ok()
        });
        assert!(started, "PgBouncer did not get ready:\n{}", self.home.log());
        !ended
    }
}
