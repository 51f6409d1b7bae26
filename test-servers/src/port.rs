//! Ports that no other test takes.

use std::env;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

/// Below the range from which systems choose the ports of outgoing connections: such a connection could otherwise take
/// the port of a server while that restarts.
const FIRST: u16 = 20_000;
const COUNT: u16 = 10_000;

/// A free port on loopback, kept from the other test processes of this machine until it is dropped.
#[derive(Debug)]
pub(crate) struct Port {
    number: u16,
    _lock: File,
}

impl Port {
    pub(crate) fn reserve() -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let dir = env::temp_dir().join("webhook-test-servers.ports");
        fs::create_dir_all(&dir).expect("temp is writable");
        // Processes start at ports far from each other.
        let start = std::process::id().wrapping_mul(131);
        for _ in 0..COUNT {
            let offset = u32::from(NEXT.fetch_add(1, Ordering::Relaxed)).wrapping_add(start) % u32::from(COUNT);
            let number = FIRST + u16::try_from(offset).expect("below the count");
            let Ok(lock) = File::create(dir.join(number.to_string())) else { continue };
            if lock.try_lock().is_ok() && TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok() {
                return Self { number, _lock: lock };
            }
        }
        panic!("no port between {FIRST} and {} is free", FIRST + COUNT);
    }

    pub(crate) fn number(&self) -> u16 {
        self.number
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.number).into()
    }
}
