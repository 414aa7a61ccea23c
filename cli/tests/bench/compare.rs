//! `bowline bench compare`, with servers in Rust and in Python.

use std::ffi::OsString;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::support::Ran;

/// The time that a comparison may take. One that takes longer hangs.
const LIMIT: Duration = Duration::from_mins(1);

/// The server of this library, which takes its port from its command.
fn bowline() -> String {
    format!("bowline={} serve :{{port}}", env!("CARGO_BIN_EXE_bowline"))
}

/// A server in Python with some faults, which takes its port from the environment.
fn python(faults: &str) -> String {
    format!("python=exec python3 {}/tests/bench/echo.py {faults}", env!("CARGO_MANIFEST_DIR"))
}

fn start(servers: &[String], options: &[&str]) -> Child {
    let path = std::env::var_os("PATH").unwrap_or_else(|| OsString::from("/usr/bin:/bin"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_bowline"));
    command.args(["bench", "compare"]);
    for server in servers {
        command.args(["--server", server]);
    }
    command.args(options).env_clear().env("PATH", path).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap()
}

async fn compare(servers: &[String], options: &[&str]) -> Ran {
    Ran::within(LIMIT, start(servers, options)).await
}

#[tokio::test]
async fn servers_of_any_language_are_compared() {
    let options = ["-c", "4", "-d", "500ms", "--rounds", "3", "--json"];
    let report = compare(&[bowline(), python("")], &options).await.report();
    for (at, name) in ["bowline", "python"].iter().enumerate() {
        let server = &report["servers"][at];
        assert_eq!(server["name"], *name);
        assert_eq!(server["samples"].as_array().unwrap().len(), 3);
        for figure in ["messages_per_s", "cpu_ns_per_message", "memory_bytes"] {
            let [min, median, max] = ["min", "median", "max"].map(|name| number(&server[figure][name]));
            assert!(min <= median && median <= max && max > 0, "{figure} of {server}");
        }
        // Less than this is no program, and no message takes a second.
        assert!(number(&server["memory_bytes"]["min"]) > 100 * 1024, "{server}");
        assert!(number(&server["cpu_ns_per_message"]["max"]) < 1_000_000_000, "{server}");
    }
    assert!(report["servers"][1]["command"].as_str().unwrap().contains("echo.py"), "{report}");
    assert!(report["machine"].as_str().unwrap().contains("Linux"), "{report}");
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

#[tokio::test]
async fn the_table_has_a_row_for_each_server() {
    let options = ["-c", "2", "-d", "500ms", "--rounds", "2", "--in-flight", "4", "--size", "1K", "--binary"];
    let ran = compare(&[bowline(), python("")], &options).await;
    assert_eq!(ran.status(), 0, "{}", ran.stderr());
    let text = ran.stdout();
    assert!(
        text.starts_with("echo on 2 connections, 1024 bytes, 4 in flight on each, 2 rounds of 500ms\n"),
        "{text}"
    );
    for part in ["messages/s", "CPU per message", "memory", "\nbowline ", "\npython ", "Linux"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(!text.contains('\x1b'), "no colours in a pipe: {text}");
    assert_eq!(ran.stderr(), "");
}

#[tokio::test]
async fn children_of_a_server_count() {
    let options = ["-c", "1", "-d", "500ms", "--rounds", "1", "--json"];
    let report = compare(&[python("child")], &options).await.report();
    let memory = number(&report["servers"][0]["memory_bytes"]["median"]);
    assert!(memory > 64 << 20, "the child holds as much: {memory}");
}

#[tokio::test]
async fn a_server_that_is_no_echo_is_not_measured() {
    let ran = compare(&[bowline(), python("text")], &["-d", "1h"]).await;
    assert_eq!(ran.status(), 8, "{}", ran.stderr());
    assert_eq!(ran.stdout(), "");
    assert_eq!(ran.stderr(), "bowline: python: no echo: a binary message came back as a text of 1 bytes\n");
}

#[tokio::test]
async fn a_server_that_fails_later_has_no_further_samples() {
    let options = ["-c", "2", "-d", "500ms", "--rounds", "2", "--json"];
    let ran = compare(&[python("ends"), bowline()], &options).await;
    assert_eq!(ran.status(), 5, "{}", ran.stderr());
    let report = ran.json();
    assert_eq!(report["servers"][0]["samples"].as_array().unwrap().len(), 0);
    assert!(report["servers"][0]["failure"].as_str().unwrap().contains("connection lost"), "{report}");
    assert_eq!(report["servers"][1]["samples"].as_array().unwrap().len(), 2, "{report}");
    assert!(ran.stderr().starts_with("bowline: python: "), "{}", ran.stderr());
}

#[tokio::test]
async fn a_server_that_does_not_start_is_not_reached() {
    let ran = compare(&["gone=exit 3".into()], &[]).await;
    assert_eq!(ran.status(), 3, "{}", ran.stderr());
    assert!(
        ran.stderr().starts_with("bowline: gone: the server ended before it listened"),
        "{}",
        ran.stderr()
    );
    assert!(ran.stderr().contains("exit status: 3"), "{}", ran.stderr());
    let ran = compare(&["mute=read line </dev/zero".into()], &["--start-timeout", "50ms"]).await;
    assert_eq!(ran.status(), 3, "{}", ran.stderr());
    assert!(ran.stderr().contains("(--start-timeout) took more than 50ms"), "{}", ran.stderr());
}

#[tokio::test]
async fn wrong_options_of_a_comparison_are_wrong_usage() {
    let server = ["a=true".to_owned()];
    let twice = ["a=true".to_owned(), "a=false".to_owned()];
    for (servers, options) in [
        (&[][..], &[][..]),
        (&["true".to_owned()], &[]),
        (&["=true".to_owned()], &[]),
        (&["a=".to_owned()], &[]),
        (&twice, &[]),
        (&server, &["-c", "0"]),
        (&server, &["-c", "100000000"]),
        (&server, &["-d", "0s"]),
        (&server, &["--rounds", "0"]),
        (&server, &["--in-flight", "0"]),
        (&server, &["--threads", "0"]),
        (&server, &["--path", "echo"]),
        (&server, &["ws://localhost/"]),
    ] {
        let ran = compare(servers, options).await;
        assert_eq!(ran.status(), 2, "{servers:?} {options:?}: {}", ran.stderr());
        assert_eq!(ran.stdout(), "");
    }
}

/// Starts a comparison that goes on for long, with a server whose child says when it is there, and holds
/// stderr open as long as it lives.
async fn started() -> Child {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let says = format!(
        "import socket, time; s = socket.create_connection((\"127.0.0.1\", {port})); s.sendall(b\"!\"); \
         s.recv(1); time.sleep(3600)"
    );
    let server = format!("{} serve :{{port}} & python3 -c '{says}' & wait", env!("CARGO_BIN_EXE_bowline"));
    let child = start(&[format!("both={server}")], &["-d", "1h", "-c", "1"]);
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut buf = [0];
    stream.read_exact(&mut buf).await.unwrap();
    stream.write_all(b"!").await.unwrap();
    child
}

/// Sends a signal to a comparison. `Ran::of` then waits until nothing holds its stderr any more.
async fn killed_by(signal: Signal) -> std::process::Output {
    let child = started().await;
    let process = Pid::from_raw(child.id().unwrap().try_into().unwrap()).unwrap();
    kill_process(process, signal).unwrap();
    timeout(LIMIT, child.wait_with_output()).await.expect("a server lives on").unwrap()
}

#[tokio::test]
async fn servers_end_with_an_interrupted_comparison() {
    assert_eq!(killed_by(Signal::INT).await.status.code(), Some(130));
    assert_eq!(killed_by(Signal::TERM).await.status.code(), Some(143));
}

#[tokio::test]
async fn servers_end_with_a_killed_comparison() {
    assert_eq!(killed_by(Signal::KILL).await.status.code(), None);
}
