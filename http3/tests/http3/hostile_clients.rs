//! Clients that break the protocol, or do what it allows until a server has no more of something.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bowline::{Acceptor, Error, ErrorKind, Limits, Message, Server, WebSocket};
use bowline_http3::Http3Connection;
use http::request::Parts;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;

use crate::raw::{ACCEPTED, CLIENT_SETTINGS, RawClient, frame, literal, request, section, soon};
use crate::support::allocations::peak_since_now;
use crate::support::{HandlerResult, Running, serve, serve_echo};

/// Checks that another client is served.
async fn is_served(running: &Running) {
    let connection = running.connect().await;
    let (mut socket, _) = soon(connection.connect("/")).await.unwrap();
    socket.send("hello").await.unwrap();
    assert_eq!(soon(socket.recv()).await.unwrap(), Some(Message::from("hello")));
}

/// Serves an echo whose errors arrive at the receiver.
async fn serve_with_errors() -> (Running, mpsc::UnboundedReceiver<String>) {
    let (errors, received) = mpsc::unbounded_channel();
    let server = Server::new().on_error(move |error| drop(errors.send(error.to_string())));
    (serve_echo(server).await, received)
}

#[tokio::test]
async fn violations_on_unidirectional_streams_end_the_connection_with_their_codes() {
    let (running, mut errors) = serve_with_errors().await;
    let huge_settings = [0x00, 0x04, 0xbf, 0xff, 0xff, 0xff];
    for (streams, code, why) in [
        // RFC 9114 6.2.1, 7.2.4: control streams and settings.
        (&[CLIENT_SETTINGS, CLIENT_SETTINGS][..], 0x103, "H3_STREAM_CREATION_ERROR"),
        (&[&[0x00, 0x00, 0x00]], 0x10a, "H3_MISSING_SETTINGS"),
        (&[&[0x00, 0x04, 0x02, 0x02, 0x00]], 0x109, "H3_SETTINGS_ERROR"),
        (&[&[0x00, 0x04, 0x04, 0x21, 0x00, 0x21, 0x00]], 0x109, "H3_SETTINGS_ERROR"),
        (&[&huge_settings], 0x107, "H3_EXCESSIVE_LOAD"),
        (&[&[0x00, 0x04, 0x00, 0x04, 0x00]], 0x105, "H3_FRAME_UNEXPECTED"),
        (&[&[0x00, 0x04, 0x00, 0x01, 0x00]], 0x105, "H3_FRAME_UNEXPECTED"),
        // RFC 9114 7.2.8: frames of HTTP/2.
        (&[&[0x00, 0x04, 0x00, 0x06, 0x00]], 0x105, "H3_FRAME_UNEXPECTED"),
        // RFC 9114 5.2: GOAWAY with a growing identifier.
        (&[&[0x00, 0x04, 0x00, 0x07, 0x01, 0x00, 0x07, 0x01, 0x04]], 0x108, "H3_ID_ERROR"),
        // RFC 9114 6.2.2: only servers push.
        (&[&[0x01]], 0x103, "H3_STREAM_CREATION_ERROR"),
        // RFC 9204 4.3, 4.4: an insertion, and an acknowledgement of nothing.
        (&[&[0x02, 0x4a]], 0x201, "QPACK_ENCODER_STREAM_ERROR"),
        (&[&[0x03, 0x80]], 0x202, "QPACK_DECODER_STREAM_ERROR"),
    ] {
        let mut client = RawClient::connect(&running).await;
        for bytes in streams {
            client.uni(bytes).await;
        }
        assert_eq!(client.code().await, code, "{streams:x?}");
        let error = soon(errors.recv()).await.unwrap();
        assert!(error.contains("broke the protocol of HTTP/3") && error.contains(why), "{error}");
    }
    is_served(&running).await;
}

