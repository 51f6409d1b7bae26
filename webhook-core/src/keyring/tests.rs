use super::*;
use crate::OsEntropy;

const AAD: &[u8] = b"acme/0198/secret";
const VALUE: &[u8] = b"whsec_a";

#[test]
fn a_value_in_clear_opens_without_keys() {
    let sealed = Keyring::plain().seal(&OsEntropy, AAD, VALUE);
    assert_eq!(sealed.as_bytes(), b"\0whsec_a");
    assert_eq!(Keyring::plain().open(AAD, &sealed).unwrap().as_slice(), VALUE);
}

#[test]
fn debug_of_a_sealed_value_shows_nothing() {
    assert_eq!(format!("{:?}", Keyring::plain().seal(&OsEntropy, AAD, VALUE)), "Sealed(..)");
}

#[test]
fn key_ids_are_short_plain_text() {
    assert!("2026-01.primary_a".parse::<KeyId>().is_ok());
    assert!("x".repeat(64).parse::<KeyId>().is_ok());
    for text in ["", "a b", "a=b", "ä", &"x".repeat(65)] {
        assert_eq!(text.parse::<KeyId>(), Err(ParseKeyIdError), "{text}");
    }
}

#[test]
fn what_was_never_sealed_is_malformed() {
    let nonce_and_tag = [0_u8; NONCE + TAG];
    let with_id = |length: u8, id: &[u8], rest: &[u8]| [&[XCHACHA20_POLY1305, length], id, rest].concat();
    for bytes in [
        Vec::new(),
        vec![2, 0],
        b"whsec_a".to_vec(),
        vec![XCHACHA20_POLY1305],
        with_id(0, b"", &nonce_and_tag),
        with_id(200, b"k", &nonce_and_tag),
        with_id(1, b"\xff", &nonce_and_tag),
        with_id(1, b" ", &nonce_and_tag),
        with_id(1, b"k", &nonce_and_tag[1..]),
    ] {
        let sealed = Sealed::from_bytes(bytes.clone());
        assert_eq!(Keyring::plain().open(AAD, &sealed), Err(KeyringError::Malformed), "{bytes:?}");
    }
}

#[test]
fn without_its_key_an_encrypted_value_names_the_key() {
    let sealed = Sealed::from_bytes([&[XCHACHA20_POLY1305, 2][..], b"k1", &[0; NONCE + TAG]].concat());
    let id = "k1".parse().unwrap();
    assert_eq!(Keyring::plain().open(AAD, &sealed), Err(KeyringError::UnknownKey(id)));
}

#[cfg(feature = "encryption")]
mod encryption {
    use proptest::prelude::*;

    use super::*;

    fn key(id: &str, byte: u8) -> EncryptionKey {
        EncryptionKey::new(id.parse().unwrap(), [byte; 32])
    }

    fn keyring(keys: &[(&str, u8)]) -> Keyring {
        Keyring::new(keys.iter().map(|(id, byte)| key(id, *byte))).unwrap()
    }

    #[test]
    fn i12_a_sealed_value_does_not_contain_the_secret() {
        let sealed = keyring(&[("k1", 1)]).seal(&OsEntropy, AAD, VALUE);
        assert!(!sealed.as_bytes().windows(VALUE.len()).any(|window| window == VALUE));
        assert!(sealed.as_bytes().starts_with(b"\x01\x02k1"));
    }

    #[test]
    fn i12_debug_shows_no_key() {
        let shown = format!("{:?}", keyring(&[("k1", 77), ("k2", 78)]));
        assert_eq!(shown, "Keyring { keys: [EncryptionKey(k1, ..), EncryptionKey(k2, ..)] }");
    }

    #[test]
    fn the_same_value_is_sealed_differently_each_time() {
        let keyring = keyring(&[("k1", 1)]);
        assert_ne!(keyring.seal(&OsEntropy, AAD, VALUE), keyring.seal(&OsEntropy, AAD, VALUE));
    }

    #[test]
    fn a_value_opens_only_in_its_place() {
        let keyring = keyring(&[("k1", 1)]);
        let sealed = keyring.seal(&OsEntropy, AAD, VALUE);
        assert_eq!(keyring.open(AAD, &sealed).unwrap().as_slice(), VALUE);
        let elsewhere = keyring.open(b"other/0198/secret", &sealed);
        assert_eq!(elsewhere, Err(KeyringError::Unauthentic("k1".parse().unwrap())));
    }

