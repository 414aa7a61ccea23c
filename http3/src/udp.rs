//! The UDP socket of an endpoint, which hands over each packet alone.
//!
//! ```text
//! kernel --bursts--> Received --packets--> quinn --pieces of streams--> applications
//! ```
//!
//! Kernels deliver packets that arrived together as one burst of up to 64 KiB (GRO). quinn would copy a burst
//! into one piece of memory, which stays as long as one byte of one packet is unread. Its limits count the
//! packets alone, and a peer could occupy 64 KiB with each byte. So bursts are received here, and each packet
//! becomes a piece of its own. The copy is cheap beside the decryption that follows.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, Runtime, TokioRuntime, UdpPoller};

/// The largest burst, which is that of a UDP datagram.
const BURST_SIZE: usize = 64 * 1024;

/// The number of bursts that one system call receives.
const BURSTS: usize = 8;

/// Prepares a socket for quinn, in the current runtime.
pub(crate) fn endpoint_socket(socket: UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
    let inner = TokioRuntime.wrap_udp_socket(socket)?;
    if inner.max_receive_segments() == 1 {
        return Ok(inner);
    }
    Ok(Arc::new(PacketSocket { inner, received: Mutex::new(Received::new()) }))
}

struct PacketSocket {
    inner: Arc<dyn AsyncUdpSocket>,
    /// Only the task of the endpoint receives, so it never waits.
    received: Mutex<Received>,
}

/// The bursts that have arrived, as far as they were not handed over.
struct Received {
    memory: Vec<u8>,
    bursts: [RecvMeta; BURSTS],
    /// The number of bursts.
    count: usize,
    /// The burst that is handed over next, and the number of its bytes that were.
    next: usize,
    offset: usize,
}

impl Received {
    fn new() -> Self {
        // Pages that no burst has reached take no memory.
        let memory = vec![0; BURSTS * BURST_SIZE];
        Self { memory, bursts: [RecvMeta::default(); BURSTS], count: 0, next: 0, offset: 0 }
    }

    /// Receives bursts if there are none.
    fn poll_fill(&mut self, inner: &dyn AsyncUdpSocket, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.next == self.count {
            let mut slices = self.memory.chunks_mut(BURST_SIZE).map(IoSliceMut::new);
            let mut slices: [_; BURSTS] = std::array::from_fn(|_| slices.next().expect("one for each burst"));
            self.count = ready!(inner.poll_recv(cx, &mut slices, &mut self.bursts))?;
            (self.next, self.offset) = (0, 0);
        }
        Poll::Ready(Ok(()))
    }

    /// Takes out the next packet.
    fn next_packet(&mut self) -> Option<(&[u8], RecvMeta)> {
        if self.next == self.count {
            return None;
        }
        let burst = self.bursts[self.next];
        let start = self.next * BURST_SIZE + self.offset;
        let len = burst.stride.min(burst.len - self.offset);
        self.offset += len;
        // Also if the datagram is empty.
        if self.offset == burst.len {
            (self.next, self.offset) = (self.next + 1, 0);
        }
        Some((&self.memory[start..start + len], burst))
    }
}

impl AsyncUdpSocket for PacketSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.inner).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.inner.try_send(transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        packets: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut received = self.received.lock().unwrap_or_else(PoisonError::into_inner);
        ready!(received.poll_fill(&*self.inner, cx))?;
        let mut count = 0;
        for (space, meta) in packets.iter_mut().zip(metas) {
            let Some((packet, burst)) = received.next_packet() else { break };
            // A packet that is larger than this side accepts is cut, as without bursts.
            let len = packet.len().min(space.len());
            space[..len].copy_from_slice(&packet[..len]);
            *meta = RecvMeta { len, stride: len, ..burst };
            count += 1;
        }
        Poll::Ready(Ok(count))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.inner.max_transmit_segments()
    }

    // `max_receive_segments` is 1, as by default.

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}

impl fmt::Debug for PacketSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PacketSocket").field("inner", &self.inner).finish_non_exhaustive()
    }
}
