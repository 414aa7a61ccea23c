//! Messages through pipes.

use std::process::Stdio;

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};

use crate::support::{command, finish, first_line, next_line, run, serve, url};

#[tokio::test]
async fn a_piped_line_receives_its_reply() {
    let address = serve().await;
    let outcome = run(&[&url(address, "/echo")], b"hello\n").await.expect(0, "hello\n");
    assert_eq!(outcome.stderr, "");
}

#[tokio::test]
async fn a_url_needs_no_scheme() {
    let address = serve().await;
    run(&[&format!("{address}/echo")], b"hello\n").await.expect(0, "hello\n");
    run(&[&format!(":{}/echo", address.port())], b"hello\n").await.expect(0, "hello\n");
}

#[tokio::test]
async fn every_line_is_a_message_and_the_last_needs_no_newline() {
    let address = serve().await;
    run(&[&url(address, "/echo")], b"one\n\nthree").await.expect(0, "one\n\nthree\n");
}

#[tokio::test]
async fn many_lines_arrive_in_order() {
    let address = serve().await;
    let lines = (0..20_000).map(|number| format!("line {number}\n")).collect::<Vec<_>>().concat();
    let outcome = run(&[&url(address, "/echo"), "-n", "20000"], lines.as_bytes()).await;
    assert_eq!(outcome.status, 0, "{}", outcome.stderr);
    assert!(outcome.text() == lines, "{} of {} bytes arrived", outcome.stdout.len(), lines.len());
}

#[tokio::test]
async fn a_message_of_64_mib_passes_whole() {
    let address = serve().await;
    let message = vec![b'x'; 64 << 20];
    let outcome = run(&[&url(address, "/echo"), "-n", "1"], &message).await;
    assert_eq!((outcome.status, outcome.stdout.len()), (0, message.len() + 1), "{}", outcome.stderr);
}

#[tokio::test]
async fn an_oversized_message_is_an_error_that_names_the_option() {
    let address = serve().await;
    let outcome = run(&[&url(address, "/echo"), "--max-size", "1K"], &[b'x'; 1025]).await.expect(5, "");
    assert!(outcome.stderr.contains("--max-size"), "{}", outcome.stderr);
}

#[tokio::test]
async fn messages_end_with_nul_on_demand() {
    let address = serve().await;
    run(&[&url(address, "/echo"), "-0"], b"a\nb\0c\0").await.expect(0, "a\nb\0c\0");
}

#[tokio::test]
async fn stdin_is_one_message_on_demand() {
    let address = serve().await;
    run(&[&url(address, "/echo"), "--whole", "-n", "1"], b"a\nb\n").await.expect(0, "a\nb\n\n");
}

#[tokio::test]
async fn binary_messages_are_raw_hex_or_base64() {
    let address = serve().await;
    let echo = url(address, "/echo");
    let outcome = run(&[&echo, "-b"], b"\0\n\xff").await;
    assert_eq!((outcome.status, &outcome.stdout[..]), (0, &b"\0\n\xff"[..]), "{}", outcome.stderr);
    run(&[&echo, "--hex"], b"00ff\n 7E 7e \n").await.expect(0, "00ff\n7e7e\n");
    run(&[&echo, "--base64"], b"AP8=\n").await.expect(0, "AP8=\n");
    run(&[&echo, "--hex", "-m", "00ff"], b"").await.expect(0, "00ff\n");
}

#[tokio::test]
async fn input_that_cannot_be_sent_is_an_error_with_its_line() {
    let address = serve().await;
    let echo = url(address, "/echo");
    // The reply to the line before arrives.
    let outcome = run(&[&echo], b"good\n\xff\n").await.expect(1, "good\n");
    assert!(
        outcome.stderr.starts_with("bowline: stdin, line 2: the text is not UTF-8"),
        "{}",
        outcome.stderr
    );
    assert_eq!(run(&[&echo, "--hex"], b"0\n").await.status, 1);
    assert_eq!(run(&[&echo, "--hex", "-m", "0"], b"").await.status, 2);
}

