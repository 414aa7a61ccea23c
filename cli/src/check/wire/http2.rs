//! HTTP/2 as a client of WebSockets sees it (RFC 8441).

use bowline::http::uri::Authority;
use bowline::http::{self, Request};
use bytes::Bytes;
use h2::client::{Builder, Connection, SendRequest};
use h2::ext::Protocol;
use h2::{Ping, RecvStream, SendStream};
use tokio::task::JoinSet;

use super::head::{RequestBody, RequestHead, ResponseHead};
use crate::raw_stream::RawStream;

/// A connection to a server. Clones use the same connection.
#[derive(Clone)]
pub(crate) struct Http2Client {
    requests: SendRequest<Bytes>,
    scheme: &'static str,
    authority: Authority,
}

/// The response to a request, and the stream that it opens.
pub(crate) struct Http2Response {
    pub(crate) head: ResponseHead,
    pub(crate) send: SendStream<Bytes>,
    pub(crate) receive: RecvStream,
}

impl Http2Client {
    /// Begins HTTP/2, and waits for the server's settings. `tasks` receives the task of the connection.
    pub(crate) async fn connect(
        stream: Box<dyn RawStream>,
        (scheme, authority): (&'static str, Authority),
        tasks: &mut JoinSet<()>,
    ) -> Result<Self, String> {
        let failed = |error: h2::Error| format!("HTTP/2 failed: {error}");
        let (requests, mut connection) =
            Builder::new().enable_push(false).handshake(stream).await.map_err(failed)?;
        let mut pings = connection.ping_pong().ok_or("HTTP/2 has no pings")?;
        tasks.spawn(drive(connection));
        // RFC 9113 3.4: the settings precede everything else, so the answer to a ping as well.
        pings.ping(Ping::opaque()).await.map_err(failed)?;
        Ok(Self { requests, scheme, authority })
    }

    /// Returns `true` if the server accepts WebSockets over HTTP/2.
    pub(crate) fn accepts_websockets(&self) -> bool {
        self.requests.is_extended_connect_protocol_enabled()
    }

    /// Sends a request, and waits for the response.
    pub(crate) async fn send(
        &self,
        request: Request<()>,
        body: RequestBody,
    ) -> Result<Http2Response, h2::Error> {
        let mut ready = self.requests.clone().ready().await?;
        let (response, send) = ready.send_request(request, body == RequestBody::Absent)?;
        let response = response.await?;
        let head = ResponseHead::of_response(&response);
        Ok(Http2Response { head, send, receive: response.into_body() })
    }

    /// The request as HTTP/2 has it.
    pub(crate) fn build(&self, request: &RequestHead) -> Result<Request<()>, http::Error> {
        request.to_request(self.scheme, &self.authority, Protocol::from)
    }
}

async fn drive(connection: Connection<Box<dyn RawStream>, Bytes>) {
    // Its streams tell of the end.
    let _ = connection.await;
}
