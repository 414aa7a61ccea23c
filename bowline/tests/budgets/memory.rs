//! The memory of a connection, counted by the allocator.

use std::io::{Read, Write};

use bowline::{Adoption, Limits, Message, Role, pair};
use tokio::io::AsyncReadExt;

use crate::support::allocations::{ALLOCATIONS, TAKEN, held, peak_since_now};
use crate::support::frames::{Frame, all_frames, encode_all};
use crate::support::{self, open, settle, warm_up};

/// The memory of a connection over a boxed stream: its state, its task, its waker, the negotiated parameters
/// and the addresses.
const IDLE_SIZE: isize = 1144;

async fn socket_message(socket: &mut bowline::WebSocket) -> Message {
    socket.recv().await.unwrap().unwrap()
}

#[tokio::test]
async fn an_idle_connection_holds_no_buffer() {
    warm_up().await;
    for role in [Role::Client, Role::Server] {
        let before = held();
        let mut connections: Vec<_> = (0..100).map(|_| open(role, Limits::default())).collect();
        settle().await;
        let fresh = (held() - before) / 100;
        assert!(fresh < 2500, "{role:?}: a fresh connection holds {fresh} bytes, the test's stream included");
        for size in [1, 4096, 20_000, 200_000] {
            let bytes = Frame::binary(vec![7; size]).encode(support::peer_of(role));
            for (socket, wire) in &mut connections {
                wire.feed(&bytes);
                let message = socket_message(socket).await;
                socket.send(message).await.unwrap();
                socket.flush().await.unwrap();
                assert!(wire.take_written().len() > size);
                // The application waits for the next message, for a while.
                assert!(support::poll_times(2, socket.recv()).await.is_none());
            }
        }
        settle().await;
        let idle = (held() - before) / 100;
        assert!(
            idle < fresh + 100,
            "{role:?}: an idle connection held {fresh} bytes, and {idle} after traffic"
        );
    }
}

/// The blocks of an idle connection. Each block falls into one of the allocator's size classes, and tokio
/// aligns tasks to 128 bytes, so a few more bytes in a struct may cost a hundred in every connection.
#[tokio::test]
async fn an_idle_connection_takes_few_blocks() {
    warm_up().await;
    let (stream, _peer) = tokio::io::duplex(64);
    let before = held();
    let socket = bowline::Acceptor::new().adopt(stream, Adoption::new()).unwrap();
    settle().await;
    let taken = held() - before;
    drop(socket);
    assert!(taken <= IDLE_SIZE, "{taken} bytes");
}

/// Unread messages take no more memory than their size.
#[tokio::test(start_paused = true)]
async fn a_busy_application_with_a_batch_holds_no_buffer() {
    warm_up().await;
    for keepalive in [true, false] {
        let mut connections = Vec::new();
        for _ in 0..100 {
            let (stream, wire) = crate::support::wire::wire();
            let acceptor = bowline::Acceptor::new();
            let acceptor = if keepalive { acceptor } else { acceptor.keepalive(None) };
            connections.push((acceptor.adopt(stream, Adoption::new()).unwrap(), wire));
        }
        settle().await;
        let before = held();
        for (socket, wire) in &mut connections {
            wire.feed(&Frame::text("first").encode(Role::Client));
            settle().await;
            wire.feed(&encode_all(Role::Client, &[Frame::text("a"), Frame::text("b"), Frame::ping("")]));
            socket_message(socket).await;
        }
        tokio::time::sleep(std::time::Duration::from_secs(5)).await;
        let each = (held() - before) / 100;
        assert!(each < 1000, "{each} bytes, keepalive {keepalive}");
    }
}

