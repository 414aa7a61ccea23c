//! The opening handshake of a client: RFC 6455 4.1.

use std::time::Duration;

use bowline::{Adoption, Connector, Error, ErrorKind, Limits, Proxy, Role, WebSocket};
use http::{HeaderValue, Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::Instant;

use crate::support::frames::Frame;
use crate::support::http::{Head, acceptance, listen, read_head, soon};
use crate::support::{self, poll_once, poll_times};

const URL: &str = "ws://example.com/chat";

/// Connects to a server that answers each request with `answer`, and then keeps the stream open.
async fn connect_to(
    connector: &Connector,
    answer: impl FnOnce(Head) -> Vec<u8>,
) -> Result<(WebSocket, Response<()>), Error> {
    let (client, mut server) = duplex(1024 * 1024);
    let serving = async {
        let request = read_head(&mut server).await;
        server.write_all(&answer(request)).await.unwrap();
        server
    };
    let (result, _server) = soon(async { tokio::join!(connector.connect_over(URL, client), serving) }).await;
    result
}

/// Returns the error for an answer that differs from a good one.
async fn refusal(connector: &Connector, answer: impl FnOnce(Head) -> Head) -> String {
    let error = connect_to(connector, |request| answer(acceptance(&request)).text().into_bytes())
        .await
        .expect_err("the answer is no acceptance");
    assert_eq!(error.kind(), ErrorKind::Handshake, "{error}");
    assert!(error.response().is_some(), "{error} has the response");
    error.to_string()
}

/// Returns the request that a connector sends.
async fn request_of(connector: &Connector, url: &str) -> Head {
    let (client, mut server) = duplex(64 * 1024);
    let connecting = async {
        let _ = connector.connect_over(url, client).await;
    };
    let serving = async {
        let request = read_head(&mut server).await;
        drop(server);
        request
    };
    tokio::join!(connecting, serving).1
}

/// Returns the error of an invalid connector or URL. Nothing must be sent.
async fn invalid(connector: &Connector, url: &str) -> String {
    let (client, mut server) = duplex(1024);
    let error = connector.connect_over(url, client).await.expect_err("it makes no sense");
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    assert_eq!(server.read(&mut [0]).await.unwrap(), 0, "something was sent for {url}");
    assert_eq!(connector.request(url).expect_err("it makes no sense").kind(), ErrorKind::InvalidInput);
    error.to_string()
}

#[tokio::test]
async fn rfc6455_4_1_the_request() {
    let request = request_of(&Connector::new(), "ws://example.com/chat?room=1").await;
    assert!(request.text().starts_with("GET /chat?room=1 HTTP/1.1\r\n"), "{request:?}");
    assert_eq!(request.get("host").as_deref(), Some("example.com"));
    assert_eq!(request.get("upgrade").as_deref(), Some("websocket"));
    assert_eq!(request.get("connection").as_deref(), Some("Upgrade"));
    assert_eq!(request.get("sec-websocket-version").as_deref(), Some("13"));
    let key = request.get("sec-websocket-key").unwrap();
    assert!(bowline_proto::handshake::Key::parse(key.as_bytes()).is_some(), "{key}");
    for absent in ["origin", "sec-websocket-protocol", "sec-websocket-extensions", "authorization"] {
        assert_eq!(request.get(absent), None);
    }
    let another = request_of(&Connector::new(), URL).await;
    assert_ne!(another.get("sec-websocket-key").unwrap(), key, "each key is new");
}

#[tokio::test]
async fn rfc6455_3_urls_become_hosts_and_targets() {
    for (url, host, target) in [
        ("ws://example.com", "example.com", "/"),
        ("ws://example.com?a=b", "example.com", "/?a=b"),
        ("ws://example.com/?a=b&c=%20", "example.com", "/?a=b&c=%20"),
        ("WS://Example.com:80/", "Example.com", "/"),
        ("http://example.com:8080/a/b", "example.com:8080", "/a/b"),
        ("ws://example.com:443/", "example.com:443", "/"),
        ("ws://[::1]:9/x", "[::1]:9", "/x"),
        ("ws://127.0.0.1/x", "127.0.0.1", "/x"),
        ("ws://example.com:/x", "example.com", "/x"),
    ] {
        let request = request_of(&Connector::new(), url).await;
        assert_eq!(request.get("host").as_deref(), Some(host), "{url}");
        assert_eq!(request.second_word(), target, "{url}");
    }
}

#[tokio::test]
async fn user_names_become_basic_authentication() {
    for (url, credentials) in [
        // `Aladdin:open sesame`, the example of RFC 7617 2.
        ("ws://Aladdin:open%20sesame@example.com/", "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
        ("ws://user@example.com/", "Basic dXNlcjo="),
        ("ws://user:p%40s:s@example.com/", "Basic dXNlcjpwQHM6cw=="),
    ] {
        let request = request_of(&Connector::new(), url).await;
        assert_eq!(request.get("authorization").as_deref(), Some(credentials), "{url}");
        assert_eq!(request.get("host").as_deref(), Some("example.com"), "{url}");
    }
    let connector = Connector::new().header("authorization", "Bearer 1234");
    let request = request_of(&connector, "ws://user@example.com/").await;
    assert_eq!(request.get("authorization").as_deref(), Some("Bearer 1234"), "an explicit header decides");
}

#[tokio::test]
async fn options_become_headers() {
    let connector = Connector::new()
        .header("cookie", "a=1")
        .header("Cookie", "b=2")
        .header(http::header::USER_AGENT, HeaderValue::from_static("test"))
        .host("virtual.example")
        .origin("https://example.com")
        .subprotocols(["v2", "v1"]);
    let request = request_of(&connector, URL).await;
    assert_eq!(request.get("cookie").as_deref(), Some("a=1, b=2"));
    assert!(!format!("{connector:?}").contains("a=1"), "cookies are secrets");
    assert_eq!(request.get("user-agent").as_deref(), Some("test"));
    assert_eq!(request.get("host").as_deref(), Some("virtual.example"));
    assert_eq!(request.get("origin").as_deref(), Some("https://example.com"));
    assert_eq!(request.get("sec-websocket-protocol").as_deref(), Some("v2, v1"));
}

#[tokio::test]
async fn a_map_of_headers_is_added_header_by_header() {
    let mut headers = http::HeaderMap::new();
    headers.append("cookie", HeaderValue::from_static("a=secret"));
    headers.append("cookie", HeaderValue::from_static("b=2"));
    headers.insert("x-request-id", HeaderValue::from_static("17"));
    let connector = Connector::new().header("x-request-id", "16").headers(headers.clone());
    let request = request_of(&connector, URL).await;
    assert_eq!(request.get("cookie").as_deref(), Some("a=secret, b=2"));
    assert_eq!(request.get("x-request-id").as_deref(), Some("16, 17"));
    let (request, _) = connector.request(URL).unwrap();
    assert!(!format!("{request:?}").contains("secret"), "cookies are secrets");
    assert!(Connector::new().headers(http::HeaderMap::new()).request(URL).is_ok());

    headers.insert("sec-websocket-key", HeaderValue::from_static("mine"));
    let text = invalid(&Connector::new().headers(headers), URL).await;
    assert!(text.contains("sec-websocket-key"), "{text}");
}

#[test]
fn a_url_is_text_or_anything_that_is_displayed_as_one() {
    let connector = Connector::new();
    let assert_target = |request: Result<(http::Request<()>, _), Error>| {
        assert_eq!(request.unwrap().0.uri(), "http://example.com/chat");
    };
    let text = URL.to_owned();
    let uri: http::Uri = URL.parse().unwrap();
    assert_target(connector.request(URL));
    assert_target(connector.request(&text));
    assert_target(connector.request(text.clone()));
    assert_target(connector.request(text.as_str().to_owned().into_boxed_str()));
    assert_target(connector.request(std::borrow::Cow::Borrowed(URL)));
    assert_target(connector.request(bowline::Utf8Bytes::from(URL)));
    assert_target(connector.request(format_args!("ws://{}/chat", "example.com")));
    assert_target(connector.request(&uri));
    assert_target(connector.request(uri));
    let error = connector.request(http::Uri::from_static("/chat")).map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("ws://"), "{error}");
}

#[test]
fn a_request_of_the_applications_becomes_a_handshake() {
    let connector = Connector::new().header("x-trace", "connector").subprotocols(["chat.v1"]);
    let mut request = Request::post("wss://user:pass@example.com:8443/feed?a=1")
        .version(http::Version::HTTP_2)
        .header("x-trace", "request")
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .header("host", "other.example")
        .header("sec-websocket-key", "of the request")
        .header("sec-websocket-extensions", "of the request")
        .header("sec-websocket-accept", "of another response")
        .header("connection", "keep-alive")
        .header("content-length", "4")
        .header("transfer-encoding", "chunked")
        .extension(7_u8)
        .body("body")
        .unwrap();
    connector.prepare(&mut request).unwrap();
    assert_eq!((request.method().as_str(), request.version()), ("GET", http::Version::HTTP_11));
    assert_eq!(request.uri(), "https://example.com:8443/feed?a=1");
    let values = |name| request.headers().get_all(name).iter().collect::<Vec<_>>();
    assert_eq!(values("x-trace"), ["connector"]);
    assert_eq!(values("cookie"), ["a=1", "b=2"]);
    assert_eq!(values("host"), ["other.example"]);
    assert_eq!(values("authorization"), ["Basic dXNlcjpwYXNz"]);
    assert_eq!(values("sec-websocket-protocol"), ["chat.v1"]);
    assert!(values("sec-websocket-extensions").is_empty());
    for name in ["sec-websocket-accept", "content-length", "transfer-encoding"] {
        assert!(values(name).is_empty(), "{name}");
    }
    assert_eq!(values("connection"), ["Upgrade"]);
    assert_eq!(values("sec-websocket-key").len(), 1);
    assert_ne!(values("sec-websocket-key"), ["of the request"]);
    assert_eq!(request.extensions().get(), Some(&7_u8));

    // The request's own credentials come before those of the URI, and those of the connector before both.
    let request = || Request::get("ws://user:pass@example.com/").header("authorization", "Bearer 1");
    let mut bearer = request().body(()).unwrap();
    Connector::new().prepare(&mut bearer).unwrap();
    assert_eq!(bearer.headers()["authorization"], "Bearer 1");
    Connector::new().header("authorization", "Bearer 2").prepare(&mut bearer).unwrap();
    assert_eq!(bearer.headers()["authorization"], "Bearer 2");

    let mut relative = Request::get("/feed").body(()).unwrap();
    let error = Connector::new().prepare(&mut relative).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(relative.headers().is_empty() && relative.uri() == "/feed");
}

#[tokio::test]
async fn rfc6455_3_urls_that_make_no_sense_are_named() {
    for (url, named) in [
        ("example.com/chat", "ws://"),
        ("", "ws://"),
        ("ftp://example.com", "\"ftp\""),
        ("://example.com", "\"\""),
        ("ws://example.com/#top", "fragment"),
        ("ws://example.com#", "fragment"),
        ("ws://", "\"\""),
        ("ws:///chat", "\"\""),
        ("ws://:80/", "\":80\""),
        ("ws://example.com:99999/", "99999"),
        ("ws://example.com:http/", "http"),
        ("ws://exa mple.com/", "exa mple.com"),
        ("ws://[::1/", "[::1"),
        ("ws://bücher.example/", "punycode"),
        ("ws://example.com/straße", "percent-encode"),
        ("ws://example.com/a b", "percent-encode"),
        ("ws://example.com/a\r\nx: y", "percent-encode"),
        ("ws://us%3Aer:secret@example.com/", "colon"),
        // RFC 3986 has none of these characters in any part.
        (r"ws://h\@evil/", "percent-encode"),
        (r"ws://example.com\@evil/", "percent-encode"),
        (r"ws://example.com\.evil/", r"example.com\\.evil"),
        ("ws://us er:secret@example.com/", "percent-encode"),
        ("ws://user:sec<ret@example.com/", "percent-encode"),
        ("ws://user:secret%@example.com/", "percent-encode"),
        ("ws://user:secret%4x@example.com/", "percent-encode"),
        ("ws://user:sec[ret@example.com/", "percent-encode"),
        ("ws://user:secrét@example.com/", "percent-encode"),
        ("ws://user:sec\u{7}ret@example.com/", "percent-encode"),
        (r"ws://example.com/a\b", r"'\\'"),
        ("ws://example.com/<a>", "'<'"),
        ("ws://example.com/\"a\"", "'\"'"),
        ("ws://example.com/{a}", "'{'"),
        ("ws://example.com/a|b", "'|'"),
        ("ws://example.com/a^b", "'^'"),
        ("ws://example.com/`", "'`'"),
        ("ws://example.com/[a]", "'['"),
        ("ws://example.com/?a[]=b", "'['"),
        ("ws://example.com/?a=\u{7f}", "percent-encode"),
        ("ws://example.com/%", "'%'"),
        ("ws://example.com/%2", "'%'"),
        ("ws://example.com/?%zz", "'%'"),
        ("ws://exam%70le.com/", "exam%70le.com"),
        ("w\\s://example.com/", "w"),
        // The end of the userinfo is ambiguous, and it may be in any part.
        ("ws://user:secret/x@example.com/", "percent-encode"),
        ("ws://user:secret?x@example.com/", "percent-encode"),
        ("ws://user:secret#x@example.com/", "percent-encode"),
        ("ws://user:/secret@example.com/", "percent-encode"),
        ("ws://user:?secret@example.com/", "percent-encode"),
        ("ws://user:#secret@example.com/", "percent-encode"),
        ("ws://user:99secret/@example.com/", "percent-encode"),
        ("ws://user:se@secret@example.com/", "percent-encode"),
        ("ws://user:secret@example.com:http/", "http"),
        ("ws://user:secret@exa mple.com/", "exa mple.com"),
        ("ws://user:secret@bücher.example/", "punycode"),
        ("ws://user:secret@example.com/#", "fragment"),
        ("user:secret@example.com/?next=ws://example.com", "ws://"),
        ("ws:/user:secret@example.com/://", "ws://"),
        // RFC 6874, RFC 9844: a zone has a meaning on one host only.
        ("ws://[fe80::1%25eth0]/", "zone"),
        ("ws://[fe80::1%eth0]:80/", "zone"),
        ("ws://user:secret@[fe80::1%25eth0]/", "zone"),
    ] {
        let text = invalid(&Connector::new(), url).await;
        assert!(text.contains(named), "{url:?}: {text}");
        assert!(!text.contains("secret"), "{text} has a password");
    }
}

#[tokio::test]
async fn parts_of_a_url_that_are_too_long_are_named() {
    // Values that `http` can represent.
    let path = format!("/{}", "a".repeat(65_533));
    let request = Connector::new().request(format!("ws://example.com{path}")).unwrap().0;
    assert_eq!(request.uri().path(), path);
    for (url, named) in [
        (format!("ws://example.com{path}a"), "65535 bytes"),
        (format!("ws://example.com/?{}", "a".repeat(100_000)), "100002 bytes"),
        (format!("ws://{}/", "a".repeat(260)), "260 bytes"),
        (format!("ws://{}/", "a".repeat(100_000)), "100000 bytes"),
        (format!("ws://user:{}@{}/", "secret".repeat(20_000), "a".repeat(100_000)), "100000 bytes"),
    ] {
        let text = invalid(&Connector::new(), &url).await;
        assert!(text.contains(named), "{}", text.get(..300).unwrap_or(&text));
        assert!(!text.contains("aaa") && !text.contains("secret"), "it would fill the log");
    }
}

#[tokio::test]
async fn all_characters_of_rfc3986_are_sent_as_they_are() {
    let path = "/AZaz09-._~!$&'()*+,;=:@%2F%ff//";
    for target in
        [path.to_owned(), format!("{path}?{path}?"), "/@alice".to_owned(), "/?mail=a@b.example".to_owned()]
    {
        let request = request_of(&Connector::new(), &format!("ws://example.com:81{target}")).await;
        assert_eq!(request.second_word(), target);
        assert_eq!(request.get("host").as_deref(), Some("example.com:81"));
    }
    let request = request_of(&Connector::new(), "ws://AZaz09-._~!$&'()*+,;=%40%2F:a:b%25@example.com/").await;
    // Names can contain these characters as well, although few do.
    for character in "AZaz09-._~!$&'()*+,;=".chars() {
        let url = format!("ws://a{character}b:81/");
        let authority = format!("a{character}b:81");
        assert_eq!(Connector::new().request(url).unwrap().0.uri().authority().unwrap(), authority.as_str());
    }
    let credentials = "Basic QVphejA5LS5ffiEkJicoKSorLDs9QC86YTpiJQ==";
    assert_eq!(request.get("authorization").as_deref(), Some(credentials));
}

#[tokio::test]
async fn nothing_secret_is_told_by_debug() {
    let connector = Connector::new()
        .header("authorization", "secret 1")
        .header("proxy-authorization", "secret 2")
        .header("cookie", "a=secret 3")
        .header("x-api-key", "secret 4")
        .subprotocols(["chat", "bearer.secret5"])
        .proxy(Proxy::new("http://user:secret6@proxy.example").unwrap());
    let debug = format!("{connector:?}");
    assert!(!debug.contains("secret"), "{debug}");
    assert!(debug.contains("x-api-key") && debug.contains("proxy.example"), "{debug}");
    let adoption = bowline::Adoption::new().subprotocol("bearer.secret").leftover("secret");
    assert!(!format!("{adoption:?}").contains("secret"));
    let socket = Connector::new().adopt(tokio::io::duplex(1).0, adoption).unwrap();
    assert!(!format!("{socket:?}").contains("secret"));
    let (request, handshake) = connector.request("ws://user:secret7@example.com/?token=secret8").unwrap();
    let debug = format!("{handshake:?}");
    assert!(!debug.contains("secret"), "{debug}");
    let debug = format!("{:?}", request.headers());
    for secret in ["secret 1", "secret 2", "secret 3", "secret5", "secret7"] {
        assert!(!debug.contains(secret), "{secret}: {debug}");
    }
    assert_eq!(request.headers()["sec-websocket-protocol"], "chat, bearer.secret5");

    #[cfg(feature = "http2")]
    {
        let address = support::http::start(bowline::Server::new().http2(), support::http::echo).await;
        let connector = connector.clone().proxy(Proxy::none());
        let connection =
            soon(connector.connect_http2(format!("ws://user:secret@{address}/?secret"))).await.unwrap();
        let debug = format!("{connection:?}");
        assert!(!debug.contains("secret"), "{debug}");
    }

    let answer = |lines: &'static [&'static str]| {
        move |_: Head| {
            lines
                .iter()
                .fold(Head::from(["HTTP/1.1 302 Found"]), |head, line| head.with(line))
                .text()
                .into_bytes()
        }
    };
    let error = connect_to(
        &connector,
        answer(&["Set-Cookie: a=secret", "Set-Cookie: b=secret", "Content-Length: 0"]),
    );
    let error = error.await.unwrap_err();
    assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
    assert_eq!(error.response().unwrap().headers()["set-cookie"], "a=secret");
    for (location, shown) in [
        ("Location: wss://user:secret@example.com/a?code=secret#secret", "wss://...@example.com/a?...\""),
        ("Location: //user:secret@example.com", "//...@example.com\""),
        ("Location: /login?next=secret", "/login?...\""),
        ("Location: wss://example.com/@a", "wss://example.com/@a\""),
    ] {
        let answer =
            |_: Head| Head::from(["HTTP/1.1 302 Found", location, "Content-Length: 0"]).text().into_bytes();
        let error = connect_to(&connector, answer).await.unwrap_err();
        let text = error.to_string();
        assert!(!text.contains("secret") && text.contains(shown), "{text}");
        assert!(!format!("{error:?}").contains("secret"), "{error:?}");
    }
}

