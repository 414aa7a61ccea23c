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
use super::receivers::{Receiver, Stop, error_of};
use super::senders::{Half, Outbox};

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

/// How one side saw the end.
#[derive(Debug)]
pub struct Outcome {
    pub end: End,
    /// The peer's Close frame.
    pub frame: Option<CloseFrame>,
    /// What `close` returned, if it was called.
    pub closed: Option<Result<Option<CloseFrame>, Error>>,
    /// Nothing is left of a message that did not arrive whole.
    pub is_whole: bool,
    /// Why a message was not read to its end.
    pub interruption: Option<Error>,
}

#[derive(Debug)]
pub enum End {
    /// `recv` returned `None`.
    Normal,
    Failed(Error),
    /// This side left before the end.
    Left,
    /// It was found to hang.
    GivenUp,
}

/// Talks, until the connection has ended in the way that is planned.
pub async fn run(talk: &Arc<Talk>, side: Side, socket: WebSocket) -> Outcome {
    tokio::select! {
        outcome = attend(talk, side, socket) => outcome,
        () = talk.given_up.cancelled() => {
            Outcome { end: End::GivenUp, frame: None, closed: None, is_whole: true, interruption: None }
        }
    }
}

async fn attend(talk: &Arc<Talk>, side: Side, socket: WebSocket) -> Outcome {
    let (plan, ending) = (talk.plan.side(side), &talk.plan.ending);
    let sender = socket.sender();
    let kind = talk.plan.kinds[side.other() as usize].unwrap_or(MessageKind::Binary);
    let (mut receiver, half) = Receiver::new(plan.reading, kind, socket);
    let has_half = half.is_some();
    let (sent, all_sent) = oneshot::channel();
    let sending = Task(tokio::spawn(send(Arc::clone(talk), side, sender.clone(), half, sent)));
    let probe = talk.probe(side, "receiver");
    let mut cancels = talk.cancels(side, "receiver");
    let mut inbox = Inbox::new(talk, side.other());
    let mut all_sent = ending.is_by(side).then_some(all_sent);
    let (mut closing, mut closed) = (None, None);
    let end = loop {
        let is_due = talk.has_ended(side.other()) || ending.after.is_some_and(|after| inbox.count >= after);
        if is_due && let Some(all_sent) = all_sent.take() {
            match ending.how {
                How::Close if ending.reads_on => {
                    let close = close_when_sent(Arc::clone(talk), side, sender.clone(), all_sent);
                    closing = Some(Task(tokio::spawn(close)));
                }
                How::Close => {
                    let half = match ending.after {
                        Some(_) => None,
                        None => wait(&mut receiver, &mut inbox, &mut cancels, all_sent).await,
                    };
                    // Messages that have arrived wait meanwhile, and others are thrown away.
                    closed = Some(close(talk, side, &sender, half).await);
                }
                How::Torn => {
                    let outbox = Outbox::new(talk, side, sender.clone(), "tearing writer".to_owned());
                    tokio::spawn(outbox.tear());
                }
                How::Drop => break End::Left,
                How::Leave => {
                    wait(&mut receiver, &mut inbox, &mut cancels, all_sent).await;
                    break End::Left;
                }
            }
        }
        pause(plan.slow, &mut cancels).await;
        let received = probe.during("receive", receiver.receive(&mut inbox, &mut cancels)).await;
        match received {
            Ok(true) => {}
            Ok(false) => break End::Normal,
            Err(Stop::Failed(error)) => break End::Failed(error),
            Err(Stop::Wrong(text)) => {
                talk.blame(format_args!("{side:?}: {text}"));
                break End::Left;
            }
        }
    };
    if !matches!(end, End::Left) {
        check_again(talk, side, &mut receiver, &end).await;
    }
    let interruption = receiver.interruption.take();
    if matches!(end, End::Left) {
        drop(receiver);
        if has_half {
            // The other half would keep the connection open.
            drop(sending);
        } else {
            probe.during("waiting for the senders", sending).await;
        }
    } else {
        probe.during("waiting for the senders", sending).await;
        if let Some(closing) = closing {
            closed = Some(probe.during("waiting for close", closing).await);
        }
    }
    Outcome { end, frame: sender.close_frame(), closed, is_whole: inbox.is_empty(), interruption }
}

/// Does all of the sending of one side.
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
        // The first has the half, if any has.
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
    // There may be nobody to whom it matters.
    let _ = sent.send(half);
}

/// Waits until all is sent, and receives meanwhile, though nothing comes: or the pongs behind the end of the last
/// message would wait for that.
async fn wait(
    receiver: &mut Receiver,
    inbox: &mut Inbox,
    cancels: &mut Cancels,
    all_sent: oneshot::Receiver<Option<Half>>,
) -> Option<Half> {
    tokio::pin!(all_sent);
    tokio::select! {
        sent = &mut all_sent => return sent.ok().flatten(),
        // The end, of which the next receive tells again.
        _ = receiver.receive(inbox, cancels) => {}
    }
    all_sent.await.ok().flatten()
}

/// Closes the connection once all is sent, or at once if that is planned.
async fn close_when_sent(
    talk: Arc<Talk>,
    side: Side,
    sender: Sender,
    all_sent: oneshot::Receiver<Option<Half>>,
) -> Result<Option<CloseFrame>, Error> {
    let half = match talk.plan.ending.after {
        None => all_sent.await.ok().flatten(),
        Some(_) => None,
    };
    close(&talk, side, &sender, half).await
}

/// Closes the connection, in one of the ways there are for that.
async fn close(
    talk: &Arc<Talk>,
    side: Side,
    sender: &Sender,
    half: Option<Half>,
) -> Result<Option<CloseFrame>, Error> {
    let ending = &talk.plan.ending;
    let probe = talk.probe(side, "closer");
    let mut cancels = talk.cancels(side, "closer");
    if ending.code == 1000 && ending.reason.is_empty() {
        match half {
            Some(Half::Sink(mut sink)) => {
                return probe.during("close of a sink", sink.close()).await.map(|()| None);
            }
            Some(Half::Bytes(mut stream)) => {
                let shutdown = probe.during("shutdown of a ByteStream", stream.shutdown());
                return shutdown.await.map(|()| None).map_err(error_of);
            }
            None => {}
        }
    }
    let close = async { cancelling!(cancels, sender.close(CloseCode(ending.code), &ending.reason)) };
    probe.during("close", close).await
}

/// Comes late, now and then.
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

/// After the end, the answer stays the same.
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