/// The handler may take its time after the end of its connection, with many others.
#[tokio::test]
async fn a_connection_that_has_ended_holds_no_buffer() {
    warm_up().await;
    for broken in [false, true] {
        let mut connections: Vec<_> = (0..10).map(|_| open(Role::Server, Limits::default())).collect();
        settle().await;
        let before = held();
        for (socket, wire) in &mut connections {
            // A part of a message.
            wire.feed(&Frame::binary([7; 100]).encode(Role::Client)[..50]);
            if broken {
                wire.break_off(std::io::ErrorKind::ConnectionReset);
            } else {
                wire.end();
            }
            socket.recv().await.unwrap_err();
        }
        // Nothing else has run since.
        let each = (held() - before) / 10;
        assert!(each < 2000, "broken {broken}: {each} bytes");
    }
}

/// This also holds while the application processes a message and a part of the next has arrived, or while it
/// reads one slowly.
#[tokio::test]
async fn a_busy_application_holds_no_buffer() {
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Busy {
        WithMessage,
        WithReader,
        WaitingWithReader,
    }
    for busy in [Busy::WithMessage, Busy::WithReader, Busy::WaitingWithReader] {
        warm_up().await;
        let mut connections: Vec<_> = (0..100).map(|_| open(Role::Server, Limits::default())).collect();
        settle().await;
        let (whole, part) = match busy {
            Busy::WithMessage => (Frame::binary(vec![7; 20_000]), 3),
            Busy::WithReader => (Frame::continuation(vec![7; 20_000]), 3),
            Busy::WaitingWithReader => (Frame::continuation(vec![7; 100_000]), 20_000),
        };
        let mut first = Frame::binary([7; 100]);
        first.fin = busy == Busy::WithMessage;
        let mut bytes = first.encode(Role::Client);
        bytes.extend_from_slice(&whole.encode(Role::Client)[..part]);
        let before = held();
        for (socket, wire) in &mut connections {
            wire.feed(&bytes);
            if busy == Busy::WithMessage {
                drop(socket_message(socket).await);
                continue;
            }
            let mut reader = socket.reader().await.unwrap().unwrap();
            let mut piece = vec![0; 30_000];
            assert_eq!(reader.read(&mut piece).await.unwrap(), 100);
            if busy == Busy::WaitingWithReader {
                assert!(reader.read(&mut piece).await.unwrap() > 19_900);
                assert!(support::poll_times(2, reader.read(&mut piece)).await.is_none());
            }
            // The reader is kept.
            std::mem::forget(reader);
        }
        settle().await;
        let each = (held() - before) / 100;
        assert!(each < 500, "{busy:?}: {each} bytes");
    }
}

#[tokio::test]
async fn a_small_message_that_is_kept_pins_no_large_buffer() {
    warm_up().await;
    let (mut socket, wire) = open(Role::Server, Limits::default());
    let bytes = encode_all(Role::Client, &vec![Frame::binary([7; 16]); 1000]);
    let mut kept = Vec::with_capacity(1000);
    let before = held();
    wire.feed(&bytes);
    for _ in 0..1000 {
        kept.push(socket_message(&mut socket).await);
    }
    assert!(support::poll_times(2, socket.recv()).await.is_none());
    let each = (held() - before) / 1000;
    assert!(each <= 32, "each message of 16 bytes holds {each}");
}

