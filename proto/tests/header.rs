//! The grammar of the handshake's headers (RFC 6455 4.3 and 9.1, RFC 9110 5.6).

use std::borrow::Cow;

use bowline_proto::header::{Extension, is_token, parse_tokens};
use proptest::prelude::*;

#[test]
fn rfc9110_5_6_2_tokens() {
    for byte in 0..=0x7F {
        let character = char::from(byte);
        let expected = character.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(character);
        assert_eq!(is_token(&character.to_string()), expected, "{character:?}");
        assert_eq!(is_token(&format!("a{character}b")), expected, "{character:?}");
    }
    assert!(!is_token(""));
    assert!(!is_token("é"));
    assert!(!is_token("a b"));
    assert!(is_token("permessage-deflate"));
}

#[test]
fn rfc9110_5_6_1_lists_of_tokens() {
    let lists: [(&str, &[&str]); 8] = [
        ("chat", &["chat"]),
        ("chat, superchat", &["chat", "superchat"]),
        ("chat,superchat", &["chat", "superchat"]),
        ("\t chat \t,\t superchat ", &["chat", "superchat"]),
        // Empty elements are skipped.
        (", chat,, ,superchat,", &["chat", "superchat"]),
        ("", &[]),
        (" , ", &[]),
        // Order, repetition and case are kept.
        ("b, A, b", &["b", "A", "b"]),
    ];
    for (value, expected) in lists {
        assert_eq!(parse_tokens(value).as_deref(), Some(expected), "{value:?}");
    }
    for value in ["a b", "a, b c", "a;b", "a/b", "\"a\"", "a=b", "a\u{A0}, b", "a\r\n, b", "é", "a, (b)"] {
        assert_eq!(parse_tokens(value), None, "{value:?}");
    }
}

type Parameters<'a> = &'a [(&'a str, Option<&'a str>)];

fn extension<'a>(name: &'a str, parameters: Parameters<'a>) -> Extension<'a> {
    let parameters = parameters.iter().map(|(name, value)| ((*name).into(), value.map(Cow::from)));
    Extension { name: name.into(), parameters: parameters.collect() }
}