#[tokio::test]
async fn rfc_9114_6_2_1_the_end_of_a_critical_stream_ends_the_connection() {
    let running = serve_echo(Server::new()).await;
    for kind in [CLIENT_SETTINGS, &[0x02], &[0x03]] {
        let client = RawClient::connect(&running).await;
        let mut stream = client.quic.open_uni().await.unwrap();
        stream.write_all(kind).await.unwrap();
        stream.finish().unwrap();
        assert_eq!(client.code().await, 0x104, "{kind:x?}");
    }
}

#[tokio::test]
async fn violations_on_request_streams_end_the_connection_with_their_codes() {
    let running = serve_echo(Server::new()).await;
    let opened = |more: &[u8]| [&request(), more].concat();
    for (bytes, code) in [
        // RFC 9114 4.1: DATA before HEADERS.
        (frame(0x00, b"early"), 0x105),
        // RFC 9114 7.2: frames that are not those of a request.
        (vec![0x04, 0x00], 0x105),
        (vec![0x05, 0x01, 0x00], 0x105),
        (vec![0x07, 0x01, 0x00], 0x105),
        (vec![0x0d, 0x01, 0x00], 0x105),
        (vec![0x02, 0x00], 0x105),
        // RFC 9114 4.4: nothing but DATA follows the head of a CONNECT.
        (opened(&request()), 0x105),
        (opened(&[0x08, 0x00]), 0x105),
        // RFC 9204 2.2: sections that can't be decoded: dynamic references, and truncation.
        (frame(0x01, &[0x02, 0x00, 0x80]), 0x200),
        (frame(0x01, &[0x00, 0x00, 0x80]), 0x200),
        (frame(0x01, &[0x00, 0x00, 0x10]), 0x200),
        (frame(0x01, &[0x00, 0x00, 0x00, 0x00]), 0x200),
        (frame(0x01, &[0x00, 0x00, 0xff, 0x7f]), 0x200),
        (frame(0x01, &[0x00]), 0x200),
        (frame(0x01, &[]), 0x200),
        (frame(0x01, &[0x00, 0x00, 0x27, 0x7f]), 0x200),
    ] {
        let client = RawClient::connect(&running).await;
        let _streams = client.request(&bytes).await;
        assert_eq!(client.code().await, code, "{bytes:x?}");
    }
    is_served(&running).await;
}

#[tokio::test]
async fn rfc_9114_4_1_2_a_malformed_request_is_an_error_of_its_stream() {
    let (running, mut errors) = serve_with_errors().await;
    let client = RawClient::connect(&running).await;
    let plain = |lines: &[u8]| [&[0x00, 0x00][..], lines].concat();
    for (section, why) in [
        (section(&literal("Upper", "case")), "lower case"),
        (section(&literal(":path", "/again")), "follows a header"),
        (section(&literal("connection", "close")), "HTTP/1.1"),
        (section(&literal("te", "gzip")), "HTTP/1.1"),
        (section(&literal("x", "line\nbreak")), "invalid character"),
        (section(&literal("host", "b")), "not the Host"),
        (plain(&[0xcf, 0xcf]), "occurs twice"),
        (plain(&literal(":unknown", "x")), "unknown"),
        (plain(&[0xd7, 0xc1]), "no :method"),
        (plain(&[0xd1, 0xc1]), "no :scheme"),
        (plain(&[0xd1, 0xd7]), "no :path"),
        (plain(&[0xd1, 0xd7, 0xc1]), "neither an :authority nor a Host"),
        (plain(&[0xcf, 0xd7, 0xc1, 0x50, 0x01, b'a']), "has a :scheme or a :path"),
        (
            plain(&[&[0xd1, 0xd7, 0xc1, 0x50, 0x01, b'a'][..], &literal(":protocol", "x")].concat()),
            "not a CONNECT",
        ),
        (plain(&[0xd1, 0xd7, 0xc1, 0x50, 0x03, b'a', b'@', b'b']), "userinfo"),
    ] {
        let (_send, mut receive) = client.request(&frame(0x01, &section)).await;
        let code = soon(receive.received_reset()).await.unwrap();
        assert_eq!(code, Some(0x10e_u32.into()), "{section:x?}");
        let error = soon(errors.recv()).await.unwrap();
        assert!(error.contains("malformed") && error.contains(why), "{error}, not {why}");
    }
    // The connection goes on.
    let (_send, mut receive) = client.request(&request()).await;
    let mut response = [0; 5];
    soon(receive.read_exact(&mut response)).await.unwrap();
    assert_eq!(response, ACCEPTED);
}