#[tokio::test]
async fn what_is_only_announced_takes_no_memory() {
    warm_up().await;
    let connections: Vec<_> = (0..1000).map(|_| open(Role::Server, Limits::default())).collect();
    settle().await;
    let mut announced = vec![0x82, 0xFF];
    announced.extend_from_slice(&(1024_u64 * 1024).to_be_bytes());
    announced.extend_from_slice(&[1, 2, 3, 4, 5]);
    let before = held();
    let mut receiving = Vec::new();
    for (mut socket, wire) in connections {
        wire.feed(&announced);
        receiving.push(tokio::spawn(async move {
            let _ = socket.recv().await;
            drop(wire);
        }));
    }
    settle().await;
    let each = (held() - before) / 1000;
    assert!(each < 1500, "each connection holds {each} bytes, the task of its application included");
    receiving.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn what_has_arrived_of_a_message_takes_about_twice_its_size_at_most() {
    warm_up().await;
    for arrived in [1000, 10_000, 100_000, 300_000] {
        let (mut socket, wire) = open(Role::Server, Limits::default());
        let bytes = Frame::binary(vec![7; 1024 * 1024]).encode(Role::Client);
        settle().await;
        let before = held();
        for piece in bytes[..arrived].chunks(1000) {
            wire.feed(piece);
            assert!(support::poll_times(2, socket.recv()).await.is_none());
        }
        let held = held() - before;
        let most = 2 * isize::try_from(arrived).unwrap() + 66_000;
        assert!(held < most, "{held} bytes are held of a message of which {arrived} have arrived");
    }
}

#[tokio::test]
async fn a_slow_reader_of_a_large_message_costs_constant_memory() {
    const SIZE: usize = 64 * 1024 * 1024;
    warm_up().await;
    let (mut socket, wire) = open(Role::Server, Limits::default().message_size(SIZE));
    let peak = peak_since_now();
    let mut header = vec![0x82, 0xFF];
    header.extend_from_slice(&(SIZE as u64).to_be_bytes());
    header.extend_from_slice(&[0; 4]);
    wire.feed(&header);
    let feeding = tokio::spawn(async move {
        for _ in 0..SIZE / 10_240 {
            wire.feed(&[7; 10_240]);
            wire.until(|wire| wire.unread() == 0).await;
        }
        wire
    });
    let mut reader = socket.reader().await.unwrap().unwrap();
    let mut piece = vec![0; 4096];
    let mut total = 0;
    while total < SIZE / 10_240 * 10_240 {
        total += reader.read(&mut piece).await.unwrap();
    }
    let peak = peak();
    assert!(peak < 300_000, "streaming 64 MiB held {peak} bytes at once");
    drop(feeding.await.unwrap());
}

/// Both ends send 64 MiB before either reads on its own account. As long as each also reads while it sends,
/// neither waits forever, and memory is bounded.
#[tokio::test]
async fn full_duplex_under_back_pressure_holds_bounded_memory() {
    const MESSAGES: usize = 256;
    const SIZE: usize = 256 * 1024;
    let (client, server) = pair();
    let peak = peak_since_now();
    let run = |mut socket: bowline::WebSocket| async move {
        let sender = socket.sender();
        let sending = tokio::spawn(async move {
            let payload = vec![7; SIZE];
            for _ in 0..MESSAGES {
                sender.send(&payload).await.unwrap();
            }
        });
        for _ in 0..MESSAGES {
            assert_eq!(socket_message(&mut socket).await.len(), SIZE);
        }
        sending.await.unwrap();
        socket
    };
    let both = async { tokio::join!(run(client), run(server)) };
    tokio::time::timeout(std::time::Duration::from_secs(60), both).await.expect("nobody waits for ever");
    let peak = peak();
    assert!(peak < 4_000_000, "128 MiB passed through {peak} bytes");
}

#[tokio::test]
async fn a_stalled_peer_costs_the_high_water_mark_and_one_message() {
    let (socket, wire) = open(Role::Server, Limits::default());
    wire.set_room(0);
    let before = held();
    while socket.try_send(&vec![7; 1000]).is_ok() {}
    let held = held() - before;
    assert!((65_536..140_000).contains(&held), "{held} bytes are held");
    wire.set_room(usize::MAX);
    socket.flush().await.unwrap();
    assert_eq!(all_frames(Role::Server, wire.take_written()).len(), 66);
}

/// Replies gather beyond the high-water mark, but not without bound.
#[tokio::test]
async fn a_peer_that_stalls_within_a_batch_costs_four_times_as_much() {
    let (mut socket, wire) = open(Role::Server, Limits::default());
    wire.set_room(0);
    wire.feed(&encode_all(Role::Client, &[Frame::text("1"), Frame::text("2")]));
    assert_eq!(socket.recv().await.unwrap(), Some("1".into()));
    let before = held();
    while socket.try_send(&vec![7; 1000]).is_ok() {}
    let held = held() - before;
    assert!((4 * 65_536..530_000).contains(&held), "{held} bytes are held");
    wire.set_room(usize::MAX);
    socket.flush().await.unwrap();
    assert_eq!(all_frames(Role::Server, wire.take_written()).len(), 262);
}

/// A client masks payloads in place if it is their only owner. Shared payloads are copied, and stay
/// unchanged.
#[tokio::test]
async fn a_client_copies_no_large_payload_that_it_owns_alone() {
    const SIZE: usize = 1 << 20;
    for shared in [false, true] {
        let (socket, wire) = open(Role::Client, Limits::default());
        wire.set_room(0);
        let payload = bytes::Bytes::from(vec![7; SIZE]);
        let other = shared.then(|| payload.clone());
        let before = TAKEN.get();
        socket.send(payload).await.unwrap();
        let taken = TAKEN.get() - before;
        assert_eq!(taken > 1_000_000, shared, "{taken} bytes were taken");
        assert!(other.is_none_or(|other| other == vec![7; SIZE]), "it was masked for others");
        wire.set_room(usize::MAX);
        socket.flush().await.unwrap();
        assert_eq!(all_frames(Role::Client, wire.take_written()), [Frame::binary(vec![7; SIZE])]);
    }
}

/// Growing moves each byte a bounded number of times: the total memory allocated is a small multiple of the
/// message, and about the same multiple for a message four times as large.
#[tokio::test]
async fn much_text_in_small_fragments_takes_linear_memory_and_so_linear_time() {
    warm_up().await;
    for size in [1024 * 1024, 4 * 1024 * 1024] {
        let limits = Limits::default().message_size(size).frames_per_message(100_000);
        let (mut socket, wire) = open(Role::Server, limits);
        let text = "0123456789abcdeé€😀".repeat(size / 24);
        let count = text.len().div_ceil(64);
        let frames = text.as_bytes().chunks(64).enumerate().map(|(number, piece)| {
            let frame = if number == 0 { Frame::text(piece) } else { Frame::continuation(piece) };
            if number == count - 1 { frame } else { frame.unfinished() }
        });
        let bytes: Vec<u8> = frames.flat_map(|frame| frame.encode(Role::Client)).collect();
        wire.feed(&bytes);
        settle().await;
        // The count includes the memory with which the test's stream returns the bytes.
        let before = TAKEN.get();
        let message = socket_message(&mut socket).await;
        let taken = TAKEN.get() - before;
        assert_eq!(message.as_text(), Some(text.as_str()));
        let most = 5 * isize::try_from(size).unwrap();
        assert!(taken < most, "{taken} bytes were taken in all for a message of {size}");
    }
}

/// A large frame is read straight into the message.
#[tokio::test]
async fn a_large_message_in_small_reads_takes_linear_memory_and_so_linear_time() {
    const SIZE: usize = 8 * 1024 * 1024;
    warm_up().await;
    let (mut socket, wire) = open(Role::Server, Limits::default().message_size(SIZE));
    wire.feed(&Frame::binary(vec![7; SIZE]).encode(Role::Client));
    wire.set_chunk(20_000);
    settle().await;
    let before = TAKEN.get();
    assert_eq!(socket_message(&mut socket).await.len(), SIZE);
    // The size of the message once in the test's stream, and up to twice more in the connection.
    let taken = TAKEN.get() - before;
    assert!(taken < 4 * isize::try_from(SIZE).unwrap(), "{taken} bytes were taken in all");
}

/// Returns a connection over TCP, and its peer's end in blocking mode. The allocator doesn't count the peer's
/// thread.
async fn open_tcp(role: Role) -> (bowline::WebSocket, std::net::TcpStream) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    let socket = match role {
        Role::Server => bowline::Acceptor::new().adopt(stream, Adoption::new()).unwrap(),
        Role::Client => bowline::Connector::new().adopt(stream, Adoption::new()).unwrap(),
    };
    (socket, peer)
}

