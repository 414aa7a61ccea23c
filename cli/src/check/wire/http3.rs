//! HTTP/3 as a client of WebSockets sees it (RFC 9220).

use bowline::http::uri::Authority;
use bowline::http::{self, Request};
use bowline::{ConnectProtocol, Error};

use super::head::{RequestHead, ResponseHead};
use crate::http3::{self, Connection};
use crate::raw_stream::RawStream;

/// A connection to a server. Clones use the same connection.
#[derive(Clone)]
pub(crate) struct Http3Client {
    connection: Connection,
    scheme: &'static str,
    authority: Authority,
}

/// The response to a request, and the stream that it opens.
pub(crate) struct Http3Response {
    pub(crate) head: ResponseHead,
    pub(crate) stream: Box<dyn RawStream>,
}

impl Http3Client {
    pub(crate) fn new(connection: Connection, (scheme, authority): (&'static str, Authority)) -> Self {
        Self { connection, scheme, authority }
    }

    /// Sends a request, and waits for the response.
    pub(crate) async fn send(&self, request: Request<()>) -> Result<Http3Response, Error> {
        let response = http3::request(&self.connection, request).await?;
        let head = ResponseHead::of_response(&response);
        Ok(Http3Response { head, stream: response.into_body() })
    }

    /// The request as HTTP/3 has it.
    pub(crate) fn build(&self, request: &RequestHead) -> Result<Request<()>, http::Error> {
        request.to_request(self.scheme, &self.authority, ConnectProtocol::new)
    }
}
