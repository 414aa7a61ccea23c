//! Servers that break the protocol, or do what it allows until a client has no more of something.

use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bowline::{Error, ErrorKind, Limits};
use bowline_http3::Http3Connection;
use quinn::TransportConfig;
use quinn::congestion::NewRenoConfig;

use crate::raw::{ACCEPTED, RawServer, SERVER_SETTINGS, frame, literal, soon};
use crate::support::allocations::peak_since_now;

/// Connects to a server that opens these unidirectional streams. Returns the first error of the connection.
async fn error_after(streams: &[&[u8]], limits: Limits) -> Error {
    let server = RawServer::new();
    let url = format!("wss://{}/", server.address());
    let connector = server.connector().limits(limits);
    let serving = async {
        let accepted = server.accept(streams).await;
        accepted.0.closed().await;
    };
    let connecting = async {
        match Http3Connection::open(&connector, url).await {
            Ok(connection) => connection.closed().await,
            Err(error) => error,
        }
    };
    let ((), error) = soon(async { tokio::join!(serving, connecting) }).await;
    error
}

#[tokio::test]
async fn violations_on_unidirectional_streams_are_errors_of_the_connection() {
    for (streams, text) in [
        // RFC 9114 6.2.1, 7.2.4: control streams and settings.
        (&[SERVER_SETTINGS, SERVER_SETTINGS][..], "H3_STREAM_CREATION_ERROR"),
        (&[&[0x00, 0x07, 0x01, 0x00]], "H3_MISSING_SETTINGS"),
        // RFC 9220 3, RFC 8441 3: the value is 0 or 1.
        (&[&[0x00, 0x04, 0x02, 0x08, 0x02]], "H3_SETTINGS_ERROR"),
        // RFC 9114 7.2.7: only clients send MAX_PUSH_ID.
        (&[&[0x00, 0x04, 0x02, 0x08, 0x01, 0x0d, 0x01, 0x00]], "H3_FRAME_UNEXPECTED"),
        // RFC 9114 5.2, 7.2.6: GOAWAY with a growing identifier, and with that of no request.
        (&[&[0x00, 0x04, 0x02, 0x08, 0x01, 0x07, 0x01, 0x00, 0x07, 0x01, 0x04]], "H3_ID_ERROR"),
        (&[&[0x00, 0x04, 0x02, 0x08, 0x01, 0x07, 0x01, 0x01]], "H3_ID_ERROR"),
        // RFC 9114 4.6: a push that was not allowed.
        (&[SERVER_SETTINGS, &[0x01, 0x00]], "H3_ID_ERROR"),
        // RFC 9204 4.3: an insertion.
        (&[SERVER_SETTINGS, &[0x02, 0x4a]], "QPACK_ENCODER_STREAM_ERROR"),
    ] {
        let error = error_after(streams, Limits::default()).await;
        assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
        assert!(error.to_string().contains(text), "{error}, not {text}");
    }
}

#[tokio::test]
async fn a_server_without_settings_is_too_slow() {
    let error = error_after(&[], Limits::default().handshake_timeout(Duration::from_secs(2))).await;
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains("Limits::handshake_timeout"), "{error}");
}

#[tokio::test]
async fn rfc_9220_3_a_server_without_extended_connect_is_not_asked() {
    let error = error_after(&[&[0x00, 0x04, 0x00]], Limits::default()).await;
    assert_eq!(error.kind(), ErrorKind::Handshake);
    assert!(error.to_string().contains("SETTINGS_ENABLE_CONNECT_PROTOCOL"), "{error}");
}

