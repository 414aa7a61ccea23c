//! The tasks that send messages, in each way of the API, and pings.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bowline::{
    CloseCode, Error, Message, MessageKind, Payload, Sender, TrySendError, WebSocketIo, WebSocketStreamSink,
};
use bytes::Bytes;
use futures_util::SinkExt;
use futures_util::stream::SplitSink;
use tokio::io::{AsyncWriteExt, WriteHalf};

use super::cancel::{Cancels, at_most, cancelling};
use super::ledger::Talk;
use super::plan::{Reading, SenderPlan, Side, Way};
use super::record::{LAST, Record, TORN};
use super::watchdog::Probe;

/// The writing half of a type that was made from a `WebSocket`.
pub enum Half {
    Sink(SplitSink<WebSocketStreamSink, Message>),
    Bytes(WriteHalf<WebSocketIo>),
}

/// A task that sends.
pub struct Outbox {
    talk: Arc<Talk>,
    side: Side,
    sender: Sender,
    probe: Probe,
    cancels: Cancels,
}

impl Outbox {
    pub fn new(talk: &Arc<Talk>, side: Side, sender: Sender, task: String) -> Self {
        let cancels = talk.cancels(side, &task);
        Self { talk: Arc::clone(talk), side, sender, probe: talk.probe(side, task), cancels }
    }

    /// Sends the planned messages of one sender, as long as the connection is open. Returns the half that was
    /// used.
    pub async fn send_all(mut self, index: u8, half: Option<Half>) -> Option<Half> {
        let plan = self.talk.plan.side(self.side).senders[usize::from(index)];
        let (half, sent) = match (plan.way, half) {
            (Way::SplitSink, Some(Half::Sink(mut sink))) => {
                let sent = self.send_by_sink(index, plan, &mut sink).await;
                (Some(Half::Sink(sink)), sent)
            }
            (Way::Bytes, Some(Half::Bytes(mut stream))) => {
                let sent = self.send_bytes(index, plan, &mut stream).await;
                (Some(Half::Bytes(stream)), sent)
            }
            (Way::Sink, half) => {
                let mut sink = self.sender.clone().into_sink();
                (half, self.send_by_sink(index, plan, &mut sink).await)
            }
            (_, half) => (half, self.send_each(index, plan).await),
        };
        if let Err(error) = sent {
            self.talk.sending_failed(self.side, &error);
        }
        half
    }

    async fn send_each(&mut self, index: u8, plan: SenderPlan) -> Result<(), Error> {
        for number in 0..plan.messages {
            let record = self.record(index, number, plan);
            match plan.way {
                Way::Prepared => {
                    let kind = self.talk.plan.kinds[self.side as usize];
                    let prepared = self.talk.run.prepared.get(self.talk.group.number, index, number, kind);
                    let send = self.probe.during("send of a Prepared", async {
                        cancelling!(self.cancels, self.sender.send(&*prepared))
                    });
                    send.await?;
                }
                Way::Json => {
                    let value = json(&record);
                    let send = self.probe.during("send_json", async {
                        cancelling!(self.cancels, self.sender.send_json(&value))
                    });
                    send.await?;
                }
                _ => self.send_somehow(&record).await?,
            }
            self.talk.accepted(self.side, index);
            if self.cancels.random.below(16) == 0 {
                self.probe.during("flush", async { cancelling!(self.cancels, self.sender.flush()) }).await?;
            }
        }
        Ok(())
    }

    async fn send_somehow(&mut self, record: &Record) -> Result<(), Error> {
        let choice = self.cancels.random.below(8);
        if choice < 2 || record.len > 256 * 1024 {
            if self.talk.plan.side(self.side.other()).reading == Reading::Bytes && record.sender != LAST {
                // A byte stream delivers a message before it is complete.
                self.talk.in_doubt(self.side, record.sender);
            }
            return self.write(record).await;
        }
        let bytes = record.encode();
        let text = (record.kind == MessageKind::Text)
            .then(|| std::str::from_utf8(&bytes).expect("the record is of text"));
        if choice == 2 {
            let tried = match text {
                Some(text) => self.sender.try_send(text).map_err(drop_message),
                None => self.sender.try_send(&bytes).map_err(drop_message),
            };
            match tried {
                Ok(()) => return Ok(()),
                // `send` reports the reason.
                Err(TrySendError::Full(()) | TrySendError::Closed(())) => {}
            }
        }
        let compress = [None, Some(true), Some(false)][self.cancels.random.below(3) as usize];
        let owned = Bytes::from(bytes.clone());
        let send = async {
            cancelling!(self.cancels, {
                let payload = match text {
                    Some(text) if choice < 5 => Payload::from(text),
                    Some(text) => Payload::from(text.to_owned()),
                    None if choice < 5 => Payload::from(&bytes),
                    None => Payload::from(owned.clone()),
                };
                let payload = match compress {
                    Some(compress) => payload.compress(compress),
                    None => payload,
                };
                self.sender.send(payload)
            })
        };
        self.probe.during("send", send).await
    }

