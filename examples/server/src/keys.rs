//! API keys and encryption keys. Errors say which one is wrong, never what it is.

use webhook_axum::ApiKeys;
use webhook_core::{EncryptionKey, Keyring};

use crate::config::ConfigError;
use crate::lists::items;

/// The names of scopes, which a comma may separate as well as keys.
const SCOPES: [&str; 3] = ["read", "write", "secrets"];

pub(crate) fn api_keys(given: &[String]) -> Result<ApiKeys, ConfigError> {
    let mut specs: Vec<String> = Vec::new();
    for item in given.iter().flat_map(|given| items(given)) {
        match specs.last_mut() {
            Some(spec) if SCOPES.contains(&item) => *spec = format!("{spec},{item}"),
            _ => specs.push(item.to_owned()),
        }
    }
    let add = |keys: ApiKeys, (index, spec): (usize, &String)| {
        keys.with_spec(spec).map_err(|source| ConfigError::ApiKey { number: index + 1, source })
    };
    specs.iter().enumerate().try_fold(ApiKeys::new(), add)
}

/// The ids of the keys in the order given, and the keyring they make.
pub(crate) fn keyring(given: &[String]) -> Result<(Vec<String>, Keyring), ConfigError> {
    let parse = |(index, text): (usize, &str)| {
        text.parse::<EncryptionKey>().map_err(|source| ConfigError::EncryptionKey { number: index + 1, source })
    };
    let keys: Vec<_> = given.iter().flat_map(|given| items(given)).enumerate().map(parse).collect::<Result<_, _>>()?;
    let ids = keys.iter().map(|key| key.id().to_string()).collect();
    let keyring = if keys.is_empty() { Keyring::plain() } else { Keyring::new(keys)? };
    Ok((ids, keyring))
}

#[cfg(test)]
mod tests {
    use webhook_axum::Scopes;

    use super::*;

    fn given(texts: &[&str]) -> Vec<String> {
        texts.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn commas_separate_keys_and_scopes() {
        let keys = api_keys(&given(&["one=acme:read,write, two=acme", "three=other:secrets"])).unwrap();
        assert_eq!(keys.caller("one").unwrap().scopes, Scopes::READ | Scopes::WRITE);
        assert_eq!(keys.caller("two").unwrap().scopes, Scopes::ALL);
        assert_eq!(keys.caller("three").unwrap().scopes, Scopes::SECRETS);
    }

    #[test]
    fn errors_name_the_place_and_not_the_key() {
        let error = api_keys(&given(&["good=acme,canary"])).unwrap_err().to_string();
        assert!(error.contains('2') && !error.contains("canary"), "{error}");
        let error = keyring(&given(&["k1=canary"])).unwrap_err().to_string();
        assert!(error.contains('1') && !error.contains("canary"), "{error}");
    }

    #[test]
    fn the_first_key_writes() {
        let key = |id: &str| format!("{id}=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=");
        let (ids, _) = keyring(&[format!("{},{}", key("new"), key("old"))]).unwrap();
        assert_eq!(ids, ["new", "old"]);
        assert!(matches!(keyring(&[key("k"), key("k")]), Err(ConfigError::Keyring(_))));
        assert!(keyring(&[]).unwrap().0.is_empty());
    }
}
