//! Writes the seeds of the corpus: `cargo run --example seeds -- corpus`.
//!
//! The inputs of the targets are plain bytes, so that seeds can be written by hand: see the comment above
//! each `fuzz_target!`.

use std::fs;
use std::path::Path;

use bowline_fuzz::encode_frame;
use bowline_proto::{Opcode, Role};

fn main() -> std::io::Result<()> {
    let corpus = std::env::args().nth(1).expect("usage: seeds DIRECTORY");
    for (target, seeds) in [
        ("frames", frames()),
        ("differential", differential()),
        ("utf8", utf8()),
        ("close", close()),
        ("headers", lines(HEADERS)),
        ("url", lines(URLS)),
        ("request", requests()),
        ("response", responses()),
        ("connection", connections()),
    ] {
        let directory = Path::new(&corpus).join(target);
        fs::create_dir_all(&directory)?;
        for (number, seed) in seeds.iter().enumerate() {
            fs::write(directory.join(format!("{number:02}")), seed)?;
        }
    }
    Ok(())
}

const TEXTS: &[&[u8]] = &[
    b"",
    b"Hello",
    "caf\u{e9} \u{20ac} \u{1f600}".as_bytes(),
    b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited",
    b"\xf4\x8f\xbf\xbf\xf4\x90\x80\x80",
    b"\xc0\xaf",
    b"\xe2\x82",
    b"0123456789 0123456789 0123456789 0123456789 0123456789 0123456789 \xf0\x9f\x98\x80",
];