#[test]
fn rfc6455_9_1_extensions() {
    let lists: [(&str, Vec<Extension<'_>>); 14] = [
        ("foo", vec![extension("foo", &[])]),
        ("bar; baz=2", vec![extension("bar", &[("baz", Some("2"))])]),
        // The examples of RFC 6455 9.1.
        ("foo, bar; baz=2", vec![extension("foo", &[]), extension("bar", &[("baz", Some("2"))])]),
        (
            "deflate-stream, mux; max-channels=4; flow-control, deflate-stream",
            vec![
                extension("deflate-stream", &[]),
                extension("mux", &[("max-channels", Some("4")), ("flow-control", None)]),
                extension("deflate-stream", &[]),
            ],
        ),
        ("private-extension", vec![extension("private-extension", &[])]),
        // RFC 7692 7.1: two offers of one extension.
        (
            "permessage-deflate; client_max_window_bits; server_max_window_bits=10, permessage-deflate",
            vec![
                extension(
                    "permessage-deflate",
                    &[("client_max_window_bits", None), ("server_max_window_bits", Some("10"))],
                ),
                extension("permessage-deflate", &[]),
            ],
        ),
        // No whitespace, and whitespace between all tokens.
        ("a;b=c;d,e", vec![extension("a", &[("b", Some("c")), ("d", None)]), extension("e", &[])]),
        (
            "\ta ; b\t= c\t;  d \t,\te ",
            vec![extension("a", &[("b", Some("c")), ("d", None)]), extension("e", &[])],
        ),
        ("a , b\t", vec![extension("a", &[]), extension("b", &[])]),
        ("a; b=c , d", vec![extension("a", &[("b", Some("c"))]), extension("d", &[])]),
        // Empty elements, and no others.
        (",, a, ,b,", vec![extension("a", &[]), extension("b", &[])]),
        ("", vec![]),
        // Repeated parameters are kept.
        ("a; b=1; b=2; b", vec![extension("a", &[("b", Some("1")), ("b", Some("2")), ("b", None)])]),
        // Names that look like numbers are tokens too.
        ("1; 2=3", vec![extension("1", &[("2", Some("3"))])]),
    ];
    for (value, expected) in lists {
        assert_eq!(Extension::parse_list(value), Some(expected), "{value:?}");
    }
}

#[test]
fn rfc9110_5_6_4_quoted_values() {
    let values = [
        (r#"a; b="c""#, "c"),
        (r#"a; b="10""#, "10"),
        (r#"a; b = "c" "#, "c"),
        // RFC 9110 5.6.4: a backslash may escape any character.
        (r#"a; b="\c""#, "c"),
        (r#"a; b="\c\d\e""#, "cde"),
        (r#"a; b="c\de""#, "cde"),
    ];
    for (value, expected) in values {
        assert_eq!(
            Extension::parse_list(value),
            Some(vec![extension("a", &[("b", Some(expected))])]),
            "{value:?}"
        );
    }
    assert_eq!(
        Extension::parse_list(r#"a; b="c" ; d , e; f="g" ,"#),
        Some(vec![extension("a", &[("b", Some("c")), ("d", None)]), extension("e", &[("f", Some("g"))])])
    );
}

#[test]
fn rfc6455_9_1_a_quoted_value_is_a_token() {
    for value in [
        r#"a; b="""#,
        r#"a; b="c d""#,
        r#"a; b="c,d""#,
        r#"a; b="c;d""#,
        r#"a; b=" c""#,
        r#"a; b="c\"d""#,
        r#"a; b="c\\d""#,
        r#"a; b="é""#,
        r#"a; b="\é""#,
        "a; b=\"c\td\"",
    ] {
        assert_eq!(Extension::parse_list(value), None, "{value:?}");
    }
}

#[test]
fn malformed_extensions() {
    for value in [
        "a b",
        "a; b c",
        "a;",
        "a; ",
        "a;;b",
        "a; b;",
        "a; =c",
        "a; b=",
        "a; b= ",
        "a; b=,",
        "a; b==c",
        "a=b",
        "; a",
        "a, ; b",
        "=",
        ";",
        "\"a\"",
        "a; \"b\"",
        "a; b=\"c",
        "a; b=\"",
        "a; b=\"c\\",
        "a; b=\"c\\\"",
        "a; b=\"c\"d",
        "a; b=\"c\" d",
        "a; b=\"c\"\"d\"",
        "a; b=c\"d\"",
        "a; b=c/d",
        "a/b",
        "é",
        "a; é",
        "a; b=é",
        "a\u{A0}; b",
        "a\r\n",
        "a\0",
        "a, b, c d",
    ] {
        assert_eq!(Extension::parse_list(value), None, "{value:?}");
    }
}

fn any_extension() -> impl Strategy<Value = Extension<'static>> {
    const TOKEN: &str = "[a-zA-Z0-9!#$%&'*+.^_`|~-]{1,12}";
    let parameters = prop::collection::vec((TOKEN, prop::option::of(TOKEN)), 0..4);
    (TOKEN, parameters).prop_map(|(name, parameters)| Extension {
        name: name.into(),
        parameters: parameters.into_iter().map(|(name, value)| (name.into(), value.map(Cow::from))).collect(),
    })
}

proptest! {
    #[test]
    fn what_is_displayed_is_parsed(extensions in prop::collection::vec(any_extension(), 0..4)) {
        let value = extensions.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        prop_assert_eq!(Extension::parse_list(&value), Some(extensions));
    }

    #[test]
    fn what_is_parsed_is_displayed_and_parsed_again(value in r#"[ab ,;=\\"]{0,20}"#) {
        if let Some(extensions) = Extension::parse_list(&value) {
            for extension in &extensions {
                prop_assert!(is_token(&extension.name));
            }
            let displayed = extensions.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            prop_assert_eq!(Extension::parse_list(&displayed), Some(extensions));
        }
    }

    #[test]
    fn any_string_is_safe(value in prop_oneof![".*", "[a-c \t,;=\\\\\"é]*"]) {
        let _ = Extension::parse_list(&value);
        if let Some(tokens) = parse_tokens(&value) {
            prop_assert!(tokens.into_iter().all(is_token));
        }
    }
}
