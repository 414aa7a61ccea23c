//! permessage-deflate (RFC 7692), on both sides.

use std::time::Duration;

use bowline::{
    Acceptor, Adoption, CloseCode, Compression, CompressionOptions, Connector, DeflateParameters, Error,
    ErrorKind, Limits, Message, MessageKind, Payload, Prepared, Role, Server, WebSocket,
};
use bowline_proto::{Deflater, Inflater, Opcode};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::time::Instant;

use crate::support::frames::Frame;
use crate::support::http::{Head, acceptance, echo, read_head, start, upgrade};
use crate::support::wire::{Wire, wire};
use crate::support::{self, peer_of, poll_times, settle};

const ROLES: [Role; 2] = [Role::Client, Role::Server];

const MODES: [Compression; 2] = [Compression::NoContextTakeover, Compression::ContextTakeover];

fn parameters(mode: Compression) -> DeflateParameters {
    let none = mode == Compression::NoContextTakeover;
    DeflateParameters {
        server_no_context_takeover: none,
        client_no_context_takeover: none,
        ..DeflateParameters::default()
    }
}

/// Creates a connection over a scripted stream, with negotiated compression.
fn open_with(
    role: Role,
    limits: Limits,
    options: CompressionOptions,
    mode: Compression,
) -> (WebSocket, Wire) {
    let (stream, wire) = wire();
    let adoption = Adoption::new().compression(parameters(mode));
    let socket = match role {
        Role::Server => Acceptor::new().limits(limits).compression(options).adopt(stream, adoption).unwrap(),
        Role::Client => Connector::new().limits(limits).compression(options).adopt(stream, adoption).unwrap(),
    };
    (socket, wire)
}

fn open(role: Role, mode: Compression) -> (WebSocket, Wire) {
    open_with(role, Limits::default(), mode.options(), mode)
}

/// The other end of such a connection.
struct Peer {
    deflater: Deflater,
    inflater: Inflater,
}

impl Peer {
    fn new(mode: Compression) -> Self {
        let takes_over = mode == Compression::ContextTakeover;
        Self { deflater: Deflater::new(6, 15, takes_over), inflater: Inflater::new(u64::MAX, 15, takes_over) }
    }

    fn compress(&mut self, message: &[u8]) -> Vec<u8> {
        let mut payload = Vec::new();
        self.deflater.message(message, &mut payload);
        payload
    }

    fn text(&mut self, text: &str) -> Frame {
        Frame::text(self.compress(text.as_bytes())).compressed()
    }

    fn binary(&mut self, bytes: &[u8]) -> Frame {
        Frame::binary(self.compress(bytes)).compressed()
    }

    /// Encodes a message in fragments of this many bytes.
    fn fragments(&mut self, message: &[u8], size: usize) -> Vec<Frame> {
        let payload = self.compress(message);
        let count = payload.len().div_ceil(size);
        let fragments = payload.chunks(size).enumerate().map(|(i, piece)| match i {
            0 => Frame::binary(piece).compressed(),
            _ => Frame::continuation(piece),
        });
        let unfinished = |(i, frame): (usize, Frame)| if i + 1 < count { frame.unfinished() } else { frame };
        fragments.enumerate().map(unfinished).collect()
    }

    fn decompress(&mut self, frame: &Frame) -> Vec<u8> {
        self.decompress_all(std::slice::from_ref(frame))
    }

    /// Decompresses the message in these frames.
    fn decompress_all(&mut self, frames: &[Frame]) -> Vec<u8> {
        assert!(frames[0].compressed && !frames[1..].iter().any(|frame| frame.compressed));
        let kind = if frames[0].opcode == Opcode::Text { MessageKind::Text } else { MessageKind::Binary };
        self.inflater.begin(kind);
        let mut out = Vec::new();
        for frame in frames {
            let mut input = &frame.payload[..];
            loop {
                let step = self.inflater.inflate(input, frame.fin, &mut out).unwrap();
                input = &input[step.consumed..];
                if step.needs_input || step.done {
                    assert_eq!(step.done, frame.fin);
                    break;
                }
            }
        }
        out
    }
}

fn text(size: usize) -> String {
    "{\"id\":1234,\"name\":\"κόσμε\",\"tags\":[\"a\",\"b\"]},".chars().cycle().take(size).collect()
}

/// Returns incompressible bytes.
fn noise() -> Vec<u8> {
    noise_of(20_000)
}

fn noise_of(size: usize) -> Vec<u8> {
    (0_u32..).flat_map(|i| i.wrapping_mul(2_654_435_761).to_be_bytes()).take(size).collect()
}

async fn received(socket: &mut WebSocket) -> Message {
    socket.recv().await.unwrap().expect("a message")
}

// ---- agreeing

async fn connect(client: CompressionOptions, server: CompressionOptions) -> (WebSocket, WebSocket) {
    let (near, far) = duplex(64 * 1024);
    let (connector, acceptor) = (Connector::new().compression(client), Acceptor::new().compression(server));
    let (client, server) =
        tokio::join!(connector.connect_over("ws://example.com", near), acceptor.accept_stream(far));
    (client.unwrap().0, server.unwrap().0)
}

#[tokio::test]
async fn both_sides_tell_what_was_agreed_on() {
    let (off, none, over) = (
        Compression::Off.options(),
        Compression::NoContextTakeover.options(),
        Compression::ContextTakeover.options(),
    );
    let both = Some(parameters(Compression::ContextTakeover));
    let neither = Some(parameters(Compression::NoContextTakeover));
    let windows = |server, client| DeflateParameters {
        server_max_window_bits: server,
        client_max_window_bits: client,
        ..DeflateParameters::default()
    };
    for (client, server, agreed) in [
        (off, over, None),
        (over, off, None),
        (over, over, both),
        (none, over, neither),
        (over, none, neither),
        (over.server_max_window_bits(10), over.client_max_window_bits(9), Some(windows(10, 9))),
        (over.client_max_window_bits(12), over.server_max_window_bits(11), Some(windows(11, 12))),
    ] {
        let (client, server) = connect(client, server).await;
        assert_eq!(client.compression(), agreed);
        assert_eq!(server.compression(), agreed);
    }
}

#[tokio::test]
async fn messages_of_all_kinds_go_both_ways_in_every_mode() {
    for client in MODES {
        for server in MODES {
            for bits in [9, 15] {
                let options = |mode: Compression| {
                    mode.options().server_max_window_bits(bits).client_max_window_bits(bits).threshold(0)
                };
                let (client, server) = connect(options(client), options(server)).await;
                let echo = tokio::spawn(echo(server));
                exchange(client).await;
                echo.await.unwrap().unwrap();
            }
        }
    }
}

