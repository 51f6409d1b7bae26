//! What a target URL must look like: the rules that need no look-up.

use std::net::IpAddr;

use url::{Host, Url};

use super::guard::Reach;
use super::{AddressGuard, Blocked};

/// The longest target URL, in bytes.
pub const MAX_TARGET_BYTES: usize = 2048;

/// Names that no public endpoint has (RFC 6761, RFC 6762, RFC 7686, RFC 8375, and ICANN's `.internal`).
const SPECIAL_NAMES: &[&str] = &["home.arpa", "internal", "invalid", "local", "localhost", "onion", "test"];

/// Ports from 1024 on at which datastores and administration listen, many without a password. Sorted.
const REFUSED_PORTS: &[u16] = &[
    1433,  // SQL Server
    1521,  // Oracle
    2049,  // NFS
    2181,  // ZooKeeper
    2375,  // Docker
    2376,  // Docker with TLS
    2379,  // etcd
    2380,  // etcd peers
    3306,  // MySQL
    3389,  // RDP
    5432,  // PostgreSQL
    5672,  // AMQP
    5900,  // VNC
    5984,  // CouchDB
    5985,  // WinRM
    5986,  // WinRM with TLS
    6379,  // Redis
    6443,  // Kubernetes API
    7000,  // Cassandra nodes
    8500,  // Consul
    9042,  // Cassandra
    9092,  // Kafka
    9200,  // Elasticsearch
    9300,  // Elasticsearch nodes
    10250, // kubelet
    10255, // kubelet, read only
    11211, // memcached
    26379, // Redis Sentinel
    27017, // MongoDB
    27018, // MongoDB shards
    27019, // MongoDB configuration
];

impl AddressGuard {
    /// Reads a target URL as a user wrote it.
    ///
    /// The text is judged before it is parsed, as parsing repairs what should be refused (WHATWG URL drops tabs and
    /// line ends, takes `\` for `/` and `https:host` for `https://host`). What follows is
    /// [`check_url`](Self::check_url).
    ///
    /// # Errors
    ///
    /// [`TargetError`], the first rule that the text breaks.
    pub fn parse_target(&self, text: &str) -> Result<Url, TargetError> {
        if text.len() > MAX_TARGET_BYTES {
            return Err(TargetError::TooLong);
        }
        if text.chars().any(|c| c.is_control() || c.is_whitespace() || c == '\\') {
            return Err(TargetError::Character);
        }
        if text.contains('#') {
            return Err(TargetError::Fragment);
        }
        let rest = after_scheme(text).ok_or(TargetError::Scheme)?;
        let authority = rest.split(['/', '?']).next().unwrap_or_default();
        if authority.contains('@') {
            return Err(TargetError::UserInfo);
        }
        if authority.is_empty() {
            return Err(TargetError::Host);
        }
        let url = Url::parse(text).map_err(TargetError::Syntax)?;
        self.check_url(&url)?;
        // Numbers, octal, hexadecimal, short forms and look-alike digits are how filters are talked past.
        if let Some(Host::Ipv4(addr)) = url.host()
            && authority.split(':').next() != Some(addr.to_string().as_str())
        {
            return Err(TargetError::AddressSpelling);
        }
        // The HTTP client reads the URL by RFC 3986, which forbids a few characters that WHATWG lets stand.
        match url.as_str().parse::<http::Uri>() {
            Ok(uri) if uri.host() == url.host_str() => Ok(url),
            _ => Err(TargetError::Character),
        }
    }

    /// Judges a target by every rule that needs no look-up.
    ///
    /// - at most [`MAX_TARGET_BYTES`], no user name, password or fragment;
    /// - https, or http where the host allows it everywhere;
    /// - port 80, 443, or one from 1024 on that is not known for a datastore or administration;
    /// - a literal address that [`check_addr`](Self::check_addr) lets through;
    /// - a name of at least two labels that is not of a special-use domain (`localhost`, `.internal`, …).
    ///
    /// An address in an allowed network is free of the rules for scheme and port (but 0). Where there are allowed
    /// networks, a name that breaks the rules for scheme, port or names passes as well: when it is dialled, each of
    /// its addresses must then be in one of them.
    ///
    /// # Errors
    ///
    /// [`TargetError`], the first rule that the URL breaks.
    pub fn check_url(&self, url: &Url) -> Result<(), TargetError> {
        self.reach(url).map(|_| ())
    }

