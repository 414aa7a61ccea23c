//! What passes from the receiving half of a connection to the sending half.

use std::sync::Arc;

use bowline_proto::{CloseCode, CloseFrame};

use crate::connection::Connection;
use crate::connection::inbound::Inbound;
use crate::connection::inbound::batch::Hold;
use crate::connection::inbound::effect::Effect;
use crate::connection::outbound::Outbound;
use crate::error::Error;
use crate::events;
use crate::sync::MutexGuard;

/// How the connection has ended for us.
pub(crate) enum Ending {
    ClosedByPeer(Option<CloseCode>),
    /// The peer broke the protocol, or went over a limit.
    Failed(CloseCode, Error),
    Lost,
}

impl Effect {
    /// Does what is asked, and says if that is the end of the connection.
    pub(crate) fn apply(self, outbound: &mut Outbound) -> Option<Ending> {
        match self {
            Self::Answer(payload) => {
                outbound.answer(payload);
                None
            }
            Self::Ponged(payload) => {
                outbound.ponged(payload);
                None
            }
            // RFC 6455 5.5.1: the answer to a Close frame typically echoes its code.
            Self::Echo(frame) => {
                let text = frame.as_ref().map_or("no code".to_owned(), ToString::to_string);
                let error = Error::with_close_frame(
                    format!("the connection is closed: the peer closed it with {text}"),
                    frame.clone(),
                );
                outbound.close(frame.as_ref(), error);
                Some(Ending::ClosedByPeer(frame.as_ref().map(CloseFrame::code)))
            }
            Self::Fail(code, error) => {
                outbound.fail(code, error.clone());
                Some(Ending::Failed(code, error))
            }
            Self::HalfOpen(error) => {
                outbound.end_pings(error);
                None
            }
            Self::EndOfStream(error) => {
                outbound.stop_accepting(error);
                Some(Ending::Lost)
            }
            Self::Lost(error) => {
                outbound.close_transport(error);
                Some(Ending::Lost)
            }
        }
    }
}

impl Connection {
    /// Does what receiving asks of the sending half.
    pub(crate) fn apply(
        self: &Arc<Self>,
        inbound: MutexGuard<'_, Inbound>,
        effects: impl IntoIterator<Item = Effect>,
        hold: Hold,
    ) {
        // OutboundGuard before the other is given back: whoever reads on is answered behind this.
        let mut outbound = self.outbound();
        drop(inbound);
        match self.apply_locked(&mut outbound, effects) {
            Some(end) => {
                self.write_now(outbound);
                self.report_end(end);
            }
            None => self.write(outbound, hold),
        }
    }

    /// The same; to be followed by writing, and by [`report_end`](Self::report_end) if that was the end.
    pub(crate) fn apply_locked(
        &self,
        outbound: &mut Outbound,
        effects: impl IntoIterator<Item = Effect>,
    ) -> Option<Concluded> {
        // An answer to our Close frame decides nothing.
        let decides = outbound.closed().is_none();
        let mut ending = None;
        for effect in effects {
            if let Effect::Lost(error) = &effect {
                // What waits behind a cork is still written. If that fails, the reason is known already.
                outbound.stop_accepting(error.clone());
                self.write_locked(outbound);
            }
            ending = effect.apply(outbound).or(ending);
        }
        ending.map(|ending| Concluded { ending, decides })
    }

    /// The connection has ended for us.
    pub(crate) fn report_end(&self, Concluded { ending, decides }: Concluded) {
        self.settle();
        match ending {
            Ending::ClosedByPeer(code) if decides => {
                events::connection_closed(self.addresses.peer, events::Initiator::Peer, code);
            }
            Ending::Failed(code, error) => events::connection_failed(self.addresses.peer, code, &error),
            Ending::ClosedByPeer(_) | Ending::Lost => {}
        }
    }

    /// The application may hear of the end now, and do with the connection what it wants.
    pub(crate) fn settle(&self) {
        self.inbound().settle();
        self.waker.wake_reader();
        self.waker.wake_task();
    }
}

/// How the connection has ended for us, to be told once nothing is locked.
pub(crate) struct Concluded {
    ending: Ending,
    /// The first Close frame, or what stands in for it, was this.
    decides: bool,
}
