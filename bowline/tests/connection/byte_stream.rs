//! The connection as a stream of bytes.

use std::io;
use std::time::Duration;

use bowline::{
    Acceptor, CloseCode, Connector, Error, ErrorKind, Limits, MessageKind, Role, WebSocketIo, pair,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use crate::support::frames::Frame;
use crate::support::http::soon;
use crate::support::modes::MODES;
use crate::support::pairs::{CARRIERS, CARRIERS_IN_MEMORY, both};
use crate::support::{open, poll_times};

fn is_shared<T: Send + Sync + Unpin + 'static>() {}

#[test]
fn it_can_be_shared_between_threads() {
    is_shared::<WebSocketIo>();
}

fn inner(error: &io::Error) -> &Error {
    error.get_ref().and_then(|inner| inner.downcast_ref()).expect("our error is inside")
}

/// The number of bytes in each direction.
const TUNNELLED: u64 = 50 * 1024 * 1024;

const PIECE: usize = 64 * 1024;

/// 251 numbers repeated, so that no buffer size is a multiple of the period, and every lost, doubled or
/// swapped byte shows.
struct Pattern(Vec<u8>);

impl Pattern {
    fn new() -> Self {
        Self((0..251).cycle().take(PIECE + 251).collect())
    }

    fn at(&self, position: u64, size: usize) -> &[u8] {
        let start = usize::try_from(position % 251).unwrap();
        &self.0[start..start + size]
    }
}

async fn send_all(mut stream: impl AsyncWrite + Unpin, sizes: [usize; 3]) {
    let pattern = Pattern::new();
    let (mut position, mut sizes) = (0, sizes.into_iter().cycle());
    while position < TUNNELLED {
        let size = sizes.next().unwrap().min(usize::try_from(TUNNELLED - position).unwrap());
        stream.write_all(pattern.at(position, size)).await.unwrap();
        position += size as u64;
    }
    stream.flush().await.unwrap();
}

async fn receive_all(mut stream: impl AsyncRead + Unpin) {
    let (pattern, mut piece) = (Pattern::new(), vec![0; PIECE]);
    let mut position = 0;
    while position < TUNNELLED {
        let count = stream.read(&mut piece).await.unwrap();
        assert_ne!(count, 0, "the stream ended after {position} bytes");
        assert!(piece[..count] == *pattern.at(position, count), "other bytes from {position} on");
        position += count as u64;
    }
    assert_eq!(position, TUNNELLED);
}

/// A TCP client and a TCP server talk through a chain of TCP, a WebSocket over TCP, and TCP. 100 MiB in
/// total.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tcp_connection_passes_through() {
    let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target_address = target.local_addr().unwrap();
    let relay = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", relay.local_addr().unwrap());
    tokio::spawn(bowline::serve(relay, move |socket: bowline::WebSocket| async move {
        let mut tunnel = socket.into_io(MessageKind::Binary);
        let mut target = TcpStream::connect(target_address).await?;
        tokio::io::copy_bidirectional_with_sizes(&mut tunnel, &mut target, 32 * 1024, 32 * 1024).await?;
        Ok(())
    }));
    let entrance = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let entrance_address = entrance.local_addr().unwrap();
    let entering = tokio::spawn(async move {
        let (mut stream, _) = entrance.accept().await.unwrap();
        let mut tunnel = bowline::connect(url).await.unwrap().into_io(MessageKind::Binary);
        tokio::io::copy_bidirectional_with_sizes(&mut stream, &mut tunnel, 32 * 1024, 32 * 1024).await
    });
    let client = tokio::spawn(async move {
        let mut stream = TcpStream::connect(entrance_address).await.unwrap();
        let (read, write) = stream.split();
        tokio::join!(send_all(write, [65_536, 1, 40_000]), receive_all(read));
        // Both directions are complete. The end may pass now, which ends both.
        stream.shutdown().await.unwrap();
        assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0);
    });
    let (mut stream, _) = target.accept().await.unwrap();
    let (read, write) = stream.split();
    tokio::join!(send_all(write, [30_000, 65_536, 7]), receive_all(read));
    assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0);
    drop(stream);
    client.await.unwrap();
    assert_eq!(entering.await.unwrap().unwrap(), (TUNNELLED, TUNNELLED));
}

