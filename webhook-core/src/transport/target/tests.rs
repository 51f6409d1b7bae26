use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;

fn parse(text: &str) -> Result<Url, TargetError> {
    AddressGuard::new().parse_target(text)
}

fn local() -> AddressGuard {
    AddressGuard::new().allow_network("127.0.0.0/8".parse().unwrap())
}

#[test]
fn takes_public_targets() {
    for text in [
        "https://example.com",
        "HTTPS://Example.COM/hooks?key=a%20b",
        "https://example.com:8443/",
        "https://example.com:80/",
        "https://example.com./",
        "https://1.1.1.1/",
        "https://[2606:4700::1111]:8443/",
        "https://bücher.example.org/",
        "https://my_host.example.com/",
        "https://nolocalhost.com/",
    ] {
        assert!(parse(text).is_ok(), "{text}: {:?}", parse(text));
    }
}

#[test]
fn refuses_every_odd_spelling_of_loopback() {
    for host in [
        "127.0.0.1",
        "127.0.0.1.",
        "127.1",
        "127.0.1",
        "2130706433",
        "0x7f.1",
        "0x7f000001",
        "0x7F.0.0.0x1",
        "017700000001",
        "0177.0.0.1",
        "0",
        "0.0.0.0",
        "①②⑦.⓪.⓪.①",
        "①②⑦.0.0.1",
        "127。0。0。1",
        "１２７.０.０.１",
        "%31%32%37.0.0.1",
        "%31%32%37%2e0%2e0%2e1",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[0:0:0:0:0:ffff:127.0.0.1]",
        "[::127.0.0.1]",
        "[64:ff9b::127.0.0.1]",
        "[2002:7f00:1::]",
        "localhost",
        "LOCALHOST",
        "localhost.",
        "ⓛocalhost",
        "a.localhost",
    ] {
        let text = format!("https://{host}/");
        assert!(parse(&text).is_err(), "{text} was taken for {:?}", parse(&text));
    }
}

#[test]
fn refuses_odd_spellings_of_any_address() {
    for host in ["16843009", "0x1.1.1.1", "1.1", "1.1.1.1.", "01.1.1.1", "①.1.1.1"] {
        assert_eq!(parse(&format!("https://{host}/")), Err(TargetError::AddressSpelling), "{host}");
    }
    assert_eq!(local().parse_target("http://127.1/"), Err(TargetError::AddressSpelling));
}

#[test]
fn judges_the_text_before_parsing() {
    let long = format!("https://example.com/{}", "a".repeat(MAX_TARGET_BYTES));
    for (text, error) in [
        (long.as_str(), TargetError::TooLong),
        ("https://exam\tple.com/", TargetError::Character),
        ("https://example.com/\n", TargetError::Character),
        (" https://example.com/", TargetError::Character),
        ("https://example.com/a b", TargetError::Character),
        ("https://example.com/\u{a0}", TargetError::Character),
        ("https://example.com/\u{0}", TargetError::Character),
        ("https:\\\\example.com\\", TargetError::Character),
        ("https://good.example.com\\@evil.example.com/", TargetError::Character),
        ("https://user@example.com/", TargetError::UserInfo),
        ("https://:pass@example.com/", TargetError::UserInfo),
        ("https://@example.com/", TargetError::UserInfo),
        ("https://example.com/#", TargetError::Fragment),
        ("https://example.com#@127.0.0.1/", TargetError::Fragment),
        ("https:example.com", TargetError::Scheme),
        ("https:/example.com", TargetError::Scheme),
        ("//example.com", TargetError::Scheme),
        ("example.com", TargetError::Scheme),
        ("", TargetError::Scheme),
        ("ftp://example.com/", TargetError::Scheme),
        ("file:///etc/passwd", TargetError::Scheme),
        ("gopher://example.com/", TargetError::Scheme),
        ("http://example.com/", TargetError::Scheme),
        ("https:///example.com", TargetError::Host),
        ("https://", TargetError::Host),
        ("https://?a", TargetError::Host),
    ] {
        assert_eq!(parse(text), Err(error), "{text:?}");
    }
}

#[test]
fn refuses_names_that_are_not_public() {
    for host in ["intranet", "localhost", "x.local", "x.internal", "router.home.arpa", "x.onion", "x.invalid", "x.test"]
    {
        assert_eq!(parse(&format!("https://{host}/")), Err(TargetError::SpecialName), "{host}");
        assert_eq!(parse(&format!("https://{host}./")), Err(TargetError::SpecialName), "{host}.");
        assert!(local().parse_target(&format!("http://{host}:81/")).is_ok(), "{host}");
    }
}

#[test]
fn refuses_names_that_are_none() {
    let (label, name) = ("a".repeat(64), "a.".repeat(126) + "com");
    for host in ["example..com", ".example.com", ".", "example.com..", &format!("{label}.com"), &name] {
        let verdict = parse(&format!("https://{host}/"));
        assert!(matches!(verdict, Err(TargetError::Host | TargetError::Syntax(_))), "{host}: {verdict:?}");
    }
}

