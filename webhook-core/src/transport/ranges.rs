//! Addresses that are not public unicast, as data.
//!
//! Sources, as of 2026-11: the IANA IPv4 and IPv6 Special-Purpose Address Registries (the RFC of each entry is in
//! its row), the IANA multicast registries, and the documentation of cloud providers for addresses that are special
//! inside their networks. Entries that IANA calls globally reachable (AS112, AMT) are in as well: no endpoint lives
//! there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// A range of addresses, and where it is defined.
#[derive(Debug)]
pub(super) struct Range {
    pub(super) net: IpNet,
    pub(super) name: &'static str,
    #[cfg_attr(not(test), expect(dead_code, reason = "read by people and by the table's test"))]
    pub(super) source: &'static str,
}

const fn v4(octets: [u8; 4], prefix: u8, name: &'static str, source: &'static str) -> Range {
    let [a, b, c, d] = octets;
    Range { net: IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)), name, source }
}

const fn v6(segments: [u16; 8], prefix: u8, name: &'static str, source: &'static str) -> Range {
    let [a, b, c, d, e, f, g, h] = segments;
    Range { net: IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, e, f, g, h), prefix)), name, source }
}

/// IPv4: everything is public but these. The first row that fits names the refusal, so narrow ones come first.
pub(super) const REFUSED_V4: &[Range] = &[
    v4([169, 254, 169, 254], 32, "cloud metadata", "AWS, Azure, Google Cloud, OpenStack documentation"),
    v4([169, 254, 170, 0], 24, "container credentials", "AWS ECS and EKS documentation"),
    v4([100, 100, 100, 200], 32, "cloud metadata", "Alibaba Cloud documentation"),
    v4([168, 63, 129, 16], 32, "Azure platform services", "Azure documentation: a public address, host-local in Azure"),
    v4([0, 0, 0, 0], 8, "this network", "RFC 791, section 3.2"),
    v4([10, 0, 0, 0], 8, "private use", "RFC 1918"),
    v4([100, 64, 0, 0], 10, "shared address space", "RFC 6598"),
    v4([127, 0, 0, 0], 8, "loopback", "RFC 1122, section 3.2.1.3"),
    v4([169, 254, 0, 0], 16, "link local", "RFC 3927"),
    v4([172, 16, 0, 0], 12, "private use", "RFC 1918"),
    v4([192, 0, 0, 0], 24, "IETF protocol assignments", "RFC 6890, section 2.1"),
    v4([192, 0, 2, 0], 24, "documentation (TEST-NET-1)", "RFC 5737"),
    v4([192, 31, 196, 0], 24, "AS112-v4", "RFC 7535"),
    v4([192, 52, 193, 0], 24, "AMT", "RFC 7450"),
    v4([192, 88, 99, 0], 24, "deprecated 6to4 relay anycast", "RFC 7526"),
    v4([192, 168, 0, 0], 16, "private use", "RFC 1918"),
    v4([192, 175, 48, 0], 24, "direct delegation AS112", "RFC 7534"),
    v4([198, 18, 0, 0], 15, "benchmarking", "RFC 2544"),
    v4([198, 51, 100, 0], 24, "documentation (TEST-NET-2)", "RFC 5737"),
    v4([203, 0, 113, 0], 24, "documentation (TEST-NET-3)", "RFC 5737"),
    v4([224, 0, 0, 0], 4, "multicast", "RFC 5771"),
    v4([255, 255, 255, 255], 32, "limited broadcast", "RFC 8190, RFC 919"),
    v4([240, 0, 0, 0], 4, "reserved", "RFC 1112, section 4"),
];

/// IPv6: nothing is public outside global unicast, and inside it not what [`REFUSED_V6`] lists.
pub(super) const GLOBAL_UNICAST: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);

/// IPv6 ranges that are refused by name. Those outside [`GLOBAL_UNICAST`] are here to be named in logs.
pub(super) const REFUSED_V6: &[Range] = &[
    v6([0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x254], 128, "cloud metadata", "AWS documentation"),
    v6([0xfe80, 0, 0, 0, 0, 0, 0xa9fe, 0xa9fe], 128, "cloud metadata", "OpenStack documentation"),
    v6([0, 0, 0, 0, 0, 0, 0, 0], 128, "unspecified", "RFC 4291"),
    v6([0, 0, 0, 0, 0, 0, 0, 1], 128, "loopback", "RFC 4291"),
    v6([0, 0, 0, 0, 0, 0, 0, 0], 96, "IPv4-compatible", "RFC 4291, section 2.5.5.1"),
    v6([0, 0, 0, 0, 0xffff, 0, 0, 0], 96, "IPv4-translated", "RFC 2765, section 2.1"),
    v6([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96, "NAT64", "RFC 6052"),
    v6([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48, "local NAT64", "RFC 8215"),
    v6([0x100, 0, 0, 0, 0, 0, 0, 0], 64, "discard only", "RFC 6666"),
    v6([0x100, 0, 0, 1, 0, 0, 0, 0], 64, "dummy prefix", "RFC 9780"),
    v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 32, "Teredo", "RFC 4380"),
    v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23, "IETF protocol assignments", "RFC 2928"),
    v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32, "documentation", "RFC 3849"),
    v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16, "6to4", "RFC 3056"),
    v6([0x2620, 0x4f, 0x8000, 0, 0, 0, 0, 0], 48, "direct delegation AS112", "RFC 7534"),
    v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20, "documentation", "RFC 9637"),
    v6([0x5f00, 0, 0, 0, 0, 0, 0, 0], 16, "segment routing", "RFC 9602"),
    v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7, "unique local", "RFC 4193"),
    v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10, "link local", "RFC 4291"),
    v6([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10, "site local", "RFC 3879"),
    v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8, "multicast", "RFC 4291, section 2.7"),
];

