//! Streams that break, truncate and stall.

use std::error::Error as StdError;
use std::io::ErrorKind as IoKind;
use std::time::Duration;

use bowline::{
    Acceptor, Adoption, CloseCode, Connector, Error, ErrorKind, Limits, Message, MessageKind, Proxy, Role,
    WebSocket,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::support::cable::{Cable, Call, End, Fault, How, cable};
use crate::support::frames::{Frame, encode_all};
use crate::support::http::{Head, acceptance, listen, read_head, soon};
use crate::support::pairs::Stream;
use crate::support::{self, open, peer_of};

const ROLES: [Role; 2] = [Role::Client, Role::Server];

/// The client's part of a complete conversation: handshake, text, fragments, a ping, the closing handshake.
async fn talk(stream: impl Stream) -> Result<(), Box<dyn StdError>> {
    let (mut socket, _) = Connector::new().connect_over("ws://example.com/", stream).await?;
    socket.send("text").await?;
    let mut writer = socket.writer(MessageKind::Binary).await?;
    for _ in 0..3 {
        writer.write_all(b"fragment").await?;
        writer.flush().await?;
    }
    writer.finish().await?;
    socket.flush().await?;
    for expected in [Message::from("text"), Message::from(b"fragmentfragmentfragment".as_slice())] {
        let received = socket.recv().await?.ok_or("it was closed")?;
        assert_eq!(received, expected, "what arrives is right, or nothing does");
    }
    socket.ping().await?;
    let answer = socket.close(CloseCode::NORMAL, "done").await?;
    assert_eq!(answer.code(), CloseCode::NORMAL);
    Ok(())
}

/// The server's part.
async fn listen_and_echo(stream: impl Stream) -> Result<(), Box<dyn StdError>> {
    let (mut socket, _) = Acceptor::new().accept_stream(stream).await?;
    let result = echo_all(&mut socket).await;
    socket.sender().closed().await;
    Ok(result?)
}

async fn echo_all(socket: &mut WebSocket) -> Result<(), Error> {
    while let Some(message) = socket.recv().await? {
        socket.send(message).await?;
    }
    Ok(())
}

/// Returns how the conversation ended at the client and at the server. Time is paused, so that hangs are
/// detected.
async fn converse(client: impl Stream, server: impl Stream) -> [Result<(), Box<dyn StdError>>; 2] {
    let both = async { tokio::join!(talk(client), listen_and_echo(server)) };
    let (client, server) = timeout(Duration::from_secs(300), both).await.expect("nobody hangs");
    [client, server]
}

fn assert_clear(result: &Result<(), Box<dyn StdError>>, named: &str) {
    let error = result.as_ref().expect_err(named);
    assert!(error.to_string().len() > 25, "{named}: it says what happened: {error}");
}

/// Returns the number of bytes of the whole conversation in each direction.
async fn whole_conversation() -> [usize; 2] {
    let (client, server, cable) = cable();
    let [client, server] = converse(client, server).await;
    client.unwrap();
    server.unwrap();
    cable.passed()
}

/// A side that can't know that the conversation was complete has to receive an error.
fn assert_told(results: &[Result<(), Box<dyn StdError>>; 2], cable: &Cable, total: [usize; 2], named: &str) {
    let passed = cable.passed();
    if passed[0] < total[0] {
        // The server did not receive the client's Close frame, so both sides are incomplete.
        assert_clear(&results[0], named);
        assert_clear(&results[1], named);
    } else if passed[1] < total[1] {
        assert_clear(&results[0], named);
    }
}

// ---- a stream that breaks

#[tokio::test(start_paused = true)]
async fn a_reset_at_every_byte_of_a_conversation_is_an_error_on_both_sides() {
    let total = whole_conversation().await;
    assert!(total[0] > 200 && total[1] > 150, "it has a handshake in it: {total:?}");
    for direction in [0, 1] {
        for at in 0..=total[direction] {
            let named = format!("reset in direction {direction} at byte {at}");
            let (client, server, cable) = cable();
            cable.reset_at(direction, at);
            let start = Instant::now();
            let results = converse(client, server).await;
            assert!(start.elapsed().is_zero(), "{named}: it is noticed at once, in {:?}", start.elapsed());
            assert_told(&results, &cable, total, &named);
            if direction == 0 || at < total[1] - 8 {
                // Only a server that has answered the Close frame loses nothing.
                assert_clear(&results[0], &named);
                assert_clear(&results[1], &named);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_at_every_call_ends_the_conversation() {
    let total = whole_conversation().await;
    for role in ROLES {
        for (call, how) in [
            (Call::Read, How::WithError),
            (Call::Read, How::WithZero),
            (Call::Write, How::WithError),
            (Call::Write, How::WithZero),
            (Call::Flush, How::WithError),
            (Call::Shutdown, How::WithError),
        ] {
            let mut after = 0;
            loop {
                let fault = Fault { call, after, how };
                let named = format!("{role:?}, {fault:?}");
                let (client, server, cable) = cable();
                let results = match role {
                    Role::Client => converse(client.with_fault(fault), server).await,
                    Role::Server => converse(client, server.with_fault(fault)).await,
                };
                assert_told(&results, &cable, total, &named);
                if !cable.has_faulted() {
                    break;
                }
                if call == Call::Write {
                    assert_clear(&results[0], &named);
                }
                after += 1;
            }
            assert!(after > 0 || call == Call::Shutdown, "{role:?}, {call:?} was never called");
        }
    }
}

/// TCP uses another code path.
#[tokio::test]
async fn a_tcp_reset_at_every_byte_is_an_error() {
    let frames = |role| {
        encode_all(
            role,
            &[
                Frame::text("text"),
                Frame::binary("frag").unfinished(),
                Frame::ping("ping"),
                Frame::continuation("ment"),
                Frame::close(1000, "done"),
            ],
        )
    };
    let (listener, address) = listen().await;
    let mut script = Head::request().text().into_bytes();
    script.extend(frames(Role::Client));
    for at in 0..script.len() {
        let mut peer = TcpStream::connect(address).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        peer.set_zero_linger().unwrap();
        peer.write_all(&script[..at]).await.unwrap();
        drop(peer);
        let result = soon(listen_and_echo(stream)).await;
        assert_clear(&result, &format!("a server, reset at byte {at}"));
    }

    let frames = frames(Role::Server);
    let answer_len = acceptance(&Head::request()).text().len();
    for at in 0..answer_len + frames.len() {
        let peer = async {
            let (mut peer, _) = listener.accept().await.unwrap();
            let mut script = acceptance(&read_head(&mut peer).await).text().into_bytes();
            script.extend(&frames);
            peer.set_zero_linger().unwrap();
            peer.write_all(&script[..at]).await.unwrap();
        };
        let client = async {
            let (mut socket, _) =
                Connector::new().proxy(Proxy::none()).connect(format!("ws://{address}/")).await?;
            Ok::<_, Box<dyn StdError>>(echo_all(&mut socket).await?)
        };
        let (result, ()) = soon(async { tokio::join!(client, peer) }).await;
        assert_clear(&result, &format!("a client, reset at byte {at}"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_of_nothing_is_an_error_that_all_hear_of() {
    for role in ROLES {
        let (ours, _theirs, _cable) = cable();
        let ours = ours.with_fault(Fault { call: Call::Write, after: 1, how: How::WithZero });
        let mut socket = adopt(role, ours, Limits::default());
        socket.send("goes out").await.unwrap();
        socket.flush().await.unwrap();
        // The message is accepted, and then can't be written.
        socket.send("does not").await.unwrap();
        for error in [
            socket.flush().await.unwrap_err(),
            socket.send("more").await.unwrap_err(),
            socket.recv().await.unwrap_err(),
            socket.close(CloseCode::NORMAL, "").await.unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Io, "{role:?}: {error}");
            let source = error.source().and_then(|source| source.downcast_ref::<std::io::Error>());
            assert_eq!(source.unwrap().kind(), IoKind::WriteZero);
        }
    }
}

fn adopt(role: Role, stream: impl Stream, limits: Limits) -> WebSocket {
    match role {
        Role::Client => Connector::new().limits(limits).adopt(stream, Adoption::new()).unwrap(),
        Role::Server => Acceptor::new().limits(limits).adopt(stream, Adoption::new()).unwrap(),
    }
}

// ---- a stream that dawdles

/// Messages of all sizes in both directions, a reader and a writer, and the closing handshake.
async fn exchange_everything(client: End, server: End, large: usize) {
    let client = async {
        let (mut socket, _) = Connector::new().connect_over("ws://example.com/", client).await?;
        for size in [0, 1, 125, 126, 17_000, large] {
            let text = "x".repeat(size);
            socket.send(&text).await?;
            // Queued by reference where possible.
            socket.send(Message::from(text.clone())).await?;
            for _ in 0..2 {
                assert_eq!(socket.recv().await?, Some(Message::from(text.as_str())));
            }
        }
        socket.ping().await?;
        let mut writer = socket.writer(MessageKind::Text).await?;
        writer.write_all("€".repeat(7000).as_bytes()).await.unwrap();
        writer.finish().await?;
        let mut reader = socket.reader().await?.expect("a message");
        let mut text = String::new();
        reader.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "€".repeat(7000));
        drop(reader);
        socket.close(CloseCode::NORMAL, "done").await
    };
    let (closed, result) = tokio::join!(client, listen_and_echo(server));
    assert_eq!(closed.unwrap().reason(), "done");
    result.unwrap();
}

#[tokio::test]
async fn one_byte_at_a_time_and_spurious_wakeups_change_nothing() {
    for (chunk, hesitates, vectored, large) in [
        (1, false, false, 0),
        (1, false, true, 40_000),
        (1, true, false, 0),
        (1, true, true, 0),
        (3, true, true, 70_000),
        (usize::MAX, true, false, 200_000),
        (usize::MAX, true, true, 200_000),
    ] {
        let end = |mut end: End| {
            end = end.with_chunk(chunk);
            end = if hesitates { end.hesitating() } else { end };
            if vectored { end.vectored() } else { end }
        };
        let (client, server, _) = cable();
        soon(exchange_everything(end(client), end(server), large)).await;
    }
}

/// Repeated spurious wake-ups cause neither wrong results nor endless work.
#[tokio::test(start_paused = true)]
async fn wakeups_for_nothing_are_nothing() {
    for role in ROLES {
        let (mut socket, wire) = open(role, Limits::default());
        wire.set_room(0);
        socket.send("blocked").await.unwrap();
        let sender = socket.sender();
        let flushing = tokio::spawn(async move { sender.flush().await });
        let receiving = tokio::spawn(async move { (socket.recv().await, socket) });
        for _ in 0..1000 {
            // It wakes all waiters without a change.
            wire.feed(&[]);
            wire.set_room(0);
            tokio::task::yield_now().await;
        }
        assert!(!flushing.is_finished() && !receiving.is_finished());
        wire.set_room(usize::MAX);
        wire.feed_frame(peer_of(role), &Frame::text("at last"));
        flushing.await.unwrap().unwrap();
        assert_eq!(receiving.await.unwrap().0.unwrap(), Some("at last".into()));
        assert_eq!(wire.take_frames(role), [Frame::text("blocked")]);
    }
}

#[tokio::test(start_paused = true)]
async fn both_directions_blocked_at_once_go_on_when_someone_reads() {
    let (mut client, mut server) = blocked().await;
    // Nobody reads, for less than the keepalive's deadline.
    tokio::time::sleep(Duration::from_secs(19)).await;
    let start = Instant::now();
    assert_eq!(client.recv().await.unwrap().unwrap().len(), 100_000);
    assert_eq!(server.recv().await.unwrap().unwrap().len(), 100_000);
    client.flush().await.unwrap();
    server.flush().await.unwrap();
    let (closed, received) = tokio::join!(client.close(CloseCode::NORMAL, ""), server.recv());
    assert_eq!(closed.unwrap().code(), CloseCode::NORMAL);
    assert_eq!(received.unwrap(), None);
    assert!(start.elapsed().is_zero(), "it took {:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn both_directions_blocked_for_good_end_by_keepalive() {
    let start = Instant::now();
    let (client, server) = blocked().await;
    let errors = tokio::join!(client.flush(), server.flush());
    // One side may learn of it through the other's end.
    let kinds = [errors.0.unwrap_err().kind(), errors.1.unwrap_err().kind()];
    assert!(kinds.contains(&ErrorKind::Timeout), "{kinds:?}");
    assert!(
        kinds.iter().all(|kind| [ErrorKind::Timeout, ErrorKind::Disconnected].contains(kind)),
        "{kinds:?}"
    );
    assert_eq!(start.elapsed(), Duration::from_secs(20));
}

/// Both have sent more than the stream between them holds, and neither reads.
async fn blocked() -> (WebSocket, WebSocket) {
    let (client, server) = duplex(1000);
    let client = adopt(Role::Client, client, Limits::default());
    let server = adopt(Role::Server, server, Limits::default());
    for socket in [&client, &server] {
        socket.send(&vec![7; 100_000]).await.unwrap();
        assert!(socket.try_send("no room").is_err());
    }
    (client, server)
}

// ---- TLS

/// The point at which a peer ends TCP without TLS's `close_notify`.
#[cfg(feature = "tls")]
#[derive(Clone, Copy, Debug, PartialEq)]
enum Until {
    Handshake,
    Message,
    PartOfMessage,
    Close,
}

/// The peer's part of a connection, from the opening handshake on. The stream then ends abruptly.
#[cfg(feature = "tls")]
async fn play(mut stream: impl Stream, role: Role, until: Until) {
    let mut head = match role {
        Role::Client => Head::request().text(),
        Role::Server => acceptance(&read_head(&mut stream).await).text(),
    };
    if until == Until::Handshake {
        head.truncate(20);
    }
    stream.write_all(head.as_bytes()).await.unwrap();
    if role == Role::Client && until != Until::Handshake {
        read_head(&mut stream).await;
    }
    let message = Frame::text("message").encode(role);
    let frames = match until {
        Until::Handshake => Vec::new(),
        Until::Message => message,
        Until::PartOfMessage => message[..5].to_vec(),
        Until::Close => Frame::close(1000, "").encode(role),
    };
    stream.write_all(&frames).await.unwrap();
    stream.flush().await.unwrap();
    if until == Until::Close {
        let mut answer = vec![0; Frame::close(1000, "").encode(peer_of(role)).len()];
        stream.read_exact(&mut answer).await.unwrap();
    }
}

/// This is a truncation only before the closing handshake, after which nothing can be missing.
#[cfg(feature = "tls")]
#[tokio::test]
async fn a_missing_close_notify_is_an_error_until_the_connection_is_closed() {
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    for role in ROLES {
        for until in [Until::Handshake, Until::Message, Until::PartOfMessage, Until::Close] {
            let (server_config, client_config) = support::tls::configs();
            let (client, server) = duplex(64 * 1024);
            // Dropping a TLS stream sends no close_notify.
            let result = match role {
                Role::Client => {
                    let peer = async {
                        let stream = TlsAcceptor::from(server_config).accept(server).await.unwrap();
                        play(stream, Role::Server, until).await;
                    };
                    let ours = async {
                        let connector = Connector::new().tls(client_config);
                        let (socket, _) = connector.connect_over("wss://localhost/", client).await?;
                        drain(socket).await
                    };
                    Box::pin(soon(async { tokio::join!(ours, peer) })).await.0
                }
                Role::Server => {
                    let connector = TlsConnector::from(client_config);
                    let connecting = connector.connect("localhost".try_into().unwrap(), client);
                    let accepting = TlsAcceptor::from(server_config).accept(server);
                    let (client, server) = tokio::join!(connecting, accepting);
                    let ours = async {
                        let (socket, _) = Acceptor::new().accept_stream(server.unwrap()).await?;
                        drain(socket).await
                    };
                    let peer = play(client.unwrap(), Role::Client, until);
                    Box::pin(soon(async { tokio::join!(ours, peer) })).await.0
                }
            };
            if until == Until::Close {
                assert_eq!(result.unwrap(), 0, "{role:?}");
                continue;
            }
            let error = result.expect_err("it was cut off");
            let text = error.to_string();
            let named = if until == Until::Handshake { "handshake" } else { "without a Close frame" };
            assert!(text.contains(named), "{role:?}, {until:?}: {text}");
            assert!(error.source().unwrap().to_string().len() > 10, "{role:?}, {until:?}: {error:?}");
        }
    }
}

/// Receives to the end, and waits until the connection is gone. Returns the number of messages.
#[cfg(feature = "tls")]
async fn drain(mut socket: WebSocket) -> Result<usize, Error> {
    let mut received = 0;
    while socket.recv().await?.is_some() {
        received += 1;
    }
    socket.close(CloseCode::NORMAL, "").await?;
    Ok(received)
}