/// Lets the peer of `role` send frames together and read their echoes, so many times, in a thread of its own.
fn exchange_echoes(
    mut peer: std::net::TcpStream,
    role: Role,
    frames: &[Frame],
    rounds: usize,
) -> std::thread::JoinHandle<std::net::TcpStream> {
    let batch = encode_all(support::peer_of(role), frames);
    let mut echoes = vec![0; encode_all(role, frames).len()];
    std::thread::spawn(move || {
        for _ in 0..rounds {
            peer.write_all(&batch).unwrap();
            peer.read_exact(&mut echoes).unwrap();
        }
        peer
    })
}

/// A handshake allocates its memory only when the client begins.
#[tokio::test]
async fn a_client_that_says_nothing_takes_little() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving =
        tokio::spawn(bowline::Server::new().serve(listener, |_: bowline::WebSocket| async { Ok(()) }));
    // This connection is served after all earlier ones.
    let serve_one = || async {
        let (mut socket, _) = bowline::Connector::new().connect(format!("ws://{address}/")).await.unwrap();
        assert_eq!(socket.recv().await.unwrap(), None);
    };
    serve_one().await;
    let before = held();
    let silent: Vec<_> = (0..100).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
    serve_one().await;
    settle().await;
    let each = (held() - before) / 100;
    assert!(each < 2000, "{each} bytes for each client that says nothing");
    drop(silent);
    serving.abort();
}

