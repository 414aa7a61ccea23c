//! The opening handshake (RFC 6455 4.2).

use crate::check::script::{Answer, Case, Level, Needs, must, should};
use crate::check::wire::head::{Edit, Pace};

const KEY: &str = "Sec-WebSocket-Key";
const VERSION: &str = "Sec-WebSocket-Version";

/// The status of a malformed request.
const BAD_REQUEST: &[u16] = &[400];

/// The statuses for a client that asks for another protocol, or for none.
const UPGRADE_REQUIRED: &[u16] = &[400, 426];

pub(super) fn cases() -> Vec<Case> {
    [valid(), versions(), keys(), upgrades(), requests()].concat()
}

/// A case that only HTTP/1.1 has.
fn http1(id: &str, section: &'static str, title: &str) -> Case {
    must(format!("handshake.{id}"), section, title).needs(Needs::Http1)
}

fn set(name: &'static str, value: &str) -> [Edit; 1] {
    [Edit::Set(name, value.into())]
}

fn valid() -> Vec<Case> {
    vec![
        must("handshake.valid", "RFC 6455 4.2.2", "a correct request").answer(Answer::Valid).alive(),
        http1("connection-list", "RFC 6455 4.2.1", "Connection: keep-alive, Upgrade")
            .request(set("Connection", "keep-alive, Upgrade"))
            .answer(Answer::Valid),
        http1("values-lower-case", "RFC 6455 4.2.1", "Connection: upgrade")
            .request(set("Connection", "upgrade"))
            .answer(Answer::Valid),
        http1("values-upper-case", "RFC 6455 4.2.1", "Upgrade: WEBSOCKET and Connection: UPGRADE")
            .request([Edit::Set("Upgrade", "WEBSOCKET".into()), Edit::Set("Connection", "UPGRADE".into())])
            .answer(Answer::Valid),
        http1("names-lower-case", "RFC 9110 5.1", "names of headers in lower case")
            .request([Edit::LowerCaseNames])
            .answer(Answer::Valid),
        http1("names-upper-case", "RFC 9110 5.1", "names of headers in upper case")
            .request([Edit::UpperCaseNames])
            .answer(Answer::Valid),
        http1("slow", "RFC 6455 4.2.1", "a request in pieces of a few bytes")
            .pace(Pace::Slow)
            .answer(Answer::Valid),
        should("handshake.cookie", "RFC 6455 4.2.1", "a Cookie header of 2,000 bytes")
            .request([Edit::Add("Cookie", format!("session={}", "x".repeat(1992)))])
            .answer(Answer::Valid),
    ]
}

fn versions() -> Vec<Case> {
    // RFC 6455 4.4: the response says which versions the server knows.
    let unsupported = Answer::Rejected { statuses: UPGRADE_REQUIRED, header: Some(VERSION) };
    let case = |id: &str, value: &str| {
        must(format!("handshake.{id}"), "RFC 6455 4.4", format!("{VERSION}: {value}"))
            .request(set(VERSION, value))
            .answer(unsupported)
    };
    // RFC 6455 4.4: a server may know other versions, such as those of drafts.
    let draft = Case { level: Level::Should, ..case("version-8", "8") };
    vec![
        draft,
        case("version-14", "14"),
        case("version-255", "255"),
        must("handshake.version-missing", "RFC 6455 4.2.1", "no version")
            .request([Edit::Remove(VERSION)])
            .rejected(UPGRADE_REQUIRED),
    ]
}

fn keys() -> Vec<Case> {
    let case = |id: &str, title: &str, value: &str| {
        http1(id, "RFC 6455 4.2.1", title).request(set(KEY, value)).rejected(BAD_REQUEST)
    };
    vec![
        http1("key-missing", "RFC 6455 4.2.1", "no key").request([Edit::Remove(KEY)]).rejected(BAD_REQUEST),
        case("key-empty", "an empty key", ""),
        case("key-short", "a key of 15 bytes", "AAECAwQFBgcICQoLDA0O"),
        case("key-long", "a key of 17 bytes", "AAECAwQFBgcICQoLDA0ODxA="),
        case("key-no-base64", "a key that is not base64", "!!!!!!!!!!!!!!!!!!!!!!=="),
        http1("key-twice", "RFC 6455 11.3.1", "two keys")
            .request([Edit::Add(KEY, "dGhlIHNhbXBsZSBub25jZQ==".into())])
            .rejected(BAD_REQUEST),
    ]
}

fn upgrades() -> Vec<Case> {
    vec![
        http1("upgrade-missing", "RFC 6455 4.2.1", "no Upgrade header")
            .request([Edit::Remove("Upgrade")])
            .rejected(&[]),
        http1("upgrade-other", "RFC 6455 4.2.1", "Upgrade: x-bowline-unknown")
            .request(set("Upgrade", "x-bowline-unknown"))
            .rejected(&[]),
        http1("connection-missing", "RFC 6455 4.2.1", "no Connection header")
            .request([Edit::Remove("Connection")])
            .rejected(&[]),
        http1("connection-other", "RFC 6455 4.2.1", "Connection: keep-alive")
            .request(set("Connection", "keep-alive"))
            .rejected(&[]),
    ]
}

fn requests() -> Vec<Case> {
    vec![
        http1("method-post", "RFC 6455 4.2.1", "POST instead of GET")
            .request([Edit::Method("POST"), Edit::Add("Content-Length", "0".into())])
            .rejected(&[]),
        http1("method-head", "RFC 6455 4.2.1", "HEAD instead of GET")
            .request([Edit::Method("HEAD")])
            .rejected(&[]),
        http1("http-1.0", "RFC 6455 4.2.1", "a request of HTTP/1.0")
            .request([Edit::HttpVersion("HTTP/1.0")])
            .rejected(&[]),
        http1("host-missing", "RFC 6455 4.2.1", "no Host header")
            .request([Edit::Remove("Host")])
            .rejected(BAD_REQUEST),
        http1("name-with-space", "RFC 9112 5.1", "a space between the name of a header and the colon")
            .request([Edit::Add("X-Test ", "1".into())])
            .rejected(BAD_REQUEST),
    ]
}
