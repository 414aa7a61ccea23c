//! The client's side of an opening handshake over HTTP/1.1, by hyper.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};

use bytes::Bytes;
use http::Response;
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use crate::client::handshake::{BODY_KEPT, hide_secrets, refused};
use crate::client::request::Attempt;
use crate::error::{Error, ErrorKind};
use crate::limits::Limits;
use crate::socket::WebSocket;
use crate::transport::byte_stream::ByteStream;
use crate::transport::tls::with_alert;
use crate::transport::{Addresses, Transport};

/// Sends the request, checks the response, and opens the connection.
pub(crate) async fn exchange(
    stream: ByteStream,
    addresses: Addresses,
    attempt: Attempt,
) -> Result<(WebSocket, Response<()>), Error> {
    let Attempt { request, handshake, deadline, steps, .. } = attempt;
    let limits = handshake.limits();
    let http_error = |error| http_error(error, limits);
    let (mut sender, connection) = http1::Builder::new()
        .max_headers(limits.max_headers)
        .max_header_size(limits.head_size)
        .max_buf_size(limits.head_size)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(http_error)?;
    let mut connection = Http1Driver { http: connection, ended: false };
    let answer = async {
        let sent = sender.send_request(request.map(|()| String::new()));
        connection.drive_until(sent).await.map_err(http_error)
    };
    let mut response = deadline.bound("waiting for the server's response", answer).await?;
    let agreed = match handshake.conclude(&response) {
        Ok(agreed) => agreed,
        Err(text) => {
            let mut body = Vec::new();
            // The bytes that arrive before the deadline are enough for an error.
            let read = connection.drive_until(read_start(response.body_mut(), &mut body));
            let _ = deadline.bound("reading the refusal", read).await;
            return Err(refused(text, &response, body.into()));
        }
    };
    response.extensions_mut().remove::<OnUpgrade>();
    hide_secrets(response.headers_mut());
    let finish = async { connection.finish().await.map_err(http_error) };
    let (stream, leftover) = deadline.bound("taking over the connection", finish).await?;
    response.extensions_mut().insert(steps.upgraded());
    let transport = Transport::with_addresses(stream, addresses);
    Ok((handshake.complete(transport, &leftover, agreed), response.map(drop)))
}

/// hyper's side of the connection, which has to be polled for anything to happen.
struct Http1Driver {
    http: http1::Connection<TokioIo<ByteStream>, String>,
    ended: bool,
}

impl Http1Driver {
    async fn drive_until<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        poll_fn(|cx| {
            // An error of the connection is also the result of the work.
            self.ended = self.ended || self.http.poll_without_shutdown(cx).is_ready();
            work.as_mut().poll(cx)
        })
        .await
    }

    async fn finish(mut self) -> hyper::Result<(ByteStream, Bytes)> {
        if !self.ended {
            poll_fn(|cx| self.http.poll_without_shutdown(cx)).await?;
        }
        let parts = self.http.into_parts();
        Ok((parts.io.into_inner(), parts.read_buf))
    }
}

/// Reads the part of a body that is kept.
async fn read_start(body: &mut Incoming, start: &mut Vec<u8>) -> Result<(), Error> {
    while start.len() < BODY_KEPT {
        let frame = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await;
        // The end of the body, or of the connection. A missing rest is not worth an error of its own.
        let Some(Ok(frame)) = frame else { break };
        if let Ok(data) = frame.into_data() {
            let kept = data.len().min(BODY_KEPT - start.len());
            start.extend_from_slice(&data[..kept]);
        }
    }
    Ok(())
}

fn http_error(error: hyper::Error, limits: &Limits) -> Error {
    if error.is_parse_too_large() {
        let (size, headers) = (limits.head_size, limits.max_headers);
        let text = format!(
            "the response's head is over the limits of {size} bytes (Limits::head_size) and {headers} \
             headers (Limits::max_headers)"
        );
        Error::with_source(ErrorKind::Limit, text, error)
    } else if error.is_parse() {
        Error::with_source(ErrorKind::Handshake, "the server's response is not HTTP/1.1", error)
    } else if error.is_incomplete_message() {
        Error::new(ErrorKind::Handshake, "the server closed the connection without a response")
    } else {
        // TLS 1.3: a server may refuse the client's certificate only now.
        let text = with_alert("the connection to the server broke during the opening handshake", &error);
        Error::with_source(ErrorKind::Io, text, error)
    }
}