/// The name of the range for which `addr` is refused; `None` for public unicast. `addr` is canonical: an
/// IPv4-mapped address was turned into IPv4 before.
pub(super) fn refusal(addr: IpAddr) -> Option<&'static str> {
    let rows = if addr.is_ipv4() { REFUSED_V4 } else { REFUSED_V6 };
    if let Some(row) = rows.iter().find(|row| row.net.contains(&addr)) {
        return Some(row.name);
    }
    match addr {
        IpAddr::V6(addr) if !GLOBAL_UNICAST.contains(&addr) => Some("not global unicast"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::AddressGuard;

    /// The row of `net` refuses its first and its last address, and an allowed network opens both.
    #[track_caller]
    fn refuses(rows: &[Range], net: &str) {
        let net: IpNet = net.parse().unwrap();
        let row = rows.iter().find(|row| row.net == net).unwrap();
        assert_eq!(net.addr(), net.network(), "{row:?} has host bits");
        assert!(!row.name.is_empty() && !row.source.is_empty());
        for addr in [net.network(), net.broadcast()] {
            assert!(refusal(addr).is_some(), "{addr}");
            assert!(AddressGuard::new().check_addr(addr).is_err(), "{addr}");
            assert_eq!(AddressGuard::new().allow_network(net).check_addr(addr), Ok(()), "{addr}");
            if let IpAddr::V4(v4) = addr {
                assert!(AddressGuard::new().check_addr(IpAddr::V6(v4.to_ipv6_mapped())).is_err(), "mapped {addr}");
            }
        }
    }

    macro_rules! one_test_per_row {
        ($family:ident, $rows:ident: $($name:ident $net:literal,)*) => {
            mod $family {
                use super::*;

                #[test]
                fn every_row_has_a_test() {
                    assert_eq!($rows.len(), [$($net),*].len());
                }

                $(#[test]
                fn $name() {
                    refuses($rows, $net);
                })*
            }
        };
    }

    one_test_per_row! { ipv4, REFUSED_V4:
        metadata "169.254.169.254/32",
        container_credentials "169.254.170.0/24",
        alibaba_metadata "100.100.100.200/32",
        azure_platform "168.63.129.16/32",
        this_network "0.0.0.0/8",
        private_10 "10.0.0.0/8",
        shared "100.64.0.0/10",
        loopback "127.0.0.0/8",
        link_local "169.254.0.0/16",
        private_172 "172.16.0.0/12",
        protocol_assignments "192.0.0.0/24",
        test_net_1 "192.0.2.0/24",
        as112 "192.31.196.0/24",
        amt "192.52.193.0/24",
        relay_6to4 "192.88.99.0/24",
        private_192 "192.168.0.0/16",
        direct_as112 "192.175.48.0/24",
        benchmarking "198.18.0.0/15",
        test_net_2 "198.51.100.0/24",
        test_net_3 "203.0.113.0/24",
        multicast "224.0.0.0/4",
        broadcast "255.255.255.255/32",
        reserved "240.0.0.0/4",
    }

    one_test_per_row! { ipv6, REFUSED_V6:
        aws_metadata "fd00:ec2::254/128",
        link_local_metadata "fe80::a9fe:a9fe/128",
        unspecified "::/128",
        loopback "::1/128",
        ipv4_compatible "::/96",
        ipv4_translated "::ffff:0:0:0/96",
        nat64 "64:ff9b::/96",
        local_nat64 "64:ff9b:1::/48",
        discard "100::/64",
        dummy "100:0:0:1::/64",
        teredo "2001::/32",
        protocol_assignments "2001::/23",
        documentation "2001:db8::/32",
        sixto4 "2002::/16",
        direct_as112 "2620:4f:8000::/48",
        documentation_3fff "3fff::/20",
        segment_routing "5f00::/16",
        unique_local "fc00::/7",
        link_local "fe80::/10",
        site_local "fec0::/10",
        multicast "ff00::/8",
    }
}