#[tokio::test]
async fn a_write_is_a_message_and_of_nothing_there_is_none() {
    for (kind, opcode) in [
        (MessageKind::Binary, Frame::binary as fn(Vec<u8>) -> Frame),
        (MessageKind::Text, Frame::text as fn(Vec<u8>) -> Frame),
    ] {
        let (socket, wire) = open(Role::Server, Limits::default());
        let mut stream = socket.into_io(kind);
        assert_eq!(stream.write(b"one").await.unwrap(), 3);
        assert_eq!(stream.write(b"").await.unwrap(), 0);
        assert_eq!(stream.write(b"two").await.unwrap(), 3);
        stream.flush().await.unwrap();
        assert_eq!(wire.take_frames(Role::Server), [opcode(b"one".to_vec()), opcode(b"two".to_vec())]);
    }
}

#[tokio::test]
async fn a_large_write_takes_a_part_that_any_peer_takes() {
    let (socket, wire) = open(Role::Server, Limits::default());
    let mut stream = socket.into_io(MessageKind::Text);
    let text = "é".repeat(20_000);
    // Not in the middle of a code point.
    assert_eq!(stream.write(format!("x{text}").as_bytes()).await.unwrap(), 32_767);
    assert_eq!(wire.next_frame(Role::Server).await.payload.len(), 32_767);
}

#[tokio::test]
async fn text_is_utf8_in_each_write() {
    let (socket, wire) = open(Role::Server, Limits::default());
    let mut stream = socket.into_io(MessageKind::Text);
    for piece in [&[0xFF][..], &"é".as_bytes()[..1]] {
        let error = stream.write(piece).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert_eq!(inner(&error).kind(), ErrorKind::InvalidInput);
    }
    stream.write_all("é".as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    assert_eq!(wire.take_frames(Role::Server), [Frame::text("é")]);
}

#[tokio::test]
async fn messages_follow_each_other_and_empty_ones_are_not_the_end() {
    let (socket, wire) = open(Role::Server, Limits::default());
    let mut stream = socket.into_io(MessageKind::Binary);
    for payload in ["", "ab", "", "", "cdef", ""] {
        wire.feed_frame(Role::Client, &Frame::binary(payload));
    }
    wire.feed_frame(Role::Client, &Frame::binary("in ").unfinished());
    wire.feed_frame(Role::Client, &Frame::continuation("fragments"));
    wire.feed_frame(Role::Client, &Frame::close(1001, ""));
    assert_eq!(stream.read(&mut []).await.unwrap(), 0);
    let mut all = String::new();
    stream.read_to_string(&mut all).await.unwrap();
    assert_eq!(all, "abcdefin fragments");
    // It stays ended.
    assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0);
}

/// Also of a message that is not complete.
#[tokio::test]
async fn bytes_are_read_as_they_arrive() {
    let (socket, wire) = open(Role::Server, Limits::default());
    let mut stream = socket.into_io(MessageKind::Binary);
    wire.feed(&Frame::binary("abcdef").encode(Role::Client)[..8]);
    let mut piece = [0; 10];
    assert_eq!(stream.read(&mut piece).await.unwrap(), 2);
    assert_eq!(&piece[..2], b"ab");
}

