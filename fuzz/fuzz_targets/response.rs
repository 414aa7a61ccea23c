//! Responses to opening handshakes: the client's verdict doesn't depend on how the bytes are split.
#![no_main]

use bowline::{Connector, ErrorKind};
use bowline_fuzz::{block_on_paused, take_byte, wire};
use libfuzzer_sys::fuzz_target;

/// A placeholder for the Sec-WebSocket-Accept value that the request demands.
const ACCEPT: &[u8] = b"$ACCEPT";

// the largest number of bytes that arrive at once, then the response
fuzz_target!(|data: &[u8]| {
    let mut bytes = data;
    let chunk = usize::from(take_byte(&mut bytes)) + 1;
    let whole = connect(bytes, usize::MAX);
    let split = connect(bytes, chunk);
    // hyper parses an incomplete head again only when its end has arrived. Empty lines before the head don't
    // count as its end.
    let skipped = bytes.iter().take_while(|byte| b"\r\n".contains(byte)).count();
    let ends = &bytes[skipped..];
    if ends.windows(2).any(|window| window == b"\n\n") || ends.windows(3).any(|window| window == b"\n\r\n") {
        assert_eq!(whole, split);
    } else {
        assert!(whole.is_err() && split.is_err());
    }
});

/// Returns the result: the subprotocol, or the kind of the error and its status, if any.
fn connect(answer: &[u8], chunk: usize) -> Result<Option<String>, (ErrorKind, Option<u16>)> {
    block_on_paused(async {
        let (stream, wire) = wire();
        wire.set_chunk(chunk);
        let connector = Connector::new().subprotocols(["chat.v2", "chat"]);
        let connecting = connector.connect_over("ws://example.com/", stream);
        let answering = async {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                tokio::task::yield_now().await;
                request.extend(wire.take_written());
            }
            wire.feed(&fill_in(answer, &request));
            wire.end();
        };
        let (result, ()) = tokio::join!(connecting, answering);
        match result {
            Ok((socket, response)) => {
                assert_eq!(response.status(), 101);
                assert!(answer.windows(ACCEPT.len()).any(|window| window == ACCEPT), "nobody guesses it");
                let subprotocol = socket.subprotocol().map(str::to_owned);
                assert!(matches!(subprotocol.as_deref(), None | Some("chat" | "chat.v2")));
                Ok(subprotocol)
            }
            Err(error) => {
                assert!(!matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Timeout), "{error:?}");
                let response = error.response();
                assert!(response.is_none_or(|response| response.body().len() <= 1024));
                Err((error.kind(), response.map(|response| response.status().as_u16())))
            }
        }
    })
}

/// Returns the response with the accept value for the request.
fn fill_in(answer: &[u8], request: &[u8]) -> Vec<u8> {
    let request = std::str::from_utf8(request).expect("our request is ASCII");
    let key =
        request.lines().find_map(|line| line.strip_prefix("sec-websocket-key: ")).expect("it has a key");
    let accept = tungstenite::handshake::derive_accept_key(key.as_bytes());
    let mut filled = Vec::new();
    let mut rest = answer;
    while let Some(at) = rest.windows(ACCEPT.len()).position(|window| window == ACCEPT) {
        filled.extend_from_slice(&rest[..at]);
        filled.extend_from_slice(accept.as_bytes());
        rest = &rest[at + ACCEPT.len()..];
    }
    filled.extend_from_slice(rest);
    filled
}
