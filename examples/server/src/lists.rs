//! Values of flags that are lists or times.

use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;

/// Networks with commas between them; an address alone is a network of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Networks(pub(crate) Vec<IpNet>);

impl FromStr for Networks {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let network = |item: &str| {
            let network = item.parse::<IpNet>().ok().or_else(|| item.parse::<IpAddr>().ok().map(IpNet::from));
            network.ok_or_else(|| format!("`{item}` is no network such as 10.0.0.0/8"))
        };
        items(text).map(network).collect::<Result<_, _>>().map(Self)
    }
}

/// Seconds with commas between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Delays(pub(crate) Vec<Duration>);

impl FromStr for Delays {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        items(text).map(seconds).collect::<Result<_, _>>().map(Self)
    }
}

/// Seconds from zero on, whole or with a fraction.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.trim().parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.ok_or_else(|| format!("`{text}` is no number of seconds"))
}

/// The items between commas, without the empty ones.
pub(crate) fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_bear_blanks_and_trailing_commas() {
        let networks: Networks = "10.0.0.0/8, 127.0.0.1,::1,".parse().unwrap();
        assert_eq!(
            networks.0.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["10.0.0.0/8", "127.0.0.1/32", "::1/128"]
        );
        assert_eq!("1, 0.5".parse(), Ok(Delays(vec![Duration::from_secs(1), Duration::from_millis(500)])));
    }

    #[test]
    fn says_which_item_is_wrong() {
        assert!("10.0.0.0/8,ten".parse::<Networks>().unwrap_err().contains("`ten`"));
        for text in ["", "-1", "1e400", "NaN", "5s"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }
}
