//! Requirements of the RFCs that no other test covers.

use std::time::Duration;

use bowline::{Limits, Server};
use quinn::ReadError;

use crate::raw::{ACCEPTED, CLIENT_SETTINGS, RawClient, frame, literal, request, section, soon};
use crate::support::serve_echo;

/// The code with which a server closes the connection of a client that sends these bytes on a
/// unidirectional stream.
async fn code_of_uni(bytes: &[u8]) -> u64 {
    let running = serve_echo(Server::new()).await;
    let mut client = RawClient::connect(&running).await;
    client.uni(bytes).await;
    client.code().await
}

/// The code with which a server closes the connection of a client that sends these bytes as a request, or
/// `None` if it answers or resets the request.
async fn code_of_request(bytes: &[u8]) -> Option<u64> {
    let running = serve_echo(Server::new()).await;
    let client = RawClient::connect(&running).await;
    let (_send, mut receive) = client.request(bytes).await;
    match soon(receive.read(&mut [0; 1])).await {
        Err(ReadError::ConnectionLost(_)) => Some(client.code().await),
        _ => None,
    }
}

/// Checks that a server accepts a WebSocket of this client.
async fn is_accepted(client: &RawClient, request: &[u8]) {
    let (_send, mut receive) = client.request(request).await;
    let mut response = [0; 5];
    soon(receive.read_exact(&mut response)).await.unwrap();
    assert_eq!(response, ACCEPTED);
}

/// The code with which a server resets a request with these pseudo-headers.
async fn code_of_section(lines: &[u8]) -> Option<u64> {
    let running = serve_echo(Server::new()).await;
    let client = RawClient::connect(&running).await;
    let bytes = frame(0x01, &[&[0x00, 0x00][..], lines].concat());
    let (_send, mut receive) = client.request(&bytes).await;
    soon(receive.received_reset()).await.unwrap().map(quinn::VarInt::into_inner)
}

#[tokio::test]
async fn rfc_9220_3_the_end_of_a_websocket_is_the_end_of_its_stream() {
    let running = serve_echo(Server::new()).await;
    let client = RawClient::connect(&running).await;
    let (mut send, mut receive) = client.request(&request()).await;
    // A Close frame with 1000, masked with zeros.
    send.write_all(&frame(0x00, &[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8])).await.unwrap();
    send.finish().unwrap();
    let answer = soon(receive.read_to_end(1000)).await.unwrap();
    assert!(answer.ends_with(&[0x88, 0x02, 0x03, 0xe8]), "{answer:x?}");
}

#[tokio::test]
async fn rfc_9114_5_2_requests_after_a_goaway_are_rejected() {
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let signal = async { stopped.await.unwrap_or(()) };
    let running = serve_echo(Server::new().shutdown(signal, Duration::from_secs(100))).await;
    let client = RawClient::connect(&running).await;
    let mut control = soon(client.quic.accept_uni()).await.unwrap();
    // This WebSocket does not answer the Close frame of the shutdown, and keeps the connection meanwhile.
    let (_send, mut receive) = client.request(&request()).await;
    soon(receive.read_exact(&mut [0; 5])).await.unwrap();
    stop.send(()).unwrap();
    let (mut bytes, goaway) = (Vec::new(), [0x07, 0x01, 0x04]);
    while !bytes.ends_with(&goaway) {
        bytes.extend(soon(control.read_chunk(100, true)).await.unwrap().unwrap().bytes);
    }
    for _ in 0..3 {
        let (send, mut receive) = client.request(&request()).await;
        assert_eq!(soon(receive.received_reset()).await, Ok(Some(0x10b_u32.into())));
        assert_eq!(soon(send.stopped()).await, Ok(Some(0x10b_u32.into())));
    }
    assert_eq!(client.code().await, 0x100);
}

#[tokio::test]
async fn rfc_9114_6_2_a_stream_of_an_unknown_type_is_not_read() {
    let running = serve_echo(Server::new()).await;
    let mut client = RawClient::connect(&running).await;
    client.uni(CLIENT_SETTINGS).await;
    let mut unknown = client.quic.open_uni().await.unwrap();
    unknown.write_all(&[0x40, 0x54, 1, 2, 3]).await.unwrap();
    assert_eq!(soon(unknown.stopped()).await.unwrap(), Some(0x103_u32.into()));
    is_accepted(&client, &request()).await;
}

#[tokio::test]
async fn rfc_9114_6_2_a_stream_may_end_before_its_type() {
    let running = serve_echo(Server::new()).await;
    let client = RawClient::connect(&running).await;
    let mut stream = client.quic.open_uni().await.unwrap();
    stream.write_all(&[0x40]).await.unwrap();
    stream.finish().unwrap();
    soon(stream.stopped()).await.unwrap();
    is_accepted(&client, &request()).await;
}

#[tokio::test]
async fn rfc_9114_7_1_a_payload_is_what_its_type_says_and_no_more() {
    // A setting without its value; GOAWAY with nothing, with a part, and with more than an integer.
    assert_eq!(code_of_uni(&[0x00, 0x04, 0x01, 0x21]).await, 0x106);
    for goaway in [&[0x07, 0x00][..], &[0x07, 0x01, 0x40], &[0x07, 0x02, 0x00, 0x00], &[0x07, 0x09]] {
        assert_eq!(code_of_uni(&[CLIENT_SETTINGS, goaway].concat()).await, 0x106, "{goaway:x?}");
    }
}

