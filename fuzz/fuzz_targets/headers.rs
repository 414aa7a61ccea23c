//! Header grammar: lists of tokens and of extensions, and handshake keys.
#![no_main]

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bowline_proto::handshake::Key;
use bowline_proto::header::{Extension, is_token, parse_tokens};
use libfuzzer_sys::fuzz_target;

// the value of a header
fuzz_target!(|value: &[u8]| {
    check_key(value);
    let Ok(value) = std::str::from_utf8(value) else { return };
    if let Some(tokens) = parse_tokens(value) {
        assert!(tokens.iter().copied().all(is_token));
        assert_eq!(parse_tokens(&tokens.join(",")), Some(tokens));
        // RFC 6455 9.1: an extension without parameters is a token.
        let extensions = Extension::parse_list(value).expect("a list of tokens is one of extensions");
        assert!(extensions.iter().all(|extension| extension.parameters.is_empty()));
    }
    if let Some(extensions) = Extension::parse_list(value) {
        for extension in &extensions {
            assert!(is_token(&extension.name));
            for (name, value) in &extension.parameters {
                assert!(is_token(name) && value.as_ref().is_none_or(|value| is_token(value)));
            }
        }
        let written: Vec<String> = extensions.iter().map(ToString::to_string).collect();
        assert_eq!(Extension::parse_list(&written.join(", ")), Some(extensions));
    }
});

fn check_key(value: &[u8]) {
    let decoded = BASE64_STANDARD.decode(value.trim_ascii()).ok();
    let nonce: Option<[u8; 16]> = decoded.and_then(|nonce| nonce.try_into().ok());
    let Some(key) = Key::parse(value) else { return assert_eq!(nonce, None) };
    assert_eq!(nonce.map(Key::from_nonce), Some(key));
    assert_eq!(key.accept().as_str(), tungstenite::handshake::derive_accept_key(key.as_str().as_bytes()));
}