#[tokio::test]
async fn messages_of_the_command_line_are_sent_instead_of_stdin() {
    let address = serve().await;
    let echo = url(address, "/echo");
    run(&[&echo, "-m", "one", "-m", "-two"], b"stdin\n").await.expect(0, "one\n-two\n");
    run(&[&echo, "-m", "one", "-m", "-", "-m", "two"], b"stdin\n").await.expect(0, "one\nstdin\ntwo\n");
    run(&[&echo, "-m", "@@all"], b"").await.expect(0, "@all\n");
    let file = std::env::temp_dir().join(format!("bowline-talk-{}", std::process::id()));
    std::fs::write(&file, "of a file").unwrap();
    run(&[&echo, "-m", &format!("@{}", file.display())], b"").await.expect(0, "of a file\n");
    std::fs::remove_file(&file).unwrap();
    let outcome = run(&[&echo, "-m", &format!("@{}", file.display())], b"").await.expect(2, "");
    assert!(outcome.stderr.contains(file.to_str().unwrap()), "{}", outcome.stderr);
}

#[tokio::test]
async fn a_listener_without_stdin_listens_on() {
    let address = serve().await;
    for arguments in [&["-n", "1"][..], &[]] {
        let mut child = command(&[&[url(address, "/greet").as_str()], arguments].concat())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let line = first_line(&mut child).await;
        assert_eq!(line, "hello\n");
        if arguments.is_empty() {
            // Longer than the silence that ends a conversation.
            let ended = tokio::time::timeout(std::time::Duration::from_millis(1500), child.wait()).await;
            assert!(ended.is_err(), "{ended:?}");
        } else {
            finish(child).await.expect(0, "");
        }
    }
}

#[cfg(unix)]
#[tokio::test]
async fn closed_streams_do_no_harm() {
    let address = serve().await;
    let program = env!("CARGO_BIN_EXE_bowline");
    for (path, redirections, status) in [
        // A listener whose stdin is closed listens on, here until the server closes.
        ("/close-now/4000/", "<&-", 6),
        ("/echo", "2>&-", 0),
        ("/echo", ">&-", 0),
        ("/refuse", "2>&-", 4),
    ] {
        let line = format!("'{program}' '{}' {redirections}", url(address, path));
        let mut shell = tokio::process::Command::new("sh");
        shell.args(["-c", &line]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = shell.kill_on_drop(true).spawn().unwrap();
        let _ = child.stdin.take().unwrap().write_all(b"hello\n").await;
        assert_eq!(finish(child).await.status, status, "{path} {redirections}");
    }
}

#[tokio::test]
async fn replies_arrive_while_stdin_is_open() {
    let address = serve().await;
    let mut child = command(&[&url(address, "/echo")]).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    for line in ["one\n", "two\n"] {
        stdin.write_all(line.as_bytes()).await.unwrap();
        assert_eq!(next_line(&mut stdout).await, line);
    }
    drop(stdin);
    finish(child).await.expect(0, "");
}

#[tokio::test]
async fn a_reader_that_has_seen_enough_ends_the_program_quietly() {
    let address = serve().await;
    let mut child = command(&[&url(address, "/echo")]).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    stdin.write_all(b"one\n").await.unwrap();
    stdout.read_exact(&mut [0; 4]).await.unwrap();
    drop(stdout);
    stdin.write_all(b"two\nthree\n").await.unwrap();
    let outcome = finish(child).await;
    assert_eq!((outcome.status, outcome.stderr.as_str()), (0, ""));
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_full_disk_is_an_error() {
    let address = serve().await;
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let child = command(&[&url(address, "/greet"), "-r"]).stdout(full).spawn().unwrap();
    let outcome = finish(child).await;
    assert_eq!(outcome.status, 1);
    assert!(outcome.stderr.starts_with("bowline: writing to stdout failed"), "{}", outcome.stderr);
}

#[tokio::test]
async fn control_characters_reach_pipes_as_they_are() {
    let address = serve().await;
    let outcome = run(&[&url(address, "/hostile"), "-r"], b"").await.expect(6, "\u{1b}[2J\u{202e}text\n");
    assert_eq!(outcome.stderr, "bowline: closed by the peer: 4000 \"\\u{1b}[31mreason\"\n");
}

#[tokio::test]
async fn a_slow_reader_of_stdout_slows_the_server_down() {
    let address = serve().await;
    let mut child = command(&[&url(address, "/echo"), "-n", "64"]).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let line = [vec![b'x'; 1 << 20], vec![b'\n']].concat();
    let mut written = 0;
    // Queues in all places are full long before everything is written.
    while written < 64 {
        let write = stdin.write_all(&line);
        if tokio::time::timeout(std::time::Duration::from_secs(2), write).await.is_err() {
            break;
        }
        written += 1;
    }
    assert!(written < 60, "{written} messages of 1 MiB were taken in, and none was read");
}
