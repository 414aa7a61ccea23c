//! One side of a connection, from its opening to its end.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bowline::{CloseCode, CloseFrame, Error, MessageKind, Sender, WebSocket};
use futures_util::SinkExt;
use tokio::io::AsyncWriteExt;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet, yield_now};
use tokio::time::sleep;

use super::cancel::{Cancels, cancelling};
use super::ledger::{Inbox, Talk};
use super::plan::{How, Side};
use super::receivers::{Receiver, Stop};
use super::senders::{Half, Outbox, error_of};
use super::watchdog::Probe;

/// A task that ends when this is dropped.
pub struct Task<T>(pub JoinHandle<T>);

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl<T> Future for Task<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        Pin::new(&mut self.0).poll(cx).map(|output| match output {
            Ok(output) => output,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(error) => panic!("nobody aborts the task, but {error}"),
            },
        })
    }
}

/// The result of `close`.
type Closed = Result<(), Error>;

/// The end as one side saw it.
#[derive(Debug)]
pub struct Outcome {
    pub end: End,
    /// The peer's Close frame.
    pub frame: Option<CloseFrame>,
    /// The result of `close`, if it was called.
    pub closed: Option<Closed>,
    /// Set if no part of an incomplete message is left.
    pub is_whole: bool,
    /// The error that interrupted the reading of a message.
    pub interruption: Option<Error>,
}

#[derive(Debug)]
pub enum End {
    /// `recv` returned `None`.
    Normal,
    Failed(Error),
    /// This side left before the end.
    Left,
    /// The watchdog found the connection hanging.
    GivenUp,
}

/// Runs one side until the connection has ended as planned.
pub async fn run(talk: &Arc<Talk>, side: Side, socket: WebSocket) -> Outcome {
    tokio::select! {
        outcome = attend(talk, side, socket) => outcome,
        () = talk.given_up.cancelled() => {
            Outcome { end: End::GivenUp, frame: None, closed: None, is_whole: true, interruption: None }
        }
    }
}

/// One side in progress.
struct Attendance<'a> {
    talk: &'a Arc<Talk>,
    side: Side,
    sender: Sender,
    receiver: Receiver,
    inbox: Inbox,
    cancels: Cancels,
    probe: Probe,
    /// The planned end in progress.
    closing: Option<Task<Closed>>,
    closed: Option<Closed>,
    tearing: Option<Task<()>>,
}

async fn attend(talk: &Arc<Talk>, side: Side, socket: WebSocket) -> Outcome {
    let sender = socket.sender();
    let kind = talk.plan.kinds[side.other() as usize].unwrap_or(MessageKind::Binary);
    let (receiver, half) = Receiver::new(talk.plan.side(side).reading, kind, socket);
    let has_half = half.is_some();
    let (sent, all_sent) = oneshot::channel();
    let sending = Task(tokio::spawn(send(Arc::clone(talk), side, sender.clone(), half, sent)));
    let mut attendance = Attendance {
        talk,
        side,
        sender,
        receiver,
        inbox: Inbox::new(talk, side.other()),
        cancels: talk.cancels(side, "receiver"),
        probe: talk.probe(side, "receiver"),
        closing: None,
        closed: None,
        tearing: None,
    };
    let end = attendance.receive_all(all_sent).await;
    let Attendance { sender, mut receiver, inbox, probe, closing, closed, .. } = attendance;
    let interruption = receiver.interruption.take();
    let mut closed = closed;
    if matches!(end, End::Left) {
        drop(receiver);
        if has_half {
            // The other half would keep the connection open.
            drop(sending);
        } else {
            probe.during("waiting for the senders", sending).await;
        }
    } else {
        check_again(talk, side, &mut receiver, &end).await;
        probe.during("waiting for the senders", sending).await;
        if let Some(closing) = closing {
            closed = Some(probe.during("waiting for close", closing).await);
        }
    }
    Outcome { end, frame: sender.close_frame(), closed, is_whole: inbox.is_empty(), interruption }
}

