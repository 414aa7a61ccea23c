//! The ends of conversations, and the status of the process.

use std::process::Stdio;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::process::Child;
use tokio::time::timeout;

#[cfg(unix)]
use crate::support::kill;
use crate::support::{PATIENCE, command, deaf_server, finish, first_line, run, serve, url};

#[tokio::test]
async fn the_number_of_messages_ends_a_conversation() {
    let address = serve().await;
    run(&[&url(address, "/echo"), "-n", "2"], b"1\n2\n3\n").await.expect(0, "1\n2\n");
    run(&[&url(address, "/echo"), "-n", "0", "-m", "1"], b"").await.expect(0, "");
}

#[tokio::test]
async fn a_pattern_ends_a_conversation() {
    let address = serve().await;
    run(&[&url(address, "/echo"), "--until", "^2"], b"1\n12\n2\n3\n").await.expect(0, "1\n12\n2\n");
}

#[tokio::test]
async fn an_end_before_the_goal_is_a_failure() {
    let address = serve().await;
    let outcome = run(&[&url(address, "/echo/1"), "-n", "2"], b"1\n").await.expect(1, "1\n");
    assert_eq!(outcome.stderr, "bowline: received 1 of 2 messages (--count)\n");
    let outcome = run(&[&url(address, "/echo"), "--until", "x", "--linger", "10ms"], b"1\n").await;
    assert_eq!(outcome.status, 1);
    assert!(outcome.stderr.contains("no message matched x (--until)"), "{}", outcome.stderr);
    // A code of the peer has its own status.
    let outcome = run(&[&url(address, "/close/4000/"), "-n", "2", "-m", "x"], b"").await.expect(6, "");
    assert_eq!(
        outcome.stderr,
        "bowline: closed by the peer: 4000\nbowline: received 0 of 2 messages (--count)\n"
    );
}

#[tokio::test]
async fn a_goal_is_waited_for_unless_the_wait_is_limited() {
    let address = serve().await;
    let goal = [&url(address, "/echo"), "-m", "a", "-n", "2"];
    // Longer than the silence that ends a conversation without a goal.
    run(&[&goal[..], &["--timeout", "1500ms"]].concat(), b"").await.expect(7, "a\n");
    run(&[&goal[..], &["--linger", "100ms"]].concat(), b"").await.expect(1, "a\n");
    let help = run(&["--help"], b"").await;
    let words = help.text().split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("forever with --receive, --count or --until"), "{words}");
}

#[tokio::test]
async fn the_peer_s_close_code_decides() {
    let address = serve().await;
    run(&[&url(address, "/close/1000/"), "-m", "x"], b"").await.expect(0, "");
    run(&[&url(address, "/close/1001/"), "-m", "x"], b"").await.expect(0, "");
    let outcome = run(&[&url(address, "/close/4001/logged%20out"), "-m", "x"], b"").await.expect(6, "");
    assert_eq!(outcome.stderr, "bowline: closed by the peer: 4001 \"logged%20out\"\n");
    let outcome = run(&[&url(address, "/close/1011/"), "-m", "x", "-q"], b"").await.expect(6, "");
    assert_eq!(outcome.stderr, "bowline: closed by the peer: 1011\n");
}

#[tokio::test]
async fn the_peer_s_close_ends_a_program_whose_stdin_is_open() {
    let address = serve().await;
    let child = command(&[&url(address, "/close-now/4001/bye")]).spawn().unwrap();
    let outcome = finish(child).await.expect(6, "");
    assert_eq!(outcome.stderr, "bowline: closed by the peer: 4001 \"bye\"\n");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let outcome = run(&[&url(address, "/")], b"").await.expect(3, "");
    assert!(outcome.stderr.starts_with("bowline: "), "{}", outcome.stderr);
    run(&["ws://does-not-exist.invalid/"], b"").await.expect(3, "");
}

#[tokio::test]
async fn a_lost_connection_has_a_status_of_its_own() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        // Dropped, the WebSocket ends its stream without a Close frame.
        drop(bowline::Acceptor::new().accept_stream(stream).await.unwrap());
    });
    let outcome = run(&[&url(address, "/"), "-r"], b"").await.expect(5, "");
    assert!(outcome.stderr.contains("without a Close frame"), "{}", outcome.stderr);
}

