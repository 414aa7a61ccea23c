//! The bytes that a peer which doesn't read can be behind: `Limits::unsent`, `Limits::write_buffer`.

use bowline::{Acceptor, Adoption, Connector, Limits, TrySendError, WebSocket};
use tokio::net::{TcpListener, TcpStream};

use crate::support::settle;

const MESSAGE: usize = 1000;

const KIB: usize = 1024;

async fn connected() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (client, listener.accept().await.unwrap().0)
}

/// Sends until the peer, which reads nothing, makes no more room. Returns the number of bytes.
async fn fill(socket: &WebSocket) -> usize {
    let mut accepted = 0;
    // The transport may accept more once the peer's kernel has.
    for _ in 0..10 {
        loop {
            match socket.try_send(&[7; MESSAGE]) {
                Ok(()) => accepted += MESSAGE,
                Err(TrySendError::Full(_)) => break,
                Err(TrySendError::Closed(_)) => panic!("the connection is closed"),
            }
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        settle().await;
    }
    accepted
}

#[tokio::test]
async fn a_slow_peer_is_behind_by_a_bounded_number_of_bytes() {
    for unsent in [None, Some(4 * KIB), Some(16 * KIB), Some(128 * KIB)] {
        let (_peer, stream) = connected().await;
        let mut limits = Limits::default();
        limits.unsent = unsent;
        let socket = Acceptor::new().limits(limits).adopt(stream, Adoption::new()).unwrap();
        println!("{unsent:?} {} {}", fill(&socket).await, socket.pending());
    }
}
