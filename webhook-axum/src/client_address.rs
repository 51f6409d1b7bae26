//! Who sent a request, as far as proxies are believed.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;
use ipnet::IpNet;

/// The sender's address, given who is connected.
///
/// Each proxy appends the address that it saw, so the headers are read from the right, and only as far as the addresses
/// are those of trusted proxies: what stands left of the first other one is the sender's own invention. A proxy keeps up
/// `Forwarded` (RFC 7239) or `X-Forwarded-For` and passes the other one on as it came; where both are there and
/// disagree, neither is believed.
pub(crate) fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let peer = peer.to_canonical();
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(&address));
    if !is_trusted(peer) {
        return peer;
    }
    let walk = |hops: Vec<Option<IpAddr>>| {
        let mut address = peer;
        for hop in hops.into_iter().rev() {
            let Some(hop) = hop else { break };
            address = hop;
            if !is_trusted(hop) {
                break;
            }
        }
        address
    };
    match (forwarded(headers), x_forwarded_for(headers)) {
        (None, None) => peer,
        (Some(hops), None) | (None, Some(hops)) => walk(hops),
        (Some(one), Some(other)) => {
            let (one, other) = (walk(one), walk(other));
            if one == other { one } else { peer }
        }
    }
}

/// The hops of `X-Forwarded-For`, nearest last; none without the header. A hop that is no address is none.
fn x_forwarded_for(headers: &HeaderMap) -> Option<Vec<Option<IpAddr>>> {
    hops(headers, "x-forwarded-for", |value| value.split(',').map(address).collect())
}

/// The hops of `Forwarded`, nearest last.
fn forwarded(headers: &HeaderMap) -> Option<Vec<Option<IpAddr>>> {
    hops(headers, "forwarded", |value| {
        let parameter = |parameter: &str| {
            let (name, value) = parameter.split_once('=')?;
            name.trim().eq_ignore_ascii_case("for").then(|| address(value.trim().trim_matches('"')))?
        };
        split(value, ',').map(|element| split(element, ';').find_map(parameter)).collect()
    })
}

/// The hops in all lines of a header, in order: a list may be in several (RFC 9110 section 5.3).
fn hops(headers: &HeaderMap, name: &str, read: impl Fn(&str) -> Vec<Option<IpAddr>>) -> Option<Vec<Option<IpAddr>>> {
    let mut lines = headers.get_all(name).iter().peekable();
    lines.peek()?;
    Some(lines.flat_map(|line| line.to_str().map_or_else(|_| vec![None], &read)).collect())
}

/// The parts between separators that are not inside of quotes.
fn split(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    text.split(move |character| {
        quoted ^= character == '"';
        !quoted && character == separator
    })
}

/// An address, with or without a port.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let parsed = bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|socket| socket.ip()));
    parsed.map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(peer: &str, headers: &[(&'static str, &str)]) -> String {
        let trusted: Vec<IpNet> = ["10.0.0.0/8", "fd00::/8"].iter().map(|network| network.parse().unwrap()).collect();
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        client_address(peer.parse().unwrap(), &map, &trusted).to_string()
    }

    #[test]
    fn nobody_but_a_trusted_proxy_is_believed() {
        assert_eq!(
            told("198.51.100.1", &[("x-forwarded-for", "192.0.2.1"), ("forwarded", "for=192.0.2.1")]),
            "198.51.100.1"
        );
        assert_eq!(told("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(told("10.0.0.1", &[("x-forwarded-for", "192.0.2.1")]), "192.0.2.1");
        assert_eq!(told("::ffff:10.0.0.1", &[("x-forwarded-for", "192.0.2.1")]), "192.0.2.1");
    }

    #[test]
    fn what_stands_left_of_the_first_stranger_is_invented() {
        let header = "203.0.113.9, 192.0.2.1, 10.0.0.7";
        assert_eq!(told("10.0.0.1", &[("x-forwarded-for", header)]), "192.0.2.1");
        let lines = [("x-forwarded-for", "203.0.113.9"), ("x-forwarded-for", "192.0.2.1,10.2.0.7")];
        assert_eq!(told("10.0.0.1", &lines), "192.0.2.1");
        assert_eq!(told("10.0.0.1", &[("x-forwarded-for", "192.0.2.1, nonsense, 10.0.0.7")]), "10.0.0.7");
        assert_eq!(told("10.0.0.1", &[("x-forwarded-for", "10.0.0.3, 10.0.0.2")]), "10.0.0.3", "all are proxies");
        assert_eq!(told("10.0.0.1", &[("x-forwarded-for", "")]), "10.0.0.1");
    }

    #[test]
    fn forwarded_is_read_with_quotes_ports_and_unknowns() {
        for (header, expected) in [
            ("for=192.0.2.43", "192.0.2.43"),
            ("For=\"192.0.2.43:47011\";proto=http", "192.0.2.43"),
            ("proto=https;by=\"a,b;c\";for=\"[2001:db8:cafe::17]:4711\"", "2001:db8:cafe::17"),
            ("for=203.0.113.9, for=192.0.2.43;host=x, for=\"[fd00::1]\"", "192.0.2.43"),
            ("for=192.0.2.43, for=unknown", "10.0.0.1"),
            ("for=192.0.2.43, for=_hidden, for=10.0.0.2", "10.0.0.2"),
            ("host=x", "10.0.0.1"),
        ] {
            assert_eq!(told("10.0.0.1", &[("forwarded", header)]), expected, "{header}");
        }
    }

    #[test]
    fn headers_that_disagree_are_not_believed() {
        let both = |xff: &str| told("10.0.0.1", &[("forwarded", "for=192.0.2.43"), ("x-forwarded-for", xff)]);
        assert_eq!(both("192.0.2.43"), "192.0.2.43");
        assert_eq!(both("203.0.113.9"), "10.0.0.1");
    }
}