impl Attendance<'_> {
    /// Receives until the end, and begins the planned end when it is due.
    async fn receive_all(&mut self, all_sent: oneshot::Receiver<Option<Half>>) -> End {
        let (slow, ending) = (self.talk.plan.side(self.side).slow, &self.talk.plan.ending);
        let mut all_sent = ending.is_by(self.side).then_some(all_sent);
        loop {
            let is_enough = ending.after.is_some_and(|after| self.inbox.count >= after);
            if (is_enough || self.talk.has_ended(self.side.other()))
                && let Some(all_sent) = all_sent.take()
                && self.begin_end(all_sent).await
            {
                return End::Left;
            }
            pause(slow, &mut self.cancels).await;
            if let Some(end) = self.receive().await {
                return end;
            }
        }
    }

    /// Receives a message. Returns the end if there are no more.
    async fn receive(&mut self) -> Option<End> {
        let receive = self.receiver.receive(&mut self.inbox, &mut self.cancels);
        match self.probe.during("receive", receive).await {
            Ok(true) => None,
            Ok(false) => Some(End::Normal),
            Err(Stop::Failed(error)) => Some(End::Failed(error)),
            Err(Stop::Wrong(text)) => {
                self.talk.blame(format_args!("{:?}: {text}", self.side));
                Some(End::Left)
            }
        }
    }

    /// Begins the planned end. Returns whether this side leaves.
    async fn begin_end(&mut self, all_sent: oneshot::Receiver<Option<Half>>) -> bool {
        let (talk, side, ending) = (self.talk, self.side, &self.talk.plan.ending);
        match ending.how {
            How::Close if ending.reads_on => {
                let close = close_when_sent(Arc::clone(talk), side, self.sender.clone(), all_sent);
                self.closing = Some(Task(tokio::spawn(close)));
            }
            How::Close => {
                let half = if ending.after.is_none() { self.wait(all_sent).await } else { None };
                // Messages that have arrived wait until the close is complete, and later ones are discarded.
                self.closed = Some(close(talk, side, &self.sender, half).await);
            }
            How::Torn => {
                let outbox = Outbox::new(talk, side, self.sender.clone(), "tearing writer".to_owned());
                self.tearing = Some(Task(tokio::spawn(outbox.tear())));
            }
            How::Drop => return true,
            How::Leave => {
                self.wait(all_sent).await;
                return true;
            }
        }
        false
    }

    /// Waits until all messages are sent, and continues to receive, although no message comes.
    ///
    /// Otherwise the pongs after the last message would wait for a receive.
    async fn wait(&mut self, all_sent: oneshot::Receiver<Option<Half>>) -> Option<Half> {
        tokio::pin!(all_sent);
        tokio::select! {
            sent = &mut all_sent => return sent.ok().flatten(),
            // The connection has ended, and the next receive reports the end again.
            _ = self.receive() => {}
        }
        all_sent.await.ok().flatten()
    }
}

/// Runs all senders of one side.
async fn send(
    talk: Arc<Talk>,
    side: Side,
    sender: Sender,
    half: Option<Half>,
    sent: oneshot::Sender<Option<Half>>,
) {
    let plan = talk.plan.side(side);
    let mut tasks = JoinSet::new();
    let mut half = half;
    for (index, sender_plan) in plan.senders.iter().enumerate() {
        let outbox = Outbox::new(&talk, side, sender.clone(), format!("sender {index}"));
        // The first sender owns the half, if there is one.
        tasks.spawn_on(outbox.send_all(index as u8, half.take()), &talk.run.runtimes[sender_plan.runtime]);
    }
    for (index, (count, runtime)) in plan.pingers.iter().enumerate() {
        let outbox = Outbox::new(&talk, side, sender.clone(), format!("pinger {index}"));
        let count = *count;
        let ping = async move {
            outbox.ping(count).await;
            None
        };
        tasks.spawn_on(ping, &talk.run.runtimes[*runtime]);
    }
    while let Some(ended) = tasks.join_next().await {
        match ended {
            Ok(used) => half = half.or(used),
            Err(error) => talk.blame(format_args!("{side:?}: a sender panicked: {error}")),
        }
    }
    Outbox::new(&talk, side, sender, "last sender".to_owned()).send_last(&mut half).await;
    // The receiver may have been dropped.
    let _ = sent.send(half);
}

/// Closes the connection after all messages are sent, or at once if planned.
async fn close_when_sent(
    talk: Arc<Talk>,
    side: Side,
    sender: Sender,
    all_sent: oneshot::Receiver<Option<Half>>,
) -> Closed {
    let half = match talk.plan.ending.after {
        None => all_sent.await.ok().flatten(),
        Some(_) => None,
    };
    close(&talk, side, &sender, half).await
}

/// Closes the connection in one of the ways of the API.
async fn close(talk: &Arc<Talk>, side: Side, sender: &Sender, half: Option<Half>) -> Closed {
    let ending = &talk.plan.ending;
    let probe = talk.probe(side, "closer");
    let mut cancels = talk.cancels(side, "closer");
    if ending.code == 1000 && ending.reason.is_empty() {
        match half {
            Some(Half::Sink(mut sink)) => {
                return probe.during("close of a sink", sink.close()).await;
            }
            Some(Half::Bytes(mut stream)) => {
                let shutdown = probe.during("shutdown of a WebSocketIo", stream.shutdown());
                return shutdown.await.map_err(error_of);
            }
            None => {}
        }
    }
    let close = async { cancelling!(cancels, sender.close(CloseCode(ending.code), &ending.reason)) };
    probe.during("close", close).await.map(drop)
}

/// Delays the caller now and then.
async fn pause(one_in: u64, cancels: &mut Cancels) {
    if one_in > 0 && cancels.random.below(one_in) == 0 {
        if cancels.random.below(8) == 0 {
            sleep(Duration::from_millis(cancels.random.below(4))).await;
        } else {
            for _ in 0..cancels.random.below(4) {
                yield_now().await;
            }
        }
    }
}

/// Checks that the result stays the same after the end.
async fn check_again(talk: &Arc<Talk>, side: Side, receiver: &mut Receiver, end: &End) {
    let expected = match end {
        End::Failed(error) => Err(error.kind()),
        _ => Ok(()),
    };
    if let Some(again) = receiver.receive_again().await
        && again != expected
    {
        talk.blame(format_args!("{side:?}: after {end:?}, recv says {again:?}"));
    }
}
