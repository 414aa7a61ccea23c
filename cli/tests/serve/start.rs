//! The start and the end of the program: addresses, wrong options, signals.

use std::process::Output;

use bowline::CloseCode;

use crate::process::{Running, bowline, end_of, text, within};

async fn output(arguments: &[&str]) -> Output {
    within(bowline().args(arguments).output()).await.unwrap()
}

#[tokio::test]
async fn wrong_options_are_named_and_exit_with_2() {
    for (arguments, named) in [
        (&["serve", "nonsense"][..], "nonsense"),
        (&["serve", "localhost:99999"], "99999"),
        (&["serve", "--to", "tcp:localhost"], "tcp:HOST:PORT"),
        (&["serve", "--to", "ftp://localhost"], "ftp"),
        (&["serve", "--broadcast", "--to", "tcp:localhost:1"], "--broadcast"),
        (&["serve", "--files", "/nowhere/at/all"], "/nowhere/at/all"),
        (&["serve", "--cert", "/nowhere.pem", "--key", "/nowhere.pem"], "/nowhere.pem"),
        (&["serve", "--cert", "/nowhere.pem"], "--key"),
        (&["serve", "--max-size", "huge"], "huge"),
        (&["serve", ":0", "--allow-origin", "a b"], "a b"),
        (&["serve", ":0", "-s", "a b"], "a b"),
        (&["serve", "--demo", "--broadcast"], "--demo"),
        (&["serve", "--binary"], "--exec"),
    ] {
        let output = output(arguments).await;
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {stderr}");
        assert!(stderr.contains(named), "{arguments:?}: {stderr}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}

#[tokio::test]
async fn an_address_in_use_is_named() {
    let server = Running::start(&[]).await;
    let output = output(&["serve", server.authority()]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains(server.authority()));
}

#[cfg(unix)]
#[tokio::test]
async fn a_signal_closes_connections_and_is_the_status() {
    use rustix::process::Signal;

    for (signal, status) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let server = Running::start(&[]).await;
        let mut socket = server.connect().await;
        socket.send("hello").await.unwrap();
        assert_eq!(text(&mut socket).await, "hello");
        server.signal(signal);
        assert!(end_of(&mut socket).await.is_none());
        assert_eq!(socket.close_frame().unwrap().code(), CloseCode::GOING_AWAY);
        assert_eq!(server.end().await.0.code(), Some(status));
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_unix_socket_is_served_and_a_stale_one_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let server = Running::start_at(&format!("unix:{}", path.display()), &[]).await;
    let stream = tokio::net::UnixStream::connect(&path).await.unwrap();
    let (mut socket, _) =
        within(bowline::Connector::new().connect_over("ws://localhost", stream).into_future()).await.unwrap();
    socket.send("hello").await.unwrap();
    assert_eq!(text(&mut socket).await, "hello");
    server.signal(rustix::process::Signal::TERM);
    server.end().await;
    assert!(!path.exists());
}

#[tokio::test]
async fn verbose_servers_tell_of_connections() {
    let server = Running::start(&["-vv"]).await;
    let mut socket = within(bowline::connect(server.at("/path"))).await.unwrap();
    socket.send("hello").await.unwrap();
    assert_eq!(text(&mut socket).await, "hello");
    within(socket.close(CloseCode(4000), "bye")).await.unwrap();
    #[cfg(unix)]
    server.signal(rustix::process::Signal::TERM);
    let (_, stderr) = server.end().await;
    for expected in ["#1 127.0.0.1", "/path", "text, 5 bytes", "4000", "bye"] {
        assert!(stderr.contains(expected), "{expected} is not in {stderr}");
    }
}

/// Nobody reads the standard error of the server here, and its pipe is soon full.
#[tokio::test]
async fn a_stderr_that_nobody_reads_stops_no_connection() {
    let server = Running::start(&["-vv"]).await;
    let mut socket = server.connect().await;
    for _ in 0..10_000 {
        socket.send("hello").await.unwrap();
        assert_eq!(text(&mut socket).await, "hello");
    }
    #[cfg(unix)]
    server.signal(rustix::process::Signal::TERM);
    let (_, stderr) = server.end().await;
    assert!(stderr.contains("#1 text, 5 bytes"));
}

#[tokio::test]
async fn the_demonstration_ends_by_itself() {
    let output = output(&["serve", "--demo"]).await;
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(stdout.contains("< hello") && stdout.contains("1000"), "{stdout}");
}

#[tokio::test]
async fn completions_and_the_man_page_are_printed() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let output = output(&["completions", shell]).await;
        assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains("broadcast"));
    }
    for (arguments, expected) in [
        (&["man"][..], [".TH bowline", "EXIT STATUS"]),
        (&["man", "serve"], [".TH bowline-serve", "broadcast"]),
        (&["man", "bench", "compare"], [".TH bowline-bench-compare", "NAME=COMMAND"]),
    ] {
        let page = output(arguments).await;
        let page = String::from_utf8_lossy(&page.stdout);
        assert!(expected.iter().all(|expected| page.contains(expected)), "{arguments:?}: {page}");
    }
    let unknown = output(&["man", "nonsense"]).await;
    assert_eq!(unknown.status.code(), Some(2));
}
