//! Stdout, written by a thread of its own.
//!
//! A slow reader of stdout slows down what is received from the server, but keeps neither pings from being
//! answered nor signals from being seen. At most [`AHEAD`] bytes and one message wait to be written.

use std::io::{self, Write};
use std::sync::Arc;
use std::thread;

use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// The number of bytes that may wait to be written.
const AHEAD: usize = 1 << 20;

/// The bytes that are gathered for one write.
const BATCH: usize = 64 * 1024;

/// Stdout, written by a thread of its own.
pub(in crate::talk) struct Stdout {
    jobs: UnboundedSender<Job>,
    room: Arc<Semaphore>,
    result: oneshot::Receiver<io::Result<()>>,
}

struct Job {
    bytes: Vec<u8>,
    _room: Option<OwnedSemaphorePermit>,
}

/// Stdout can't be written any more: see [`Stdout::finish`].
#[derive(Debug)]
pub(in crate::talk) struct StdoutEnded;

impl Stdout {
    /// Starts the thread, which writes to `sink`.
    pub(in crate::talk) fn new(mut sink: impl Write + Send + 'static) -> Self {
        let room = Arc::new(Semaphore::new(AHEAD));
        let (jobs, queue) = mpsc::unbounded_channel();
        let (report, result) = oneshot::channel();
        let closer = Arc::clone(&room);
        thread::spawn(move || {
            let result = write_all(queue, &mut sink);
            drop(sink);
            closer.close();
            let _ = report.send(result);
        });
        Self { jobs, room, result }
    }

    /// Waits for room, and queues bytes.
    pub(in crate::talk) async fn write(&self, bytes: Vec<u8>) -> Result<(), StdoutEnded> {
        let size = u32::try_from(bytes.len().clamp(1, AHEAD)).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room).acquire_many_owned(size).await.map_err(|_| StdoutEnded)?;
        self.jobs.send(Job { bytes, _room: Some(room) }).map_err(|_| StdoutEnded)
    }

    /// Queues bytes at once, for the few texts that are not the server's.
    pub(in crate::talk) fn write_now(&self, bytes: Vec<u8>) {
        // Whoever writes messages notices the end.
        let _ = self.jobs.send(Job { bytes, _room: None });
    }

    /// Waits until stdout can't be written any more.
    pub(in crate::talk) async fn ended(&self) {
        self.jobs.closed().await;
    }

    /// Waits until everything is written.
    pub(in crate::talk) async fn finish(self) -> io::Result<()> {
        drop(self.jobs);
        self.result.await.unwrap_or_else(|_| Err(io::Error::other("the thread that writes stdout has ended")))
    }
}

/// Writes what is queued, small messages together.
fn write_all(mut queue: UnboundedReceiver<Job>, sink: &mut impl Write) -> io::Result<()> {
    while let Some(Job { mut bytes, _room }) = queue.blocking_recv() {
        // The room of the later ones is free at once: a batch is bounded by itself.
        while bytes.len() < BATCH {
            match queue.try_recv() {
                Ok(next) => bytes.extend_from_slice(&next.bytes),
                Err(_) => break,
            }
        }
        sink.write_all(&bytes)?;
        sink.flush()?;
    }
    Ok(())
}