    #[test]
    fn after_a_rotation_the_new_key_writes_and_the_old_one_reads() {
        let before = keyring(&[("old", 1)]);
        let after = keyring(&[("new", 2), ("old", 1)]);
        let value = before.seal(&OsEntropy, AAD, VALUE);
        assert_eq!(after.open(AAD, &value).unwrap().as_slice(), VALUE);
        let value = after.seal(&OsEntropy, AAD, VALUE);
        assert_eq!(before.open(AAD, &value), Err(KeyringError::UnknownKey("new".parse().unwrap())));
        assert_eq!(keyring(&[("new", 2)]).open(AAD, &value).unwrap().as_slice(), VALUE);
    }

    #[test]
    fn a_keyring_with_keys_reads_what_was_stored_in_clear() {
        let sealed = Keyring::plain().seal(&OsEntropy, AAD, VALUE);
        assert_eq!(keyring(&[("k1", 1)]).open(AAD, &sealed).unwrap().as_slice(), VALUE);
    }

    #[test]
    fn another_key_under_the_same_id_does_not_open() {
        let sealed = keyring(&[("k1", 1)]).seal(&OsEntropy, AAD, VALUE);
        let opened = keyring(&[("k1", 2)]).open(AAD, &sealed);
        assert_eq!(opened, Err(KeyringError::Unauthentic("k1".parse().unwrap())));
    }

    #[test]
    fn the_id_of_the_key_is_authenticated() {
        let sealed = keyring(&[("k1", 1)]).seal(&OsEntropy, AAD, VALUE);
        let mut bytes = sealed.into_bytes();
        bytes[3] = b'2';
        let opened = keyring(&[("k2", 1)]).open(AAD, &Sealed::from_bytes(bytes));
        assert_eq!(opened, Err(KeyringError::Unauthentic("k2".parse().unwrap())));
    }

    #[test]
    fn keyrings_need_keys_with_different_ids() {
        assert_eq!(Keyring::new([]).unwrap_err(), KeyringConfigError::NoKeys);
        let twice = Keyring::new([key("k1", 1), key("k2", 2), key("k1", 3)]);
        assert_eq!(twice.unwrap_err(), KeyringConfigError::Duplicate("k1".parse().unwrap()));
    }

    #[test]
    fn keys_parse_from_an_id_and_base64() {
        let parsed: EncryptionKey = "k1=AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=".parse().unwrap();
        let sealed = Keyring::new([parsed]).unwrap().seal(&OsEntropy, AAD, VALUE);
        assert_eq!(keyring(&[("k1", 1)]).open(AAD, &sealed).unwrap().as_slice(), VALUE);

        let refused = |text: &str| text.parse::<EncryptionKey>().unwrap_err();
        assert_eq!(refused("k1"), ParseEncryptionKeyError::Form);
        assert_eq!(refused("=AQEB"), ParseEncryptionKeyError::Id(ParseKeyIdError));
        for key in ["", "AQEB", "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE", "not base64"] {
            assert_eq!(refused(&format!("k1={key}")), ParseEncryptionKeyError::Key, "{key}");
        }
    }

    proptest! {
        #[test]
        fn what_was_sealed_opens(value: Vec<u8>, aad: Vec<u8>) {
            let keyring = keyring(&[("k1", 1)]);
            let sealed = keyring.seal(&OsEntropy, &aad, &value);
            let stored = Sealed::from_bytes(sealed.into_bytes());
            let opened = keyring.open(&aad, &stored).unwrap();
            prop_assert_eq!(opened.as_slice(), value);
        }

        #[test]
        fn a_changed_byte_does_not_open(value: Vec<u8>, at: prop::sample::Index, flip in 1_u8..) {
            let keyring = keyring(&[("k1", 1)]);
            let mut bytes = keyring.seal(&OsEntropy, AAD, &value).into_bytes();
            // The first byte names the format: changed to 0, all the rest is a value in clear.
            let at = 1 + at.index(bytes.len() - 1);
            bytes[at] ^= flip;
            prop_assert!(keyring.open(AAD, &Sealed::from_bytes(bytes)).is_err());
        }
    }
}