#[tokio::test]
async fn responses_that_are_wrong_are_errors_that_say_so() {
    let response = |lines: &[u8]| frame(0x01, &[&[0x00, 0x00][..], lines].concat());
    let huge = vec![0x01, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    for (bytes, kind, text) in [
        (frame(0x00, b"early"), ErrorKind::Protocol, "H3_FRAME_UNEXPECTED"),
        // RFC 9114 7.2.5: a push that was not allowed.
        (vec![0x05, 0x01, 0x00], ErrorKind::Protocol, "H3_ID_ERROR"),
        (response(&[0x80]), ErrorKind::Protocol, "QPACK_DECOMPRESSION_FAILED"),
        (huge, ErrorKind::Limit, "Limits::head_size"),
        (response(&[]), ErrorKind::Handshake, "no :status"),
        (response(&[0xd9, 0xd9]), ErrorKind::Handshake, "occurs twice"),
        (response(&[0xd1]), ErrorKind::Handshake, "pseudo-header is unknown"),
        // RFC 9114 4.5.
        (response(&literal(":status", "101")), ErrorKind::Handshake, "no 101"),
        (response(&literal(":status", "abc")), ErrorKind::Handshake, "not a status"),
        (
            response(&[&[0xd9][..], &literal("upgrade", "websocket")].concat()),
            ErrorKind::Handshake,
            "HTTP/1.1",
        ),
        (response(&[0xdb]), ErrorKind::Handshake, "404"),
    ] {
        let server = RawServer::new();
        let (opened, _connection) = server.answer(&server.connector(), &bytes).await;
        let error = opened.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(text), "{error}, not {text}");
    }
}

/// A refusal is a whole response, whose trailers concern no other stream.
#[tokio::test]
async fn rfc_9114_4_1_a_refusal_may_have_trailers() {
    let server = RawServer::new();
    let trailers = frame(0x01, &[&[0x00, 0x00][..], &literal("x-reason", "none")].concat());
    let refusal = [&frame(0x01, &[0x00, 0x00, 0xdb])[..], &frame(0x00, b"no such feed"), &trailers].concat();
    let (opened, connection) = server.answer(&server.connector(), &refusal).await;
    let error = opened.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Handshake, "{error}");
    assert_eq!(&error.response().unwrap().body()[..], b"no such feed");
    assert!(!connection.is_closed());
}

#[tokio::test]
async fn rfc_9114_4_1_interim_responses_precede_the_final_one() {
    let interim = [0x01, 0x03, 0x00, 0x00, 0xff, 0x00];
    // 103 is the entry 24.
    let interim = [&interim[..2], &[0x00, 0x00, 0xd8]].concat();
    let server = RawServer::new();
    let bytes = [&interim.repeat(100)[..], &[0x21, 0x01, 0xff], ACCEPTED].concat();
    let (opened, _connection) = server.answer(&server.connector(), &bytes).await;
    assert!(opened.is_ok());
}

