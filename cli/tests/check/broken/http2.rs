//! The server over HTTP/2 (RFC 8441), with faults of its own.

use std::net::SocketAddr;
use std::sync::Arc;

use bowline::http::{Request, Response, StatusCode};
use bytes::Bytes;
use h2::ext::Protocol;
use h2::server::{Builder, SendResponse};
use h2::{Reason, RecvStream, SendStream};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::connection::Connection;
use super::fault::Fault;
use super::handshake::Accepted;
use crate::support::check;

/// A fault in the use of HTTP/2.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Http2Fault {
    None,
    /// Does not set `SETTINGS_ENABLE_CONNECT_PROTOCOL`.
    NoSetting,
    AcceptsAnyProtocol,
    AcceptsAnyVersion,
    /// Takes each DATA frame for a frame of WebSockets.
    FrameIsData,
    /// Ends a stream by `RST_STREAM`.
    Resets,
    /// Does not end streams.
    KeepsStream,
    /// Ends the connection when a stream ends.
    EndsConnection,
    /// Ends the connection when the client resets a stream.
    EndsConnectionByReset,
    /// Ignores `END_STREAM`.
    IgnoresEnd,
}

/// Each fault with the id of its case.
const FAULTS: &[(Http2Fault, &str)] = &[
    (Http2Fault::AcceptsAnyProtocol, "http2.protocol-unknown"),
    (Http2Fault::AcceptsAnyVersion, "handshake.version-14"),
    (Http2Fault::FrameIsData, "http2.data-in-pieces"),
    (Http2Fault::Resets, "http2.close-ends-stream"),
    (Http2Fault::KeepsStream, "http2.close-ends-stream"),
    (Http2Fault::EndsConnection, "http2.close-of-stream"),
    (Http2Fault::EndsConnection, "http2.fault-of-stream"),
    (Http2Fault::EndsConnectionByReset, "http2.reset"),
    (Http2Fault::IgnoresEnd, "http2.end-of-stream"),
];

async fn serve(fault: Http2Fault) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                // An error is the end of the connection.
                let _ = serve_connection(stream, fault).await;
            });
        }
    });
    address
}

async fn serve_connection(stream: TcpStream, fault: Http2Fault) -> Result<(), h2::Error> {
    let mut builder = Builder::new();
    if fault != Http2Fault::NoSetting {
        builder.enable_connect_protocol();
    }
    let mut connection = builder.handshake::<_, Bytes>(stream).await?;
    let mut streams = JoinSet::new();
    let end = Arc::new(Notify::new());
    loop {
        tokio::select! {
            request = connection.accept() => match request {
                Some(request) => {
                    let (request, respond) = request?;
                    let end = Arc::clone(&end);
                    streams.spawn(async move { answer(request, respond, fault, &end).await });
                }
                None => return Ok(()),
            },
            () = end.notified() => return Ok(()),
        }
    }
}

async fn answer(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    fault: Http2Fault,
    end: &Notify,
) -> Result<(), h2::Error> {
    let is_websocket = request
        .extensions()
        .get::<Protocol>()
        .is_some_and(|protocol| protocol.as_str() == "websocket" || fault == Http2Fault::AcceptsAnyProtocol);
    let is_version = request.headers().get("sec-websocket-version").is_some_and(|version| version == "13");
    let mut response = Response::new(());
    if !is_websocket {
        *response.status_mut() = StatusCode::NOT_IMPLEMENTED;
    } else if !is_version && fault != Http2Fault::AcceptsAnyVersion {
        *response.status_mut() = StatusCode::BAD_REQUEST;
        response.headers_mut().insert("sec-websocket-version", "13".parse().unwrap());
    }
    let is_refused = response.status() != StatusCode::OK;
    let send = respond.send_response(response, is_refused)?;
    if is_refused {
        return Ok(());
    }
    // The connection of HTTP/1.1 at one end of a pipe, the stream at the other.
    let (near, far) = duplex(64 << 10);
    let mut pumps = JoinSet::new();
    let (reader, writer) = split(far);
    pumps.spawn(async move {
        let accepted = Accepted { deflate: None, leftover: Vec::new() };
        // An error is the end of the stream.
        let _ = Connection::new(near, accepted, Fault::None).run().await;
        Ok(Pumped::Nothing)
    });
    pumps.spawn(receive(request.into_body(), writer, fault));
    pumps.spawn(transmit(reader, send, fault));
    while let Some(Ok(pumped)) = pumps.join_next().await {
        let ends_connection = match pumped {
            Ok(Pumped::Sent) => fault == Http2Fault::EndsConnection,
            Err(_) => fault == Http2Fault::EndsConnectionByReset,
            _ => false,
        };
        if ends_connection {
            end.notify_one();
        }
    }
    Ok(())
}

/// The part of a stream that has ended.
enum Pumped {
    Nothing,
    Received,
    Sent,
}

async fn receive(
    mut body: RecvStream,
    mut writer: WriteHalf<DuplexStream>,
    fault: Http2Fault,
) -> Result<Pumped, h2::Error> {
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        let is_part = data.len() < 6;
        if fault == Http2Fault::FrameIsData && is_part {
            continue;
        }
        // The other end has gone: the rest is of no interest.
        let _ = writer.write_all(&data).await;
    }
    if fault == Http2Fault::IgnoresEnd {
        std::future::pending::<()>().await;
    }
    let _ = writer.shutdown().await;
    Ok(Pumped::Received)
}

async fn transmit(
    mut reader: ReadHalf<DuplexStream>,
    mut send: SendStream<Bytes>,
    fault: Http2Fault,
) -> Result<Pumped, h2::Error> {
    let mut buf = vec![0; 16 << 10];
    while let Ok(size @ 1..) = reader.read(&mut buf).await {
        send.send_data(Bytes::copy_from_slice(&buf[..size]), false)?;
    }
    match fault {
        Http2Fault::Resets => send.send_reset(Reason::CANCEL),
        Http2Fault::KeepsStream => std::future::pending().await,
        _ => send.send_data(Bytes::new(), true)?,
    }
    // Everything is written before the connection ends.
    tokio::task::yield_now().await;
    Ok(Pumped::Sent)
}

#[tokio::test]
async fn the_server_over_http2_without_a_fault_has_no_finding() {
    let address = serve(Http2Fault::None).await.to_string();
    check(&["--strict", "--echo", "--http", "2", &address]).await.expect_right();
}

#[tokio::test]
async fn every_fault_over_http2_is_found_by_its_case() {
    let mut running = JoinSet::new();
    for (fault, case) in FAULTS {
        running.spawn(async move {
            let address = serve(*fault).await.to_string();
            let outcome = check(&["--strict", "--http", "2", "--case", case, &address]).await;
            let is_found = outcome.status == 8 && outcome.findings() == [*case];
            (!is_found).then(|| format!("{fault:?}, {case}: {outcome:?}"))
        });
    }
    let missed: Vec<String> = running.join_all().await.into_iter().flatten().collect();
    assert!(missed.is_empty(), "{missed:#?}");
}

#[tokio::test]
async fn a_server_without_websockets_over_http2_is_a_refusal() {
    let address = serve(Http2Fault::NoSetting).await.to_string();
    let outcome = check(&["--http", "2", &address]).await;
    assert_eq!(outcome.status, 4, "{outcome:?}");
    assert!(outcome.stderr.contains("SETTINGS_ENABLE_CONNECT_PROTOCOL (RFC 8441 3)"), "{outcome:?}");
}
