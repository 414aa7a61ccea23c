//! Use without an async runtime.

use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use bowline::blocking::{self, WebSocket, block_on};
use bowline::{Acceptor, CloseCode, Connector, ErrorKind, Message};

/// Accepts one client in a thread, and sends back what it sends.
fn echo() -> (String, thread::JoinHandle<Result<(), bowline::Error>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/", listener.local_addr().unwrap());
    let serving = thread::spawn(move || {
        let mut socket = blocking::accept(listener.accept().unwrap().0)?;
        while let Some(message) = socket.recv()? {
            socket.send(message)?;
        }
        Ok(())
    });
    (url, serving)
}

#[test]
fn messages_go_both_ways() {
    let (url, serving) = echo();
    let mut socket = blocking::connect(&url).unwrap();
    assert!(socket.get_ref().is_tcp_fast_path());
    for size in [0, 5, 70_000, 3_000_000] {
        let message = Message::from("x".repeat(size.min(1_000_000)));
        socket.send(message.clone()).unwrap();
        assert_eq!(socket.recv().unwrap(), Some(message));
    }
    // Other threads send by a handle.
    let sender = socket.get_ref().sender();
    thread::spawn(move || block_on(sender.send("from another thread"))).join().unwrap().unwrap();
    assert_eq!(socket.recv().unwrap(), Some("from another thread".into()));
    socket.flush().unwrap();
    assert_eq!(socket.close(CloseCode::NORMAL, "").unwrap().code(), CloseCode::NORMAL);
    assert_eq!(socket.recv().unwrap(), None);
    serving.join().unwrap().unwrap();
}

#[test]
fn a_wait_for_a_message_can_be_bounded() {
    let (client, server) = block_on(async { bowline::pair() });
    let (client, mut server) = (WebSocket::from(client), WebSocket::from(server));
    let error = server.recv_timeout(Duration::from_millis(10)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(!server.get_ref().is_closed());
    client.send("late").unwrap();
    assert_eq!(server.recv_timeout(Duration::from_secs(20)).unwrap(), Some("late".into()));
}

/// The connection lives in the background while the application does something else.
#[test]
fn pings_are_answered_between_calls() {
    let (client, server) = block_on(async { bowline::pair() });
    let server = WebSocket::from(server);
    // Nobody calls a method of the server's meanwhile.
    block_on(client.ping()).unwrap();
    drop(server);
}

#[test]
fn keepalive_goes_on_between_calls() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/", listener.local_addr().unwrap());
    let interval = Duration::from_millis(100);
    let (done, wait) = std::sync::mpsc::channel::<()>();
    let silent = thread::spawn(move || {
        let acceptor = Acceptor::new().keepalive(None);
        let (stream, _): (TcpStream, _) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        let socket = block_on(async {
            acceptor.accept_stream(tokio::net::TcpStream::from_std(stream).unwrap()).await
        });
        // An unread message keeps the pings behind it from being answered.
        let _socket = socket.unwrap();
        let _ = wait.recv();
    });
    let (socket, _) = block_on(Connector::new().keepalive(interval).connect(&url)).unwrap();
    socket.try_send("unread").unwrap();
    // The thread is not in a call while the peer is found dead.
    let started = Instant::now();
    while !socket.is_closed() {
        assert!(started.elapsed() < Duration::from_secs(20), "the keepalive does not run");
        thread::yield_now();
    }
    drop(done);
    silent.join().unwrap();
}

#[test]
fn a_connection_that_fails_says_why() {
    let error = blocking::connect("ws://127.0.0.1:1/").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    let error = blocking::connect("nothing").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

/// In a task, a call panics instead of blocking the other tasks, or itself, for ever.
#[tokio::test]
async fn a_call_in_a_task_panics() {
    let text = tokio::spawn(async { blocking::connect("ws://127.0.0.1:1/").map(drop) })
        .await
        .unwrap_err()
        .into_panic()
        .downcast::<&str>()
        .unwrap();
    assert!(text.contains("within a runtime"), "{text}");
    // In a thread for blocking calls, it is allowed.
    let blocked = tokio::task::spawn_blocking(|| blocking::connect("ws://127.0.0.1:1/").map(drop));
    assert_eq!(blocked.await.unwrap().unwrap_err().kind(), ErrorKind::Io);
    // A task of the background is a task, too.
    let nested = thread::spawn(|| block_on(async { tokio::spawn(async { block_on(async {}) }).await }));
    assert!(nested.join().unwrap().unwrap_err().is_panic());
}

#[test]
fn a_panic_leaves_the_background_as_it_was() {
    let (client, server) = block_on(async { bowline::pair() });
    let (client, mut server) = (WebSocket::from(client), WebSocket::from(server));
    thread::spawn(|| block_on(async { panic!("on purpose") })).join().unwrap_err();
    client.send("still here").unwrap();
    assert_eq!(server.recv().unwrap(), Some("still here".into()));
}

/// Many threads share the one in the background.
#[test]
fn many_threads_block_at_once() {
    let (client, server) = block_on(async { bowline::pair() });
    let mut server = WebSocket::from(server);
    let threads: Vec<_> = (0..16)
        .map(|_| {
            let sender = client.sender();
            thread::spawn(move || (0..100).try_for_each(|_| block_on(sender.send("x".repeat(10_000)))))
        })
        .collect();
    for _ in 0..1600 {
        assert_eq!(server.recv().unwrap().unwrap().len(), 10_000);
    }
    for thread in threads {
        thread.join().unwrap().unwrap();
    }
    // One thread receives while another one begins to close.
    let receiving = thread::spawn(move || server.recv());
    client.begin_close(CloseCode::NORMAL, "").unwrap();
    assert_eq!(receiving.join().unwrap().unwrap(), None);
}

#[test]
fn a_value_may_block_as_it_is_dropped() {
    struct Closing(WebSocket);
    impl Drop for Closing {
        fn drop(&mut self) {
            self.0.close(CloseCode::NORMAL, "dropped").unwrap();
        }
    }
    let (client, server) = block_on(async { bowline::pair() });
    let mut server = WebSocket::from(server);
    let closing = thread::spawn(move || {
        let _guard = Closing(client.into());
        panic!("on purpose");
    });
    assert_eq!(server.recv().unwrap(), None);
    assert_eq!(server.get_ref().close_frame().unwrap().reason(), "dropped");
    closing.join().unwrap_err();
}