#[tokio::test]
async fn a_violation_after_the_handshake_ends_the_websocket_with_its_reason() {
    for (bytes, text) in [
        (&[0x01, 0x03, 0x00, 0x00, 0xd9][..], "H3_FRAME_UNEXPECTED"),
        (&[0x05, 0x01, 0x00], "H3_ID_ERROR"),
        (&[0x06, 0x00], "H3_FRAME_UNEXPECTED"),
    ] {
        let server = RawServer::new();
        let (opened, connection) = server.answer(&server.connector(), &[ACCEPTED, bytes].concat()).await;
        let error = soon(opened.unwrap().recv()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
        assert!(error.to_string().contains(text), "{error}");
        assert_eq!(soon(connection.closed()).await.kind(), ErrorKind::Protocol);
    }
}

#[tokio::test]
async fn what_a_server_announces_takes_no_memory() {
    let server = RawServer::new();
    // A DATA frame of 2^62 - 1 bytes, of which a few arrive: the beginning of a message of 1 MiB.
    let data = [0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    let message = [0x82, 127, 0, 0, 0, 0, 0, 0x10, 0, 0, 1, 2, 3];
    let peak = peak_since_now();
    let (opened, _connection) =
        server.answer(&server.connector(), &[ACCEPTED, &data, &message].concat()).await;
    let mut socket = opened.unwrap();
    let receiving = tokio::time::timeout(Duration::from_millis(100), socket.recv());
    assert!(receiving.await.is_err());
    let peak = peak();
    // quinn's buffer for datagrams has 3 MiB.
    assert!(peak < 6 * 1024 * 1024, "{peak} bytes");
}

#[tokio::test]
async fn a_server_can_open_no_stream_of_its_own() {
    let server = RawServer::new();
    let url = format!("wss://{}/", server.address());
    let connector = server.connector();
    let serving = async {
        let (quic, kept) = server.accept(&[SERVER_SETTINGS]).await;
        // RFC 9114 6.1: the client allows none.
        let opening = tokio::time::timeout(Duration::from_millis(200), quic.open_bi());
        (opening.await.is_err(), kept)
    };
    let connecting = Http3Connection::open(&connector, url);
    let ((is_refused, _kept), connection) = soon(async { tokio::join!(serving, connecting) }).await;
    assert!(is_refused);
    drop(connection.unwrap());
}

/// Calls wait for a stream, which this server does not allow.
#[tokio::test]
async fn a_call_that_waits_for_a_stream_is_told_of_a_goaway() {
    let server = RawServer::with_requests(0);
    let url = format!("wss://{}/", server.address());
    let connector = server.connector();
    let serving = server.accept(&[SERVER_SETTINGS]);
    let (connection, (_quic, mut kept)) =
        soon(async { tokio::join!(Http3Connection::open(&connector, url), serving) }).await;
    let connection = connection.unwrap();
    let mut connecting = pin!(connection.connect("/"));
    assert!(poll_fn(|cx| Poll::Ready(connecting.as_mut().poll(cx).is_pending())).await);
    kept[0].write_all(&[0x07, 0x01, 0x00]).await.unwrap();
    let error = soon(connecting).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Disconnected, "{error}");
    assert!(error.to_string().contains("no more requests"), "{error}");
}

/// Connects a client whose handshakes may take two seconds. Returns also the server's side of the connection,
/// and many interim responses.
async fn open_for_interim_responses(
    server: &RawServer,
) -> (Http3Connection, (quinn::Connection, Vec<quinn::SendStream>), Vec<u8>) {
    let url = format!("wss://{}/", server.address());
    let connector = server.connector().limits(Limits::default().handshake_timeout(Duration::from_secs(2)));
    let opening = Http3Connection::open(&connector, url);
    let (connection, accepted) =
        soon(async { tokio::join!(opening, server.accept(&[SERVER_SETTINGS])) }).await;
    // 103 is the entry 24.
    (connection.unwrap(), accepted, [0x01, 0x03, 0x00, 0x00, 0xd8].repeat(1000))
}

#[tokio::test]
async fn interim_responses_without_end_take_no_memory_and_end_at_the_time_limit() {
    let server = RawServer::new();
    let (connection, (quic, _kept), interim) = open_for_interim_responses(&server).await;
    let flood = tokio::spawn(async move {
        let (mut send, _receive) = quic.accept_bi().await.unwrap();
        loop {
            if let Err(error) = send.write_all(&interim).await {
                return error;
            }
        }
    });
    let peak = peak_since_now();
    let error = soon(connection.connect("/")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert!(error.to_string().contains("Limits::handshake_timeout"), "{error}");
    // The server alone has up to 1.25 MB on the way.
    let peak = peak();
    assert!(peak < 8 * 1024 * 1024, "{peak} bytes");
    assert_eq!(soon(flood).await.unwrap(), quinn::WriteError::Stopped(0x10c_u32.into()));
}

/// There is always another one to read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interim_responses_faster_than_they_are_read_end_at_the_time_limit() {
    let server = RawServer::new();
    let (connection, (quic, _kept), interim) = open_for_interim_responses(&server).await;
    tokio::spawn(async move {
        let (mut send, _receive) = quic.accept_bi().await.unwrap();
        // An end, so that a client without a limit fails otherwise.
        let flooding = async { while send.write_all(&interim).await.is_ok() {} };
        let _ = tokio::time::timeout(Duration::from_secs(20), flooding).await;
    });
    let error = soon(connection.connect("/")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
}

/// More pieces than the client reads at once. No packet follows that would let the client read on.
#[tokio::test]
async fn a_control_stream_that_arrives_at_once_is_read_to_its_end() {
    let (mut transport, mut window) = (TransportConfig::default(), NewRenoConfig::default());
    window.initial_window(1 << 30);
    transport.congestion_controller_factory(Arc::new(window));
    let server = RawServer::with_transport(transport);
    let url = format!("wss://{}/", server.address());
    // Frames of an unknown type, and one that must not be there.
    let control = [SERVER_SETTINGS, &frame(0x21, &[0; 16_000]).repeat(10), &[0x00, 0x00]].concat();
    let connector = server.connector();
    let opening = Http3Connection::open(&connector, url);
    let unis = [&control[..]];
    let (connection, _kept) = soon(async { tokio::join!(opening, server.accept(&unis)) }).await;
    let error = soon(connection.unwrap().closed()).await;
    assert!(error.to_string().contains("H3_FRAME_UNEXPECTED"), "{error}");
}