#[tokio::test]
async fn rfc_9114_7_2_4_unknown_settings_and_those_of_qpack_are_ignored() {
    let running = serve_echo(Server::new()).await;
    let mut client = RawClient::connect(&running).await;
    // QPACK_MAX_TABLE_CAPACITY, QPACK_BLOCKED_STREAMS, H3_DATAGRAM, and a reserved one.
    client.uni(&[0x00, 0x04, 0x09, 0x01, 0x3f, 0x07, 0x3f, 0x33, 0x01, 0x40, 0x40, 0x00]).await;
    is_accepted(&client, &request()).await;
}

#[tokio::test]
async fn rfc_9114_7_2_3_a_push_that_was_not_promised_can_not_be_cancelled() {
    assert_eq!(code_of_uni(&[CLIENT_SETTINGS, &[0x03, 0x01, 0x00]].concat()).await, 0x108);
}

#[tokio::test]
async fn rfc_9114_7_2_7_the_largest_push_id_never_falls() {
    let falling = [CLIENT_SETTINGS, &[0x0d, 0x01, 0x02, 0x0d, 0x01, 0x01]].concat();
    assert_eq!(code_of_uni(&falling).await, 0x108);
}

#[tokio::test]
async fn rfc_9114_4_3_1_a_path_is_not_empty_and_begins_with_a_slash() {
    for path in ["", "chat", "?room=1"] {
        // :method CONNECT, :scheme https, :authority a.
        let lines = [
            &[0xcf, 0xd7, 0x50, 0x01, b'a'][..],
            &literal(":path", path),
            &literal(":protocol", "websocket"),
            &literal("sec-websocket-version", "13"),
        ];
        assert_eq!(code_of_section(&lines.concat()).await, Some(0x10e), "{path:?}");
    }
}

#[tokio::test]
async fn rfc_9114_4_2_1_the_lines_of_a_cookie_are_one() {
    let running = serve_echo(Server::new().on_request(|head: http::request::Parts| async move {
        match head.headers.get("cookie") {
            Some(cookie) if cookie == "a=1; b=2" => Ok(bowline::Acceptance::from(head)),
            cookie => panic!("{cookie:?}"),
        }
    }))
    .await;
    let client = RawClient::connect(&running).await;
    let lines = [literal("cookie", "a=1"), literal("cookie", "b=2")].concat();
    is_accepted(&client, &frame(0x01, &section(&lines))).await;
}

#[tokio::test]
async fn rfc_9114_4_1_1_a_request_that_is_given_up_is_cancelled() {
    use crate::raw::{RawServer, SERVER_SETTINGS};
    let server = RawServer::new();
    let url = format!("wss://{}/", server.address());
    let connector = server.connector().limits(Limits::default());
    let (connection, (quic, _kept)) = soon(async {
        tokio::join!(bowline_http3::Http3Connection::open(&connector, url), server.accept(&[SERVER_SETTINGS]))
    })
    .await;
    let connection = connection.unwrap();
    let connecting = tokio::spawn(async move { connection.connect("/").await.map(drop) });
    let (mut send, mut receive) = soon(quic.accept_bi()).await.unwrap();
    let mut first = [0; 1];
    soon(receive.read_exact(&mut first)).await.unwrap();
    connecting.abort();
    let end = soon(receive.read_to_end(10_000)).await.unwrap_err();
    let cancelled = quinn::ReadError::Reset(0x10c_u32.into());
    assert_eq!(end, quinn::ReadToEndError::Read(cancelled));
    assert_eq!(soon(send.stopped()).await.unwrap(), Some(0x10c_u32.into()));
    let _ = send.finish();
}

#[tokio::test]
async fn rfc_9204_4_5_1_a_section_needs_no_dynamic_table() {
    // Without a reference, but with a Required Insert Count, or with a negative Base.
    let lines = &section(&[])[2..];
    for prefix in [[0x02, 0x00], [0x00, 0x80]] {
        let bytes = frame(0x01, &[&prefix[..], lines].concat());
        assert_eq!(code_of_request(&bytes).await, Some(0x200), "{prefix:x?}");
    }
}

#[tokio::test]
async fn rfc_9204_4_1_1_an_integer_has_at_most_62_bits() {
    // The index of a static entry, and an identifier on the decoder stream.
    let endless = [&section(&[])[..], &[0xff], &[0x80; 9]].concat();
    assert_eq!(code_of_request(&frame(0x01, &endless)).await, Some(0x200));
    assert_eq!(code_of_uni(&[&[0x03, 0x7f][..], &[0x80; 10]].concat()).await, 0x202);
}

#[tokio::test]
async fn rfc_9204_4_1_2_a_huffman_code_is_padded_with_few_ones() {
    // A value that is nothing but padding: of one byte, and of zeros.
    for padding in [0xff, 0x00] {
        let bytes = frame(0x01, &section(&[0x21, b'x', 0x81, padding]));
        assert_eq!(code_of_request(&bytes).await, Some(0x200), "{padding:x}");
    }
}

#[tokio::test]
async fn rfc_9204_4_3_1_the_capacity_of_the_dynamic_table_stays_0() {
    assert_eq!(code_of_uni(&[0x02, 0x21]).await, 0x201);
    let running = serve_echo(Server::new()).await;
    let mut client = RawClient::connect(&running).await;
    // To 0 it may be set.
    client.uni(&[0x02, 0x20]).await;
    is_accepted(&client, &request()).await;
}
