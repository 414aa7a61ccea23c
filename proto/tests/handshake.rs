//! The key and the accept value of the opening handshake (RFC 6455 1.3, 4), compared with the crates `sha1`
//! and `base64`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bowline_proto::handshake::{Key, VERSION};
use proptest::prelude::*;
use sha1::{Digest as _, Sha1};

#[test]
fn rfc6455_1_3_sample() {
    let key = Key::from_nonce(*b"the sample nonce");
    assert_eq!(key.as_str(), "dGhlIHNhbXBsZSBub25jZQ==");
    assert_eq!(key.accept().as_str(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    assert_eq!(Key::parse(b"dGhlIHNhbXBsZSBub25jZQ=="), Some(key));
    assert_eq!(VERSION, "13");
}

#[test]
fn rfc6455_4_2_1_a_key_is_16_bytes_in_base64() {
    for len in (0..40).filter(|len| *len != 16) {
        let value = STANDARD.encode(vec![0x5A; len]);
        assert_eq!(Key::parse(value.as_bytes()), None, "{len} bytes: {value}");
    }
    let wrong: [&[u8]; 15] = [
        b"",
        b"=",
        b"========================",
        // With no, one and three characters of padding.
        b"dGhlIHNhbXBsZSBub25jZQ",
        b"dGhlIHNhbXBsZSBub25jZQ=",
        b"dGhlIHNhbXBsZSBub25jZQ===",
        b"dGhlIHNhbXBsZSBub25jZ===",
        b"dGhlIHNhbXBsZSBub25jZQA=",
        b"dGhlIHNhbXBsZSBub25jZQAA",
        b"dGhlIHNhbXBsZSBub25j==ZQ",
        // Bytes outside the alphabet: URL-safe digits, a space, and a byte that is not ASCII.
        b"-GhlIHNhbXBsZSBub25jZQ==",
        b"dGhlIHNhbXBsZSBub2_jZQ==",
        b"dGhlIHNhbXBs SBub25jZQ==",
        b"dGhlIHNhbXBsZSBub25j\xE9Q==",
        // A key that occurs twice.
        b"dGhlIHNhbXBsZSBub25jZQ==, dGhlIHNhbXBsZSBub25jZQ==",
    ];
    for value in wrong {
        assert_eq!(Key::parse(value), None, "{}", value.escape_ascii());
    }
}

#[test]
fn rfc4648_3_5_unused_bits_of_a_key_are_zero() {
    let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (value, digit) in digits.iter().enumerate() {
        let mut key = *b"dGhlIHNhbXBsZSBub25jZ?==";
        key[21] = *digit;
        assert_eq!(Key::parse(&key).is_some(), value % 16 == 0, "{}", key.escape_ascii());
        assert_eq!(Key::parse(&key).is_some(), STANDARD.decode(key).is_ok(), "{}", key.escape_ascii());
    }
}

#[test]
fn whitespace_around_the_values_is_ignored() {
    let key = Key::parse(b" \tdGhlIHNhbXBsZSBub25jZQ==  ").unwrap();
    assert_eq!(key.as_str(), "dGhlIHNhbXBsZSBub25jZQ==");
    assert!(key.accept().matches(b"  s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\t"));
}

#[test]
fn rfc6455_4_1_an_accept_value_must_be_the_keys() {
    let accept = Key::from_nonce([1; 16]).accept();
    assert!(accept.matches(accept.as_str().as_bytes()));
    let other = Key::from_nonce([2; 16]).accept();
    assert_ne!(accept, other);
    assert!(!accept.matches(other.as_str().as_bytes()));
    assert!(!accept.matches(b""));
    // Base64 is case-sensitive.
    assert!(!accept.matches(accept.as_str().to_lowercase().as_bytes()));
    assert!(!accept.matches(&accept.as_str().as_bytes()[..27]));
    assert!(!accept.matches(format!("{}=", accept.as_str()).as_bytes()));
}

#[test]
fn debug_shows_the_value() {
    let key = Key::from_nonce(*b"the sample nonce");
    assert_eq!(format!("{key:?}"), "Key(\"dGhlIHNhbXBsZSBub25jZQ==\")");
    assert_eq!(format!("{:?}", key.accept()), "Accept(\"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\")");
}

proptest! {
    #[test]
    fn key_is_base64_of_the_nonce(nonce in any::<[u8; 16]>()) {
        let key = Key::from_nonce(nonce);
        prop_assert_eq!(key.as_str(), STANDARD.encode(nonce));
        prop_assert_eq!(Key::parse(key.as_str().as_bytes()), Some(key));
    }

    #[test]
    fn rfc6455_4_2_2_accept_is_base64_of_sha1(nonce in any::<[u8; 16]>()) {
        let key = Key::from_nonce(nonce);
        let input = format!("{}258EAFA5-E914-47DA-95CA-C5AB0DC85B11", key.as_str());
        let expected = STANDARD.encode(Sha1::digest(input.as_bytes()));
        let accept = key.accept();
        prop_assert_eq!(accept.as_str(), &expected);
        prop_assert!(accept.matches(expected.as_bytes()));
    }

    #[test]
    fn the_same_keys_as_base64(value in "[A-Za-f+/=]{20}[A-Za-z0-9+/=]{0,6}") {
        let expected = STANDARD.decode(&value).is_ok_and(|bytes| bytes.len() == 16);
        prop_assert_eq!(Key::parse(value.as_bytes()).is_some(), expected);
    }

    #[test]
    fn keys_with_valid_digits(value in "[A-Za-z0-9+/]{21}[AQgwBRhx]==") {
        let expected = STANDARD.decode(&value).is_ok_and(|bytes| bytes.len() == 16);
        prop_assert_eq!(Key::parse(value.as_bytes()).is_some(), expected);
    }

    #[test]
    fn any_value_is_safe(value in any::<Vec<u8>>()) {
        let _ = Key::parse(&value);
        let _ = Key::from_nonce([0; 16]).accept().matches(&value);
    }
}
