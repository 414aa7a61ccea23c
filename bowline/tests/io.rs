//! A stream of bytes over messages.

mod support;

use bowline::{CloseCode, Error, ErrorKind, Limits, MessageKind, Role, pair};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional, split};
use tokio::net::{TcpListener, TcpStream};

use support::frames::{Frame, encode_all};
use support::{open, peer_of, poll_times};

fn kind_of(error: &std::io::Error) -> ErrorKind {
    error.get_ref().unwrap().downcast_ref::<Error>().unwrap().kind()
}

#[tokio::test]
async fn a_write_is_a_message_and_reads_need_not_match() {
    let (socket, wire) = open(Role::Server, Limits::default());
    let mut stream = socket.into_io(MessageKind::Binary);
    stream.write_all(b"one").await.unwrap();
    assert_eq!(stream.write(b"").await.unwrap(), 0);
    stream.write_all(b"two").await.unwrap();
    stream.flush().await.unwrap();
    assert_eq!(wire.take_frames(Role::Server), [Frame::binary("one"), Frame::binary("two")]);
    let frames = [
        Frame::binary("abc"),
        Frame::binary(""),
        Frame::binary("de").unfinished(),
        Frame::ping("between"),
        Frame::continuation("f"),
        Frame::close(1001, "away"),
    ];
    wire.feed(&encode_all(Role::Client, &frames));
    wire.end();
    let mut pieces = [0; 2];
    stream.read_exact(&mut pieces).await.unwrap();
    assert_eq!(&pieces, b"ab");
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "cdef");
    assert_eq!(stream.read(&mut pieces).await.unwrap(), 0, "the end stays");
}

#[tokio::test]
async fn other_ends_are_errors() {
    let (client, server) = pair();
    let mut stream = client.into_io(MessageKind::Binary);
    drop(server);
    let error = stream.read(&mut [0]).await.unwrap_err();
    assert_eq!(kind_of(&error), ErrorKind::Disconnected);

    let (client, server) = pair();
    let mut stream = client.into_io(MessageKind::Binary);
    let closing = tokio::spawn(async move { server.close(CloseCode(4000), "enough").await });
    let error = stream.read(&mut [0]).await.unwrap_err();
    assert_eq!(kind_of(&error), ErrorKind::Closed);
    assert_eq!(kind_of(&stream.write(b"late").await.unwrap_err()), ErrorKind::Closed);
    closing.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_message_of_the_other_kind_closes_with_1003() {
    let (client, mut server) = pair();
    let mut stream = client.into_io(MessageKind::Text);
    server.send(b"binary").await.unwrap();
    for _ in 0..2 {
        assert_eq!(kind_of(&stream.read(&mut [0]).await.unwrap_err()), ErrorKind::Protocol);
    }
    let error = server.recv().await.unwrap_err();
    assert_eq!(error.close_frame().unwrap().code(), CloseCode::UNSUPPORTED_DATA);
    let (client, _server) = pair();
    let error = client.into_io(MessageKind::Text).write(b"\xFF").await.unwrap_err();
    assert_eq!(kind_of(&error), ErrorKind::InvalidInput);
}

#[tokio::test]
async fn shutting_down_closes_with_1000() {
    let (client, mut server) = pair();
    let mut stream = client.into_io(MessageKind::Binary);
    stream.write_all(b"last words").await.unwrap();
    let receiving = tokio::spawn(async move {
        assert_eq!(server.recv().await.unwrap(), Some(b"last words".to_vec().into()));
        assert_eq!(server.recv().await.unwrap(), None);
        server.close_frame().unwrap().code()
    });
    stream.shutdown().await.unwrap();
    assert_eq!(receiving.await.unwrap(), CloseCode::NORMAL);
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
    stream.shutdown().await.unwrap();
}

#[tokio::test]
async fn what_is_dropped_before_it_is_ready_took_nothing() {
    for role in [Role::Client, Role::Server] {
        let (socket, wire) = open(role, Limits::default().write_buffer(1));
        wire.set_room(0);
        let mut stream = socket.into_io(MessageKind::Binary);
        stream.write_all(b"accepted").await.unwrap();
        assert!(poll_times(3, stream.write_all(b"dropped")).await.is_none());
        assert!(poll_times(3, stream.flush()).await.is_none());
        assert!(poll_times(3, stream.read(&mut [0; 10])).await.is_none());
        wire.set_room(usize::MAX);
        stream.write_all(b"next").await.unwrap();
        stream.flush().await.unwrap();
        assert_eq!(wire.take_frames(role), [Frame::binary("accepted"), Frame::binary("next")]);
        wire.feed_frame(peer_of(role), &Frame::binary("read"));
        let mut read = [0; 4];
        stream.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"read");
    }
}

/// Of a sequence of bytes that does not repeat for long.
fn fill(bytes: &mut [u8], from: u64) {
    for (index, word) in bytes.chunks_exact_mut(8).enumerate() {
        let number = (from / 8 + index as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        word.copy_from_slice(&number.to_le_bytes());
    }
}

/// Sends so many bytes, and checks those that come back, at the same time.
async fn exchange(stream: TcpStream, total: u64) {
    let (mut reading, mut writing) = split(stream);
    let sending = tokio::spawn(async move {
        let mut bytes = vec![0; 64 * 1024];
        let mut sent = 0;
        while sent < total {
            fill(&mut bytes, sent);
            writing.write_all(&bytes).await.unwrap();
            sent += bytes.len() as u64;
        }
        writing
    });
    let (mut bytes, mut expected) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    let mut received = 0;
    while received < total {
        reading.read_exact(&mut bytes).await.unwrap();
        fill(&mut expected, received);
        assert!(bytes == expected, "behind {received} bytes");
        received += bytes.len() as u64;
    }
    sending.await.unwrap().shutdown().await.unwrap();
    assert_eq!(reading.read(&mut bytes).await.unwrap(), 0, "nothing more, and an orderly end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tcp_connection_goes_through_it_both_ways() {
    const TOTAL: u64 = 100 * 1024 * 1024;
    let echo = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let echo_address = echo.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _) = echo.accept().await.unwrap();
        let (mut reading, mut writing) = stream.into_split();
        tokio::io::copy(&mut reading, &mut writing).await.unwrap();
    });
    // client -> entry -> WebSocket -> exit -> echo
    let exit = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let exit_address = exit.local_addr().unwrap();
    tokio::spawn(bowline::serve(exit, move |socket: bowline::WebSocket| async move {
        let mut stream = TcpStream::connect(echo_address).await?;
        copy_bidirectional(&mut socket.into_io(MessageKind::Binary), &mut stream).await?;
        Ok(())
    }));
    let entry = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let entry_address = entry.local_addr().unwrap();
    let tunnel = tokio::spawn(async move {
        let (mut stream, _) = entry.accept().await.unwrap();
        let socket = bowline::connect(format!("ws://{exit_address}")).await.unwrap();
        copy_bidirectional(&mut stream, &mut socket.into_io(MessageKind::Binary)).await.unwrap()
    });
    exchange(TcpStream::connect(entry_address).await.unwrap(), TOTAL).await;
    assert_eq!(tunnel.await.unwrap(), (TOTAL, TOTAL));
}
