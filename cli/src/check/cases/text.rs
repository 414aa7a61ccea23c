//! Text is UTF-8 (RFC 6455 5.6 and 8.1).
//!
//! No ping follows invalid text: a server may look at the text when the application receives it, and answer
//! pings before that.

use crate::check::script::{Case, must, should};
use crate::check::wire::frame::{binary, continuation, ping, text};

const INVALID_DATA: &[u16] = &[1007];

pub(super) fn cases() -> Vec<Case> {
    [invalid(), fragmented(), early(), valid()].concat()
}

fn case(id: &str, title: &str) -> Case {
    must(format!("text.{id}"), "RFC 6455 8.1", title)
}

fn invalid() -> Vec<Case> {
    let forms: [(&str, &str, &[u8]); 15] = [
        ("continuation-byte", "the byte 80 alone", b"\x80"),
        ("byte-ff", "the byte ff", b"\xff"),
        ("byte-fe", "the byte fe", b"\xfe"),
        ("latin-1", "\"caf\\xe9\" in Latin-1", b"caf\xe9"),
        ("truncated-2", "the first of two bytes", b"\xce"),
        ("truncated-3", "the first two of three bytes", b"\xe2\x82"),
        ("truncated-4", "the first three of four bytes", b"\xf0\x9f\x98"),
        ("overlong-2", "/ in two bytes", b"\xc0\xaf"),
        ("overlong-3", "/ in three bytes", b"\xe0\x80\xaf"),
        ("overlong-4", "/ in four bytes", b"\xf0\x80\x80\xaf"),
        ("overlong-nul", "NUL in two bytes", b"\xc0\x80"),
        ("surrogate", "the surrogate U+D800", b"\xed\xa0\x80"),
        ("surrogate-pair", "U+1F600 as two surrogates", b"\xed\xa0\xbd\xed\xb8\x80"),
        ("above-10ffff", "U+110000", b"\xf4\x90\x80\x80"),
        ("five-bytes", "a form of five bytes", b"\xf8\x88\x80\x80\x80"),
    ];
    let at_end = forms.map(|(id, title, bytes)| {
        let payload = [b"text: ", bytes].concat();
        case(id, &format!("text that ends with {title}")).send([text(payload)]).fails_in_time(INVALID_DATA)
    });
    let inside = [("inside", &b"a\xffb"[..]), ("inside-truncated", b"a\xe2\x82b")].map(|(id, payload)| {
        case(id, "text with an invalid byte in the middle").send([text(payload)]).fails_in_time(INVALID_DATA)
    });
    at_end.into_iter().chain(inside).collect()
}

fn fragmented() -> Vec<Case> {
    vec![
        case("fragmented-first", "invalid text in the first of two fragments")
            .send([text(*b"\xff").more(), continuation("valid")])
            .fails_in_time(INVALID_DATA),
        case("fragmented-last", "invalid text in the last of two fragments")
            .send([text("valid").more(), continuation(*b"\xff")])
            .fails_in_time(INVALID_DATA),
        case("fragmented-across", "a character that begins in one fragment, and does not go on in the next")
            .send([text(*b"\xe2\x82").more(), continuation("x")])
            .fails_in_time(INVALID_DATA),
        case("fragmented-truncated", "fragments that end within a character")
            .send([text("valid").more(), continuation(*b"\xe2\x82")])
            .fails_in_time(INVALID_DATA),
        case("fragmented-ping", "invalid text across fragments, with a ping between")
            .send([text(*b"\xe2").more(), ping("between"), continuation("x")])
            .fails_in_time(INVALID_DATA),
    ]
}

/// Servers do well to fail as soon as the text can't become valid.
fn early() -> Vec<Case> {
    vec![
        should("text.early-fragment", "RFC 6455 8.1", "invalid text in a fragment, and no further fragment")
            .send([text(*b"valid\xff").more()])
            .fails_in_time(INVALID_DATA),
        should("text.early-frame", "RFC 6455 8.1", "the first bytes of a frame of 1,000, which are invalid")
            .send([text(*b"valid\xff").announcing(1000)])
            .fails_in_time(INVALID_DATA),
    ]
}

fn valid() -> Vec<Case> {
    let characters = [
        ("valid-greek", "κόσμε"),
        ("valid-nul", "\0"),
        ("valid-emoji", "😀 and 👨‍👩‍👧"),
        ("valid-limits", "\u{7f}\u{80}\u{7ff}\u{800}\u{d7ff}\u{e000}\u{ffff}\u{10000}\u{10ffff}"),
        ("valid-noncharacters", "\u{fffe}\u{fdd0}\u{1ffff}"),
        ("valid-mark", "\u{feff}text after a byte order mark"),
    ];
    let whole = characters.map(|(id, payload)| {
        case(id, &format!("the text \"{}\"", payload.escape_default())).send([text(payload)]).alive()
    });
    let bytes = "κ€😀".as_bytes();
    let split = case("valid-split", "characters that are split over fragments")
        .send([
            text(&bytes[..1]).more(),
            continuation(&bytes[1..4]).more(),
            continuation(&bytes[4..7]).more(),
            continuation(&bytes[7..]),
        ])
        .alive();
    let slow = case("valid-slow", "characters byte by byte").send_slowly([text("κ€😀")]).alive();
    let no_text = must("text.binary", "RFC 6455 5.6", "a binary message that is no UTF-8")
        .send([binary(*b"\xff\xfe\x80")])
        .alive();
    whole.into_iter().chain([split, slow, no_text]).collect()
}