async fn exchange(mut socket: WebSocket) {
    let large = text(400_000);
    for message in ["", "a", "Hello", &text(127), &text(1000), &large, &text(1000), ""] {
        socket.send(message).await.unwrap();
        assert_eq!(received(&mut socket).await, message.into());
        socket.send(message.as_bytes()).await.unwrap();
        assert_eq!(received(&mut socket).await, message.as_bytes().into());
    }
    let sender = socket.sender();
    let write = async {
        let mut writer = sender.writer(MessageKind::Text).await.unwrap();
        writer.write_all(b"first, ").await.unwrap();
        writer.flush().await.unwrap();
        writer.write_all(large.as_bytes()).await.unwrap();
        writer.finish().await.unwrap();
        sender.writer(MessageKind::Binary).await.unwrap().finish().await.unwrap();
    };
    let read = async {
        let mut whole = String::new();
        let mut reader = socket.reader().await.unwrap().unwrap();
        reader.read_to_string(&mut whole).await.unwrap();
        drop(reader);
        assert!(whole == format!("first, {large}"));
        assert_eq!(received(&mut socket).await, Message::Binary(bytes::Bytes::new()));
    };
    tokio::join!(write, read);
    socket.close(CloseCode::NORMAL, "").await.unwrap();
}

#[tokio::test]
async fn a_server_answers_the_offers_of_a_client() {
    let acceptor = Acceptor::new().compression(Compression::ContextTakeover);
    let address = start(Server::new().acceptor(acceptor), echo).await;
    for (lines, answer) in [
        (&["permessage-deflate; client_max_window_bits"][..], Some("permessage-deflate")),
        (
            &["x-other", "permessage-deflate; server_max_window_bits=\"12\""],
            Some("permessage-deflate; server_max_window_bits=12"),
        ),
        (
            &["permessage-deflate; nonsense, permessage-deflate; server_no_context_takeover"],
            Some("permessage-deflate; server_no_context_takeover"),
        ),
        (
            &[
                "permessage-deflate; server_max_window_bits=8, x-other",
                "permessage-deflate; server_max_window_bits=10; server_max_window_bits=10",
                "permessage-deflate; client_max_window_bits=9, permessage-deflate",
            ],
            Some("permessage-deflate; client_max_window_bits=9"),
        ),
        (
            &["permessage-deflate; client_max_window_bits=\"8\""],
            Some("permessage-deflate; client_max_window_bits=8"),
        ),
        (&["permessage-deflate; client_max_window_bits=07"], None),
        (&["permessage-deflate; server_no_context_takeover=\"true\""], None),
        (&["permessage-deflate; server_max_window_bits=8"], None),
        (&["x-webkit-deflate-frame"], None),
        (&[], None),
    ] {
        let add = |head: Head, line: &&str| head.with(&format!("Sec-WebSocket-Extensions: {line}"));
        let request = lines.iter().fold(Head::request(), add);
        let (_, head) = upgrade(address, &request).await;
        assert_eq!(head.get("sec-websocket-extensions").as_deref(), answer, "{lines:?}");
    }
}

#[tokio::test]
async fn a_client_refuses_answers_that_do_not_fit_its_offer() {
    let over = Compression::ContextTakeover.options();
    for (options, answer, named) in [
        (over, "permessage-deflate; nonsense", Some("parameter")),
        (over, "permessage-deflate, permessage-deflate", Some("not offered")),
        (over, "x-other", Some("not offered")),
        (over, "permessage-deflate;", Some("not a list")),
        (over, "", None),
        (over, ", ,", None),
        (over.server_max_window_bits(10), "permessage-deflate", Some("window")),
        (
            over.server_max_window_bits(10),
            "permessage-deflate",
            Some("CompressionOptions::server_max_window_bits"),
        ),
        (Compression::NoContextTakeover.options(), "permessage-deflate", Some("server_no_context_takeover")),
        (
            Compression::NoContextTakeover.options(),
            "permessage-deflate",
            Some("use Compression::ContextTakeover"),
        ),
        (over, "permessage-deflate; client_max_window_bits=8", None),
        (over, "permessage-deflate; server_no_context_takeover", None),
        (over, "permessage-deflate; server_max_window_bits=\"10\"", None),
        (over, "permessage-deflate\r\nSec-WebSocket-Extensions: permessage-deflate", Some("not offered")),
        (over, "permessage-deflate; server_max_window_bits=09", Some("parameter")),
        (over, "permessage-deflate; server_max_window_bits=16", Some("parameter")),
        (over, "permessage-deflate; client_max_window_bits", Some("parameter")),
        (over.client_max_window_bits(10), "permessage-deflate; client_max_window_bits=11", Some("window")),
    ] {
        let (near, mut far) = duplex(4096);
        let server = tokio::spawn(async move {
            let request = read_head(&mut far).await;
            let response = acceptance(&request).with(&format!("Sec-WebSocket-Extensions: {answer}"));
            far.write_all(response.text().as_bytes()).await.unwrap();
            (far, request)
        });
        let connected = Connector::new().compression(options).connect_over("ws://example.com", near).await;
        let (_far, request) = server.await.unwrap();
        assert!(request.get("sec-websocket-extensions").unwrap().starts_with("permessage-deflate"));
        match (connected, named) {
            (Ok(_), None) => {}
            (Err(error), Some(named)) => {
                assert_eq!(error.kind(), ErrorKind::Handshake);
                assert!(error.to_string().contains(named), "{answer}: {error}");
            }
            (result, _) => panic!("{answer}: {result:?}"),
        }
    }
}

#[tokio::test]
async fn options_that_make_no_sense_are_named() {
    let over = Compression::ContextTakeover.options();
    for (options, named) in [
        (over.level(0), "CompressionOptions::level is 0"),
        (over.level(10), "CompressionOptions::level is 10"),
        (over.server_max_window_bits(8), "CompressionOptions::server_max_window_bits is 8"),
        (over.client_max_window_bits(16), "CompressionOptions::client_max_window_bits is 16"),
    ] {
        let error = Connector::new().compression(options).request("ws://example.com").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains(named), "{error}");
        let rejection = Acceptor::new()
            .compression(options)
            .accept::<_, ()>(&mut Head::request().to_request())
            .unwrap_err();
        assert!(format!("{rejection:?}").contains(named), "{rejection:?}");
    }
}