#[tokio::test]
async fn options_that_make_no_sense_are_named() {
    let new = Connector::new;
    for (connector, named) in [
        (new().header("x-a", "b\r\nc: d"), "x-a"),
        (new().header("x-a", "b\nc"), "x-a"),
        (new().header("x-a", "b\0c"), "x-a"),
        (new().header("x a", "b"), "name"),
        (new().header("", "b"), "name"),
        (new().host("a\r\nb"), "host"),
        (new().origin("a\nb"), "origin"),
        (new().header("host", "a"), "Connector::host"),
        (new().header("origin", "a"), "Connector::origin"),
        (new().header("Sec-WebSocket-Protocol", "a"), "Connector::subprotocols"),
        (new().header("sec-websocket-key", "a"), "sec-websocket-key"),
        (new().header("sec-websocket-extensions", "a"), "sec-websocket-extensions"),
        (new().header("upgrade", "a"), "upgrade"),
        (new().header("connection", "close"), "connection"),
        (new().header("content-length", "1"), "content-length"),
        (new().header("transfer-encoding", "chunked"), "transfer-encoding"),
        (new().subprotocols(["a b"]), "\"a b\""),
        (new().subprotocols([""]), "\"\""),
        (new().subprotocols(["a", "b", "a"]), "twice"),
        (new().keepalive(Duration::ZERO), "keepalive"),
        (new().header("x-first", "\n").header("x-second", "\n"), "x-first"),
    ] {
        let text = invalid(&connector, URL).await;
        assert!(text.contains(named), "{named}: {text}");
    }
}