#[test]
fn refuses_ports_of_other_services() {
    assert!(REFUSED_PORTS.is_sorted());
    for port in [0, 1, 22, 25, 81, 444, 1023].iter().chain(REFUSED_PORTS) {
        assert_eq!(parse(&format!("https://example.com:{port}/")), Err(TargetError::Port(*port)));
    }
    assert!(matches!(parse("https://example.com:65536/"), Err(TargetError::Syntax(_))));
    assert_eq!(local().parse_target("https://127.0.0.1:0/"), Err(TargetError::Port(0)));
    assert!(local().parse_target("https://127.0.0.1:6379/").is_ok());
}

#[test]
fn http_needs_an_allowed_network_or_leave() {
    assert!(AddressGuard::new().allow_http().parse_target("http://example.com/").is_ok());
    assert!(AddressGuard::new().allow_http().parse_target("http://127.0.0.1/").is_err());
    assert!(local().parse_target("http://127.0.0.1:9000/").is_ok());
    assert_eq!(local().parse_target("http://1.1.1.1/"), Err(TargetError::Scheme));
    assert!(matches!(local().parse_target("http://10.0.0.1/"), Err(TargetError::Address(_))));
}

#[test]
fn a_name_outside_the_public_rules_reaches_allowed_networks_only() {
    let reach = |text: &str| local().reach(&Url::parse(text).unwrap());
    assert_eq!(reach("https://example.com/"), Ok(Reach::Public));
    assert_eq!(reach("http://example.com/"), Ok(Reach::AllowedNetworks));
    assert_eq!(reach("https://example.com:6379/"), Ok(Reach::AllowedNetworks));
    assert_eq!(reach("https://localhost/"), Ok(Reach::AllowedNetworks));
    assert_eq!(reach("ftp://example.com/"), Err(TargetError::Scheme));
}

#[test]
fn a_dial_is_judged_by_url_and_address() {
    let dial = |url: &str, addr: &str| local().check_dial(&Url::parse(url).unwrap(), addr.parse().unwrap());
    assert_eq!(dial("https://example.com/", "1.1.1.1"), Ok(()));
    assert_eq!(dial("http://example.com/", "127.0.0.1"), Ok(()));
    assert!(matches!(dial("http://example.com/", "1.1.1.1"), Err(TargetError::Address(_))));
    assert!(matches!(dial("https://example.com/", "10.0.0.1"), Err(TargetError::Address(_))));
    assert_eq!(dial("ftp://example.com/", "1.1.1.1"), Err(TargetError::Scheme));
}

#[test]
fn a_url_that_was_not_parsed_here_gets_the_same_rules() {
    for text in ["https://user@example.com/", "https://example.com/#a", "data:text/plain,a", "https://2130706433/"] {
        assert!(AddressGuard::new().check_url(&Url::parse(text).unwrap()).is_err(), "{text}");
    }
}

fn same_verdict(addr: IpAddr, host: &str) -> Result<(), TestCaseError> {
    for guard in [AddressGuard::new(), local(), AddressGuard::new().allow_network("2000::/4".parse().unwrap())] {
        let url = Url::parse(&format!("https://{host}/")).unwrap();
        let by_addr = guard.check_addr(addr).map_err(TargetError::Address);
        prop_assert_eq!(guard.check_url(&url), by_addr);
        prop_assert_eq!(guard.parse_target(url.as_str()).map(|_| ()), by_addr);
    }
    Ok(())
}

proptest! {
    #[test]
    fn an_ipv4_literal_is_judged_like_the_address(addr: Ipv4Addr) {
        same_verdict(addr.into(), &addr.to_string())?;
        same_verdict(addr.into(), &format!("[{}]", addr.to_ipv6_mapped()))?;
        let url = Url::parse(&format!("https://{}/", u32::from(addr))).unwrap();
        let by_addr = AddressGuard::new().check_addr(addr.into()).map_err(TargetError::Address);
        prop_assert_eq!(AddressGuard::new().check_url(&url), by_addr);
    }

    #[test]
    fn an_ipv6_literal_is_judged_like_the_address(addr: Ipv6Addr, low in 0x2000_u16..0x4000) {
        same_verdict(addr.into(), &format!("[{addr}]"))?;
        let mut segments = addr.segments();
        segments[0] = low;
        let global = Ipv6Addr::from(segments);
        same_verdict(global.into(), &format!("[{global}]"))?;
    }

    #[test]
    fn no_text_panics_and_what_passes_is_what_is_dialled(
        text in "(https?://)?[a-z0-9.:@/\\\\%\\[\\]#? ⓪①]{0,40}|\\PC{0,60}"
    ) {
        for guard in [AddressGuard::new(), local().allow_http()] {
            if let Ok(url) = guard.parse_target(&text) {
                let uri: http::Uri = url.as_str().parse().unwrap();
                prop_assert_eq!(uri.host(), url.host_str());
                prop_assert_eq!(uri.port_u16(), url.port());
                prop_assert_eq!(guard.check_url(&url), Ok(()));
            }
        }
    }
}