    /// Sends a message through a `MessageWriter`, in pieces of any size.
    async fn write(&mut self, record: &Record) -> Result<(), Error> {
        let kind = record.kind;
        let open = async {
            loop {
                let mut writer = cancelling!(self.cancels, self.sender.writer(kind))?;
                // A writer that has sent nothing may be dropped without effect.
                match self.cancels.random.below(16) {
                    0 => {}
                    1 => drop(writer.write(b"gathered, and never sent").await),
                    _ => break Ok::<_, Error>(writer),
                }
            }
        };
        let mut writer = self.probe.during("writer", open).await?;
        if self.cancels.random.below(4) == 0 {
            writer = writer.compress(self.cancels.random.below(2) == 0);
        }
        let bytes = record.encode();
        let write = async {
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let most = 1 << (4 + self.cancels.random.below(15));
                let most = 1 + self.cancels.random.below(most) as usize;
                let piece = &rest[..most.min(rest.len())];
                let count = cancelling!(self.cancels, writer.write(piece)).map_err(error_of)?;
                rest = &rest[count..];
                if self.cancels.random.below(24) == 0 {
                    cancelling!(self.cancels, writer.flush()).map_err(error_of)?;
                }
            }
            Ok::<_, Error>(())
        };
        self.probe.during("write of a MessageWriter", write).await?;
        self.probe.during("finish of a MessageWriter", writer.finish()).await
    }

    async fn send_by_sink<S>(&mut self, index: u8, plan: SenderPlan, sink: &mut S) -> Result<(), Error>
    where
        S: SinkExt<Message, Error = Error> + Unpin,
    {
        for number in 0..plan.messages {
            let record = self.record(index, number, plan);
            let bytes = record.encode();
            let message = match record.kind {
                MessageKind::Text => String::from_utf8(bytes).expect("the record is of text").into(),
                MessageKind::Binary => Message::from(bytes),
            };
            self.talk.in_doubt(self.side, index);
            self.probe.during("send of a sink", sink.send(message)).await?;
            self.talk.accepted(self.side, index);
        }
        Ok(())
    }

    async fn send_bytes(
        &mut self,
        index: u8,
        plan: SenderPlan,
        stream: &mut WriteHalf<WebSocketIo>,
    ) -> Result<(), Error> {
        for number in 0..plan.messages {
            let bytes = self.record(index, number, plan).encode();
            self.probe
                .during("write_all of a WebSocketIo", stream.write_all(&bytes))
                .await
                .map_err(error_of)?;
            self.talk.accepted(self.side, index);
            if self.cancels.random.below(8) == 0 {
                let flush = async { cancelling!(self.cancels, stream.flush()) };
                self.probe.during("flush of a WebSocketIo", flush).await.map_err(error_of)?;
            }
        }
        Ok(())
    }

    /// Sends the last message.
    pub async fn send_last(mut self, half: &mut Option<Half>) {
        let last = self.last();
        let way = self.talk.plan.side(self.side).senders[0].way;
        let sent = match (way, half) {
            (Way::Bytes, Some(Half::Bytes(stream))) => {
                let bytes = last.encode();
                let write = self.probe.during("write_all of a WebSocketIo", stream.write_all(&bytes));
                write.await.map_err(error_of)
            }
            (Way::Json, _) => self.probe.during("send_json", self.sender.send_json(&json(&last))).await,
            _ => self.send_somehow(&last).await,
        };
        if let Err(error) = sent {
            self.talk.sending_failed(self.side, &error);
        }
    }

    /// Starts a message, and drops its writer in the middle.
    pub async fn tear(mut self) {
        let (kind, channel) = (self.kind(), self.talk.plan.number);
        let record = Record::new(kind, channel, TORN, 0, 64 << 10);
        let Ok(mut writer) = self.probe.during("writer", self.sender.writer(kind)).await else { return };
        let bytes = record.encode();
        let piece = &bytes[..bytes.len() / 2];
        // Both fail if the other side has closed.
        let _ = self.probe.during("write of a MessageWriter", writer.write_all(piece)).await;
        if self.cancels.random.below(2) == 0 {
            let flush = at_most(self.cancels.polls(), writer.flush());
            let _ = self.probe.during("flush of a MessageWriter", flush).await;
        }
        drop(writer);
        if !self.sender.is_closed() {
            // The compressor had held back all of the message: nothing was sent, and the drop has no effect.
            let ending = &self.talk.plan.ending;
            let close = self.sender.close(CloseCode(ending.code), &ending.reason);
            let _ = self.probe.during("close", close).await;
        }
    }

    /// Sends pings one after another.
    pub async fn ping(mut self, count: u32) {
        for _ in 0..count {
            let ping = async { cancelling!(self.cancels, self.sender.ping()) };
            if let Err(error) = self.probe.during("ping", ping).await {
                return self.talk.sending_failed(self.side, &error);
            }
            self.talk.run.counts.pings.fetch_add(1, Relaxed);
        }
    }

    /// Draws a message of a sender: its kind and size.
    fn record(&mut self, index: u8, number: u32, plan: SenderPlan) -> Record {
        let size = match self.cancels.random.below(8) {
            0 => self.cancels.random.below(plan.largest as u64 + 1) as usize,
            _ => self.cancels.random.below(plan.largest as u64 / 8 + 1) as usize,
        };
        let channel = self.talk.channel(self.side, index);
        Record::new(self.kind(), channel, index, number, size)
    }

    fn last(&mut self) -> Record {
        Record::new(self.kind(), self.talk.plan.number, LAST, 0, 0)
    }

    fn kind(&mut self) -> MessageKind {
        let any = if self.cancels.random.below(2) == 0 { MessageKind::Text } else { MessageKind::Binary };
        self.talk.plan.kinds[self.side as usize].unwrap_or(any)
    }
}

/// The type that `recv_json` receives.
pub type Json = (u32, u8, u32, String);

fn json(record: &Record) -> Json {
    let body = std::str::from_utf8(record.body()).expect("the record is of text");
    (record.channel, record.sender, record.number, body.to_owned())
}

fn drop_message<M>(error: TrySendError<M>) -> TrySendError<()> {
    match error {
        TrySendError::Full(_) => TrySendError::Full(()),
        TrySendError::Closed(_) => TrySendError::Closed(()),
    }
}

/// Returns the inner error, which always exists.
pub fn error_of(error: io::Error) -> Error {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()).cloned();
    inner.unwrap_or_else(|| panic!("an I/O error without an Error in it: {error:?}"))
}
