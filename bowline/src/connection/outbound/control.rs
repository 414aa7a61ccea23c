//! The function of an application that sees the control frames of the peer.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bowline_proto::CloseFrame;
use bytes::Bytes;

/// A control frame that has arrived (RFC 6455 5.5).
///
/// `Connector::on_control` passes it to a function of the application. The library has handled the frame
/// already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlFrame {
    /// A Ping frame with its payload, of at most 125 bytes.
    Ping(Bytes),
    /// A Pong frame with its payload, of at most 125 bytes. Pongs that nobody asked for are included.
    Pong(Bytes),
    /// A Close frame, the first one or the answer to ours.
    Close(CloseFrame),
}

/// A function of the application that is called with each control frame, with no lock held.
#[derive(Clone)]
pub(crate) struct ControlHook(Arc<dyn Fn(ControlFrame) + Send + Sync>);

impl ControlHook {
    #[cfg(feature = "client")]
    pub(crate) fn new(function: impl Fn(ControlFrame) + Send + Sync + 'static) -> Self {
        Self(Arc::new(function))
    }

    /// Calls the function. A panic ends only this call: the caller has other work, such as waking tasks.
    pub(crate) fn call(&self, frame: ControlFrame) {
        let _ = catch_unwind(AssertUnwindSafe(|| (self.0)(frame)));
    }
}

impl fmt::Debug for ControlHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ControlHook")
    }
}