#[tokio::test]
async fn a_client_that_may_not_use_a_window_of_9_bits_compresses_nothing() {
    let (stream, wire) = wire();
    let parameters = DeflateParameters { client_max_window_bits: 8, ..DeflateParameters::default() };
    let connector = Connector::new().compression(Compression::ContextTakeover);
    let socket = connector.adopt(stream, Adoption::new().compression(parameters)).unwrap();
    socket.send(text(1000)).await.unwrap();
    assert_eq!(wire.next_frame(Role::Client).await, Frame::text(text(1000)));
}

/// Invalid parameters are reported at once, not with the first message.
#[tokio::test]
async fn parameters_that_nobody_agrees_on_are_not_adopted() {
    let over = Compression::ContextTakeover.options();
    let fine = DeflateParameters::default();
    for (options, parameters, named) in [
        (over.level(10), fine, "CompressionOptions::level is 10"),
        (over.server_max_window_bits(8), fine, "CompressionOptions::server_max_window_bits is 8"),
        (over, DeflateParameters { server_max_window_bits: 7, ..fine }, "Adoption::compression has windows"),
        (over, DeflateParameters { client_max_window_bits: 16, ..fine }, "of [15, 16] bits"),
    ] {
        let adoption = Adoption::new().compression(parameters);
        for adopted in [
            Acceptor::new().compression(options).adopt(duplex(1).0, adoption.clone()),
            Connector::new().compression(options).adopt(duplex(1).0, adoption),
        ] {
            let error = adopted.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().contains(named), "{error}");
        }
    }
}

// ---- sending

