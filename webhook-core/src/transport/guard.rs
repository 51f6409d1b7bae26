//! Which addresses may be dialled.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

use super::ranges;

/// Decides where requests may go: public unicast addresses, and the networks that the host allows.
///
/// It judges twice by the same rules: [`check_url`](Self::check_url) when a target is set, for a good error, and the
/// transport again on each address that it dials, which is the check that counts.
///
/// ```
/// use webhook_core::AddressGuard;
///
/// let guard = AddressGuard::new();
/// assert!(guard.parse_target("https://example.com/hooks").is_ok());
/// assert!(guard.parse_target("https://169.254.169.254/").is_err());
///
/// let guard = guard.allow_network("10.1.0.0/16".parse()?);
/// assert!(guard.parse_target("http://10.1.2.3:8080/hooks").is_ok());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct AddressGuard {
    networks: Vec<IpNet>,
    plain_http: PlainHttp,
}

/// Where a target without TLS may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum PlainHttp {
    #[default]
    AllowedNetworks,
    Anywhere,
}

/// Which addresses a checked URL may turn out to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// Public ones and those in allowed networks.
    Public,
    /// Those in allowed networks only: the URL is fit for nothing else.
    AllowedNetworks,
}

impl AddressGuard {
    /// A guard that lets https to public unicast addresses through, and nothing else.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets requests into `network`, be it private, loopback or metadata: there by http as well, and on any port.
    ///
    /// It holds for every tenant. Allow the smallest network that does.
    #[must_use]
    pub fn allow_network(mut self, network: IpNet) -> Self {
        self.networks.push(canonical(network));
        self
    }

    /// Lets http through to public addresses too.
    #[must_use]
    pub fn allow_http(mut self) -> Self {
        self.plain_http = PlainHttp::Anywhere;
        self
    }

    /// Whether `addr` may be dialled.
    ///
    /// # Errors
    ///
    /// [`Blocked`] for an address that is neither public unicast nor in an allowed network. An IPv4-mapped IPv6
    /// address is judged as the IPv4 address that it is.
    pub fn check_addr(&self, addr: IpAddr) -> Result<(), Blocked> {
        let addr = addr.to_canonical();
        if self.is_allowed(addr) {
            return Ok(());
        }
        match ranges::refusal(addr) {
            None => Ok(()),
            Some(range) => Err(Blocked { addr, range }),
        }
    }

    /// Whether `addr` may be dialled for a URL of that reach.
    pub(super) fn check_reach(&self, addr: IpAddr, reach: Reach) -> Result<(), Blocked> {
        match reach {
            Reach::Public => self.check_addr(addr),
            Reach::AllowedNetworks if self.is_allowed(addr) => Ok(()),
            Reach::AllowedNetworks => {
                let addr = addr.to_canonical();
                Err(Blocked { addr, range: ranges::refusal(addr).unwrap_or("outside the allowed networks") })
            }
        }
    }

    pub(super) fn is_allowed(&self, addr: IpAddr) -> bool {
        let addr = addr.to_canonical();
        self.networks.iter().any(|network| network.contains(&addr))
    }

    pub(super) fn allows_networks(&self) -> bool {
        !self.networks.is_empty()
    }

    pub(super) fn allows_plain_http(&self) -> bool {
        self.plain_http == PlainHttp::Anywhere
    }
}

/// IPv4-mapped networks are written as IPv4, like the addresses that are compared with them.
fn canonical(network: IpNet) -> IpNet {
    let IpNet::V6(v6) = network else { return network };
    let mapped = v6.network().to_ipv4_mapped().zip(v6.prefix_len().checked_sub(96));
    mapped.and_then(|(addr, prefix)| Ipv4Net::new(addr, prefix).ok()).map_or(network, IpNet::V4)
}

/// The address guard refuses an address.
///
/// One text for all of them; the address and its range are for logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the address is not allowed")]
pub struct Blocked {
    addr: IpAddr,
    range: &'static str,
}