    /// [`check_url`](Self::check_url), and what the URL may be dialled for.
    pub(super) fn reach(&self, url: &Url) -> Result<Reach, TargetError> {
        if url.as_str().len() > MAX_TARGET_BYTES {
            return Err(TargetError::TooLong);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(TargetError::UserInfo);
        }
        if url.fragment().is_some() {
            return Err(TargetError::Fragment);
        }
        let scheme = match url.scheme() {
            "https" => Ok(()),
            "http" if self.allows_plain_http() => Ok(()),
            "http" => Err(TargetError::Scheme),
            _ => return Err(TargetError::Scheme),
        };
        let port = url.port_or_known_default().unwrap_or_default();
        if port == 0 {
            return Err(TargetError::Port(0));
        }
        let public = scheme.and_then(|()| check_port(port));
        match url.host().ok_or(TargetError::Host)? {
            Host::Ipv4(addr) => self.literal_reach(addr.into(), public),
            Host::Ipv6(addr) => self.literal_reach(addr.into(), public),
            Host::Domain(name) => self.name_reach(name, public),
        }
    }

    fn literal_reach(&self, addr: IpAddr, public: Result<(), TargetError>) -> Result<Reach, TargetError> {
        if self.is_allowed(addr) {
            return Ok(Reach::AllowedNetworks);
        }
        self.check_addr(addr)?;
        public.map(|()| Reach::Public)
    }

    fn name_reach(&self, name: &str, public: Result<(), TargetError>) -> Result<Reach, TargetError> {
        let name = name.strip_suffix('.').unwrap_or(name);
        if name.len() > 253 || name.split('.').any(|label| label.is_empty() || label.len() > 63) {
            return Err(TargetError::Host);
        }
        match public.and_then(|()| check_public_name(name)) {
            Ok(()) => Ok(Reach::Public),
            Err(_) if self.allows_networks() => Ok(Reach::AllowedNetworks),
            Err(error) => Err(error),
        }
    }
}

/// What follows `https://` or `http://`, in any case.
fn after_scheme(text: &str) -> Option<&str> {
    let (scheme, rest) = text.split_once("://")?;
    (scheme.eq_ignore_ascii_case("https") || scheme.eq_ignore_ascii_case("http")).then_some(rest)
}

fn check_port(port: u16) -> Result<(), TargetError> {
    match port {
        80 | 443 => Ok(()),
        1024.. if REFUSED_PORTS.binary_search(&port).is_err() => Ok(()),
        _ => Err(TargetError::Port(port)),
    }
}

fn check_public_name(name: &str) -> Result<(), TargetError> {
    let is_under = |domain: &str| name.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    if !name.contains('.') || SPECIAL_NAMES.iter().any(|domain| is_under(domain)) {
        return Err(TargetError::SpecialName);
    }
    Ok(())
}

/// A target URL breaks a rule. The text completes "the target URL …".
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// It is longer than [`MAX_TARGET_BYTES`].
    #[error("must be at most {MAX_TARGET_BYTES} bytes long")]
    TooLong,
    /// It has a character that does not belong in a URL.
    #[error("must not contain spaces, control characters, backslashes or others that a URL must escape")]
    Character,
    /// It is not https (or, where that is allowed, http).
    #[error("must start with https://")]
    Scheme,
    /// It carries credentials, which belong in a header.
    #[error("must not contain a user name or password")]
    UserInfo,
    /// It has a fragment, which is never sent.
    #[error("must not contain a fragment")]
    Fragment,
    /// It is no URL.
    #[error("must be a valid URL")]
    Syntax(#[source] url::ParseError),
    /// Its host is missing or is not a name.
    #[error("must have a valid host name")]
    Host,
    /// Its host is a name without a dot, or one of a special-use domain.
    #[error("must have a public host name")]
    SpecialName,
    /// Its host is an IPv4 address in another form than `a.b.c.d`.
    #[error("must write an address as four decimal numbers")]
    AddressSpelling,
    /// Its host is a refused address.
    #[error("must not point to a private or special address")]
    Address(#[from] Blocked),
    /// Its port is refused.
    #[error("must not use port {0}")]
    Port(u16),
}

#[cfg(test)]
mod tests {
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
        for host in
            ["intranet", "localhost", "x.local", "x.internal", "router.home.arpa", "x.onion", "x.invalid", "x.test"]
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
    fn a_url_that_was_not_parsed_here_gets_the_same_rules() {
        for text in ["https://user@example.com/", "https://example.com/#a", "data:text/plain,a", "https://2130706433/"]
        {
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
}