#[tokio::test]
async fn an_echo_allocates_no_more_than_its_payload() {
    for role in [Role::Client, Role::Server] {
        // The number of messages at once.
        for (depth, size) in [(1, 1), (1, 125), (1, 1000), (1, 10_000), (16, 16), (16, 1000)] {
            let (mut socket, peer) = open_tcp(role).await;
            let rounds = 50;
            let frames = vec![Frame::binary(vec![7; size]); depth];
            let driving = exchange_echoes(peer, role, &frames, 2 * rounds);
            let mut before = 0;
            for number in 0..2 * rounds * depth {
                if number == rounds * depth {
                    before = ALLOCATIONS.get();
                }
                let message = socket_message(&mut socket).await;
                socket.send(message).await.unwrap();
            }
            socket.flush().await.unwrap();
            let allocations = ALLOCATIONS.get() - before;
            // Small messages that arrive together share one block, so that there are four allocations for all
            // of them. TCP may split a batch in two.
            let expected = if (depth, size) == (16, 16) { 8 * rounds } else { rounds * depth + 5 };
            assert!(
                (rounds..=expected).contains(&allocations),
                "{role:?}: {allocations} allocations for {} messages of {size} bytes",
                rounds * depth
            );
            drop(driving.join().unwrap());
        }
    }
}

#[tokio::test]
async fn sending_what_is_borrowed_allocates_nothing() {
    for role in [Role::Client, Role::Server] {
        let (socket, mut peer) = open_tcp(role).await;
        let driving = std::thread::spawn(move || std::io::copy(&mut peer, &mut std::io::sink()));
        let text = "text".repeat(500);
        let prepared = bowline::Prepared::new(text.as_str());
        let mut before = 0;
        for number in 0..200 {
            if number == 100 {
                before = ALLOCATIONS.get();
            }
            socket.send("text").await.unwrap();
            socket.send(&text).await.unwrap();
            socket.send(text.as_bytes()).await.unwrap();
            socket.send(&prepared).await.unwrap();
            socket.flush().await.unwrap();
        }
        assert_eq!(ALLOCATIONS.get() - before, 0, "{role:?}");
        drop(socket);
        tokio::task::spawn_blocking(|| driving.join().unwrap().unwrap()).await.unwrap();
    }
}

