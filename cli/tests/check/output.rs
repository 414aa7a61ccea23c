//! Options, formats and exit statuses.

use std::time::Duration;

use bowline::http::request::Parts;
use bowline::http::{Response, StatusCode};
use bowline::{Rejection, Server};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::support::{check, command, echo, right_server, serve};

#[tokio::test]
async fn a_server_that_is_not_there_exits_with_3() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let outcome = check(&[&address]).await;
    assert_eq!(outcome.status, 3, "{outcome:?}");
    assert!(outcome.stderr.starts_with("bowline: connecting to 127.0.0.1"), "{outcome:?}");
}

#[tokio::test]
async fn a_refused_handshake_exits_with_4_and_shows_the_answer() {
    let refusing = Server::new().on_request(async |_: Parts| {
        let mut response = Response::new("no such feed".to_owned());
        *response.status_mut() = StatusCode::NOT_FOUND;
        Err::<Parts, _>(Rejection::from(response))
    });
    let address = serve(refusing).await.to_string();
    let outcome = check(&[&address]).await;
    assert_eq!(outcome.status, 4, "{outcome:?}");
    let expected = "bowline: the server refused a correct handshake with the status 404\nno such feed\n";
    assert_eq!(outcome.stderr, expected);
}

#[tokio::test]
async fn another_machine_is_checked_with_yes_alone() {
    // An address of documentation (RFC 5737), to which nothing is sent.
    let resolve = ["--resolve", "example.com:80:192.0.2.1"];
    let outcome = check(&[&resolve[..], &["ws://example.com"]].concat()).await;
    assert_eq!(outcome.status, 2, "{outcome:?}");
    assert!(outcome.stderr.contains("cases would open connections to 192.0.2.1"), "{outcome:?}");
    assert!(outcome.stderr.contains("--yes"), "{outcome:?}");
}

#[tokio::test]
async fn unusable_options_exit_with_2_and_are_named() {
    for (arguments, text) in [
        (&["--case", "nonsense", "localhost:1"][..], "--case nonsense: there is no such case"),
        (&["--proxy", "http://localhost:1", "localhost:1"], "--proxy can't be used"),
        (&["--compress", "localhost:1"], "--compress can't be used"),
        (&["--wait", "soon", "localhost:1"], "--wait"),
        (&["--wait", "0s", "localhost:1"], "expected 1ms to 1h"),
        (&["--wait", "1000000years", "localhost:1"], "expected 1ms to 1h"),
        (&["--jobs", "0", "localhost:1"], "--jobs"),
        (&["--jobs", "18446744073709551615", "localhost:1"], "--jobs"),
        (&["http://["], "is no URL"),
        (&[], "<URL>"),
    ] {
        let outcome = check(arguments).await;
        assert_eq!(outcome.status, 2, "{arguments:?}: {outcome:?}");
        assert!(outcome.stderr.contains(text), "{arguments:?}: {outcome:?}");
    }
}

#[tokio::test]
async fn cases_are_selected_by_the_start_of_their_id_or_section() {
    let listed = async |arguments: &[&str]| {
        let outcome = check(&[&["--list", "localhost"], arguments].concat()).await;
        assert_eq!(outcome.status, 0, "{outcome:?}");
        let ids = outcome.stdout.lines().map(|line| line.split(' ').next().unwrap().to_owned());
        ids.collect::<Vec<_>>()
    };
    assert_eq!(listed(&["--case", "frame.rsv2"]).await, ["frame.rsv2"]);
    assert!(listed(&["--case", "text"]).await.iter().all(|id| id.starts_with("text.")));
    let of_section = listed(&["--case", "5.5"]).await;
    assert!(of_section.contains(&"control.ping-126".to_owned()), "{of_section:?}");
    assert!(of_section.contains(&"close.normal".to_owned()), "{of_section:?}");
    assert!(!of_section.contains(&"frame.rsv2".to_owned()), "{of_section:?}");
    let both = listed(&["--case", "frame.rsv2", "--case", "RFC 6455 8.1"]).await;
    assert!(both.len() > 10 && both.contains(&"frame.rsv2".to_owned()), "{both:?}");
    let without_url = check(&["--list"]).await;
    assert_eq!((without_url.status, without_url.stdout.lines().count()), (0, listed(&[]).await.len()));
    let (few, more) = (listed(&[]).await, listed(&["--strict", "--echo"]).await);
    assert!(few.iter().all(|id| more.contains(id)) && few.len() < more.len());
    let http2 = listed(&["--http", "2"]).await;
    assert!(http2.contains(&"http2.reset".to_owned()) && !http2.contains(&"handshake.key-twice".to_owned()));
}

