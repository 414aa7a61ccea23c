//! HTTP/2 as a client of WebSockets sees it (RFC 8441).

use bowline::http::uri::Authority;
use bowline::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use bytes::Bytes;
use h2::client::{Builder, Connection, SendRequest};
use h2::ext::Protocol;
use h2::{Ping, RecvStream, SendStream};
use tokio::task::JoinSet;

use super::head::{RequestBody, RequestHead, ResponseHead};
use super::transcript::is_secret;
use crate::connect::RawStream;

/// The headers of HTTP/1.1 that pseudo-headers replace (RFC 8441 5).
const REPLACED: [&str; 4] = ["connection", "upgrade", "host", "sec-websocket-key"];

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
        let (head, receive) = response.await?.into_parts();
        let head = ResponseHead { status: head.status.as_u16(), headers: head.headers };
        Ok(Http2Response { head, send, receive })
    }

    /// The request as HTTP/2 has it.
    pub(crate) fn build(&self, request: &RequestHead) -> Result<Request<()>, bowline::http::Error> {
        let uri = Uri::builder()
            .scheme(self.scheme)
            .authority(self.authority.clone())
            .path_and_query(request.target.as_str())
            .build()?;
        let mut built = Request::builder().uri(uri);
        built = if request.method == "GET" {
            built.method(Method::CONNECT).extension(Protocol::from(request.protocol))
        } else {
            built.method(request.method)
        };
        for (name, value) in &request.headers {
            let lower = name.to_ascii_lowercase();
            if !REPLACED.contains(&lower.as_str()) {
                built = built.header(lower, value);
            }
        }
        built.body(())
    }
}

async fn drive(connection: Connection<Box<dyn RawStream>, Bytes>) {
    // Its streams tell of the end.
    let _ = connection.await;
}

/// The pseudo-headers and headers of a request, as a transcript shows them.
pub(crate) fn described(request: &Request<()>) -> String {
    let protocol = request.extensions().get::<Protocol>().map_or("", Protocol::as_str);
    let (method, uri) = (request.method(), request.uri());
    format!("{method} {uri}, :protocol {protocol:?}{}", listed(request.headers()))
}

/// Headers, as a transcript shows them.
pub(crate) fn listed(headers: &HeaderMap) -> String {
    let shown = |(name, value): (&HeaderName, &HeaderValue)| {
        if is_secret(name.as_str().as_bytes()) {
            format!(", {name}: [hidden]")
        } else {
            format!(", {name}: {}", value.as_bytes().escape_ascii())
        }
    };
    headers.iter().map(shown).collect()
}