#[tokio::test]
async fn a_head_that_announces_four_exabytes_takes_no_memory_and_is_answered_with_431() {
    let running = serve_echo(Server::new()).await;
    let client = RawClient::connect(&running).await;
    let peak = peak_since_now();
    let huge = [0x01, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    let (mut send, mut receive) = client.request(&huge).await;
    let answer = soon(receive.read_to_end(1000)).await.unwrap();
    // HEADERS with the literal status.
    assert!(answer.starts_with(&[0x01]) && answer.len() < 20, "{answer:x?}");
    // RFC 9114 4.1: the rest of the request is not wanted.
    let written = soon(async {
        loop {
            if let Err(error) = send.write_all(&[0; 1000]).await {
                break error;
            }
        }
    });
    assert_eq!(written.await, quinn::WriteError::Stopped(0x100_u32.into()));
    let peak = peak();
    assert!(peak < 1024 * 1024, "{peak} bytes");
    is_served(&running).await;
}

#[tokio::test]
async fn a_small_section_can_not_become_a_large_head() {
    let running = serve_echo(Server::new()).await;
    let client = RawClient::connect(&running).await;
    // Each byte stands for a header of 76 bytes and more: content-security-policy.
    let bomb = frame(0x01, &[&[0x00, 0x00][..], &[0xff, 0x16].repeat(8000)].concat());
    let peak = peak_since_now();
    let (_send, mut receive) = client.request(&bomb).await;
    let answer = soon(receive.read_to_end(1000)).await.unwrap();
    assert!(answer.starts_with(&[0x01]) && answer.len() < 20, "{answer:x?}");
    assert!(peak() < 1024 * 1024);
}

#[tokio::test]
async fn a_head_that_never_ends_is_cut_off_after_the_handshake_timeout() {
    let (errors, mut received) = mpsc::unbounded_channel();
    let limits = Limits::default().handshake_timeout(Duration::from_secs(2));
    let server = Server::new()
        .acceptor(Acceptor::new().limits(limits))
        .on_error(move |error| drop(errors.send(error.to_string())));
    let running = serve_echo(server).await;
    let client = RawClient::connect(&running).await;
    let (mut send, mut receive) = client.request(&[0x01, 0x40, 0xff, 0x00]).await;
    for _ in 0..100 {
        send.write_all(&[0x00]).await.unwrap();
        tokio::task::yield_now().await;
    }
    // RFC 9114 4.1.1: nothing was processed, so the client may repeat its request.
    assert_eq!(soon(receive.received_reset()).await, Ok(Some(0x10b_u32.into())));
    let error = soon(received.recv()).await.unwrap();
    assert!(error.contains("Limits::handshake_timeout"), "{error}");
}

#[tokio::test]
async fn a_stream_that_ends_without_a_head_is_reset() {
    let running = serve_echo(Server::new()).await;
    let client = RawClient::connect(&running).await;
    let (mut send, mut receive) = client.request(&[]).await;
    send.finish().unwrap();
    // H3_REQUEST_INCOMPLETE.
    assert_eq!(soon(receive.received_reset()).await, Ok(Some(0x10d_u32.into())));
}

/// Serves a handler that reports the end of each WebSocket.
async fn serve_and_report() -> (Running, mpsc::UnboundedReceiver<Error>) {
    let (reports, received) = mpsc::unbounded_channel();
    let running = serve(Server::new(), move |mut socket: WebSocket| {
        let reports = reports.clone();
        async move {
            if let Err(error) = loop {
                match socket.recv().await {
                    Ok(Some(_)) => {}
                    Ok(None) => break Ok(()),
                    Err(error) => break Err(error),
                }
            } {
                let _ = reports.send(error);
            }
            Ok(())
        }
    })
    .await;
    (running, received)
}

#[tokio::test]
async fn a_reset_within_a_frame_is_the_end_of_its_websocket_alone() {
    let (running, mut reports) = serve_and_report().await;
    let client = RawClient::connect(&running).await;
    let (mut send, mut receive) = client.request(&[&request()[..], &[0x00, 0x40, 0xff, 0x82]].concat()).await;
    soon(receive.read_exact(&mut [0; 5])).await.unwrap();
    send.reset(0x10c_u32.into()).unwrap();
    let error = soon(reports.recv()).await.unwrap();
    assert_eq!(error.kind(), ErrorKind::Disconnected);
    assert!(error.to_string().contains("H3_REQUEST_CANCELLED"), "{error}");
    assert!(client.quic.close_reason().is_none());
}

#[tokio::test]
async fn rfc_9114_7_1_the_end_of_a_stream_within_a_frame_ends_the_connection() {
    let (running, mut reports) = serve_and_report().await;
    for part in [&[0x00][..], &[0x00, 0x40], &[0x00, 0x05, 0x82]] {
        let client = RawClient::connect(&running).await;
        let (mut send, _receive) = client.request(&[&request()[..], part].concat()).await;
        send.finish().unwrap();
        assert_eq!(client.code().await, 0x106, "{part:x?}");
        assert_eq!(soon(reports.recv()).await.unwrap().kind(), ErrorKind::Protocol);
    }
}

#[tokio::test]
async fn unknown_frames_of_any_size_are_skipped_and_not_kept() {
    let running = serve_echo(Server::new()).await;
    let mut client = RawClient::connect(&running).await;
    client.uni(CLIENT_SETTINGS).await;
    client.uni(&[0x21, 1, 2, 3]).await;
    let peak = peak_since_now();
    // RFC 9114 9: before the head, and before the data.
    let unknown = |size: u32| [&[0x21][..], &(size | 0x8000_0000).to_be_bytes()].concat();
    let (mut send, mut receive) = client.request(&unknown(4 << 20)).await;
    for _ in 0..64 {
        soon(send.write_all(&vec![0; 65_536])).await.unwrap();
    }
    soon(send.write_all(&request())).await.unwrap();
    soon(receive.read_exact(&mut [0; 5])).await.unwrap();
    soon(send.write_all(&unknown(4 << 20))).await.unwrap();
    for _ in 0..64 {
        soon(send.write_all(&vec![0; 65_536])).await.unwrap();
    }
    // A masked text `a`, with an empty DATA frame before.
    soon(send.write_all(&[&[0x00, 0x00][..], &frame(0x00, &[0x81, 0x81, 0, 0, 0, 0, b'a'])].concat()))
        .await
        .unwrap();
    let mut echo = [0; 5];
    soon(receive.read_exact(&mut echo)).await.unwrap();
    assert_eq!(echo, [0x00, 0x03, 0x81, 0x01, b'a']);
    let peak = peak();
    assert!(peak < 4 * 1024 * 1024, "{peak} bytes");
}

#[tokio::test]
async fn empty_frames_without_end_starve_nobody() {
    let running = serve_echo(Server::new()).await;
    let client = RawClient::connect(&running).await;
    let (mut send, _receive) = client.request(&request()).await;
    let flood = tokio::spawn(async move {
        let empty = [0x00, 0x00].repeat(8 * 1024);
        while send.write_all(&empty).await.is_ok() {}
    });
    for _ in 0..5 {
        is_served(&running).await;
    }
    flood.abort();
}

#[tokio::test]
async fn a_flood_of_requests_that_are_reset_at_once_is_bounded() {
    let checks = Arc::new((AtomicUsize::new(0), AtomicUsize::new(0)));
    let counted = Arc::clone(&checks);
    let server = Server::new().on_request(move |head: Parts| {
        let counted = Arc::clone(&counted);
        async move {
            let now = counted.0.fetch_add(1, Ordering::Relaxed) + 1;
            counted.1.fetch_max(now, Ordering::Relaxed);
            tokio::task::yield_now().await;
            counted.0.fetch_sub(1, Ordering::Relaxed);
            Ok(head)
        }
    });
    // Requests alone are no use of a connection, which ends after this time.
    let limits = Limits::default().handshake_timeout(Duration::from_secs(100));
    let running = serve_echo(server.acceptor(Acceptor::new().limits(limits))).await;
    let client = RawClient::connect(&running).await;
    let request = request();
    let peak = peak_since_now();
    for _ in 0..2_000 {
        let (mut send, mut receive) = soon(client.quic.open_bi()).await.unwrap();
        let _ = send.write(&request).await;
        let _ = send.reset(0x10c_u32.into());
        let _ = receive.stop(0x10c_u32.into());
    }
    is_served(&running).await;
    // The default of `Limits::max_streams`.
    assert!(checks.1.load(Ordering::Relaxed) <= 100);
    let peak = peak();
    assert!(peak < 16 * 1024 * 1024, "{peak} bytes");
}

/// RFC 9114 4.1.1: such a request may be sent again.
#[tokio::test]
async fn a_request_without_a_turn_is_rejected() {
    let limits = Limits::default().max_streams(1).handshake_timeout(Duration::from_secs(1));
    let server = Server::new().acceptor(Acceptor::new().limits(limits));
    let running = serve(server, |socket: WebSocket| async move {
        // The handler outlives its WebSocket.
        drop(socket);
        std::future::pending::<HandlerResult>().await
    })
    .await;
    let client = RawClient::connect(&running).await;
    let (mut send, mut first) = client.request(&request()).await;
    send.finish().unwrap();
    let _ = soon(first.read_to_end(1024)).await;
    // The handler of the first WebSocket has the only slot.
    let (_send, mut second) = client.request(&request()).await;
    let error = soon(second.read_to_end(1024)).await.unwrap_err();
    assert!(format!("{error:?}").contains("267"), "{error:?} is not a reset with 0x10b");
}

#[tokio::test]
async fn one_unread_websocket_of_a_hundred_blocks_no_other() {
    let running = serve(Server::new(), |head: Parts, mut socket: WebSocket| async move {
        if head.uri.path() == "/unread" {
            std::future::pending::<()>().await;
        }
        while let Some(message) = socket.recv().await? {
            socket.send(message).await?;
        }
        HandlerResult::Ok(())
    })
    .await;
    let connection = running.connect().await;
    let (unread, _) = connection.connect("/unread").await.unwrap();
    let flood = tokio::spawn(async move { while unread.send(vec![0; 60_000]).await.is_ok() {} });
    let mut sockets = Vec::new();
    for _ in 0..98 {
        sockets.push(soon(connection.connect("/")).await.unwrap().0);
    }
    for socket in &mut sockets {
        socket.send(vec![1; 20_000]).await.unwrap();
        assert_eq!(soon(socket.recv()).await.unwrap().unwrap().len(), 20_000);
    }
    flood.abort();
}

#[tokio::test]
async fn streams_that_never_say_their_type_are_few() {
    let running = serve_echo(Server::new()).await;
    let client = RawClient::connect(&running).await;
    let mut silent = Vec::new();
    for _ in 0..8 {
        // The first byte of an integer of eight.
        let mut stream = soon(client.quic.open_uni()).await.unwrap();
        stream.write_all(&[0xc0]).await.unwrap();
        silent.push(stream);
    }
    let ninth = tokio::time::timeout(Duration::from_millis(200), client.quic.open_uni());
    assert!(ninth.await.is_err());
    // Requests go on.
    let (_send, mut receive) = client.request(&request()).await;
    soon(receive.read_exact(&mut [0; 5])).await.unwrap();
}

#[tokio::test]
async fn datagrams_are_not_accepted() {
    let running = serve_echo(Server::new()).await;
    let client = RawClient::connect(&running).await;
    // RFC 9221 3: without the transport parameter, none may be sent.
    assert_eq!(client.quic.max_datagram_size(), None);
}

#[tokio::test]
async fn a_client_that_reads_nothing_costs_bounded_memory() {
    let (full, mut is_full) = mpsc::unbounded_channel();
    let running = serve(Server::new(), move |socket: WebSocket| {
        let full = full.clone();
        async move {
            let mut sent = 0;
            while socket.try_send(vec![0; 10_000]).is_ok() {
                sent += 10_000;
                tokio::task::yield_now().await;
            }
            let _ = full.send(sent);
            std::future::pending::<()>().await;
            Ok(())
        }
    })
    .await;
    let client = RawClient::connect(&running).await;
    let (_send, _receive) = client.request(&request()).await;
    // 1.25 MB are the window that quinn opens by default, and up to 1 MiB waits in this side's QUIC.
    let sent = soon(is_full.recv()).await.unwrap();
    assert!(sent < 3_000_000, "{sent} bytes");
}

#[tokio::test]
async fn under_load_clients_have_to_prove_their_addresses() {
    // The handshakes have to be in progress at the same time, however slow the machine is.
    let limits = Limits::default().handshake_timeout(Duration::from_secs(100));
    let running = serve_echo(Server::new().acceptor(Acceptor::new().limits(limits))).await;
    // First packets of clients that never go on, each from a connection of its own, sent from one socket.
    let attacker = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let (mut buf, mut retries) = (vec![0; 2000], 0);
    for _ in 0..200 {
        let sink = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let _attempt = RawClient::start(&running.tls, sink.local_addr().unwrap());
        let count = soon(sink.recv(&mut buf)).await.unwrap();
        attacker.send_to(&buf[..count], running.address).await.unwrap();
        soon(attacker.readable()).await.unwrap();
        // An answer has several packets, some of which are repeated.
        while attacker.try_recv(&mut buf).is_ok() {
            // RFC 9000 17.2.5: the long header of a Retry.
            retries += usize::from(buf[0] & 0xf0 == 0xf0);
        }
        if retries > 10 {
            break;
        }
    }
    assert!(retries > 10, "{retries}");
    // A real client proves its address.
    is_served(&running).await;
}

/// Otherwise, an attacker could use up the connections of a server, or those of another's address.
#[tokio::test]
async fn forged_packets_use_up_no_limit_on_the_load() {
    let server = Server::new().connections(1).connections_per_address(1).handshakes_per_second(100);
    let running = serve_echo(server).await;
    let attacker = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut buf = vec![0; 2000];
    for _ in 0..20 {
        let sink = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let _attempt = RawClient::start(&running.tls, sink.local_addr().unwrap());
        let count = soon(sink.recv(&mut buf)).await.unwrap();
        attacker.send_to(&buf[..count], running.address).await.unwrap();
        // RFC 9000 17.2.5: the long header of a Retry.
        soon(attacker.recv(&mut buf)).await.unwrap();
        assert_eq!(buf[0] & 0xf0, 0xf0);
    }
    is_served(&running).await;
}

/// Each client has proved its address, and then goes.
#[tokio::test]
async fn clients_that_have_gone_take_no_turns_of_others() {
    let limits = Limits::default().handshake_timeout(Duration::from_secs(2));
    let server = Server::new().handshakes_per_second(1).acceptor(Acceptor::new().limits(limits));
    let running = serve_echo(server).await;
    let attempts: Vec<_> = (0..30).map(|_| RawClient::start(&running.tls, running.address)).collect();
    let connector = running.tls.connector();
    let begin = tokio::time::Instant::now();
    // It may wait for too long itself.
    let _ = soon(Http3Connection::open(&connector, running.url())).await;
    drop(attempts);
    while let Err(error) = soon(Http3Connection::open(&connector, running.url())).await {
        assert_eq!(error.kind(), ErrorKind::Disconnected, "{error}");
    }
    assert!(begin.elapsed() < Duration::from_secs(15), "{:?}", begin.elapsed());
}
