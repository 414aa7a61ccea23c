//! `--json` and `--record`: lines of JSON, without loss.

use std::path::PathBuf;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::support::{Outcome, command, first_line, run, serve, url};

/// The lines of stdout or of a file, without their times.
fn lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| {
            let mut value: Value = serde_json::from_str(line).expect(line);
            let time = value.as_object_mut().unwrap().remove("t").unwrap();
            assert!((0.0..60.0).contains(&time.as_f64().unwrap()), "{line}");
            value
        })
        .collect()
}

fn output(outcome: &Outcome) -> Vec<Value> {
    assert_eq!(outcome.status, 0, "{}", outcome.stderr);
    lines(outcome.text())
}

fn file(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("bowline-talk-{}-{name}", std::process::id()))
}

#[tokio::test]
async fn messages_of_both_kinds_survive() {
    let address = serve().await;
    let stdin = concat!(
        r#"{"text":"a\u0000\"\n\u20ac"}"#,
        "\n\n",
        r#"{"t":7,"dir":"in","text":"skipped"}"#,
        "\n",
        r#"{"t":7,"dir":"out","binary":"AP8="}"#,
        "\n",
        r#"{"ping":"cHJvYmU="}"#,
        "\n",
        r#"{"pong":""}"#
    );
    let outcome = run(&[&url(address, "/echo"), "--json"], stdin.as_bytes()).await;
    let mut lines = output(&outcome);
    assert_eq!(lines.pop(), Some(json!({"dir": "in", "close": 1000, "reason": ""})));
    assert_eq!(
        lines,
        [
            json!({"dir": "in", "text": "a\u{0}\"\n\u{20ac}"}),
            json!({"dir": "in", "binary": "AP8="}),
            json!({"dir": "in", "pong": "cHJvYmU="}),
        ]
    );
}

#[tokio::test]
async fn the_input_decides_how_to_close() {
    let address = serve().await;
    let stdin = b"{\"text\":\"a\"}\n{\"close\":4001,\"reason\":\"bye\"}\n{\"text\":\"never sent\"}\n";
    let outcome = run(&[&url(address, "/echo"), "--json"], stdin).await;
    let lines = output(&outcome);
    // The replies to what was sent before are waited for.
    assert_eq!(
        lines,
        [json!({"dir": "in", "text": "a"}), json!({"dir": "in", "close": 4001, "reason": "bye"})]
    );
    // After a lost connection, no other one is opened just to be closed.
    let stdin = b"{\"text\":\"a\"}\n{\"close\":4001}\n";
    let outcome = run(&[&url(address, "/close/4002/"), "--json", "--reconnect"], stdin).await;
    assert_eq!((outcome.status, outcome.text().lines().count()), (6, 1), "{}", outcome.stderr);
}

#[tokio::test]
async fn the_peer_s_close_is_a_line_too() {
    let address = serve().await;
    let outcome = run(&[&url(address, "/close-now/4001/bye"), "--json"], b"").await;
    assert_eq!(outcome.status, 6);
    assert_eq!(lines(outcome.text()), [json!({"dir": "in", "close": 4001, "reason": "bye"})]);
}

/// A line that is skipped holds back no line before.
#[tokio::test]
async fn lines_before_a_skipped_one_are_sent_at_once() {
    let address = serve().await;
    let mut child = command(&[&url(address, "/echo"), "--json"]).spawn().unwrap();
    let stdin = child.stdin.as_mut().unwrap();
    stdin.write_all(b"{\"text\":\"a\"}\n\n{\"dir\":\"in\",\"text\":\"b\"}\n").await.unwrap();
    let line = first_line(&mut child).await;
    assert_eq!(lines(&line), [json!({"dir": "in", "text": "a"})]);
}

#[tokio::test]
async fn lines_that_are_none_of_these_are_errors() {
    let address = serve().await;
    let outcome = run(&[&url(address, "/echo"), "--json"], b"{\"txt\":\"a\"}\n").await;
    assert_eq!(outcome.status, 1);
    assert!(outcome.stderr.starts_with("bowline: stdin, line 1: expected an object"), "{}", outcome.stderr);
}

