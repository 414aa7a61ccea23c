//! A subscription whose call fails at the moment in which its last messages are sent.

use std::pin::Pin;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use bowline::{Acceptor, Adoption, Connector, Message, pair};
use bowline_hub::{
    Engine, EngineError, ErrorKind, HistoryPage, HubLimits, Inbox, Memory, Position, Start, Topic,
};
use bowline_hub_testing::client::{builder, receive};
use bowline_hub_testing::{PATIENCE, TestResult};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex};
use tokio::runtime::{Builder, Handle};
use tokio::task::yield_now;
use tokio::time::timeout;

const TOPIC: &str = "chat/a";
/// The text that waits in the transport.
const HELD: &str = "held";
/// The topic to which nothing can be published.
const NEVER: &str = "never";

/// An engine with a topic whose publications last for the time of the limit.
struct Patient(Memory);

impl Engine for Patient {
    fn start(&mut self, inbox: Inbox) -> Result<(), EngineError> {
        Engine::start(&mut self.0, inbox)
    }
    async fn publish(&self, topic: &Topic, message: Message, tag: u64) -> Result<Position, EngineError> {
        if topic.name() == NEVER {
            std::future::pending::<()>().await;
        }
        Engine::publish(&self.0, topic, message, tag).await
    }
    async fn want(&self, topic: &Topic) -> Result<(), EngineError> {
        self.0.want(topic).await
    }
    async fn unwant(&self, topic: &Topic) -> Result<(), EngineError> {
        self.0.unwant(topic).await
    }
    async fn history(&self, topic: &Topic, after: u64, limit: usize) -> Result<HistoryPage, EngineError> {
        self.0.history(topic, after, limit).await
    }
}

/// A transport that stands still with the first write of `HELD`, until it is let go.
struct Gate {
    stream: DuplexStream,
    reached: Sender<()>,
    open: Option<Receiver<()>>,
}

impl AsyncRead for Gate {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Gate {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        if bytes.windows(HELD.len()).any(|part| part == HELD.as_bytes()) {
            if let Some(open) = self.open.take() {
                // A test that has failed waits for nothing.
                let _ = self.reached.send(());
                let _ = open.recv();
            }
        }
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The worker has sent the last message, and has not yet answered when the time is over. The application
/// tries again from the same position.
#[test]
fn a_subscription_that_is_confirmed_too_late_repeats_no_message() -> TestResult {
    // The tasks of the connections may wait for the transport, too, and need other threads.
    let runtime = || Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let (hubs, connections) = (runtime()?, runtime()?);
    hubs.block_on(async { timeout(PATIENCE, confirm_too_late(connections.handle())).await? })
}

async fn confirm_too_late(connections: &Handle) -> TestResult {
    let limits = HubLimits::default().engine_timeout(Duration::from_secs(1));
    let hub = builder(Patient(Memory::new())).workers(1).limits(limits).build()?;
    let (reached, is_reached) = channel();
    let (open, released) = channel();
    let (stream, far) = duplex(64 * 1024);
    let gate = Gate { stream, reached, open: Some(released) };
    let ((_slow_client, slow), server, mut client) = {
        let _context = connections.enter();
        let server = Acceptor::new().adopt(gate, Adoption::new())?;
        (pair(), server, Connector::new().adopt(far, Adoption::new())?)
    };
    // While somebody is slow, the topic keeps its last frames.
    let slow_member = hub.join(&slow)?;
    let _start = slow_member.subscribe(TOPIC, None).await?;
    slow.send(vec![0; 200 * 1024]).await?;
    let since = hub.publish(TOPIC, "known").await?;
    while hub.stats().catching_up == 0 {
        yield_now().await;
    }
    hub.publish(TOPIC, HELD).await?;

    let (runtime, clock) = (Handle::current(), hub.clone());
    let opener = thread::spawn(move || {
        is_reached.recv().expect("the message is written");
        // This call began after that of the subscriber, and has the same time.
        let late = runtime.block_on(clock.publish(NEVER, "")).unwrap_err();
        open.send(()).expect("the transport waits");
        late
    });
    let member = hub.join(&server)?;
    let start = loop {
        match member.subscribe(TOPIC, since).await {
            Ok(start) => break start,
            Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable),
        }
    };
    assert!(matches!(start, Start::Live(_)), "{start:?}");
    assert_eq!(opener.join().expect("no panic").kind(), ErrorKind::Unavailable);
    hub.publish(TOPIC, "next").await?;
    assert_eq!(receive(&mut client).await?.1, HELD);
    assert_eq!(receive(&mut client).await?.1, "next");
    Ok(())
}