#[tokio::test]
async fn messages_from_the_threshold_on_are_compressed() {
    for role in ROLES {
        for (mode, default) in [(MODES[0], 512), (MODES[1], 128)] {
            for (options, threshold) in [(mode.options(), default), (mode.options().threshold(10), 10)] {
                let (socket, wire) = open_with(role, Limits::default(), options, mode);
                let mut peer = Peer::new(mode);
                for size in [threshold - 1, threshold] {
                    let message = vec![b'a'; size];
                    socket.send(&message).await.unwrap();
                    let frame = wire.next_frame(role).await;
                    assert_eq!(frame.compressed, size >= threshold, "{role:?} {mode:?} {size}");
                    if frame.compressed {
                        assert_eq!(peer.decompress(&frame), message);
                    } else {
                        assert_eq!(frame.payload, message);
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn a_sender_decides_for_a_message() {
    for role in ROLES {
        for mode in MODES {
            let (socket, wire) = open(role, mode);
            let mut peer = Peer::new(mode);
            socket.send(Payload::from("tiny, tiny, tiny").compress(true)).await.unwrap();
            assert_eq!(peer.decompress(&wire.next_frame(role).await), b"tiny, tiny, tiny");
            let mut writer = socket.writer(MessageKind::Text).await.unwrap().compress(true);
            writer.write_all(text(700).as_bytes()).await.unwrap();
            writer.finish().await.unwrap();
            let first = wire.next_frame(role).await;
            assert_eq!(peer.decompress(&first), text(700).as_bytes());

            socket.send(Payload::from(text(5000)).compress(false)).await.unwrap();
            assert_eq!(wire.next_frame(role).await, Frame::text(text(5000)));
            socket.try_send(Payload::from(&Prepared::new(text(5000))).compress(false)).unwrap();
            assert_eq!(wire.next_frame(role).await, Frame::text(text(5000)));
            socket.send(&Prepared::new(Payload::from(text(5000)).compress(false))).await.unwrap();
            assert_eq!(wire.next_frame(role).await, Frame::text(text(5000)));
            let mut writer = socket.writer(MessageKind::Text).await.unwrap().compress(false);
            writer.write_all(text(100).as_bytes()).await.unwrap();
            writer.finish().await.unwrap();
            assert_eq!(wire.next_frame(role).await, Frame::text(text(100)));

            // RFC 7692 7.2.1: uncompressed messages don't enter the window.
            socket.send(text(700)).await.unwrap();
            let last = wire.next_frame(role).await;
            assert_eq!(peer.decompress(&last), text(700).as_bytes());
            let is_smaller = last.payload.len() < first.payload.len() / 2;
            assert_eq!(is_smaller, mode == Compression::ContextTakeover);
        }
    }
}

/// The end of a message in progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CutOff {
    /// The writer is dropped before anything was sent.
    BeforeTheFirstFragment,
    /// The writer is dropped after a fragment, which ends the connection.
    AfterAFragment,
    WithTheConnection,
    ByClose,
    ByTheTransport,
}

/// Connections lend each other their compressors. A connection whose message was cut off breaks no other
/// message.
#[tokio::test(start_paused = true)]
async fn a_message_that_was_cut_off_breaks_no_other() {
    for cut_off in [
        CutOff::BeforeTheFirstFragment,
        CutOff::AfterAFragment,
        CutOff::WithTheConnection,
        CutOff::ByClose,
        CutOff::ByTheTransport,
    ] {
        for (level, mode) in (1..=9).flat_map(|level| MODES.map(|mode| (level, mode))) {
            for role in ROLES {
                for flush in [false, true] {
                    cut_off_a_message(cut_off, role, mode.options().level(level), mode, flush).await;
                }
            }
        }
    }
}

async fn cut_off_a_message(
    cut_off: CutOff,
    role: Role,
    options: CompressionOptions,
    mode: Compression,
    flush: bool,
) {
    let case = format!("{cut_off:?} {role:?} {options:?}, flushed: {flush}");
    let (socket, wire) = open_with(role, Limits::default(), options, mode);
    let mut writer = socket.writer(MessageKind::Binary).await.unwrap();
    if cut_off == CutOff::BeforeTheFirstFragment {
        // The message went through the compressor, which has not produced any output.
        writer.write_all(&vec![b'a'; 16 * 1024 + 1]).await.unwrap();
        assert!(wire.take_frames(role).is_empty(), "{case}");
    } else {
        writer.write_all(&noise()).await.unwrap();
        if flush {
            writer.flush().await.unwrap();
        } else {
            writer.write_all(&noise()).await.unwrap();
        }
    }
    match cut_off {
        CutOff::BeforeTheFirstFragment => {
            drop(writer);
            // The connection continues.
            socket.send(&text(700)).await.unwrap();
            let frame = wire.next_frame(role).await;
            assert_eq!(Peer::new(mode).decompress(&frame), text(700).as_bytes(), "{case}");
        }
        CutOff::AfterAFragment => {
            drop(writer);
            assert_eq!(wire.take_frames(role).last().map(Frame::close_code), Some(1011), "{case}");
        }
        CutOff::WithTheConnection => drop(writer),
        CutOff::ByClose => {
            poll_times(3, socket.close(CloseCode::NORMAL, "")).await;
            wire.feed_frame(peer_of(role), &Frame::close(1000, ""));
            drop(writer);
        }
        CutOff::ByTheTransport => {
            wire.break_writing(std::io::ErrorKind::BrokenPipe);
            socket.flush().await.ok();
            drop(writer);
        }
    }
    drop(socket);
    wire.end();
    wire.until(Wire::is_dropped).await;
    settle().await;

    // Other connections continue with the compressor that it returned.
    for prepared in [false, true] {
        let (socket, wire) = open_with(role, Limits::default(), options, mode);
        let mut peer = Peer::new(mode);
        for message in [text(700), text(900)] {
            if prepared {
                socket.send(&Prepared::new(message.as_str())).await.unwrap();
            } else {
                socket.send(&message).await.unwrap();
            }
            let frame = wire.next_frame(role).await;
            assert_eq!(peer.decompress(&frame), message.as_bytes(), "{case}, prepared: {prepared}");
        }
    }
}

#[tokio::test]
async fn context_takeover_refers_to_earlier_messages() {
    let sizes = async |mode: Compression| {
        let (socket, wire) = open(Role::Client, mode);
        let mut peer = Peer::new(mode);
        let mut sizes = Vec::new();
        for i in 0..3 {
            let message = format!("{i} {}", text(600));
            socket.send(&message).await.unwrap();
            let frame = wire.next_frame(Role::Client).await;
            sizes.push(frame.payload.len());
            assert_eq!(peer.decompress(&frame), message.as_bytes());
        }
        sizes
    };
    let none = sizes(Compression::NoContextTakeover).await;
    assert!(none[2] > 40, "{none:?}");
    let over = sizes(Compression::ContextTakeover).await;
    assert!(over[2] < 25, "{over:?}");
}

/// RFC 7692 7.1.1, 7.1.2: each parameter is about the messages of one side.
#[tokio::test]
async fn each_direction_has_its_own_parameters() {
    let (none, over) = (Compression::NoContextTakeover, Compression::ContextTakeover);
    let repeated = noise()[..600].repeat(2);
    for role in ROLES {
        for (ours, theirs) in [(none, over), (over, none)] {
            let (our_bits, their_bits) = if ours == none { (9, 15) } else { (15, 9) };
            let (stream, wire) = wire();
            let parameters = |server, client, server_bits, client_bits| DeflateParameters {
                server_no_context_takeover: server == none,
                client_no_context_takeover: client == none,
                server_max_window_bits: server_bits,
                client_max_window_bits: client_bits,
            };
            let mut socket = match role {
                Role::Server => Acceptor::new()
                    .compression(over)
                    .adopt(
                        stream,
                        Adoption::new().compression(parameters(ours, theirs, our_bits, their_bits)),
                    )
                    .unwrap(),
                Role::Client => Connector::new()
                    .compression(over)
                    .adopt(
                        stream,
                        Adoption::new().compression(parameters(theirs, ours, their_bits, our_bits)),
                    )
                    .unwrap(),
            };
            let mut inflater = Peer::new(ours);
            let mut sizes = Vec::new();
            for _ in 0..2 {
                socket.send(text(700)).await.unwrap();
                let frame = wire.next_frame(role).await;
                assert_eq!(inflater.decompress(&frame), text(700).as_bytes());
                sizes.push(frame.payload.len());
            }
            assert_eq!(sizes[1] < sizes[0] / 2, ours == over, "{role:?}: {sizes:?}");
            // The repetition is out of reach of a window of 9 bits.
            socket.send(Payload::from(&repeated).compress(true)).await.unwrap();
            let len = wire.next_frame(role).await.payload.len();
            assert_eq!(len < 1000, our_bits == 15, "{role:?}: {len}");

            // A peer that refers to earlier messages is understood only if this was negotiated.
            let mut deflater = Peer::new(over);
            wire.feed_frame(peer_of(role), &deflater.text(&text(700)));
            wire.feed_frame(peer_of(role), &deflater.text(&text(700)));
            assert_eq!(received(&mut socket).await, text(700).into());
            match socket.recv().await {
                Ok(message) => assert!(theirs == over && message == Some(text(700).into())),
                Err(error) => assert!(theirs == none && error.kind() == ErrorKind::Protocol, "{error}"),
            }
        }
    }
}

#[tokio::test]
async fn what_would_grow_is_sent_as_it_is_without_takeover() {
    let noise = noise();
    let (socket, wire) = open(Role::Server, Compression::NoContextTakeover);
    socket.send(&noise).await.unwrap();
    let frame = wire.next_frame(Role::Server).await;
    assert!(!frame.compressed && frame.payload == noise);
    // With takeover, the peer has to receive all bytes that went into the window.
    let (socket, wire) = open(Role::Server, Compression::ContextTakeover);
    let mut peer = Peer::new(Compression::ContextTakeover);
    for _ in 0..2 {
        socket.send(&noise[..1000]).await.unwrap();
        let frame = wire.next_frame(Role::Server).await;
        assert!(peer.decompress(&frame) == noise[..1000]);
    }
}

#[tokio::test]
async fn a_prepared_message_is_understood_whatever_comes_before_and_behind() {
    for role in ROLES {
        for mode in MODES {
            let prepared = Prepared::new(text(2000));
            let (socket, wire) = open(role, mode);
            let mut peer = Peer::new(mode);
            for i in 0..4 {
                let own = format!("{i} {}", text(700));
                socket.send(&own).await.unwrap();
                assert_eq!(peer.decompress(&wire.next_frame(role).await), own.as_bytes());
                socket.send(&prepared).await.unwrap();
                assert_eq!(peer.decompress(&wire.next_frame(role).await), text(2000).as_bytes());
            }
        }
    }
}

#[tokio::test]
async fn a_prepared_message_that_would_grow_is_sent_as_it_is() {
    for role in ROLES {
        for mode in MODES {
            let prepared = Prepared::new(noise());
            let (socket, wire) = open(role, mode);
            let mut peer = Peer::new(mode);
            socket.send(text(700)).await.unwrap();
            let first = wire.next_frame(role).await;
            assert_eq!(peer.decompress(&first), text(700).as_bytes());
            for _ in 0..2 {
                socket.send(&prepared).await.unwrap();
                assert_eq!(wire.next_frame(role).await, Frame::binary(noise()));
            }
            // The context is unchanged.
            socket.send(text(700)).await.unwrap();
            let second = wire.next_frame(role).await;
            assert_eq!(peer.decompress(&second), text(700).as_bytes());
            let is_smaller = second.payload.len() < first.payload.len() / 2;
            assert_eq!(is_smaller, mode == Compression::ContextTakeover);
        }
    }
}

/// On all threads at once, from the first compression on.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_prepared_message_is_shared_by_threads() {
    let prepared = Prepared::new(text(20_000));
    let sending = (0..16_u8).map(|i| {
        let (mode, prepared) = (MODES[usize::from(i % 2)], prepared.clone());
        tokio::spawn(async move {
            let options = mode.options().level(1 + i % 4);
            let (socket, wire) = open_with(Role::Server, Limits::default(), options, mode);
            let mut peer = Peer::new(mode);
            for _ in 0..10 {
                socket.send(&prepared).await.unwrap();
                let frame = wire.next_frame(Role::Server).await;
                assert_eq!(peer.decompress(&frame), text(20_000).as_bytes());
            }
        })
    });
    for task in sending.collect::<Vec<_>>() {
        task.await.unwrap();
    }
}

#[tokio::test]
async fn a_writer_compresses_its_fragments() {
    for role in ROLES {
        for mode in MODES {
            let (socket, wire) = open(role, mode);
            let mut peer = Peer::new(mode);
            let mut writer = socket.writer(MessageKind::Text).await.unwrap();
            writer.write_all(text(50_000).as_bytes()).await.unwrap();
            settle().await;
            assert_eq!(wire.written_len(), 0, "a compressor gathers");
            writer.flush().await.unwrap();
            let mut frames = vec![wire.next_frame(role).await];
            writer.write_all(b"the end").await.unwrap();
            writer.finish().await.unwrap();
            frames.push(wire.next_frame(role).await);
            assert!(frames[0].compressed && !frames[0].fin && frames[1].fin);
            let message = text(50_000) + "the end";
            assert!(peer.decompress_all(&frames) == message.as_bytes());
            // The next message is in step with the context.
            socket.send(&message).await.unwrap();
            assert!(peer.decompress(&wire.next_frame(role).await) == message.as_bytes());
        }
    }
}

#[tokio::test]
async fn a_writer_that_sent_nothing_leaves_no_trace() {
    for mode in MODES {
        let (socket, wire) = open(Role::Server, mode);
        let mut peer = Peer::new(mode);
        for round in 0..5 {
            let mut writer = socket.writer(MessageKind::Text).await.unwrap();
            writer.write_all(text(40_000).as_bytes()).await.unwrap();
            drop(writer);
            let message = format!("{round} {}", text(700));
            socket.send(&message).await.unwrap();
            assert_eq!(peer.decompress(&wire.next_frame(Role::Server).await), message.as_bytes());
        }
    }
}

// ---- receiving

#[tokio::test]
async fn compressed_messages_arrive_however_they_are_cut() {
    for role in ROLES {
        for mode in MODES {
            for chunk in [1, 7, 1 << 20] {
                let (mut socket, wire) = open(role, mode);
                wire.set_chunk(chunk);
                let mut peer = Peer::new(mode);
                let peer_role = peer_of(role);
                let feed = |frame: &Frame| wire.feed_frame(peer_role, frame);
                feed(&peer.text(&text(3000)));
                feed(&Frame::text("not compressed"));
                for (i, fragment) in peer.fragments(text(3000).as_bytes(), 10).iter().enumerate() {
                    feed(fragment);
                    feed(&Frame::ping(i.to_string()));
                }
                feed(&peer.text(""));
                feed(&Frame::text("").compressed());
                // All of it in one of several frames.
                feed(&peer.text(&text(600)).unfinished());
                feed(&Frame::continuation("").unfinished());
                feed(&Frame::continuation(""));
                feed(&Frame::text("").compressed().unfinished());
                feed(&Frame::continuation(peer.compress(text(600).as_bytes())));
                feed(&peer.binary(&vec![7; 70_000]));
                assert_eq!(received(&mut socket).await, text(3000).into());
                assert_eq!(received(&mut socket).await, "not compressed".into());
                assert_eq!(received(&mut socket).await, text(3000).as_bytes().into());
                assert_eq!(received(&mut socket).await, "".into());
                assert_eq!(received(&mut socket).await, "".into());
                assert_eq!(received(&mut socket).await, text(600).into());
                assert_eq!(received(&mut socket).await, text(600).into());
                assert_eq!(received(&mut socket).await, vec![7; 70_000].into());
                assert_eq!(wire.next_frame(role).await, Frame::pong("0"));
            }
        }
    }
}

#[tokio::test]
async fn a_reader_takes_a_compressed_message_piece_by_piece() {
    for mode in MODES {
        let (mut socket, wire) = open(Role::Server, mode);
        let mut peer = Peer::new(mode);
        wire.feed_frame(Role::Client, &peer.binary(&vec![1; 300_000]));
        wire.feed_frame(Role::Client, &peer.text(&text(500)));
        wire.feed_frame(Role::Client, &peer.text(&text(700)));
        wire.feed_frame(Role::Client, &peer.text(&text(900)));
        let mut reader = socket.reader().await.unwrap().unwrap();
        let mut piece = [0; 1000];
        for _ in 0..300 {
            reader.read_exact(&mut piece).await.unwrap();
            assert_eq!(piece, [1; 1000]);
        }
        assert_eq!(reader.read(&mut piece).await.unwrap(), 0);
        drop(reader);
        // A message that is dropped in the middle.
        let mut reader = socket.reader().await.unwrap().unwrap();
        reader.read_exact(&mut piece[..10]).await.unwrap();
        drop(reader);
        drop(socket.reader().await.unwrap().unwrap());
        assert_eq!(received(&mut socket).await, text(900).into());
    }
}

/// Returns how a connection ends that receives these frames.
async fn failure(limits: Limits, frames: &[Frame]) -> (Error, u16) {
    let mode = Compression::ContextTakeover;
    let mut results = Vec::new();
    for role in ROLES {
        for with_reader in [false, true] {
            let (mut socket, wire) = open_with(role, limits.clone(), mode.options(), mode);
            for frame in frames {
                wire.feed_frame(peer_of(role), frame);
            }
            let error = if with_reader {
                read_all(&mut socket).await.unwrap_err()
            } else {
                loop {
                    match socket.recv().await {
                        Ok(message) => drop(message.expect("no normal end")),
                        Err(error) => break error,
                    }
                }
            };
            let close = wire.next_frame(role).await;
            results.push((error, close.close_code()));
        }
    }
    let kinds: Vec<_> = results.iter().map(|(error, code)| (error.kind(), *code)).collect();
    assert!(kinds.iter().all(|kind| *kind == kinds[0]), "{kinds:?}");
    results.swap_remove(0)
}

async fn read_all(socket: &mut WebSocket) -> Result<(), Error> {
    loop {
        let Some(mut reader) = socket.reader().await? else { panic!("no normal end") };
        let mut piece = [0; 4096];
        loop {
            match reader.read(&mut piece).await {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => {
                    return Err(error.get_ref().and_then(|inner| inner.downcast_ref()).cloned().unwrap());
                }
            }
        }
    }
}

#[tokio::test]
async fn what_is_wrong_fails_the_connection() {
    let mut peer = Peer::new(Compression::ContextTakeover);
    let whole = peer.compress(text(1000).as_bytes());
    let cut = &whole[..whole.len() / 2];
    let not_text = peer.compress(b"\xFF\xFE and so on");
    let protocol = ErrorKind::Protocol;
    for (frames, code) in [
        // RFC 7692 6.1: the bit is for the first frame of a message, and for no control frame.
        (vec![Frame::ping("").compressed()], 1002),
        (vec![Frame::close(1000, "").compressed()], 1002),
        (
            vec![
                Frame::text(&whole[..5]).compressed().unfinished(),
                Frame::continuation(&whole[5..]).compressed(),
            ],
            1002,
        ),
        (vec![Frame::text("a").unfinished(), Frame::continuation("b").compressed()], 1002),
        (vec![Frame::text(cut).compressed()], 1007),
        (vec![Frame::text(cut).compressed().unfinished(), Frame::continuation("")], 1007),
        (vec![Frame::text([0x07]).compressed()], 1007),
        (vec![Frame::binary([0x00, 0x05, 0x00, 0x05, 0x00]).compressed()], 1007),
        (vec![Frame::text(&not_text).compressed()], 1007),
    ] {
        let (error, sent) = failure(Limits::default(), &frames).await;
        assert_eq!((error.kind(), sent), (protocol, code), "{frames:?}: {error}");
    }
    // The other two bits are not defined.
    for reserved in [0x10, 0x20, 0x50, 0x60] {
        let (mut socket, wire) = open(Role::Server, Compression::ContextTakeover);
        let mut frame = Frame::text(&whole).compressed().encode(Role::Client);
        frame[0] = frame[0] & 0x8F | reserved;
        wire.feed(&frame);
        assert_eq!(socket.recv().await.unwrap_err().kind(), protocol);
        assert_eq!(wire.next_frame(Role::Server).await.close_code(), 1002);
    }
    // Without an agreement, the bit is not defined.
    let (mut socket, wire) = support::open(Role::Server, Limits::default());
    wire.feed_frame(Role::Client, &Frame::text(&whole).compressed());
    assert_eq!(socket.recv().await.unwrap_err().kind(), protocol);
    assert_eq!(wire.next_frame(Role::Server).await.close_code(), 1002);
}

#[tokio::test]
async fn text_is_refused_before_its_frame_is_complete() {
    let (mut socket, wire) = open(Role::Server, Compression::NoContextTakeover);
    let mut wrong = Vec::new();
    Deflater::new(6, 15, false).fragment(b"\xFF", true, &mut wrong);
    let frame = Frame::text([wrong.clone(), vec![0; 1000]].concat()).compressed().encode(Role::Client);
    wire.feed(&frame[..frame.len() - 1000]);
    assert_eq!(socket.recv().await.unwrap_err().kind(), ErrorKind::Protocol);
    assert_eq!(wire.next_frame(Role::Server).await.close_code(), 1007);
}

#[tokio::test]
async fn the_limit_is_on_the_size_after_decompression() {
    let limits = Limits::default().message_size(10_000);
    for mode in MODES {
        let (mut socket, wire) = open_with(Role::Server, limits.clone(), mode.options(), mode);
        let mut peer = Peer::new(mode);
        wire.feed_frame(Role::Client, &peer.binary(&[0; 10_000]));
        assert_eq!(received(&mut socket).await.len(), 10_000);
        wire.feed_frame(Role::Client, &peer.binary(&[0; 10_001]));
        let error = socket.recv().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Limit);
        assert!(error.to_string().contains("Limits::message_size"), "{error}");
        assert_eq!(wire.next_frame(Role::Server).await.close_code(), 1009);
    }
    let mut peer = Peer::new(Compression::ContextTakeover);
    let (error, code) = failure(limits.clone(), &[peer.binary(&vec![0; 50_000_000])]).await;
    assert_eq!((error.kind(), code), (ErrorKind::Limit, 1009));
    let mut peer = Peer::new(Compression::ContextTakeover);
    let (error, code) = failure(limits, &peer.fragments(&vec![0; 1_000_000], 10)).await;
    assert_eq!((error.kind(), code), (ErrorKind::Limit, 1009));
}

#[tokio::test]
async fn a_message_that_comes_out_large_leaves_time_to_others() {
    let mode = Compression::NoContextTakeover;
    let limits = Limits::default().message_size(32 << 20);
    let (mut socket, wire) = open_with(Role::Server, limits, mode.options(), mode);
    wire.feed_frame(Role::Client, &Peer::new(mode).binary(&vec![0; 32 << 20]));
    settle().await;
    assert!(poll_times(1, socket.recv()).await.is_none(), "all of it came out at once");
    assert_eq!(received(&mut socket).await.len(), 32 << 20);
}

/// Blocks of all types without content: last ones, stored ones, and headers of codes.
const EMPTY_BLOCKS: [&[u8]; 4] = [
    &[0x03, 0x00],
    &[0x01, 0x00, 0x00, 0xFF, 0xFF],
    &[0x00, 0x00, 0x00, 0xFF, 0xFF],
    &[0x04, 0xC0, 0x81, 0x00, 0x00, 0x00, 0x00, 0x00, 0x90, 0xFF, 0x6B, 0x00, 0x00, 0x00, 0xFF, 0xFF],
];

/// RFC 6455 10.4: the limit also holds for the compressed form of a message without content.
#[tokio::test]
async fn a_message_from_which_nothing_comes_goes_over_the_limit() {
    let limits = Limits::default().message_size(100_000);
    for block in EMPTY_BLOCKS {
        let payload = block.repeat(500_000_usize.div_ceil(block.len()));
        let whole = [Frame::text(&payload).compressed()];
        let (error, code) = failure(limits.clone(), &whole).await;
        assert_eq!((error.kind(), code), (ErrorKind::Limit, 1009), "{block:?}: {error}");
        assert!(error.to_string().contains("Limits::message_size"), "{error}");
        // In frames that cut the blocks.
        let pieces = payload.chunks(1001).enumerate().map(|(i, piece)| match i {
            0 => Frame::text(piece).compressed().unfinished(),
            _ => Frame::continuation(piece).unfinished(),
        });
        let (error, code) = failure(limits.clone(), &pieces.collect::<Vec<_>>()).await;
        assert_eq!((error.kind(), code), (ErrorKind::Limit, 1009), "{block:?}: {error}");
    }
}

/// The number of polls is proportional to the work of the peer's useless bytes.
#[tokio::test]
async fn blocks_without_content_leave_time_to_others() {
    for mode in MODES {
        for role in ROLES {
            for block in EMPTY_BLOCKS {
                let (mut socket, wire) = open(role, mode);
                let mut peer = Peer::new(mode);
                // This creates a window.
                wire.feed_frame(peer_of(role), &peer.binary(&noise()));
                assert_eq!(received(&mut socket).await, noise().into());
                // Few enough not to exceed the limit.
                let count = (200_000 / block.len()).min(30_000);
                let payload = [&block.repeat(count)[..], &[0x00]].concat();
                wire.feed_frame(peer_of(role), &Frame::text(&payload).compressed());
                settle().await;
                // A poll may do 128 units of work. Each KiB and each stream counts as one.
                let is_last = block[0] & 1 == 1;
                let steps = if is_last { count } else { payload.len() / 1024 };
                let polls = steps / 128;
                assert!(poll_times(polls, socket.recv()).await.is_none(), "{role:?} {mode:?} {block:?}");
                assert_eq!(received(&mut socket).await, "".into(), "{role:?} {mode:?} {block:?}");
            }
        }
    }
}

#[tokio::test]
async fn whole_messages_that_have_arrived_are_delivered_after_a_close() {
    for mode in MODES {
        let (mut socket, wire) = open(Role::Client, mode);
        let mut peer = Peer::new(mode);
        for i in 0..3 {
            wire.feed_frame(Role::Server, &peer.text(&format!("{i} {}", text(600))));
        }
        let unfinished = peer.compress(text(600).as_bytes());
        wire.feed_frame(Role::Server, &Frame::text(unfinished).compressed().unfinished());
        assert_eq!(received(&mut socket).await, format!("0 {}", text(600)).into());
        let sender = socket.sender();
        let close = tokio::spawn(async move { sender.close(CloseCode::NORMAL, "").await });
        assert_eq!(wire.next_frame(Role::Client).await, Frame::close(1000, ""));
        assert_eq!(received(&mut socket).await, format!("1 {}", text(600)).into());
        assert_eq!(received(&mut socket).await, format!("2 {}", text(600)).into());
        wire.feed_frame(Role::Server, &Frame::continuation("anything"));
        wire.feed_frame(Role::Server, &Frame::close(1000, ""));
        wire.end();
        assert_eq!(socket.recv().await.unwrap(), None);
        close.await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn messages_that_have_arrived_are_delivered_though_the_transport_is_lost() {
    for role in ROLES {
        for mode in MODES {
            let (mut socket, wire) = open(role, mode);
            let mut peer = Peer::new(mode);
            let first = peer.text(&text(600)).encode(peer_of(role));
            wire.feed(&first[..first.len() / 2]);
            assert!(poll_times(3, socket.recv()).await.is_none());
            wire.feed(&first[first.len() / 2..]);
            wire.feed_frame(peer_of(role), &peer.text(&text(700)));
            wire.feed_frame(peer_of(role), &Frame::text([0x07]).compressed());
            wire.feed_frame(peer_of(role), &Frame::text("behind the one that is wrong"));
            // A part of the messages is in memory when writing fails.
            assert_eq!(received(&mut socket).await, text(600).into());
            wire.break_writing(std::io::ErrorKind::BrokenPipe);
            socket.send("for nobody").await.unwrap();
            assert_eq!(socket.flush().await.unwrap_err().kind(), ErrorKind::Disconnected);
            // Until the close timeout, unread messages keep the connection from its end.
            wire.until(Wire::is_dropped).await;
            assert_eq!(received(&mut socket).await, text(700).into());
            assert_eq!(socket.recv().await.unwrap_err().kind(), ErrorKind::Disconnected);
            assert_eq!(socket.recv().await.unwrap_err().kind(), ErrorKind::Disconnected);
        }
    }
}

#[tokio::test]
async fn messages_behind_the_one_that_is_being_read_are_understood_after_a_close() {
    for mode in MODES {
        let (mut socket, wire) = open(Role::Client, mode);
        let mut peer = Peer::new(mode);
        let large = text(100_000);
        for message in [&large, &text(600), &text(700)] {
            wire.feed_frame(Role::Server, &peer.text(message));
        }
        for fragment in peer.fragments(text(800).as_bytes(), 20) {
            wire.feed_frame(Role::Server, &fragment);
        }
        wire.feed_frame(Role::Server, &Frame::text("not compressed"));
        wire.feed_frame(Role::Server, &Frame::text([0x07]).compressed());
        wire.feed_frame(Role::Server, &Frame::text("behind the one that is wrong"));
        let sender = socket.sender();
        let mut reader = socket.reader().await.unwrap().unwrap();
        let mut start = [0; 10];
        reader.read_exact(&mut start).await.unwrap();
        let close = tokio::spawn(async move { sender.close(CloseCode::NORMAL, "").await });
        assert_eq!(wire.next_frame(Role::Client).await, Frame::close(1000, ""));
        let mut rest = String::new();
        reader.read_to_string(&mut rest).await.unwrap();
        drop(reader);
        assert!(large.as_bytes() == [&start, rest.as_bytes()].concat());
        assert_eq!(received(&mut socket).await, text(600).into());
        let mut reader = socket.reader().await.unwrap().unwrap();
        let mut read = String::new();
        reader.read_to_string(&mut read).await.unwrap();
        drop(reader);
        assert_eq!(read, text(700));
        assert_eq!(received(&mut socket).await, text(800).as_bytes().into());
        assert_eq!(received(&mut socket).await, "not compressed".into());
        // Undecodable bytes are the end.
        wire.feed_frame(Role::Server, &Frame::close(1000, ""));
        wire.end();
        assert_eq!(socket.recv().await.unwrap(), None);
        close.await.unwrap().unwrap();
    }
}

/// The receiver of a message that began before a close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taker {
    Recv,
    Reader,
    /// Its reader is dropped.
    Nobody,
}

/// A message in progress counts as arrived if its end has arrived.
#[tokio::test(start_paused = true)]
async fn a_message_that_has_begun_before_a_close_is_understood() {
    for role in ROLES {
        for mode in MODES {
            for taker in [Taker::Recv, Taker::Reader, Taker::Nobody] {
                for has_ended in [false, true] {
                    close_in_a_message(role, mode, taker, has_ended).await;
                }
            }
        }
    }
}

async fn close_in_a_message(role: Role, mode: Compression, taker: Taker, has_ended: bool) {
    let case = format!("{role:?} {mode:?} {taker:?}, ended: {has_ended}");
    let start = Instant::now();
    let (mut socket, wire) = open(role, mode);
    let mut peer = Peer::new(mode);
    // More than one poll decompresses, or nothing beyond a single read.
    let begun = noise_of(if taker == Taker::Recv { 180_000 } else { 40_000 });
    let mut compressed = Vec::new();
    for (i, piece) in begun.chunks(1000).enumerate() {
        peer.deflater.fragment(piece, i % 2 == 1, &mut compressed);
    }
    let mut end = Vec::new();
    peer.deflater.last_fragment(b"", &mut end);
    for (i, piece) in compressed.chunks(30_000).enumerate() {
        let frame = if i == 0 { Frame::binary(piece).compressed() } else { Frame::continuation(piece) };
        wire.feed_frame(peer_of(role), &frame.unfinished());
        wire.feed_frame(peer_of(role), &Frame::ping([i.to_be_bytes()[7]]));
    }
    if has_ended {
        wire.feed_frame(peer_of(role), &Frame::continuation(end));
        wire.feed_frame(peer_of(role), &peer.text(&text(600)));
        wire.feed_frame(peer_of(role), &Frame::text("not compressed"));
        for fragment in peer.fragments(&noise(), 1000) {
            wire.feed_frame(peer_of(role), &fragment);
        }
    }
    let sender = socket.sender();
    let close = async || {
        assert!(poll_times(1, sender.close(CloseCode::NORMAL, "")).await.is_none());
        wire.feed_frame(peer_of(role), &Frame::close(1000, ""));
        wire.end();
    };
    if taker == Taker::Recv {
        assert!(poll_times(1, socket.recv()).await.is_none(), "{case}");
        close().await;
        if has_ended {
            assert!(received(&mut socket).await == begun.into(), "{case}");
        }
    } else {
        let mut reader = socket.reader().await.unwrap().unwrap();
        let mut read = vec![0; 10];
        reader.read_exact(&mut read).await.unwrap();
        if taker == Taker::Reader {
            close().await;
            let result = reader.read_to_end(&mut read).await;
            assert!(read == begun && result.is_ok() == has_ended, "{case}: {} {result:?}", read.len());
        } else {
            drop(reader);
            close().await;
        }
    }
    if has_ended {
        assert_eq!(received(&mut socket).await, text(600).into(), "{case}");
        assert_eq!(received(&mut socket).await, "not compressed".into(), "{case}");
        assert!(received(&mut socket).await == noise().into(), "{case}");
    }
    for _ in 0..2 {
        assert_eq!(socket.recv().await.unwrap(), None, "{case}");
    }
    assert!(sender.close(CloseCode::NORMAL, "").await.is_ok());
    assert_eq!(start.elapsed(), Duration::ZERO, "{case}: something waited for a deadline");
}

/// Decompressing messages that arrived before a close is as much work as before, and done in steps.
#[tokio::test]
async fn messages_that_wait_behind_a_close_leave_time_to_others() {
    for role in ROLES {
        for mode in MODES {
            for has_begun in [false, true] {
                let (mut socket, wire) = open(role, mode);
                let payload = [&EMPTY_BLOCKS[0].repeat(15_000)[..], &[0x00]].concat();
                if !has_begun {
                    wire.feed_frame(peer_of(role), &Frame::text("what brings the other"));
                }
                wire.feed_frame(peer_of(role), &Frame::text(&payload).compressed());
                assert!(poll_times(1, socket.recv()).await.is_none() == has_begun);
                assert!(poll_times(1, socket.close(CloseCode::NORMAL, "")).await.is_none());
                wire.feed_frame(peer_of(role), &Frame::close(1000, ""));
                // The connection's task may do half of the work.
                let polls = 15_000 / 128 / 2;
                assert!(poll_times(polls, socket.recv()).await.is_none(), "{role:?} {mode:?} {has_begun}");
                assert_eq!(received(&mut socket).await, "".into(), "{role:?} {mode:?}");
                assert_eq!(socket.recv().await.unwrap(), None);
            }
        }
    }
}

#[tokio::test]
async fn a_dropped_websocket_with_compressed_bytes_unread_ends() {
    for mode in MODES {
        let (mut socket, wire) = open(Role::Server, mode);
        let mut peer = Peer::new(mode);
        wire.feed_frame(Role::Client, &peer.binary(&vec![1; 300_000]));
        wire.feed_frame(Role::Client, &peer.text(&text(500)));
        let mut reader = socket.reader().await.unwrap().unwrap();
        reader.read_exact(&mut [0; 10]).await.unwrap();
        drop(reader);
        drop(socket);
        wire.end();
        wire.until(Wire::is_dropped).await;
    }
}

// ---- cancellation

#[tokio::test]
async fn futures_dropped_after_any_number_of_polls_lose_nothing() {
    for role in ROLES {
        for mode in MODES {
            for polls in [1, 2, 3, 5, 8, 13, 40] {
                let options = mode.options().threshold(0);
                let (mut socket, wire) = open_with(role, Limits::default().write_buffer(64), options, mode);
                wire.set_chunk(1);
                wire.set_hesitating();
                let mut peer = Peer::new(mode);
                let messages: Vec<String> = (0..10).map(|i| format!("{i} {}", text(i * 30))).collect();
                for message in &messages {
                    wire.feed_frame(peer_of(role), &peer.text(message));
                    wire.feed_frame(peer_of(role), &Frame::ping("p"));
                }
                for message in &messages {
                    let received = loop {
                        if let Some(received) = poll_times(polls, socket.recv()).await {
                            break received.unwrap().unwrap();
                        }
                    };
                    assert_eq!(received, message.as_str().into());
                    // The message was accepted whole, or not at all.
                    while poll_times(polls, socket.send(message)).await.is_none() {}
                }
                socket.flush().await.unwrap();
                let mut sent = wire.take_frames(role);
                sent.retain(|frame| frame.opcode == Opcode::Text);
                let message = |frame: &Frame| {
                    if frame.compressed { peer.decompress(frame) } else { frame.payload.clone() }
                };
                let sent: Vec<Vec<u8>> = sent.iter().map(message).collect();
                assert!(sent.iter().map(Vec::as_slice).eq(messages.iter().map(String::as_bytes)));
            }
        }
    }
}
