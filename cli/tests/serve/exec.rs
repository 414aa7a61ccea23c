//! `--exec`: a program for each connection.
#![cfg(unix)]

use bowline::{CloseCode, Connector, Message};

use crate::process::{Running, end_of, text, within};

#[tokio::test]
async fn a_message_is_a_line_in_both_directions() {
    let server = Running::start(&["--exec", "sed", "-u", "s/^/got /"]).await;
    let mut socket = server.connect().await;
    socket.send("one").await.unwrap();
    assert_eq!(text(&mut socket).await, "got one");
    socket.send("two\nthree").await.unwrap();
    assert_eq!(text(&mut socket).await, "got two");
    assert_eq!(text(&mut socket).await, "got three");
}

#[tokio::test]
async fn bytes_are_passed_on_as_they_are() {
    let server = Running::start(&["--binary", "--exec", "cat"]).await;
    let mut socket = server.connect().await;
    socket.send(b"\x00\xff\n\n").await.unwrap();
    assert_eq!(within(socket.recv()).await.unwrap(), Some(Message::from(b"\x00\xff\n\n")));
}

#[tokio::test]
async fn a_line_that_is_not_utf8_is_a_binary_message() {
    let server = Running::start(&["--exec", "printf", r"\377\nlast without end"]).await;
    let mut socket = server.connect().await;
    assert_eq!(within(socket.recv()).await.unwrap(), Some(Message::from(b"\xff")));
    assert_eq!(text(&mut socket).await, "last without end");
    assert_eq!(within(socket.recv()).await.unwrap(), None);
}

#[tokio::test]
async fn the_status_of_the_program_is_the_close_code() {
    let server = Running::start(&["--exec", "sh", "-c", "exit 3"]).await;
    let mut socket = server.connect().await;
    let error = end_of(&mut socket).await.unwrap();
    let frame = error.close_frame().unwrap();
    assert_eq!(frame.code(), CloseCode::INTERNAL_ERROR);
    assert!(frame.reason().contains('3'), "{frame}");

    let server = Running::start(&["--exec", "true"]).await;
    let mut socket = server.connect().await;
    assert!(end_of(&mut socket).await.is_none());
    assert_eq!(socket.close_frame().unwrap().code(), CloseCode::NORMAL);
}

#[tokio::test]
async fn a_program_that_is_not_there_is_told_on_both_sides() {
    let server = Running::start(&["--exec", "/nowhere/at all"]).await;
    let mut socket = server.connect().await;
    assert_eq!(end_of(&mut socket).await.unwrap().close_frame().unwrap().code(), CloseCode::INTERNAL_ERROR);
    server.signal(rustix::process::Signal::TERM);
    let (_, stderr) = server.end().await;
    assert!(stderr.contains("--exec /nowhere/at all"), "{stderr}");
}

#[tokio::test]
async fn the_request_is_in_the_environment_and_secrets_are_not() {
    let server = Running::start(&["--exec", "env"]).await;
    let connector = Connector::new()
        .header("X-Custom", "value")
        .header("Authorization", "Basic c2VjcmV0")
        .header("Cookie", "a=b")
        .header("X-Repeated", "1")
        .header("X-Repeated", "2")
        .header("X_Custom", "forged")
        .header("Proxy", "http://evil.example");
    let (mut socket, _) = within(connector.connect(server.at("/a?b=c"))).await.unwrap();
    let mut lines = Vec::new();
    while let Some(message) = within(socket.recv()).await.unwrap() {
        lines.push(message.into_text().unwrap().as_str().to_owned());
    }
    for expected in [
        "HTTP_X_CUSTOM=value",
        "REQUEST_URI=/a?b=c",
        "QUERY_STRING=b=c",
        "REMOTE_ADDR=127.0.0.1",
        "HTTP_COOKIE=a=b",
        "HTTP_X_REPEATED=1, 2",
    ] {
        assert!(lines.iter().any(|line| line == expected), "{expected} is not in {lines:?}");
    }
    for secret in ["HTTP_AUTHORIZATION", "HTTP_PROXY"] {
        assert!(!lines.iter().any(|line| line.starts_with(secret)), "{secret} is in {lines:?}");
    }
}

