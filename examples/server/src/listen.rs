//! Where the server listens.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::config::ConfigError;

const DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);

/// From `--listen`, else `port` on all addresses, else port 8080 of this machine alone.
pub(crate) fn resolve(listen: Option<&str>, port: Option<&str>) -> Result<SocketAddr, ConfigError> {
    match (listen, port) {
        (Some(listen), _) => parse(listen).ok_or_else(|| ConfigError::Listen(listen.to_owned())),
        (None, Some(port)) => match port.trim().parse() {
            Ok(port) => Ok((Ipv4Addr::UNSPECIFIED, port).into()),
            Err(_) => Err(ConfigError::Port(port.to_owned())),
        },
        (None, None) => Ok(DEFAULT),
    }
}

/// `localhost` and a missing address need no look-up.
fn parse(text: &str) -> Option<SocketAddr> {
    let text = text.trim();
    if let Ok(addr) = text.parse() {
        return Some(addr);
    }
    let (host, port) = text.rsplit_once(':')?;
    let ip = match host {
        "localhost" => Ipv4Addr::LOCALHOST,
        "" | "*" => Ipv4Addr::UNSPECIFIED,
        _ => return None,
    };
    Some((ip, port.parse().ok()?).into())
}

/// Where a client on this machine reaches a server that listens there.
pub(crate) fn from_here(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    (ip, listen.port()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_wins_over_the_port() {
        for (listen, port, expected) in [
            (None, None, "127.0.0.1:8080"),
            (None, Some("9000"), "0.0.0.0:9000"),
            (Some("[::1]:80"), Some("9000"), "[::1]:80"),
            (Some("localhost:0"), None, "127.0.0.1:0"),
            (Some(":8080"), None, "0.0.0.0:8080"),
        ] {
            assert_eq!(resolve(listen, port).unwrap().to_string(), expected);
        }
    }

    #[test]
    fn refuses_what_is_no_address() {
        for listen in ["", "8080", "example.com:80", "127.0.0.1", "localhost:http"] {
            assert!(resolve(Some(listen), None).is_err(), "{listen}");
        }
        assert!(resolve(None, Some("70000")).is_err());
    }

    #[test]
    fn everywhere_is_reached_at_home() {
        for (listen, here) in [("0.0.0.0:1", "127.0.0.1:1"), ("[::]:1", "[::1]:1"), ("10.0.0.1:1", "10.0.0.1:1")] {
            assert_eq!(from_here(listen.parse().unwrap()).to_string(), here);
        }
    }
}