/// Returns conversations as `role` sends them.
fn streams(role: Role) -> Vec<Vec<u8>> {
    let frame = |fin, opcode, payload: &[u8]| encode_frame(role, fin, opcode, payload);
    let close = |code: u16, reason: &str| {
        frame(true, Opcode::Close, &[&code.to_be_bytes(), reason.as_bytes()].concat())
    };
    let mut streams: Vec<Vec<u8>> = TEXTS.iter().map(|text| frame(true, Opcode::Text, text)).collect();
    streams.push([frame(true, Opcode::Binary, &[7; 200]), close(1000, "done")].concat());
    streams.push(frame(true, Opcode::Binary, &[7; 40]));
    streams.push(
        [
            frame(false, Opcode::Text, b"\xf0\x9f"),
            frame(true, Opcode::Ping, b"between"),
            frame(false, Opcode::Continuation, b""),
            frame(true, Opcode::Continuation, b"\x98\x80"),
            frame(true, Opcode::Pong, b""),
        ]
        .concat(),
    );
    streams.push([frame(false, Opcode::Binary, b"a"), frame(true, Opcode::Text, b"b")].concat());
    streams.push(frame(true, Opcode::Continuation, b"nothing"));
    streams.push(frame(true, Opcode::Ping, &[1; 125]));
    streams.push(frame(true, Opcode::Ping, &[1; 126]));
    streams.push(frame(false, Opcode::Ping, b"part"));
    streams.push(frame(true, Opcode::Close, b""));
    streams.push(frame(true, Opcode::Close, b"\x03"));
    streams.extend([1001, 1005, 1014, 2999, 4999].map(|code| close(code, "why")));
    streams.push(vec![0x82, 0x7E, 0, 5]);
    streams.push(vec![0x82, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    streams.push(vec![0xC1, 0x00, 0x83, 0x00]);
    streams
}

fn of_both_roles(prefix: impl Fn(u8) -> Vec<u8>) -> Vec<Vec<u8>> {
    let roles = [(0, Role::Server), (1, Role::Client)];
    let with_prefix = |(role, peer)| {
        let prefix = prefix(role);
        streams(peer).into_iter().map(move |stream| [prefix.clone(), stream].concat())
    };
    roles.into_iter().flat_map(with_prefix).collect()
}

fn frames() -> Vec<Vec<u8>> {
    of_both_roles(|role| vec![role, 2, 5])
}

fn differential() -> Vec<Vec<u8>> {
    of_both_roles(|role| vec![role])
}

fn utf8() -> Vec<Vec<u8>> {
    TEXTS.iter().map(|text| [&[1, 2], *text].concat()).collect()
}

fn close() -> Vec<Vec<u8>> {
    let codes =
        [0_u16, 999, 1000, 1003, 1004, 1005, 1006, 1007, 1014, 1015, 1016, 2999, 3000, 4999, 5000, 65535];
    let with_reason = |code: &u16| [&code.to_be_bytes()[..], "caf\u{e9}".as_bytes()].concat();
    let mut seeds: Vec<_> = codes.iter().map(with_reason).collect();
    seeds.extend([vec![], vec![3], vec![3, 232], [vec![3, 232], vec![b'x'; 123]].concat()]);
    seeds.extend([[vec![3, 232], vec![b'x'; 124]].concat(), vec![3, 232, 0xE2, 0x82]]);
    seeds
}

const HEADERS: &[&str] = &[
    "",
    "chat, superchat",
    ", ,chat,\t, ",
    "permessage-deflate",
    "permessage-deflate; client_max_window_bits",
    "permessage-deflate; server_max_window_bits=\"10\"; client_max_window_bits=15, x-other",
    "a;b=\"\\c\" ; d = e",
    "a;b=\"c",
    "a;b=\"\"",
    "a b",
    "dGhlIHNhbXBsZSBub25jZQ==",
    " dGhlIHNhbXBsZSBub25jZQ==\t",
    "dGhlIHNhbXBsZSBub25jZR==",
    "AQIDBAUGBwgJCgsMDQ4PEA",
];

const URLS: &[&str] = &[
    "ws://example.com\nx-name\nhttps://example.com\nchat\nexample.com",
    "wss://user:pass%20word@example.com:443/path?query\nauthorization\nBearer 1\nchat \
     superchat\n*.example.com",
    "http://[::1]:8080?query\ncookie\na=b\n\nhttps://example.com:8443",
    "HTTPS://EXAMPLE.com:/\nhost\nnull\na,b\n*",
    "ws://example.com/%zz#fragment\nupgrade\n\r\nb\n*.example.com:1",
    "ws://a@b@c:65535/[]{}|\\^`\n\u{e9}\nhttp://[::1]\na a\n[::1]",
    "ftp://example.com\ncontent-length\n\t x\n-\n://",
];

fn lines(lines: &[&str]) -> Vec<Vec<u8>> {
    lines.iter().map(|line| line.as_bytes().to_vec()).collect()
}

fn requests() -> Vec<Vec<u8>> {
    let good = "GET /chat HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\n\
        Connection: keep-alive, Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";
    let with = |more: &str| format!("{good}{more}\r\n");
    let changed = |from: &str, to: &str| with("").replace(from, to);
    let heads = [
        with(""),
        with("Origin: http://server.example.com\r\n"),
        with("Origin: https://evil.example\r\n"),
        with("Origin: null\r\n"),
        with("Sec-WebSocket-Protocol: chat, chat.v2\r\nSec-WebSocket-Protocol: other\r\n"),
        with("Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=\"10\"\r\n"),
        with("Sec-WebSocket-Extensions: a;;\r\n"),
        with("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"),
        with("Host: again\r\n"),
        with("Content-Length: 5\r\n") + "hello",
        with("Transfer-Encoding: chunked\r\n") + "0\r\n\r\n",
        with("") + "\u{1}\u{2}behind",
        with("X: a\r\n b\r\n"),
        changed("GET", "POST"),
        changed("HTTP/1.1", "HTTP/1.0"),
        changed("HTTP/1.1", "HTTP/2"),
        changed("/chat", "http://other.example.com/chat"),
        changed("13", "8"),
        changed("dGhl", "!"),
        changed("websocket\r", "h2c\r"),
        changed("\r\n", "\n"),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
        "GET \" HTTP/1.1\r\n\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
        "\n\r\n".to_owned() + &with("Content-Length: 5\r\n") + "hello",
        "GET".to_owned(),
        "\u{16}\u{3}\u{1}".to_owned(),
    ];
    heads.iter().map(|head| [&[6], head.as_bytes()].concat()).collect()
}

fn responses() -> Vec<Vec<u8>> {
    let good = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Accept: $ACCEPT\r\n";
    let with = |more: &str| format!("{good}{more}\r\n");
    let changed = |from: &str, to: &str| with("").replace(from, to);
    let answers = [
        with(""),
        with("") + "\u{1}\u{5}hello",
        with("Sec-WebSocket-Protocol: chat\r\n"),
        with("Sec-WebSocket-Protocol: other\r\n"),
        with("Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Protocol: chat\r\n"),
        with("Sec-WebSocket-Extensions: permessage-deflate\r\n"),
        with("Sec-WebSocket-Accept: $ACCEPT\r\n"),
        with("Content-Length: 3\r\n") + "abc",
        with("Transfer-Encoding: chunked\r\n"),
        changed("$ACCEPT", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
        changed("Upgrade: websocket\r\n", ""),
        changed("Connection: Upgrade", "Connection: close, upgrade"),
        changed("HTTP/1.1", "HTTP/1.0"),
        "HTTP/1.1 100 Continue\r\n\r\n".to_owned() + &with(""),
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello".to_owned(),
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n".to_owned(),
        "HTTP/1.1 302 Found\r\nLocation: https://example.com/\r\nContent-Length: 0\r\n\r\n".to_owned(),
        "HTTP/1.1 401 Unauthorized\r\n\r\nuntil the end".to_owned(),
        "HTTP/1.1 400\r\n\r\n".to_owned(),
        "\u{15}\u{3}\u{1}".to_owned(),
    ];
    answers.iter().map(|answer| [&[6], answer.as_bytes()].concat()).collect()
}

/// Operations and their arguments: see `Run::step` of the target.
const SCRIPTS: &[&[u8]] = &[
    // Messages in both directions, and our Close frame.
    &[15, 20, 0, 15, 200, 1, 1, 0, 3, 20, 4, 220, 6, 7, 8, 1, 0, 18, 0, 9, 0, 7],
    // A transport that accepts nothing, then a little, then all; a dropped send.
    &[21, 0, 3, 200, 3, 100, 4, 50, 4, 60, 10, 1, 21, 10, 22, 10, 9, 0, 1, 21, 255, 22, 5, 9, 0, 7],
    // Pings of both sides, one of which is dropped.
    &[7, 1, 7, 1, 23, 7, 17, 0, 9, 0, 7, 16, 5, 16, 125, 10, 0, 23, 7, 22, 1],
    // A fragmented message with a ping in between, and an unfinished message.
    &[11, 0, 12, 100, 16, 3, 12, 250, 13, 7, 22, 1, 11, 1, 12, 50, 23, 1, 14, 0, 22, 1],
    // Messages that are read in part, and a dropped recv.
    &[0, 1, 15, 250, 0, 2, 5, 2, 100, 25, 30, 0, 1, 0, 7, 15, 100, 2, 1, 0],
    // A byte at a time, from a stream that hesitates.
    &[20, 5, 20, 3, 15, 40, 1, 1, 0, 3, 40, 6, 7, 20, 4, 20, 7, 15, 220, 3, 1, 0],
    // The peer's Close frame before its next message.
    &[15, 5, 0, 18, 0, 15, 5, 0, 1, 0, 3, 5],
    &[3, 20, 18, 26, 22, 1, 1, 0],
    &[16, 7, 18, 5, 22, 1, 1, 0],
    // Streams that end and break.
    &[3, 100, 20, 0, 22, 1, 1, 0],
    &[15, 30, 0, 20, 1, 1, 0, 3, 5],
    &[21, 3, 3, 100, 20, 2, 22, 1, 1, 0],
    // Silence, and a peer that accepts nothing for too long.
    &[22, 255, 22, 150, 1, 0],
    &[21, 0, 3, 20, 22, 255, 9, 0, 7],
    // The application drops the connection.
    &[21, 5, 3, 50, 4, 60, 24, 255, 22, 1, 21, 255, 22, 10],
    // Bytes that are not frames.
    &[19, 4, 0xFF, 0xFF, 0xFF, 0xFF, 1, 0],
    // Text that is read in part before it turns out to be wrong.
    &[19, 7, 0x01, 0x17, 0, 1, 0x17, 0, 0x7D, 1, 0, 2, 0x16, 18, 1, 1, 0],
];

fn connections() -> Vec<Vec<u8>> {
    [0, 1].iter().flat_map(|role| SCRIPTS.iter().map(|script| [&[*role], *script].concat())).collect()
}