/// Beside the payload, only `serde_json` allocates: the memory of the value.
#[cfg(feature = "json")]
#[tokio::test]
async fn json_allocates_no_more_than_serde_does() {
    type Document = std::collections::BTreeMap<String, Vec<u32>>;
    let document: Document =
        (1000..1016).map(|key| (format!("key {key}"), (key..key + 10).collect())).collect();
    let text = serde_json::to_string(&document).unwrap();
    assert!((800..1200).contains(&text.len()), "{} bytes", text.len());
    let before = ALLOCATIONS.get();
    drop(serde_json::from_str::<Document>(&text).unwrap());
    let of_serde = ALLOCATIONS.get() - before;
    for role in [Role::Client, Role::Server] {
        let (mut socket, peer) = open_tcp(role).await;
        let rounds = 50;
        let driving = exchange_echoes(peer, role, &[Frame::text(text.clone())], 2 * rounds);
        let mut before = 0;
        for number in 0..2 * rounds {
            if number == rounds {
                before = ALLOCATIONS.get();
            }
            let received: Document = socket.recv_json().await.unwrap().unwrap();
            socket.send_json(&received).await.unwrap();
        }
        socket.flush().await.unwrap();
        let allocations = ALLOCATIONS.get() - before;
        let expected = rounds * (of_serde + 1);
        assert!((expected..=expected + 5).contains(&allocations), "{role:?}: {allocations}, not {expected}");
        drop(driving.join().unwrap());
    }
}

// ---- compression

#[cfg(feature = "deflate")]
mod compression {
    use bowline::{Acceptor, CloseCode, Compression, DeflateParameters, Payload, Prepared, Role, WebSocket};
    use bowline_proto::Deflater;

    use super::{ALLOCATIONS, held, peak_since_now};
    use crate::support::frames::Frame;
    use crate::support::settle;
    use crate::support::wire::{Wire, wire};

    fn open(mode: Compression) -> (WebSocket, Wire) {
        open_at_level(mode, 6)
    }

    fn open_at_level(mode: Compression, level: u8) -> (WebSocket, Wire) {
        let (stream, wire) = wire();
        let none = mode == Compression::NoContextTakeover;
        let parameters = DeflateParameters {
            server_no_context_takeover: none,
            client_no_context_takeover: none,
            ..DeflateParameters::default()
        };
        let acceptor = Acceptor::new().compression(mode.options().level(level));
        (acceptor.adopt(stream, bowline::Adoption::new().compression(parameters)).unwrap(), wire)
    }

    fn compressed(message: &[u8]) -> Frame {
        let mut payload = Vec::new();
        Deflater::new(6, 15, false).message(message, &mut payload);
        Frame::binary(payload).compressed()
    }

    /// Returns the memory of a connection, and the additional memory after it has echoed some compressed
    /// messages.
    async fn cost(mode: Compression, level: u8) -> (isize, isize) {
        let frame = compressed(&[7; 5000]);
        let before = held();
        let (mut socket, wire) = open_at_level(mode, level);
        settle().await;
        let fresh = held();
        for _ in 0..3 {
            wire.feed_frame(Role::Client, &frame);
            let message = socket.recv().await.unwrap().unwrap();
            socket.send(message).await.unwrap();
            assert!(wire.next_frame(Role::Server).await.compressed);
        }
        settle().await;
        drop((wire.take_written(), frame));
        (fresh - before, held() - fresh)
    }

    #[tokio::test]
    async fn only_context_takeover_holds_memory_between_messages() {
        // The memory that the thread keeps for lending belongs to no connection.
        cost(Compression::NoContextTakeover, 6).await;
        let (fresh, after) = cost(Compression::NoContextTakeover, 6).await;
        assert!(after < 700, "{after}");
        // No memory is allocated before the first compressed message. The thread has no compressor of this
        // level.
        let (fresh_with_takeover, after) = cost(Compression::ContextTakeover, 5).await;
        assert!(fresh_with_takeover <= fresh, "{fresh_with_takeover}, {fresh}");
        assert!((250_000..420_000).contains(&after), "{after}");
    }

    /// The table in the documentation of `Compression`, in bytes.
    const WINDOWS: [(u8, isize, isize); 7] = [
        (9, 251_000, 900),
        (10, 253_000, 1_500),
        (11, 257_000, 2_800),
        (12, 265_000, 5_400),
        (13, 282_000, 10_500),
        (14, 314_000, 20_700),
        (15, 380_000, 41_200),
    ];

