//! Arguments of the builders: URLs, headers, subprotocols, patterns of origins. Arguments are accepted or
//! refused, and never smuggle anything into a request.
#![no_main]

use bowline::{Acceptor, Connector, ErrorKind};
use http::header::{HOST, ORIGIN};
use libfuzzer_sys::fuzz_target;

// lines: the URL, then in turn the name and the value of a header, a subprotocol, a pattern of origins
fuzz_target!(|text: &str| {
    let mut lines = text.split('\n');
    let mut next = || lines.next().unwrap_or_default();
    let (url, name, value, subprotocol, pattern) = (next(), next(), next(), next(), next());

    for connector in [
        Connector::new(),
        Connector::new().header(name, value),
        Connector::new().host(value),
        Connector::new().origin(value),
        Connector::new().subprotocols(subprotocol.split(' ')),
    ] {
        match connector.request(url) {
            Ok((request, _)) => {
                let uri = request.uri();
                assert!(matches!(uri.scheme_str(), Some("http" | "https")));
                assert!(uri.authority().is_some() && uri.path().starts_with('/'));
                for header in request.headers().values() {
                    assert!(!header.as_bytes().iter().any(|byte| b"\r\n\0".contains(byte)));
                }
                assert!(request.headers().contains_key(HOST));
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::InvalidInput),
        }
    }

    let mut request = http::Request::new(());
    *request.method_mut() = http::Method::GET;
    let headers = request.headers_mut();
    for (name, value) in [
        ("host", "example.com"),
        ("upgrade", "websocket"),
        ("connection", "Upgrade"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ] {
        headers.insert(name, http::HeaderValue::from_static(value));
    }
    let Ok(origin) = http::HeaderValue::from_str(value) else { return };
    headers.insert(ORIGIN, origin);
    let status = |acceptor: Acceptor| match acceptor.accept::<_, ()>(&mut request.clone()) {
        Ok(_) => unreachable!("hyper's upgrade is not there"),
        Err(rejection) => rejection.into_response::<String>().status().as_u16(),
    };
    // The status 500 means an accepted request without hyper's upgrade, or an invalid pattern.
    let verdict = status(Acceptor::new());
    assert!(matches!(verdict, 403 | 500));
    let with_pattern = status(Acceptor::new().allow_origin(pattern));
    assert!(with_pattern == verdict || with_pattern == 500, "a pattern only adds");
});
