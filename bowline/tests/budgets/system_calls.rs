//! The system calls of an echo. Over TCP, strace counts one read and one write for each batch. Over HTTP/2,
//! all WebSockets of a connection share a few.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::pin::Pin;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};

use bowline::{Acceptor, Adoption, Connector, Role, Server};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpListener;

use crate::support;
use crate::support::frames::{Frame, encode_all};
use crate::support::http::soon;

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

/// A stream that counts the reads and the writes that moved bytes.
struct Counted {
    stream: tokio::net::TcpStream,
    calls: Arc<[AtomicUsize; 2]>,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.calls[0].fetch_add(usize::from(buf.filled().len() > before), Relaxed);
        read
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.calls[1].fetch_add(usize::from(matches!(written, Poll::Ready(Ok(_)))), Relaxed);
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Each message of 1 KiB is a DATA frame of its own, which HTTP/2 alone would write by itself.
#[cfg(feature = "http2")]
#[tokio::test]
async fn the_websockets_of_an_http2_connection_share_reads_and_writes() {
    const WEBSOCKETS: usize = 100;
    let calls = Arc::<[AtomicUsize; 2]>::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let counted = Arc::clone(&calls);
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let server = Server::new().http2();
        server.serve_connection(Counted { stream, calls: counted }, None, support::http::echo).await
    });
    let connection = Connector::new().connect_http2(format!("ws://{address}")).await.unwrap();
    let mut sockets = Vec::new();
    for _ in 0..WEBSOCKETS {
        sockets.push(connection.connect("/").await.unwrap().0);
    }
    let before = calls.each_ref().map(|calls| calls.load(Relaxed));
    for _ in 0..10 {
        for socket in &sockets {
            socket.try_send(vec![7; 1024]).unwrap();
        }
        for socket in &mut sockets {
            assert_eq!(soon(socket.recv()).await.unwrap().unwrap().len(), 1024);
        }
    }
    let [reads, writes] = calls.each_ref().map(|calls| calls.load(Relaxed));
    let [reads, writes] = [(reads - before[0]) / 10, (writes - before[1]) / 10];
    // 100 KiB in each direction.
    assert!(reads <= 20, "{reads} reads for {WEBSOCKETS} messages");
    assert!(writes <= 20, "{writes} writes for {WEBSOCKETS} messages");
}