    #[tokio::test]
    async fn each_direction_takes_what_the_docs_say_once_it_is_used() {
        let large = compressed(&vec![7; 100_000]);
        let open = |bits| {
            let (stream, wire) = wire();
            let parameters = DeflateParameters {
                server_max_window_bits: bits,
                client_max_window_bits: bits,
                ..DeflateParameters::default()
            };
            // The thread has no compressor of this level to spare.
            let acceptor = Acceptor::new().compression(Compression::ContextTakeover.options().level(5));
            (acceptor.adopt(stream, bowline::Adoption::new().compression(parameters)).unwrap(), wire)
        };
        let receive = async |socket: &mut bowline::WebSocket, wire: &Wire| {
            for _ in 0..3 {
                wire.feed_frame(Role::Client, &large);
                socket.recv().await.unwrap();
            }
            settle().await;
        };
        // The memory that the thread keeps for lending belongs to no connection.
        let (mut first, wire) = open(9);
        receive(&mut first, &wire).await;
        first.send(vec![7; 5000]).await.unwrap();
        drop(wire.take_written());
        for (bits, to_send, to_receive) in WINDOWS {
            let (mut socket, wire) = open(bits);
            socket.send([7; 100].as_slice()).await.unwrap();
            settle().await;
            let before = held();
            receive(&mut socket, &wire).await;
            let received = held() - before;
            assert!((to_receive / 2..=to_receive + 200).contains(&received), "{bits} bits: {received}");
            let before = held();
            socket.send(vec![7; 5000]).await.unwrap();
            settle().await;
            let sent = held() - before;
            assert!((to_send - 2000..to_send + 2000).contains(&sent), "{bits} bits: {sent}");
        }
    }

    /// Returns 1 GiB of zeros in a little more than 1 MiB.
    fn bomb() -> Vec<u8> {
        let mut part = Vec::new();
        Deflater::new(9, 15, false).fragment(&vec![0; 1 << 20], true, &mut part);
        [part.repeat(1024), vec![0x00]].concat()
    }

    #[tokio::test]
    async fn a_bomb_takes_no_more_than_the_limit() {
        let bomb = bomb();
        assert!(bomb.len() < 1_100_000, "{}", bomb.len());
        for mode in [Compression::NoContextTakeover, Compression::ContextTakeover] {
            for fragments in [1, 1000] {
                for with_reader in [false, true] {
                    let (mut socket, wire) = open(mode);
                    for (i, piece) in bomb.chunks(bomb.len().div_ceil(fragments)).enumerate() {
                        let frame = match i {
                            0 => Frame::binary(piece).compressed(),
                            _ => Frame::continuation(piece),
                        };
                        let frame = if i + 1 < fragments { frame.unfinished() } else { frame };
                        wire.feed_frame(Role::Client, &frame);
                    }
                    let peak = peak_since_now();
                    let most = if with_reader {
                        let mut reader = socket.reader().await.unwrap().unwrap();
                        let mut piece = [0; 4096];
                        while tokio::io::AsyncReadExt::read(&mut reader, &mut piece).await.is_ok() {}
                        // The bytes of one read, moved to release a larger buffer, and a decompressor with
                        // its window.
                        768 << 10
                    } else {
                        socket.recv().await.unwrap_err();
                        // The message up to the limit, half of it again while it moves, the bytes of one
                        // read, and a decompressor with its window.
                        (3 << 19) + (512 << 10)
                    };
                    let peak = peak();
                    assert!(peak < most, "{mode:?}, {fragments} fragments, {with_reader}: {peak}");
                    assert_eq!(wire.next_frame(Role::Server).await.close_code(), 1009);
                }
            }
        }
    }