#[tokio::test]
async fn json_is_one_object_a_line() {
    let address = serve(right_server()).await.to_string();
    let outcome = check(&["--json", "--case", "frame", &address]).await;
    let values: Vec<Value> = outcome.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (summary, cases) = values.split_last().unwrap();
    assert_eq!(summary["summary"]["passed"], cases.len());
    assert_eq!(summary["summary"]["failed"], 0);
    let rsv2 = cases.iter().find(|case| case["id"] == "frame.rsv2").unwrap();
    assert_eq!(rsv2["section"], "RFC 6455 5.2");
    assert_eq!(rsv2["level"], "MUST");
    assert_eq!(rsv2["verdict"], "passed");
}

#[tokio::test]
async fn junit_has_an_element_for_each_case() {
    let address = serve(right_server()).await.to_string();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("report.xml");
    let outcome = check(&["--junit", file.to_str().unwrap(), "--case", "close", &address]).await;
    outcome.expect_right();
    let xml = std::fs::read_to_string(&file).unwrap();
    assert!(xml.starts_with("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuite "), "{xml}");
    assert!(xml.contains("classname=\"bowline.close\" name=\"close.one-byte (RFC 6455 5.5.1): "), "{xml}");
    assert_eq!(xml.matches("<testcase ").count(), xml.matches("/>").count(), "{xml}");
    let outcome = check(&["--junit", "/no/such/folder/x", "--case", "frame.rsv1", &address]).await;
    assert_eq!(outcome.status, 1, "{outcome:?}");
    assert!(outcome.stderr.starts_with("bowline: --junit /no/such/folder/x: "), "{outcome:?}");
}

#[tokio::test]
async fn bytes_are_shown_on_demand() {
    let address = serve(right_server()).await.to_string();
    let outcome = check(&["-vv", "--case", "frame.rsv2", &address]).await;
    let lines: Vec<&str> = outcome.stdout.lines().map(str::trim_start).collect();
    assert!(lines.iter().any(|line| line.ends_with("-> GET / HTTP/1.1")), "{lines:?}");
    let sent = "-> text, RSV2, masked, 5 bytes: \"hello\" [a1 85 37 fa 21 3d 5f 9f 4d 51 58]";
    assert!(lines.iter().any(|line| line.ends_with(sent)), "{lines:?}");
    assert!(
        lines.iter().any(|line| line.contains("<- Close, unmasked, ") && line.contains(": 1002 ")),
        "{lines:?}"
    );
}

#[tokio::test]
async fn secrets_are_not_shown() {
    let address = serve(right_server()).await.to_string();
    for options in [&[][..], &["--http", "2"]] {
        let secrets = ["-vv", "--user", "joe:hunter2", "-H", "Cookie: session=hunter2"];
        let outcome =
            check(&[&secrets[..], options, &["--case", "handshake.valid", &address]].concat()).await;
        let text = outcome.stdout.to_ascii_lowercase();
        assert!(text.contains("authorization: [hidden]") && text.contains("cookie: [hidden]"), "{text}");
        assert!(!text.contains("hunter2") && !text.contains("basic"), "{text}");
    }
}

#[tokio::test]
async fn ids_are_unique() {
    for version in ["1.1", "2"] {
        let outcome = check(&["--list", "--strict", "--echo", "--http", version, "localhost"]).await;
        let mut ids: Vec<&str> = outcome.stdout.lines().map(|line| line.split(' ').next().unwrap()).collect();
        let count = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), count);
    }
}

#[tokio::test]
async fn headers_and_subprotocols_of_the_options_are_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = Server::new().on_request(async |head: Parts| match head.headers.get("x-token") {
        Some(token) if token == "secret" && head.uri.path() == "/feed" => Ok(head),
        _ => Err(Rejection::from(StatusCode::FORBIDDEN)),
    });
    tokio::spawn(async move { server.serve(listener, echo).await });
    let url = format!("ws://{address}/feed");
    check(&["-H", "X-Token: secret", "--case", "handshake", &url]).await.expect_right();
    assert_eq!(check(&["--case", "handshake", &url]).await.status, 4);
}

#[tokio::test]
async fn a_reader_that_has_seen_enough_is_no_failure() {
    let address = serve(right_server()).await.to_string();
    let mut child = command(&["-vv", &address]).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_u8().await.unwrap();
    drop(stdout);
    let mut stderr = String::new();
    let ended = async {
        child.stderr.take().unwrap().read_to_string(&mut stderr).await.unwrap();
        child.wait().await.unwrap()
    };
    let status = timeout(Duration::from_mins(1), ended).await.unwrap();
    assert_eq!((status.code(), &*stderr), (Some(0), ""));
}

#[tokio::test]
async fn a_page_instead_of_a_websocket_is_a_refusal() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n<html>\x1b[2J").await.unwrap();
        // Until the other side has seen enough.
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    let outcome = check(&[&address]).await;
    assert_eq!(outcome.status, 4, "{outcome:?}");
    assert!(outcome.stderr.ends_with("status 200\n<html>\\u{1b}[2J\n"), "{outcome:?}");
}
