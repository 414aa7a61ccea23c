//! The cost of one message to ten thousand connections, counted by the allocator.

use std::collections::HashSet;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bowline::{Acceptor, Adoption, Prepared, TrySendError, WebSocket};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::support::allocations::{ALLOCATIONS, TAKEN, held};
use crate::support::settle;

const PEERS: usize = 10_000;

/// The memory that a connection may use for a message held by reference: a few entries of its queue.
const BYTES_BY_REFERENCE: isize = 200;

/// The bytes that all peers received.
#[derive(Default)]
struct Given {
    /// The address of these bytes.
    places: HashSet<usize>,
    bytes: usize,
    writes: usize,
}

/// A silent peer that accepts everything or nothing.
struct Peer {
    given: Arc<Mutex<Given>>,
    takes: bool,
}

impl AsyncRead for Peer {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

impl AsyncWrite for Peer {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let mut given = self.given.lock().unwrap();
        given.places.insert(buf.as_ptr().addr());
        if !self.takes {
            return Poll::Pending;
        }
        given.bytes += buf.len();
        given.writes += 1;
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn peers(takes: bool) -> (impl Iterator<Item = Peer>, Arc<Mutex<Given>>) {
    let given = Arc::<Mutex<Given>>::default();
    let shared = Arc::clone(&given);
    (std::iter::repeat_with(move || Peer { given: Arc::clone(&shared), takes }).take(PEERS), given)
}

async fn connect_all(takes: bool) -> (Vec<WebSocket>, Arc<Mutex<Given>>) {
    let (peers, given) = peers(takes);
    let acceptor = Acceptor::new();
    let sockets = peers.map(|peer| acceptor.adopt(peer, Adoption::new()).unwrap()).collect();
    settle().await;
    (sockets, given)
}

fn forget(given: &Mutex<Given>) {
    let mut given = given.lock().unwrap();
    given.places.clear();
    given.bytes = 0;
    given.writes = 0;
}

#[tokio::test]
async fn it_is_encoded_once_and_not_copied() {
    for size in [1024, 10_000, 100_000] {
        let (sockets, given) = connect_all(true).await;
        let senders: Vec<_> = sockets.iter().map(WebSocket::sender).collect();
        let payload = vec![7; size];
        for round in 0..2 {
            forget(&given);
            let (allocations, taken) = (ALLOCATIONS.get(), TAKEN.get());
            let messages = [(); 2].map(|()| Prepared::new(payload.as_slice()));
            for sender in &senders {
                for message in &messages {
                    sender.try_send(message).unwrap();
                }
            }
            let (allocations, taken) = (ALLOCATIONS.get() - allocations, TAKEN.get() - taken);
            let given = given.lock().unwrap();
            // A copy in a buffer would have one address for both.
            assert_eq!(given.places.len(), 2, "{size}: all peers were given the memory of the messages");
            assert!((size..=size + 10).contains(&(given.bytes / 2 / PEERS)), "{size}: {}", given.bytes);
            if round > 0 {
                assert!(allocations < 20, "{size}: {allocations} allocations for {PEERS} peers");
                // Each message before and after encoding.
                let most = 2 * 3 * isize::try_from(size).unwrap() + 2000;
                assert!(taken < most, "{size}: {taken} bytes were taken in all");
            }
        }
    }
}

#[tokio::test]
async fn a_burst_takes_one_write_for_each_connection() {
    const BURST: usize = 16;
    const SIZE: usize = 16;
    let (sockets, given) = connect_all(true).await;
    let senders: Vec<_> = sockets.iter().map(WebSocket::sender).collect();
    let messages = [(); BURST].map(|()| Prepared::new([7; SIZE].as_slice()));
    for round in 0..2 {
        forget(&given);
        let allocations = ALLOCATIONS.get();
        for sender in &senders {
            let batch = sender.batch();
            for message in &messages {
                batch.try_send(message).unwrap();
            }
        }
        let allocations = ALLOCATIONS.get() - allocations;
        let writes = given.lock().unwrap().writes;
        assert_eq!(writes, PEERS);
        assert!(round == 0 || allocations < 20, "{allocations} allocations for {PEERS} peers");
        settle().await;
        let given = given.lock().unwrap();
        assert_eq!(given.writes, PEERS, "nothing was left to the drivers");
        assert_eq!(given.bytes, PEERS * BURST * (2 + SIZE));
    }
}

#[tokio::test]
async fn slow_peers_share_the_message_they_wait_for() {
    const SIZE: isize = 10_000;
    let (mut sockets, given) = connect_all(false).await;
    let senders: Vec<_> = sockets.iter().map(WebSocket::sender).collect();
    let before = held();
    let mut messages = 0;
    let message = loop {
        let message = Prepared::new(vec![7; 10_000]);
        let full = senders.iter().filter(|sender| sender.try_send(&message).is_err()).count();
        if full > 0 {
            assert_eq!(full, PEERS, "all are as full");
            break message;
        }
        messages += 1;
        settle().await;
    };
    // As many as fit below the high-water mark of 64 KiB, and one more.
    assert_eq!(messages, 7);
    assert_eq!(given.lock().unwrap().places.len(), 1, "all wait with the first");
    let each = (held() - before - (messages + 1) * SIZE) / isize::try_from(PEERS).unwrap();
    assert!(each < 3 * BYTES_BY_REFERENCE, "each peer holds {each} bytes of {} that wait", messages * SIZE);

    // Full is not closed.
    sockets.truncate(PEERS / 2);
    for (number, sender) in senders.iter().enumerate() {
        match sender.try_send(&message) {
            Err(TrySendError::Full(back)) if number < PEERS / 2 => {
                assert!(std::ptr::eq(back, &raw const message));
            }
            Err(TrySendError::Closed(back)) if number >= PEERS / 2 => {
                assert!(std::ptr::eq(back, &raw const message));
            }
            other => panic!("{number}: {other:?}"),
        }
    }
}

#[cfg(feature = "deflate")]
#[tokio::test]
async fn it_is_compressed_once_for_each_way_to_compress() {
    use bowline::{Compression, DeflateParameters};

    // A level and a window. Takeover makes no difference to a message that refers to no other.
    let ways = [(1, 15, false), (6, 15, false), (6, 15, true), (6, 10, false)];
    let (peers, given) = peers(true);
    let connect = |(number, peer)| {
        let (level, server_max_window_bits, takeover): (_, _, bool) = ways[number % ways.len()];
        let parameters = DeflateParameters {
            server_no_context_takeover: !takeover,
            server_max_window_bits,
            ..DeflateParameters::default()
        };
        let compression = Compression::ContextTakeover.options().level(level);
        Acceptor::new().compression(compression).adopt(peer, Adoption::new().compression(parameters)).unwrap()
    };
    let sockets: Vec<_> = peers.enumerate().map(connect).collect();
    settle().await;
    let text: String = (0..20_000).map(|number: u32| number.wrapping_mul(0x9E37_79B9).to_string()).collect();
    let (mut allocations, mut taken) = (0, 0);
    for _ in 0..2 {
        forget(&given);
        (allocations, taken) = (ALLOCATIONS.get(), TAKEN.get());
        let message = Prepared::new(text.as_str());
        for socket in &sockets {
            socket.try_send(&message).unwrap();
        }
        (allocations, taken) = (ALLOCATIONS.get() - allocations, TAKEN.get() - taken);
    }
    let given = given.lock().unwrap();
    assert_eq!(given.places.len(), 3, "one compressed form for each level and window");
    assert!(given.bytes < PEERS * text.len() * 2 / 3, "{}", given.bytes);
    assert!(allocations < 100, "{allocations} allocations for {PEERS} peers");
    assert!(taken < 3_000_000, "{taken} bytes were taken in all");
}
