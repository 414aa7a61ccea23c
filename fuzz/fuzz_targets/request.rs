//! Opening handshakes at a server: the verdict doesn't depend on how the bytes are split, or on who parses
//! them.
#![no_main]

use bowline::{Acceptor, ErrorKind, Rejection};
use bowline_fuzz::{block_on_paused, take_byte, wire};
use http::header::{
    CONTENT_LENGTH, HOST, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING,
};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, Response, Uri, Version};
use libfuzzer_sys::fuzz_target;
use std::error::Error as _;

// the largest number of bytes that arrive at once, then the request
fuzz_target!(|data: &[u8]| {
    let mut bytes = data;
    let chunk = usize::from(take_byte(&mut bytes)) + 1;
    let acceptor = Acceptor::new().subprotocols(["chat.v2", "chat"]).allow_origin("*.example.com");

    let whole = accept_stream(&acceptor, bytes, usize::MAX);
    let split = accept_stream(&acceptor, bytes, chunk);
    // Empty lines before a head don't count as its end.
    let skipped = bytes.iter().take_while(|byte| b"\r\n".contains(byte)).count();
    let ends = &bytes[skipped..];
    // hyper answers the preface of HTTP/2 with nothing, if it arrives at once, at the start or after a head.
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    if ends.starts_with(&preface[..16]) || ends.windows(preface.len()).any(|window| window == preface) {
        return assert_eq!(whole.0.is_err(), split.0.is_err());
    }
    // hyper may find the end of the stream in a body before it reports the head. Handshakes have no body.
    let has_body = |head: Parts| {
        head.headers.contains_key(CONTENT_LENGTH) || head.headers.contains_key(TRANSFER_ENCODING)
    };
    if parse(ends).is_some_and(has_body) {
        return assert_eq!(whole.0.is_err(), split.0.is_err());
    }
    // hyper parses an incomplete head again only when its end has arrived.
    if ends.windows(2).any(|window| window == b"\n\n") || ends.windows(3).any(|window| window == b"\n\r\n") {
        assert_eq!(whole, split);
    } else {
        assert!(whole.0.is_err() && split.0.is_err());
    }

    if let Some(head) = parse(ends) {
        check_accept(&acceptor, head);
    }
});

/// Returns the verdict on the bytes of a stream, and the status of the response.
fn accept_stream(acceptor: &Acceptor, bytes: &[u8], chunk: usize) -> (Result<(), ErrorKind>, Vec<u8>) {
    block_on_paused(async {
        let (stream, wire) = wire();
        wire.set_chunk(chunk);
        wire.feed(bytes);
        wire.end();
        let result = acceptor.accept_stream(stream).await;
        let written = wire.take_written();
        // There is at most one response.
        let heads = written.split(|byte| *byte == b'\n').filter(|line| line.starts_with(b"HTTP/1.")).count();
        assert!(heads <= 1 || result.is_ok(), "{:?}", String::from_utf8_lossy(&written));
        let status = written.get(9..12).unwrap_or_default().to_vec();
        let verdict = match result {
            Ok((_socket, head)) => {
                assert_eq!(status, b"101");
                check_accept(acceptor, head);
                Ok(())
            }
            Err(error) => {
                assert_ne!(status, b"101");
                assert_ne!(error.kind(), ErrorKind::Timeout);
                if let Some(rejection) = error.source().and_then(|source| source.downcast_ref::<Rejection>())
                {
                    let response: Response<String> = rejection.clone().into_response();
                    assert_eq!(response.status().as_str().as_bytes(), status);
                }
                Err(error.kind())
            }
        };
        (verdict, status)
    })
}

/// Checks that a second opinion agrees with the verdict on a head.
fn check_accept(acceptor: &Acceptor, head: Parts) {
    let headers = head.headers.clone();
    let (method, version, has_host) = (head.method.clone(), head.version, head.uri.authority().is_some());
    let mut request = Request::from_parts(head, ());
    let none = hyper::upgrade::on(Request::new(()));
    request.extensions_mut().insert(none);
    match acceptor.accept::<_, ()>(&mut request) {
        Ok((response, _upgrade)) => {
            assert_eq!(method, Method::GET);
            assert!(version >= Version::HTTP_11);
            let once = |name: HeaderName| {
                let mut values = headers.get_all(name).iter();
                values.next().filter(|_| values.next().is_none()).map(|value| value.as_bytes().trim_ascii())
            };
            assert_eq!(once(SEC_WEBSOCKET_VERSION), Some(&b"13"[..]));
            assert!(has_host || once(HOST).is_some());
            let key = once(SEC_WEBSOCKET_KEY).expect("it is there once");
            let accept = tungstenite::handshake::derive_accept_key(key);
            assert_eq!(response.headers()[SEC_WEBSOCKET_ACCEPT], accept);
            if let Some(subprotocol) = response.headers().get(SEC_WEBSOCKET_PROTOCOL) {
                let mut offers = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter();
                let chosen = subprotocol.to_str().expect("a token");
                assert!(offers.any(|offer| offer.to_str().is_ok_and(|offer| offer.contains(chosen))));
            }
            assert_eq!(response.status(), 101);
        }
        Err(rejection) => {
            let response: Response<String> = rejection.into_response();
            assert!(matches!(response.status().as_u16(), 400 | 403 | 405 | 426), "{response:?}");
        }
    }
}

/// Parses a head leniently: accepts everything that the types can hold.
fn parse(bytes: &[u8]) -> Option<Parts> {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let mut first = lines.next()?.splitn(3, |byte| *byte == b' ');
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(first.next()?).ok()?;
    *request.uri_mut() = Uri::try_from(first.next()?).ok()?;
    *request.version_mut() = match first.next()?.trim_ascii() {
        b"HTTP/1.0" => Version::HTTP_10,
        b"HTTP/2" => Version::HTTP_2,
        _ => Version::HTTP_11,
    };
    for line in lines {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { break };
        let name = HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            request.headers_mut().append(name, value);
        }
    }
    Some(request.into_parts().0)
}
