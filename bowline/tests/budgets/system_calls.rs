//! The system calls of an echo over TCP, counted by strace: one read and one write for each batch.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use bowline::{Acceptor, Adoption, Role};
use tokio::net::TcpListener;

use crate::support::frames::{Frame, encode_all};

const ROUNDS: usize = 1000;

/// The environment variable that tells the process that it is traced.
const TRACED: &str = "BOWLINE_TRACED";

/// The prefix of the line with which the traced process prints its address.
const LISTENING: &str = "listening on ";

#[test]
#[ignore = "needs strace"]
fn an_echo_takes_one_read_and_one_write_a_batch() {
    for depth in [1, 16] {
        let [reads, writes] = count_while_echoing(depth);
        // The end, and a batch that TCP has split in two.
        let expected = ROUNDS..=ROUNDS + ROUNDS / 20;
        assert!(expected.contains(&writes), "{writes} writes for {ROUNDS} batches of {depth}");
        assert!(expected.contains(&reads), "{reads} reads for {ROUNDS} batches of {depth}");
    }
}

/// The traced process.
#[test]
#[ignore = "for the other test"]
fn echo_one_connection() {
    if std::env::var_os(TRACED).is_none() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!("{LISTENING}{}", listener.local_addr().unwrap());
        let (stream, _) = listener.accept().await.unwrap();
        let mut socket = Acceptor::new().adopt(stream, Adoption::new()).unwrap();
        // Until the peer disconnects.
        while let Ok(Some(message)) = socket.recv().await {
            socket.send(message).await.unwrap();
        }
    });
}

/// Returns the numbers of reads and writes of the socket.
fn count_while_echoing(depth: usize) -> [usize; 2] {
    let summary = std::env::temp_dir().join(format!("bowline-strace-{}-{depth}", std::process::id()));
    let mut server = Command::new("strace")
        .args(["-f", "-qq", "-c", "-U", "name,calls", "-o"])
        .arg(&summary)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "system_calls::echo_one_connection", "--ignored", "--nocapture"])
        .env(TRACED, "1")
        .stdout(Stdio::piped())
        .spawn()
        .expect("strace is installed");
    let mut lines = BufReader::new(server.stdout.take().unwrap()).lines().map(Result::unwrap);
    let address = lines.find_map(|line| Some(line.split_once(LISTENING)?.1.to_owned())).unwrap();
    let mut peer = TcpStream::connect(address).unwrap();
    peer.set_nodelay(true).unwrap();
    let frames = vec![Frame::binary([7; 100]); depth];
    let batch = encode_all(Role::Client, &frames);
    let mut replies = vec![0; encode_all(Role::Server, &frames).len()];
    for _ in 0..ROUNDS {
        peer.write_all(&batch).unwrap();
        peer.read_exact(&mut replies).unwrap();
    }
    drop(peer);
    assert!(lines.any(|line| line.contains("test result: ok")));
    assert!(server.wait().unwrap().success());
    let text = std::fs::read_to_string(&summary).unwrap();
    std::fs::remove_file(&summary).unwrap();
    let count = |names: [&str; 2]| {
        let lines = text.lines().filter_map(|line| line.trim().split_once(char::is_whitespace));
        lines
            .filter(|(name, _)| names.contains(name))
            .map(|(_, calls)| calls.trim().parse::<usize>().unwrap())
            .sum()
    };
    [count(["recvfrom", "recvmsg"]), count(["sendto", "sendmsg"])]
}