#[tokio::test]
async fn the_time_is_limited_on_demand() {
    let address = serve().await;
    let outcome = run(&[&url(address, "/greet"), "-r", "--timeout", "300ms"], b"").await.expect(7, "hello\n");
    assert_eq!(outcome.stderr, "bowline: timed out after 300ms (--timeout)\n");
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    run(&[&url(address, "/"), "--timeout", "300ms"], b"").await.expect(7, "");
}

#[tokio::test]
async fn wrong_arguments_are_usage_errors() {
    let file = std::env::temp_dir().join("bowline-does-not-exist.pem");
    let file = file.to_str().unwrap();
    for arguments in [
        &["ftp://localhost/"][..],
        &["ws://localhost/#fragment"],
        &["ws://localhost/", "--cacert", file],
        &["ws://localhost/", "--until", "("],
        &["ws://localhost/", "--close", "1006"],
        &["ws://localhost/", "--linger", "soon"],
        &["ws://localhost/", "--no-such-option"],
        &["ws://localhost/", "-r", "-m", "-"],
        &["ws://localhost/", "-s", "not a token"],
    ] {
        let outcome = run(arguments, b"").await;
        assert_eq!((outcome.status, outcome.text()), (2, ""), "{arguments:?}: {}", outcome.stderr);
        assert!(!outcome.stderr.is_empty(), "{arguments:?}");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_signal_closes_politely() {
    let address = serve().await;
    for (signal, status) in [("INT", 130), ("TERM", 143)] {
        let mut child = command(&[&url(address, "/greet"), "-r"]).spawn().unwrap();
        first_line(&mut child).await;
        kill(child.id().unwrap(), signal).await;
        finish(child).await.expect(status, "");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_flood_hides_no_signal() {
    let address = serve().await;
    let flood = url(address, "/flood");
    let mut child = command(&[&flood, "-r"]).stdout(Stdio::null()).spawn().unwrap();
    interrupt_until_ended(&mut child).await;
    finish(child).await.expect(130, "");
    // Nobody reads stdout: neither the messages nor the Close frame at the end can be written.
    let mut child = command(&[&flood, "-r", "--json"]).spawn().unwrap();
    assert!(first_line(&mut child).await.contains("flood"));
    interrupt_until_ended(&mut child).await;
    assert_eq!(finish(child).await.status, 130);
}

#[cfg(unix)]
#[tokio::test]
async fn one_signal_ends_a_program_whose_stdout_nobody_reads() {
    let address = serve().await;
    for (signal, status) in [("TERM", 143), ("INT", 130)] {
        let mut child = command(&[&url(address, "/flood"), "-r", "--json"]).spawn().unwrap();
        first_line(&mut child).await;
        // The queue of stdout is full soon, or nothing of this matters.
        tokio::time::sleep(Duration::from_millis(300)).await;
        kill(child.id().unwrap(), signal).await;
        let ended =
            timeout(Duration::from_secs(20), child.wait()).await.expect("the program ignores a signal");
        assert_eq!(ended.unwrap().code(), Some(status));
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_second_signal_ends_at_once() {
    let address = deaf_server().await;
    let mut child = command(&[&url(address, "/"), "-r"]).spawn().unwrap();
    first_line(&mut child).await;
    let start = std::time::Instant::now();
    interrupt_until_ended(&mut child).await;
    finish(child).await.expect(130, "");
    // Otherwise, the program waits 5 s for the answer.
    assert!(start.elapsed().as_secs() < 4);
}

#[tokio::test]
async fn a_server_that_answers_no_ping_is_given_up() {
    let address = deaf_server().await;
    let outcome = run(&[&url(address, "/"), "-r", "--ping", "100ms"], b"").await.expect(5, "hello\n");
    assert!(outcome.stderr.starts_with("bowline: "), "{}", outcome.stderr);
    let outcome = run(&[&url(address, "/"), "--ping", "0s"], b"").await.expect(2, "");
    assert!(outcome.stderr.contains("--ping none"), "{}", outcome.stderr);
    let address = serve().await;
    run(&[&url(address, "/echo"), "--ping", "none", "-m", "a"], b"").await.expect(0, "a\n");
}

/// Sends signals until the program ends. Signals of one kind that arrive together count as one.
#[cfg(unix)]
async fn interrupt_until_ended(child: &mut Child) {
    let interrupting = async {
        while timeout(Duration::from_millis(100), child.wait()).await.is_err() {
            kill(child.id().unwrap(), "INT").await;
        }
    };
    timeout(PATIENCE, interrupting).await.expect("the program ignores signals");
}
