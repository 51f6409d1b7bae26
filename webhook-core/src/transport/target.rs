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

    /// Whether `url` may be dialled at `addr`: all rules together, for a transport of the host's own, which calls it
    /// with each address that it is about to dial.
    ///
    /// # Errors
    ///
    /// [`TargetError`], the first rule that the URL or the address breaks.
    pub fn check_dial(&self, url: &Url, addr: IpAddr) -> Result<(), TargetError> {
        let reach = self.reach(url)?;
        Ok(self.check_reach(addr, reach)?)
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
mod tests;