#[tokio::test]
async fn rfc6455_4_1_the_response_is_verified() {
    let connector = Connector::new().subprotocols(["v2", "v1"]);
    for (answer, named) in [
        (
            (|good: Head| good.first_line("HTTP/1.1 200 OK").with("Content-Length: 0")) as fn(Head) -> Head,
            "200 OK",
        ),
        (|good| good.without("upgrade"), "Upgrade: websocket"),
        (|good| good.replace("Upgrade: h2c"), "Upgrade: websocket"),
        (|good| good.replace("Upgrade: websocket, h2c"), "Upgrade: websocket"),
        (|good| good.with("Upgrade: websocket"), "more than one Upgrade"),
        (|good| good.without("connection"), "Connection: Upgrade"),
        (|good| good.replace("Connection: keep-alive"), "Connection: Upgrade"),
        (|good| good.without("sec-websocket-accept"), "no Sec-WebSocket-Accept"),
        (|good| good.replace("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "does not belong"),
        (|good| good.replace("Sec-WebSocket-Accept:"), "does not belong"),
        // The accept value belongs to another key.
        (|_| acceptance(&Head::request()), "does not belong"),
        (
            |good| {
                let accept = good.get("sec-websocket-accept").unwrap();
                good.with(&format!("Sec-WebSocket-Accept: {accept}"))
            },
            "more than one Sec-WebSocket-Accept",
        ),
        (|good| good.with("Sec-WebSocket-Extensions: permessage-deflate"), "none was offered"),
        (
            |good| good.with("Sec-WebSocket-Extensions: ,").with("Sec-WebSocket-Extensions: x"),
            "none was offered",
        ),
        (|good| good.with("Sec-WebSocket-Extensions: ;"), "not a list of extensions"),
        (|good| good.with("Sec-WebSocket-Protocol: v3"), "v3"),
        (|good| good.with("Sec-WebSocket-Protocol: V1"), "V1"),
        (|good| good.with("Sec-WebSocket-Protocol: v1, v2"), "v1, v2"),
        (|good| good.with("Sec-WebSocket-Protocol: v1").with("Sec-WebSocket-Protocol: v2"), "more than one"),
    ] {
        let text = refusal(&connector, answer).await;
        assert!(text.contains(named), "{named}: {text}");
    }
    let without_offer = refusal(&Connector::new(), |good| good.with("Sec-WebSocket-Protocol: v1")).await;
    assert!(without_offer.contains("not offered"), "{without_offer}");
}

#[tokio::test]
async fn rfc6455_4_1_nothing_is_sent_before_the_response() {
    let (client, mut server) = duplex(64 * 1024);
    let connector = Connector::new();
    let mut connecting = std::pin::pin!(connector.connect_over(URL, client).into_future());
    assert!(poll_times(10, connecting.as_mut()).await.is_none());
    let request = read_head(&mut server).await;
    assert!(poll_once(std::pin::pin!(server.read_u8())).await.is_none(), "something is behind the request");
    server.write_all(acceptance(&request).text().as_bytes()).await.unwrap();
    soon(connecting).await.unwrap();
}

#[tokio::test]
async fn rfc6455_8_1_a_subprotocol_that_is_not_text_is_refused() {
    let connector = Connector::new().subprotocols(["v1"]);
    let answer = |request: Head| {
        let mut bytes = acceptance(&request).with("Sec-WebSocket-Protocol: v1").text().into_bytes();
        bytes.splice(bytes.len() - 4.., *b"\xFF\r\n\r\n");
        bytes
    };
    let error = connect_to(&connector, answer).await.expect_err("it is not UTF-8");
    assert_eq!(error.kind(), ErrorKind::Handshake, "{error}");
    assert!(error.to_string().contains("not offered"), "{error}");
}

fn with_and_without_compression(connector: &Connector) -> Vec<Connector> {
    #[cfg(feature = "deflate")]
    return vec![connector.clone(), connector.clone().compression(bowline::Compression::ContextTakeover)];
    #[cfg(not(feature = "deflate"))]
    vec![connector.clone()]
}

#[tokio::test]
async fn good_responses_are_accepted() {
    let connector = Connector::new().subprotocols(["v2", "v1"]);
    for (answer, subprotocol) in [
        ((|good: Head| good) as fn(Head) -> Head, None),
        (|good| good.replace("upgrade: WebSocket").replace("connection: UPGRADE"), None),
        (|good| good.replace("Connection: keep-alive").with("Connection: x, upgrade"), None),
        (|good| good.with("Sec-WebSocket-Protocol: v1"), Some("v1")),
        (|good| good.with("Set-Cookie: a=1"), None),
        // A list without an element chooses nothing (RFC 9110 5.6.1).
        (|good| good.with("Sec-WebSocket-Protocol:").with("Sec-WebSocket-Extensions:"), None),
        (|good| good.with("Sec-WebSocket-Protocol:  ").with("Sec-WebSocket-Extensions: , ,"), None),
        (|good| good.with("Sec-WebSocket-Extensions:").with("Sec-WebSocket-Extensions: "), None),
        (|good| good.with("Sec-WebSocket-Protocol: v1").with("Sec-WebSocket-Extensions:"), Some("v1")),
    ] {
        for connector in with_and_without_compression(&connector) {
            let answer = |request: Head| answer(acceptance(&request)).text().into_bytes();
            let (socket, response) = connect_to(&connector, answer).await.unwrap();
            assert_eq!(socket.subprotocol(), subprotocol);
            assert_eq!(response.status(), 101);
        }
    }
    // An empty list also has no effect if nothing was offered.
    for connector in with_and_without_compression(&Connector::new()) {
        let answer = |request: Head| acceptance(&request).with("Sec-WebSocket-Protocol:").text().into_bytes();
        assert_eq!(connect_to(&connector, answer).await.unwrap().0.subprotocol(), None);
    }
    // Informational responses come before the real one.
    let answer = |request: Head| {
        let hints = "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n".to_owned();
        (hints + &acceptance(&request).with("Set-Cookie: a=1").text()).into_bytes()
    };
    let (_, response) = connect_to(&connector, answer).await.unwrap();
    assert_eq!(response.headers()["set-cookie"], "a=1");
    assert!(!format!("{response:?}").contains("a=1"), "cookies are secrets: {response:?}");
}

#[tokio::test]
async fn frames_behind_the_response_are_not_lost() {
    let answer = |request: Head| {
        let mut bytes = acceptance(&request).text().into_bytes();
        bytes.extend(Frame::text("first").encode(Role::Server));
        bytes.extend(Frame::text("second").encode(Role::Server));
        bytes
    };
    let (mut socket, _) = connect_to(&Connector::new(), answer).await.unwrap();
    assert_eq!(soon(socket.recv()).await.unwrap(), Some("first".into()));
    assert_eq!(soon(socket.recv()).await.unwrap(), Some("second".into()));
}

#[tokio::test]
async fn redirects_are_not_followed_but_named() {
    let error = connect_to(&Connector::new(), |_| {
        Head::from(["HTTP/1.1 301 Moved Permanently", "Location: wss://example.com/new", "Content-Length: 0"])
            .text()
            .into_bytes()
    })
    .await
    .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Handshake);
    assert!(error.to_string().contains("wss://example.com/new"), "{error}");
    assert!(error.to_string().contains("301"), "{error}");
    assert_eq!(error.response().unwrap().headers()["location"], "wss://example.com/new");
}

#[tokio::test]
async fn the_error_has_status_headers_and_the_start_of_the_body() {
    let error = connect_to(&Connector::new(), |_| {
        b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic\r\nContent-Length: 8\r\n\r\nwho are?".to_vec()
    })
    .await
    .unwrap_err();
    let response = error.response().unwrap();
    assert_eq!(response.status(), 401);
    assert_eq!(response.headers()["www-authenticate"], "Basic");
    assert_eq!(&response.body()[..], b"who are?");
}

/// Runs a server that sends the head, and then bytes of a body for as long as they are accepted. Returns
/// their number.
async fn pour(mut server: DuplexStream, head: &str) -> usize {
    read_head(&mut server).await;
    server.write_all(head.as_bytes()).await.unwrap();
    let mut poured = 0;
    while let Ok(count) = server.write(&[b'x'; 4096]).await {
        poured += count;
    }
    poured
}

#[tokio::test]
async fn a_body_of_a_gibibyte_is_not_read() {
    for head in [
        "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 1073741824\r\n\r\n",
        "HTTP/1.1 500 Internal Server Error\r\n\r\n",
    ] {
        let (client, server) = duplex(4096);
        let server = tokio::spawn(pour(server, head));
        let error = soon(Connector::new().connect_over(URL, client)).await.unwrap_err();
        assert_eq!(error.response().unwrap().body().len(), 1024);
        let poured = soon(server).await.unwrap();
        assert!(poured <= 64 * 1024, "{poured} bytes were taken");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_never_ends_is_waited_for_until_the_deadline() {
    let (client, mut server) = duplex(4096);
    let start = Instant::now();
    let serving = async {
        read_head(&mut server).await;
        server.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 100\r\n\r\nno").await.unwrap();
    };
    let connector = Connector::new();
    let (result, ()) = tokio::join!(connector.connect_over(URL, client), serving);
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Handshake);
    assert_eq!(&error.response().unwrap().body()[..], b"no");
    assert_eq!(start.elapsed().as_secs(), 10);
    drop(server);
}

#[tokio::test]
async fn heads_over_the_limits_are_refused() {
    let limits = Limits::default().head_size(8 * 1024).max_headers(10);
    let connector = Connector::new().limits(limits);
    for grow in
        [(|good: Head| good.with(&format!("x-long: {}", "a".repeat(8 * 1024)))) as fn(Head) -> Head, |good| {
            (0..10).fold(good, |head, number| head.with(&format!("x-{number}: a")))
        }]
    {
        let answer = |request: Head| grow(acceptance(&request)).text().into_bytes();
        let error = connect_to(&connector, answer).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Limit, "{error}");
        assert!(error.to_string().contains("Limits::head_size"), "{error}");
    }
    // A head that never ends is not stored either.
    let (client, server) = duplex(4096);
    let server = tokio::spawn(pour(server, "HTTP/1.1 101 Switching Protocols\r\nx-long: "));
    let error = soon(connector.connect_over(URL, client)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Limit, "{error}");
    assert!(soon(server).await.unwrap() < 64 * 1024);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_never_answers_times_out() {
    let (client, _server) = duplex(4096);
    let start = Instant::now();
    let connector = Connector::new().limits(Limits::default().handshake_timeout(Duration::from_secs(3)));
    let error = connector.connect_over(URL, client).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert_eq!(start.elapsed().as_secs(), 3);
    assert!(error.to_string().contains("waiting for the server's response"), "{error}");
    assert!(error.to_string().contains("Limits::handshake_timeout"), "{error}");
}

#[tokio::test]
async fn an_endless_timeout_is_possible() {
    let connector = Connector::new().limits(Limits::default().handshake_timeout(Duration::MAX));
    connect_to(&connector, |request| acceptance(&request).text().into_bytes()).await.unwrap();
}

#[tokio::test]
async fn what_is_not_http_is_an_error() {
    for answer in ["SSH-2.0-OpenSSH_9.2\r\n\r\n", "HTTP/1.1 1000 Too Much\r\n\r\n"] {
        let error = connect_to(&Connector::new(), |_| answer.as_bytes().to_vec()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Handshake, "{error}");
        assert!(error.response().is_none());
    }
    let (client, mut server) = duplex(4096);
    let serving = async {
        read_head(&mut server).await;
        drop(server);
    };
    let connector = Connector::new();
    let (result, ()) = tokio::join!(connector.connect_over(URL, client), serving);
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Handshake);
    assert!(error.to_string().contains("without a response"), "{error}");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_an_io_error() {
    // The port is taken, but nobody listens there.
    let bound = TcpSocket::new_v4().unwrap();
    bound.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = bound.local_addr().unwrap();
    let error = soon(bowline::connect(format!("ws://{address}/"))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    assert!(std::error::Error::source(&error).is_some());
}

#[tokio::test]
async fn an_http_client_of_the_users_own_does_the_handshake() {
    let (request, handshake) = Connector::new()
        .subprotocols(["v1"])
        .header("x-a", "b")
        .request("wss://example.com:444/chat")
        .unwrap();
    assert_eq!(request.method(), "GET");
    assert_eq!(request.uri(), "https://example.com:444/chat");
    assert_eq!(request.headers()["host"], "example.com:444");
    assert_eq!(request.headers()["x-a"], "b");
    let key = request.headers()["sec-websocket-key"].to_str().unwrap();
    let head = Head::request().replace(&format!("Sec-WebSocket-Key: {key}"));
    let mut response = Response::builder().status(101);
    let acceptance = acceptance(&head).with("Sec-WebSocket-Protocol: v1");
    for (name, value) in acceptance.headers() {
        response = response.header(name, value);
    }
    let response = response.body(()).unwrap();

    let (client, mut server) = duplex(4096);
    let mut socket = handshake.verify(&response).unwrap().finish(client, Vec::new());
    assert_eq!(socket.subprotocol(), Some("v1"));
    server.write_all(&Frame::text("hello").encode(Role::Server)).await.unwrap();
    assert_eq!(socket.recv().await.unwrap(), Some("hello".into()));

    let (_, another) = Connector::new().request(URL).unwrap();
    let error = another.verify(&response).expect_err("the key is another");
    assert_eq!(error.kind(), ErrorKind::Handshake);
    assert_eq!(error.response().unwrap().headers()["sec-websocket-protocol"], "v1");
}

#[tokio::test]
async fn hypers_upgraded_stream_can_be_taken() {
    use hyper_util::rt::TokioIo;

    let address = support::http::start(bowline::Server::new(), support::http::echo).await;
    let (mut request, handshake) = Connector::new().request(format!("ws://{address}/")).unwrap();
    *request.uri_mut() = "/".parse().unwrap();
    let stream = TokioIo::new(TcpStream::connect(address).await.unwrap());
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
    tokio::spawn(connection.with_upgrades());
    let mut response = sender.send_request(request.map(|()| String::new())).await.unwrap();
    let upgraded = hyper::upgrade::on(&mut response).await.unwrap();
    let mut socket = handshake.verify(&response).unwrap().finish(TokioIo::new(upgraded), Vec::new());
    assert!(socket.is_tcp_fast_path());
    socket.send("hello").await.unwrap();
    assert_eq!(soon(socket.recv()).await.unwrap(), Some("hello".into()));
}

#[tokio::test]
async fn leftover_bytes_of_an_adopted_stream_are_not_lost() {
    let (client, _server) = duplex(4096);
    let leftover = Frame::text("left over").encode(Role::Server);
    let mut socket =
        Connector::new().adopt(client, Adoption::new().leftover(leftover).subprotocol("v1")).unwrap();
    assert_eq!(socket.subprotocol(), Some("v1"));
    assert_eq!(socket.recv().await.unwrap(), Some("left over".into()));
}

#[tokio::test]
async fn a_dropped_attempt_leaves_nothing_behind() {
    let (listener, address) = listen().await;
    let attempt = tokio::spawn(bowline::connect(format!("ws://{address}/")));
    let (mut stream, _) = soon(listener.accept()).await.unwrap();
    read_head(&mut stream).await;
    attempt.abort();
    assert_eq!(soon(stream.read(&mut [0])).await.unwrap(), 0, "the connection is closed");
}