#[tokio::test]
async fn the_end_is_that_of_the_close_frame() {
    for (frame, expected) in [
        (Frame::close(1000, "done"), None),
        (Frame::close(1001, ""), None),
        (Frame::close_without_code(), None),
        (Frame::close(1011, ""), Some((io::ErrorKind::BrokenPipe, ErrorKind::Closed))),
    ] {
        let (socket, wire) = open(Role::Server, Limits::default());
        let mut stream = socket.into_io(MessageKind::Binary);
        wire.feed_frame(Role::Client, &frame);
        wire.end();
        let read = stream.read(&mut [0; 1]).await;
        let kinds = read.as_ref().err().map(|error| (error.kind(), inner(error).kind()));
        assert_eq!(kinds, expected, "{frame:?}");
        assert_eq!(stream.write(b"late").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        stream.shutdown().await.unwrap();
    }
    let (socket, wire) = open(Role::Server, Limits::default());
    let mut stream = socket.into_io(MessageKind::Binary);
    wire.end();
    let error = stream.read(&mut [0; 1]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    assert_eq!(inner(&error).kind(), ErrorKind::Disconnected);
    assert_eq!(stream.shutdown().await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn shutting_down_closes_with_1000_behind_what_was_written() {
    let (client, mut server) = pair();
    let mut stream = client.into_io(MessageKind::Binary);
    stream.write_all(b"last").await.unwrap();
    let peer = tokio::spawn(async move {
        let message = server.recv().await.unwrap().unwrap();
        assert_eq!(message.as_bytes(), b"last");
        assert_eq!(server.recv().await.unwrap(), None);
        server.close_frame().unwrap().code()
    });
    stream.shutdown().await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(peer.await.unwrap(), CloseCode::NORMAL);
    assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_message_of_the_other_kind_closes_with_1003() {
    let (socket, wire) = open(Role::Server, Limits::default());
    let mut stream = socket.into_io(MessageKind::Binary);
    wire.feed_frame(Role::Client, &Frame::binary("ab"));
    wire.feed_frame(Role::Client, &Frame::text("cd"));
    let mut piece = [0; 2];
    stream.read_exact(&mut piece).await.unwrap();
    for _ in 0..2 {
        let error = stream.read(&mut piece).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        let text = "the peer sent a message that is not Binary: the connection is closed";
        assert_eq!(error.to_string(), text);
    }
    assert_eq!(wire.next_frame(Role::Server).await, Frame::close(1003, ""));
    assert!(stream.write(b"late").await.is_err());
}

#[tokio::test]
async fn a_cancelled_read_or_write_loses_nothing_and_holds_up_nobody() {
    let (socket, wire) = open(Role::Server, Limits::default().write_buffer(10));
    let sender = socket.sender();
    let mut stream = socket.into_io(MessageKind::Binary);
    assert!(poll_times(3, stream.read(&mut [0; 1])).await.is_none());
    wire.set_room(0);
    assert_eq!(stream.write(b"longer than the mark").await.unwrap(), 20);
    assert!(poll_times(3, stream.write(b"given up")).await.is_none());
    assert!(poll_times(3, stream.flush()).await.is_none());
    let sending = tokio::spawn(async move { sender.send(b"another").await });
    wire.set_room(usize::MAX);
    sending.await.unwrap().unwrap();
    stream.write_all(b"last").await.unwrap();
    stream.flush().await.unwrap();
    let sent: Vec<_> = wire.take_frames(Role::Server).into_iter().map(|frame| frame.payload).collect();
    assert_eq!(sent, [&b"longer than the mark"[..], b"another", b"last"]);
    wire.feed_frame(Role::Client, &Frame::binary("a"));
    let mut piece = [0; 1];
    stream.read_exact(&mut piece).await.unwrap();
    assert_eq!(&piece, b"a");
}

#[tokio::test]
async fn dropping_it_ends_the_connection_behind_what_was_written() {
    let (client, mut server) = pair();
    let mut stream = client.into_io(MessageKind::Binary);
    stream.write_all(b"last").await.unwrap();
    drop(stream);
    assert_eq!(server.recv().await.unwrap().unwrap().as_bytes(), b"last");
    assert_eq!(server.recv().await.unwrap_err().kind(), ErrorKind::Disconnected);
}

// ---- ends that come apart

/// A client that shuts its direction down, and a server that answers only then, talk through TCP, a WebSocket
/// and TCP: the most frequent use of a half-closed stream.
#[tokio::test]
async fn a_half_closed_tcp_connection_passes_through() {
    let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target_address = target.local_addr().unwrap();
    let answering = tokio::spawn(async move {
        let (mut stream, _) = target.accept().await.unwrap();
        let mut question = Vec::new();
        stream.read_to_end(&mut question).await.unwrap();
        stream.write_all(&question.repeat(1000)).await.unwrap();
    });
    let entrance = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let entrance_address = entrance.local_addr().unwrap();
    let (near, far) = pair();
    let near = async {
        let mut tunnel = near.into_io(MessageKind::Binary).half_close();
        let (mut stream, _) = entrance.accept().await.unwrap();
        tokio::io::copy_bidirectional(&mut stream, &mut tunnel).await
    };
    let far = async {
        let mut tunnel = far.into_io(MessageKind::Binary).half_close();
        let mut stream = TcpStream::connect(target_address).await.unwrap();
        tokio::io::copy_bidirectional(&mut tunnel, &mut stream).await
    };
    let client = async {
        let mut stream = TcpStream::connect(entrance_address).await.unwrap();
        stream.write_all(b"question").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        answer
    };
    let (near, far, answer) = soon(async { tokio::join!(near, far, client) }).await;
    assert_eq!((near.unwrap(), far.unwrap()), ((8, 8000), (8, 8000)));
    assert_eq!(answer, b"question".repeat(1000));
    answering.await.unwrap();
}

#[tokio::test]
async fn each_direction_ends_on_its_own() {
    for kind in [MessageKind::Text, MessageKind::Binary] {
        let (client, server) = pair();
        let (mut client, mut server) = (client.into_io(kind).half_close(), server.into_io(kind).half_close());
        let mut bytes = Vec::new();
        client.write_all(b"one").await.unwrap();
        client.shutdown().await.unwrap();
        client.shutdown().await.unwrap();
        let error = client.write_all(b"more").await.unwrap_err();
        assert_eq!(inner(&error).kind(), ErrorKind::Closed);
        server.read_to_end(&mut bytes).await.unwrap();
        assert_eq!(bytes, b"one");
        assert_eq!(server.read_to_end(&mut bytes).await.unwrap(), 0);
        for part in ["two", "three"] {
            server.write_all(part.as_bytes()).await.unwrap();
        }
        let (shut, read) = soon(async {
            bytes.clear();
            tokio::join!(server.shutdown(), client.read_to_end(&mut bytes))
        })
        .await;
        shut.unwrap();
        read.unwrap();
        assert_eq!(bytes, b"twothree");
        soon(client.shutdown()).await.unwrap();
    }
}

/// An empty message that is compressed is not empty on the wire, and yet an end.
#[tokio::test]
async fn compressed_directions_end_on_their_own() {
    for mode in MODES {
        let (client, server) = tokio::io::duplex(1024);
        let (connector, acceptor) = (Connector::new(), Acceptor::new());
        let client = mode.adopt(Role::Client, &connector, &acceptor, client);
        let server = mode.adopt(Role::Server, &connector, &acceptor, server);
        let mut client = client.into_io(MessageKind::Binary).half_close();
        let mut server = server.into_io(MessageKind::Binary).half_close();
        let (question, answer) = (vec![1; 100_000], vec![2; 100_000]);
        let asking = async {
            client.write_all(&question).await.unwrap();
            client.shutdown().await.unwrap();
            let mut received = Vec::new();
            client.read_to_end(&mut received).await.unwrap();
            received
        };
        let answering = async {
            let mut received = Vec::new();
            server.read_to_end(&mut received).await.unwrap();
            server.write_all(&answer).await.unwrap();
            server.shutdown().await.unwrap();
            received
        };
        let received = soon(async { tokio::join!(asking, answering) }).await;
        assert!(received == (answer.clone(), question.clone()), "{mode:?}");
    }
}

/// Without the setting on the other side, an end has no meaning there, and the Close frame ends both.
#[tokio::test]
async fn a_peer_without_the_setting_ends_both_directions() {
    let (client, server) = pair();
    let mut client = client.into_io(MessageKind::Binary).half_close();
    let mut server = server.into_io(MessageKind::Binary);
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    let mut bytes = [0; 8];
    server.read_exact(&mut bytes).await.unwrap();
    assert!(poll_times(3, server.read(&mut bytes)).await.is_none());
    server.write_all(b"answer").await.unwrap();
    let mut answer = Vec::new();
    let (shut, read) = soon(async { tokio::join!(server.shutdown(), client.read_to_end(&mut answer)) }).await;
    assert_eq!((shut.unwrap(), read.unwrap()), ((), 6));
    assert_eq!(answer, b"answer");
    soon(client.shutdown()).await.unwrap();
}

#[tokio::test]
async fn both_directions_may_end_at_once() {
    let (client, server) = pair();
    let mut client = client.into_io(MessageKind::Binary).half_close();
    let mut server = server.into_io(MessageKind::Binary).half_close();
    client.shutdown().await.unwrap();
    server.shutdown().await.unwrap();
    let (mut byte, mut bytes) = ([0], Vec::new());
    let (first, second) =
        soon(async { tokio::join!(client.read(&mut byte), server.read_to_end(&mut bytes)) }).await;
    assert_eq!((first.unwrap(), second.unwrap()), (0, 0));
    let (first, second) = soon(async { tokio::join!(client.shutdown(), server.shutdown()) }).await;
    first.unwrap();
    second.unwrap();
}

/// The first to shut down closes, once it has read everything. Otherwise the other side's shutdown says so.
#[tokio::test]
async fn the_second_shutdown_returns_when_the_peer_has_read_everything() {
    for (answer, expected) in [
        (Some(Frame::close(1000, "")), None),
        (Some(Frame::close(1011, "")), Some(ErrorKind::Closed)),
        (Some(Frame::binary("more")), Some(ErrorKind::Disconnected)),
        (None, Some(ErrorKind::Disconnected)),
    ] {
        let (socket, wire) = open(Role::Server, Limits::default());
        let mut stream = socket.into_io(MessageKind::Binary).half_close();
        wire.feed_frame(Role::Client, &Frame::binary(""));
        assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0);
        assert!(poll_times(3, stream.shutdown()).await.is_none());
        assert_eq!(wire.take_frames(Role::Server), [Frame::binary("")]);
        assert_eq!(inner(&stream.write(b"late").await.unwrap_err()).kind(), ErrorKind::Closed);
        if let Some(frame) = &answer {
            wire.feed_frame(Role::Client, frame);
        }
        wire.end();
        let shut = soon(stream.shutdown()).await;
        assert_eq!(shut.as_ref().err().map(|error| inner(error).kind()), expected, "{answer:?}");
    }
}

/// Large data goes in both directions at once over each transport, and each direction ends on its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_data_ends_in_both_directions_over_all_carriers() {
    async fn talk(stream: WebSocketIo, sent: &[u8], expected: &[u8]) {
        let (mut reading, mut writing) = tokio::io::split(stream);
        let write = async {
            writing.write_all(sent).await.unwrap();
            writing.shutdown().await.unwrap();
        };
        let mut received = Vec::new();
        let (read, ()) = tokio::join!(reading.read_to_end(&mut received), write);
        read.unwrap();
        assert!(received == expected, "{} bytes instead of {}", received.len(), expected.len());
        writing.shutdown().await.unwrap();
    }
    for &carrier in CARRIERS {
        for sizes in [(3_000_000, 2_000_000), (5_000_000, 0), (0, 5_000_000), (0, 0), (1, 1_000_000)] {
            let pattern: Vec<u8> = (0..251).cycle().take(5_000_000).collect();
            let (one, other) = (&pattern[..sizes.0], &pattern[..sizes.1]);
            let (client, server) = both(carrier).await;
            let client = client.into_io(MessageKind::Binary).half_close();
            let server = server.into_io(MessageKind::Binary).half_close();
            soon(async { tokio::join!(talk(client, one, other), talk(server, other, one)) }).await;
        }
    }
}

/// A peer may take its time for the rest, as over TCP: the close timeout does not cut the rest off.
#[tokio::test(start_paused = true)]
async fn a_slow_reader_receives_everything_before_the_end() {
    for carrier in CARRIERS_IN_MEMORY {
        let (client, server) = both(*carrier).await;
        let mut client = client.into_io(MessageKind::Binary).half_close();
        let mut server = server.into_io(MessageKind::Binary).half_close();
        client.shutdown().await.unwrap();
        assert_eq!(server.read(&mut [0; 1]).await.unwrap(), 0);
        let answering = tokio::spawn(async move {
            server.write_all(&vec![7; 300_000]).await.unwrap();
            server.shutdown().await
        });
        let (mut received, mut piece) = (0, vec![0; 60_000]);
        loop {
            sleep(Duration::from_secs(3)).await;
            match client.read(&mut piece).await.unwrap() {
                0 => break,
                count => received += count,
            }
        }
        assert_eq!(received, 300_000);
        client.shutdown().await.unwrap();
        answering.await.unwrap().unwrap();
    }
}

/// Without the setting, bytes that arrive after a shutdown are lost, but not silently.
#[tokio::test]
async fn bytes_that_are_lost_after_a_shutdown_are_an_error() {
    for late in [&b"the answer"[..], b""] {
        let (socket, wire) = open(Role::Client, Limits::default());
        let mut stream = socket.into_io(MessageKind::Binary);
        assert!(poll_times(3, stream.shutdown()).await.is_none());
        wire.feed_frame(Role::Server, &Frame::binary(late));
        wire.feed_frame(Role::Server, &Frame::close(1000, ""));
        wire.end();
        soon(stream.shutdown()).await.unwrap();
        let read = soon(stream.read(&mut [0; 16])).await;
        if late.is_empty() {
            assert_eq!(read.unwrap(), 0);
        } else {
            let error = read.unwrap_err();
            assert_eq!(inner(&error).kind(), ErrorKind::Closed);
            assert!(error.to_string().contains("WebSocketIo::half_close"), "{error}");
        }
    }
}

#[tokio::test]
async fn a_peer_that_closes_ends_both_directions() {
    let (client, mut server) = pair();
    let mut client = client.into_io(MessageKind::Binary).half_close();
    client.shutdown().await.unwrap();
    assert_eq!(server.recv().await.unwrap().unwrap().len(), 0);
    let mut byte = [0];
    let (closed, read) =
        soon(async { tokio::join!(server.close(CloseCode::NORMAL, ""), client.read(&mut byte)) }).await;
    closed.unwrap();
    assert_eq!(read.unwrap(), 0);
    soon(client.shutdown()).await.unwrap();
}