#[tokio::test]
async fn a_program_ends_with_its_connection() {
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("ended");
    let script = format!("cat >/dev/null; echo > {}", fifo.display());
    mkfifo(&fifo);
    let server = Running::start(&["--exec", "sh", "-c", &script]).await;
    let socket = server.connect().await;
    within(socket.close(CloseCode::NORMAL, "")).await.unwrap();
    assert_eq!(within(tokio::fs::read_to_string(&fifo)).await.unwrap(), "\n");
}

#[tokio::test]
async fn a_program_that_ignores_the_end_of_its_input_is_ended() {
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("ended");
    mkfifo(&fifo);
    // The grandchild holds the pipe open, so the read ends only when the whole group is gone.
    let script = format!("trap '' TERM; exec 3> {}; echo running; sleep 1000 & wait; wait", fifo.display());
    let server = Running::start(&["--exec", "sh", "-c", &script]).await;
    let reader = tokio::spawn(tokio::fs::read_to_string(fifo.clone()));
    let mut socket = server.connect().await;
    assert_eq!(text(&mut socket).await, "running");
    drop(socket);
    assert_eq!(within(reader).await.unwrap().unwrap(), "");
}

/// Children of the program keep its output open, and end with the connection.
#[tokio::test]
async fn a_program_that_leaves_others_behind_has_ended() {
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("ended");
    mkfifo(&fifo);
    let script = format!("exec 3> {}; sleep 1000 & echo started; exit 3", fifo.display());
    let server = Running::start(&["--exec", "sh", "-c", &script]).await;
    let reader = tokio::spawn(tokio::fs::read_to_string(fifo.clone()));
    let mut socket = server.connect().await;
    assert_eq!(text(&mut socket).await, "started");
    let error = end_of(&mut socket).await.unwrap();
    assert_eq!(error.close_frame().unwrap().code(), CloseCode::INTERNAL_ERROR);
    assert_eq!(within(reader).await.unwrap().unwrap(), "");
}

#[tokio::test]
async fn a_client_that_leaves_is_noticed_by_a_program_that_reads_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("ended");
    mkfifo(&fifo);
    let script = format!("exec 3> {}; echo running; exec sleep 1000", fifo.display());
    let server = Running::start(&["--exec", "sh", "-c", &script]).await;
    let reader = tokio::spawn(tokio::fs::read_to_string(fifo.clone()));
    let mut socket = server.connect().await;
    assert_eq!(text(&mut socket).await, "running");
    // More than a pipe holds.
    socket.send(vec![b'x'; 1024 * 1024]).await.unwrap();
    within(socket.close(CloseCode::NORMAL, "")).await.unwrap();
    assert_eq!(within(reader).await.unwrap().unwrap(), "");
}

#[tokio::test]
async fn the_programs_end_with_the_server() {
    for signals in [1, 2] {
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("ended");
        mkfifo(&fifo);
        let script =
            format!("trap '' TERM; exec 3> {}; echo running; sleep 1000 & wait; wait", fifo.display());
        let server = Running::start(&["--exec", "sh", "-c", &script]).await;
        let reader = tokio::spawn(tokio::fs::read_to_string(fifo.clone()));
        let mut socket = server.connect().await;
        assert_eq!(text(&mut socket).await, "running");
        server.signal(rustix::process::Signal::TERM);
        if signals == 2 {
            // The first one was seen.
            assert!(end_of(&mut socket).await.is_none());
            server.signal(rustix::process::Signal::TERM);
        }
        assert_eq!(server.end().await.0.code(), Some(143));
        assert_eq!(within(reader).await.unwrap().unwrap(), "");
    }
}

#[tokio::test]
async fn a_line_without_end_is_an_error() {
    let server = Running::start(&["--exec", "sh", "-c", "head -c 17000000 /dev/zero; exit 0"]).await;
    let mut socket = server.connect().await;
    let error = end_of(&mut socket).await.unwrap();
    assert_eq!(error.close_frame().unwrap().code(), CloseCode::INTERNAL_ERROR);
}

#[tokio::test]
async fn a_program_that_reads_nothing_blocks_nobody() {
    let server =
        Running::start(&["--exec", "sh", "-c", "while :; do echo still here; sleep 0.1; done"]).await;
    let mut socket = server.connect().await;
    let sender = socket.sender();
    let flood = tokio::spawn(async move {
        let block = vec![b'x'; 64 * 1024];
        while sender.send(&block).await.is_ok() {}
    });
    for _ in 0..5 {
        assert_eq!(text(&mut socket).await, "still here");
    }
    flood.abort();
}

fn mkfifo(path: &std::path::Path) {
    assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
}
