//! Compressed messages (RFC 7692), where the server agrees on compression.

use bowline_proto::Deflater;

use crate::check::script::{Answer, Case, must};
use crate::check::wire::frame::{Frame, binary, continuation, ping, text};

const RSV1: u8 = 4;

/// Each fragment of the bomb, decompressed.
const BOMB_FRAGMENT: usize = 64 << 10;

pub(super) fn cases() -> Vec<Case> {
    [valid(), invalid(), bomb()].concat()
}

fn case(id: &str, section: &'static str, title: &str) -> Case {
    must(format!("compression.{id}"), section, title).answer(Answer::Compressed)
}

/// The payload of a message that is compressed on its own.
pub(super) fn compressed(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    Deflater::new(6, 15, false).message(payload, &mut out);
    out
}

fn compressed_text(payload: &[u8]) -> Frame {
    text(compressed(payload)).reserved(RSV1)
}

fn valid() -> Vec<Case> {
    let hello = compressed(b"hello, hello, hello, hello");
    let (start, end) = hello.split_at(hello.len() / 2);
    vec![
        case("text", "RFC 7692 7.2.2", "a compressed text message").send([compressed_text(b"hello")]).alive(),
        case("empty", "RFC 7692 7.2.3.6", "an empty message, compressed to one byte")
            .send([text([0]).reserved(RSV1)])
            .alive(),
        case("plain", "RFC 7692 6", "an uncompressed message, though compression is agreed on")
            .send([text("hello")])
            .alive(),
        case("stored", "RFC 7692 7.2.3.3", "a message in a block without compression")
            .send([text(*b"\x00\x05\x00\xfa\xffhello\x00").reserved(RSV1)])
            .alive(),
        case("final-block", "RFC 7692 7.2.3.4", "a message in a block with the bit BFINAL")
            .send([text(*b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00").reserved(RSV1)])
            .alive(),
        case("fragmented", "RFC 7692 6.1", "a compressed message in two fragments")
            .send([text(start).reserved(RSV1).more(), continuation(end)])
            .alive(),
        case("ping-between", "RFC 7692 6.1", "a ping between two compressed fragments")
            .send([text(start).reserved(RSV1).more(), ping("between"), continuation(end)])
            .pong("between")
            .alive(),
    ]
}

fn invalid() -> Vec<Case> {
    let hello = compressed(b"hello, hello, hello, hello");
    let (start, end) = hello.split_at(hello.len() / 2);
    vec![
        case("rsv1-continuation", "RFC 7692 6", "RSV1 on a continuation frame")
            .send([text(start).reserved(RSV1).more(), continuation(end).reserved(RSV1)])
            .fails(&[1002]),
        case("rsv1-ping", "RFC 7692 6", "RSV1 on a ping").send([ping("x").reserved(RSV1)]).fails(&[1002]),
        case("rsv2", "RFC 6455 5.2", "RSV2 on a text frame").send([text("x").reserved(2)]).fails(&[1002]),
        // RFC 7692 leaves the code open.
        case("no-deflate", "RFC 7692 7.2.2", "a compressed message that can't be decompressed")
            .send([binary([0xff; 16]).reserved(RSV1)])
            .fails(&[1002, 1003, 1007, 1011]),
        case("invalid-text", "RFC 6455 8.1", "compressed text that is not UTF-8")
            .send([compressed_text(b"text: \xff")])
            .fails_in_time(&[1007]),
    ]
}

fn bomb() -> Vec<Case> {
    let mut fragment = Vec::new();
    Deflater::new(6, 15, false).fragment(&vec![0; BOMB_FRAGMENT], true, &mut fragment);
    vec![
        case("bomb", "RFC 6455 10.4", "256 MiB of zeros, compressed")
            .send([binary(fragment.clone()).reserved(RSV1).more()])
            .repeat(&continuation(fragment).more(), 4095)
            .send([continuation([0])])
            .survives(),
    ]
}
