//! Messages that come back: for servers that echo.

use super::compression::compressed;
use crate::check::script::{Answer, Case, must};
use crate::check::wire::frame::{binary, continuation, ping, text};
use crate::check::wire::inbox::Kind;

pub(super) fn cases() -> Vec<Case> {
    [sizes(), fragments(), sequences()].concat()
}

fn case(id: &str, section: &'static str, title: &str) -> Case {
    must(format!("echo.{id}"), section, title)
}

fn sizes() -> Vec<Case> {
    let sizes = [0_usize, 1, 125, 126, 127, 65_535, 65_536, 262_144];
    let texts = sizes.map(|size| {
        let payload = vec![b'*'; size];
        case(&format!("text-{size}"), "RFC 6455 5.6", &format!("a text message of {size} bytes"))
            .send([text(payload.clone())])
            .echoes(Kind::Text, payload)
    });
    let binaries = sizes.map(|size| {
        let payload: Vec<u8> = (0..=u8::MAX).cycle().take(size).collect();
        case(&format!("binary-{size}"), "RFC 6455 5.6", &format!("a binary message of {size} bytes"))
            .send([binary(payload.clone())])
            .echoes(Kind::Binary, payload)
    });
    texts.into_iter().chain(binaries).collect()
}

fn fragments() -> Vec<Case> {
    let characters = "κόσμε, 世界, 😀";
    let (start, end) = characters.as_bytes().split_at(3);
    vec![
        case("unicode", "RFC 6455 8.1", "a text message with characters of two, three and four bytes")
            .send([text(characters)])
            .echoes(Kind::Text, characters),
        case("fragmented", "RFC 6455 5.4", "a text message in two fragments, split within a character")
            .send([text(start).more(), continuation(end)])
            .echoes(Kind::Text, characters),
        case("fragmented-empty", "RFC 6455 5.4", "a message with empty fragments")
            .send([binary("").more(), continuation("x").more(), continuation("")])
            .echoes(Kind::Binary, "x"),
        case("fragmented-hundred", "RFC 6455 5.4", "a message in 100 fragments")
            .send([binary("x").more()])
            .repeat(&continuation("x").more(), 98)
            .send([continuation("x")])
            .echoes(Kind::Binary, [b'x'; 100]),
        case("ping-between", "RFC 6455 5.4", "a ping between two fragments")
            .send([text("a").more(), ping("between"), continuation("b")])
            .pong("between")
            .echoes(Kind::Text, "ab"),
        case("slow", "RFC 6455 5.2", "a text message byte by byte")
            .send_slowly([text("slow")])
            .echoes(Kind::Text, "slow"),
    ]
}

fn sequences() -> Vec<Case> {
    let hello = b"hello, hello, hello";
    let frame = || text(compressed(hello)).reserved(4);
    vec![
        case("order", "RFC 6455 5.4", "three messages in one write")
            .send([text("1"), binary("2"), text("3")])
            .echoes(Kind::Text, "1")
            .echoes(Kind::Binary, "2")
            .echoes(Kind::Text, "3"),
        case("compressed", "RFC 7692 7.2", "a compressed message")
            .answer(Answer::Compressed)
            .send([frame()])
            .echoes(Kind::Text, *hello),
        case("compressed-twice", "RFC 7692 7.2", "two compressed messages")
            .answer(Answer::Compressed)
            .send([frame(), frame()])
            .echoes(Kind::Text, *hello)
            .echoes(Kind::Text, *hello),
    ]
}