#[tokio::test]
async fn a_recording_has_both_directions_and_can_be_sent_again() {
    let address = serve().await;
    let path = file("recording");
    let arguments = [&url(address, "/echo"), "--record", path.to_str().unwrap()];
    run(&arguments, b"one\ntwo\n").await.expect(0, "one\ntwo\n");
    let recording = std::fs::read_to_string(&path).unwrap();
    let recorded = lines(&recording);
    for direction in ["out", "in"] {
        let of_direction: Vec<_> = recorded.iter().filter(|line| line["dir"] == direction).cloned().collect();
        assert_eq!(
            of_direction,
            [
                json!({"dir": direction, "text": "one"}),
                json!({"dir": direction, "text": "two"}),
                json!({"dir": direction, "close": 1000, "reason": ""}),
            ]
        );
    }
    let outcome = run(&[&url(address, "/echo"), "--json"], recording.as_bytes()).await;
    let texts: Vec<_> =
        output(&outcome).iter().filter_map(|line| line["text"].as_str().map(str::to_owned)).collect();
    assert_eq!(texts, ["one", "two"]);
    std::fs::remove_file(path).unwrap();
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_recording_on_a_full_disk_ends_but_not_the_conversation() {
    let address = serve().await;
    let outcome = run(&[&url(address, "/echo"), "--record", "/dev/full"], b"one\ntwo\n").await;
    let outcome = outcome.expect(1, "one\ntwo\n");
    assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
    assert!(outcome.stderr.starts_with("bowline: the recording ends here: --record /dev/full"));
    let outcome = run(&[&url(address, "/echo"), "--record", "/nowhere/at/all"], b"").await.expect(2, "");
    assert!(outcome.stderr.contains("--record /nowhere/at/all"), "{}", outcome.stderr);
    // Another failure has its own status.
    let arguments = [&url(address, "/close/4000/"), "--record", "/dev/full", "-m", "x"];
    run(&arguments, b"").await.expect(6, "");
}

#[tokio::test]
async fn an_earlier_recording_is_kept_until_a_connection_is_open() {
    let address = serve().await;
    let path = file("earlier");
    std::fs::write(&path, "earlier").unwrap();
    let record = ["--record", path.to_str().unwrap(), "-m", "x"];
    run(&[&[url(address, "/refuse").as_str()][..], &record].concat(), b"").await.expect(4, "");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "earlier");
    run(&[&[url(address, "/echo").as_str()][..], &record].concat(), b"").await.expect(0, "x\n");
    let recording = std::fs::read_to_string(&path).unwrap();
    assert_eq!(lines(&recording)[0], json!({"dir": "out", "text": "x"}));
    std::fs::remove_file(path).unwrap();
}

#[tokio::test]
async fn heads_frames_and_times_are_shown_on_demand() {
    let address = serve().await;
    let echo = url(address, "/echo");
    let arguments = [&echo, "-v", "--bearer", "secret", "-H", "X-Test: \u{e9}", "-m", "hi"];
    let outcome = run(&arguments, b"").await.expect(0, "hi\n");
    for line in [
        "> GET /echo HTTP/1.1\n",
        "> authorization: (hidden)",
        "> sec-websocket-key: (random)",
        "< HTTP/1.1 101 ",
    ] {
        assert!(outcome.stderr.contains(line), "{line}: {}", outcome.stderr);
    }
    assert!(!outcome.stderr.contains("secret"), "{}", outcome.stderr);
    let outcome = run(&[&echo, "-vv", "-m", "hi"], b"").await.expect(0, "hi\n");
    for line in ["> 0.", " s: text, 2 bytes", "< 0.", " s: close 1000"] {
        assert!(outcome.stderr.contains(line), "{line}: {}", outcome.stderr);
    }
    let outcome = run(&[&echo, "-t", "-m", "hi"], b"").await;
    let (time, text) = outcome.text().split_once(' ').unwrap();
    assert_eq!((time.len(), text), ("2026-01-01T00:00:00.000Z".len(), "hi\n"));
}