impl Blocked {
    /// The refused address; not for tenants.
    pub fn addr(&self) -> IpAddr {
        self.addr
    }

    /// Why it is refused, such as `loopback`; not for tenants.
    pub fn range(&self) -> &'static str {
        self.range
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn allowing(network: &str) -> AddressGuard {
        AddressGuard::new().allow_network(network.parse().unwrap())
    }

    #[test]
    fn lets_public_unicast_through() {
        for addr in ["1.1.1.1", "8.8.8.8", "100.63.255.255", "172.32.0.1", "223.255.255.255", "::ffff:1.1.1.1"] {
            assert_eq!(AddressGuard::new().check_addr(ip(addr)), Ok(()), "{addr}");
        }
        for addr in ["2606:4700::1111", "2a00:1450::8", "2001:200::1", "2400::1"] {
            assert_eq!(AddressGuard::new().check_addr(ip(addr)), Ok(()), "{addr}");
        }
    }

    #[test]
    fn refuses_ipv6_that_is_not_allocated() {
        for addr in ["4000::1", "::2:0:0:1", "1fff::1", "64:ff9b::102:304"] {
            assert!(AddressGuard::new().check_addr(ip(addr)).is_err(), "{addr}");
        }
    }

    #[test]
    fn a_refusal_says_the_same_of_every_address() {
        let loopback = AddressGuard::new().check_addr(ip("::ffff:127.0.0.1")).unwrap_err();
        let metadata = AddressGuard::new().check_addr(ip("169.254.169.254")).unwrap_err();
        assert_eq!(loopback.to_string(), metadata.to_string());
        assert_eq!((loopback.addr(), loopback.range()), (ip("127.0.0.1"), "loopback"));
        assert_eq!(metadata.range(), "cloud metadata");
    }

    #[test]
    fn an_allowed_network_opens_itself_alone() {
        let guard = allowing("10.1.0.0/16");
        assert_eq!(guard.check_addr(ip("10.1.2.3")), Ok(()));
        assert_eq!(guard.check_addr(ip("::ffff:10.1.2.3")), Ok(()));
        assert!(guard.check_addr(ip("10.2.0.1")).is_err());
        assert!(guard.check_addr(ip("127.0.0.1")).is_err());
    }

    #[test]
    fn an_allowed_network_may_be_written_as_mapped() {
        let guard = allowing("::ffff:10.1.0.0/112");
        assert_eq!(guard.check_addr(ip("10.1.2.3")), Ok(()));
        assert!(guard.check_addr(ip("10.2.0.1")).is_err());
    }

    #[test]
    fn a_url_for_allowed_networks_reaches_nothing_else() {
        let guard = allowing("127.0.0.0/8");
        assert_eq!(guard.check_reach(ip("127.0.0.1"), Reach::AllowedNetworks), Ok(()));
        assert!(guard.check_reach(ip("1.1.1.1"), Reach::AllowedNetworks).is_err());
        assert!(guard.check_reach(ip("10.0.0.1"), Reach::AllowedNetworks).is_err());
        assert_eq!(guard.check_reach(ip("1.1.1.1"), Reach::Public), Ok(()));
    }

    proptest! {
        #[test]
        fn mapping_changes_no_verdict(v4: std::net::Ipv4Addr) {
            let mapped = IpAddr::V6(v4.to_ipv6_mapped());
            for guard in [AddressGuard::new(), allowing("10.0.0.0/8"), allowing("128.0.0.0/1")] {
                prop_assert_eq!(guard.check_addr(mapped), guard.check_addr(IpAddr::V4(v4)));
            }
        }

        #[test]
        fn ipv6_is_public_inside_global_unicast_only(v6: std::net::Ipv6Addr) {
            let public = AddressGuard::new().check_addr(IpAddr::V6(v6)).is_ok();
            prop_assert!(!public || v6.segments()[0] >> 13 == 1 || v6.to_ipv4_mapped().is_some());
        }
    }
}
