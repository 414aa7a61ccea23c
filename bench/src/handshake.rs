//! The opening handshake by hand, for the floor and for libraries that leave the handshake to their users.

use std::io;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use sha1::{Digest, Sha1};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Returns the end of the head of a request or response.
pub fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|position| position + 4)
}

/// A request, always with the key of RFC 6455 1.3.
pub const REQUEST: &[u8] =
    b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
      Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// A request that offers compression, without context takeover.
pub const REQUEST_TO_COMPRESS: &[u8] =
    b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
      Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
      Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; \
      client_no_context_takeover\r\n\r\n";

/// The answer to an offer of compression.
pub const COMPRESSION: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

/// Returns the response to a request, with an extension or without.
pub fn accept(head: &[u8], extension: Option<&str>) -> String {
    let text = String::from_utf8_lossy(head);
    let key = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key"))
        .map(|(_, value)| value.trim())
        .unwrap_or_default();
    let accept = accept_key(key.as_bytes());
    let extension =
        extension.map(|extension| format!("Sec-WebSocket-Extensions: {extension}\r\n")).unwrap_or_default();
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {accept}\r\n{extension}\r\n"
    )
}

/// Returns the accept value for a key (RFC 6455 4.2.2).
pub fn accept_key(key: &[u8]) -> String {
    let mut digest = Sha1::new();
    digest.update(key);
    digest.update("258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    BASE64_STANDARD.encode(digest.finalize())
}

/// Reads a request and writes the response.
pub async fn shake_hands<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    extension: Option<&str>,
) -> io::Result<()> {
    let mut head = Vec::with_capacity(1024);
    while head_end(&head).is_none() {
        if stream.read_buf(&mut head).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    stream.write_all(accept(&head, extension).as_bytes()).await?;
    stream.flush().await
}

/// Writes a request and reads the response, without checking it.
pub async fn ask<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> io::Result<()> {
    stream.write_all(REQUEST).await?;
    // Reads no further, as the first messages may follow the response.
    let mut head = vec![0; accept(REQUEST, None).len()];
    stream.read_exact(&mut head).await?;
    Ok(())
}