    #[tokio::test]
    async fn a_reader_decompresses_no_more_than_it_takes() {
        let large = compressed(&vec![0; 64 << 20]);
        let (stream, wire) = wire();
        let limits = bowline::Limits::default().message_size(1 << 30);
        let acceptor = Acceptor::new().limits(limits).compression(Compression::NoContextTakeover);
        let mut socket = acceptor
            .adopt(stream, bowline::Adoption::new().compression(DeflateParameters::default()))
            .unwrap();
        wire.feed_frame(Role::Client, &large);
        let peak = peak_since_now();
        let mut reader = socket.reader().await.unwrap().unwrap();
        let mut piece = [0; 4096];
        let mut total = 0;
        loop {
            match tokio::io::AsyncReadExt::read(&mut reader, &mut piece).await.unwrap() {
                0 => break,
                count => total += count,
            }
        }
        assert_eq!(total, 64 << 20);
        let peak = peak();
        assert!(peak < 1 << 20, "{peak}");
    }

    /// Messages that arrived before the close wait in compressed form.
    #[tokio::test]
    async fn messages_that_wait_behind_a_close_are_not_decompressed_ahead() {
        const COUNT: usize = 50;
        for mode in [Compression::NoContextTakeover, Compression::ContextTakeover] {
            let bomb = compressed(&vec![0; 1 << 20]);
            let (mut socket, wire) = open(mode);
            for _ in 0..=COUNT {
                wire.feed_frame(Role::Client, &bomb);
            }
            assert_eq!(socket.recv().await.unwrap().unwrap().len(), 1 << 20);
            let peak = peak_since_now();
            let sender = socket.sender();
            let close = tokio::spawn(async move { sender.close(CloseCode::NORMAL, "").await });
            assert_eq!(wire.next_frame(Role::Server).await, Frame::close(1000, ""));
            for _ in 0..COUNT {
                assert_eq!(socket.recv().await.unwrap().unwrap().len(), 1 << 20);
            }
            // One message at a time, and half of it again while it moves.
            let peak = peak();
            assert!(peak < (3 << 19) + (512 << 10), "{mode:?}: {peak}");
            wire.feed_frame(Role::Client, &Frame::close(1000, ""));
            wire.end();
            assert_eq!(socket.recv().await.unwrap(), None);
            close.await.unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn a_prepared_message_is_compressed_once_for_each_level_and_window() {
        let (none, over) = (Compression::NoContextTakeover, Compression::ContextTakeover);
        let prepared = Prepared::new(text(100_000));
        // The parameters with which the message has to be compressed again.
        let mut connections = Vec::new();
        for (mode, level, bits, anew) in [
            (none, 6, 15, true),
            (none, 6, 15, false),
            (over, 6, 15, false),
            (none, 6, 10, true),
            (none, 9, 15, true),
            (over, 9, 15, false),
            (over, 6, 10, false),
        ] {
            let (stream, wire) = wire();
            let parameters = DeflateParameters {
                server_no_context_takeover: mode == none,
                server_max_window_bits: bits,
                ..DeflateParameters::default()
            };
            let acceptor = Acceptor::new().compression(mode.options().level(level));
            let socket = acceptor.adopt(stream, bowline::Adoption::new().compression(parameters)).unwrap();
            // Makes room for the following bytes in the test's stream.
            socket.send(Payload::from(vec![7; 200_000]).compress(false)).await.unwrap();
            assert_eq!(wire.take_frames(Role::Server).len(), 1);
            connections.push((socket, wire, anew));
        }
        for _ in 0..2 {
            for (socket, wire, anew) in &mut connections {
                let before = ALLOCATIONS.get();
                socket.send(&prepared).await.unwrap();
                let allocated = ALLOCATIONS.get() > before;
                assert_eq!(allocated, std::mem::take(anew));
                assert!(wire.next_frame(Role::Server).await.compressed);
            }
        }
    }

    /// Returns text of moderate compressibility.
    fn text(size: usize) -> String {
        (0..).flat_map(|i: u32| (i * i % 1009).to_string().into_bytes()).map(char::from).take(size).collect()
    }
}
