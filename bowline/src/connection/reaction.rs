//! The reactions of the outbound half to what was received.

use std::sync::Arc;

use bowline_proto::CloseCode;

use crate::connection::Connection;
use crate::connection::inbound::Inbound;
use crate::connection::inbound::batch::Hold;
use crate::connection::inbound::effect::Effect;
use crate::connection::outbound::Outbound;
use crate::connection::outbound::control::ControlFrame;
use crate::error::Error;
use crate::events;
use crate::sync::MutexGuard;

/// The way in which the connection has ended.
pub(crate) enum Ending {
    ClosedByPeer(CloseCode),
    /// The peer violated the protocol, or exceeded a limit.
    Failed(CloseCode, Error),
    /// The transport has failed, or has ended without a Close frame.
    Lost,
}

impl Effect {
    /// Carries out the effect. Returns an [`Ending`] if the effect ends the connection.
    pub(crate) fn apply(self, outbound: &mut Outbound) -> Option<Ending> {
        match self {
            Self::Answer(payload) => {
                outbound.answer(payload);
                None
            }
            Self::Ponged(payload) => {
                outbound.ponged(&payload);
                None
            }
            // RFC 6455 5.5.1: the answer to a Close frame typically echoes the status code received.
            Self::Echo(frame) => {
                outbound.show(|| ControlFrame::Close(frame.clone()));
                let text = format!("the connection is closed: the peer closed it with {frame}");
                outbound.close(&frame, Error::with_close_frame(text, frame.clone()));
                Some(Ending::ClosedByPeer(frame.code()))
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
    /// Carries out the effects of what was received, and writes.
    pub(crate) fn apply(
        self: &Arc<Self>,
        inbound: MutexGuard<'_, Inbound>,
        effects: impl IntoIterator<Item = Effect>,
        hold: Hold,
    ) {
        // The outbound half is locked before the inbound half is unlocked. Otherwise another thread could
        // read the next ping and answer it first, and the answers would not keep the order of the pings.
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

    /// Carries out the effects of what was received. The caller writes afterwards, and calls
    /// [`report_end`](Self::report_end) with the result, if there is one.
    pub(crate) fn apply_locked(
        &self,
        outbound: &mut Outbound,
        effects: impl IntoIterator<Item = Effect>,
    ) -> Option<Concluded> {
        // The peer's answer to our Close frame decides nothing.
        let decides = outbound.closed().is_none();
        let mut ending = None;
        for effect in effects {
            if let Effect::Lost(error) = &effect {
                // Replies that are held back are still written. If that fails, the reason is known already.
                outbound.stop_accepting(error.clone());
                self.write_locked(outbound);
            }
            ending = effect.apply(outbound).or(ending);
        }
        ending.map(|ending| Concluded { ending, decides })
    }

    /// Reports the end of receiving, with no lock held.
    pub(crate) fn report_end(&self, Concluded { ending, decides }: Concluded) {
        self.settle();
        match ending {
            Ending::ClosedByPeer(code) if decides => {
                events::connection_closed(self.addresses.peer, events::Initiator::Peer, Some(code));
            }
            Ending::Failed(code, error) => events::connection_failed(self.addresses.peer, code, &error),
            Ending::ClosedByPeer(_) | Ending::Lost => {}
        }
    }

    /// Lets the application learn of the end. From then on the application may use or drop the connection.
    pub(crate) fn settle(&self) {
        self.inbound().settle();
        self.waker.wake_reader();
        self.waker.wake_driver();
    }
}

/// The end of a connection, to be reported once no lock is held.
pub(crate) struct Concluded {
    ending: Ending,
    /// Set if the connection was open before: this was the first Close frame, or what stands in for it.
    decides: bool,
}
