//! The result of an opening handshake.

use bowline_proto::DeflateParameters;

#[cfg(any(feature = "client", feature = "server"))]
use crate::events::{self, HandshakeSubject};

/// The subprotocol and the extension that an opening handshake has negotiated.
#[derive(Clone, Debug, Default)]
pub(crate) struct Negotiated {
    pub(crate) subprotocol: Option<Box<str>>,
    pub(crate) deflate: Option<DeflateParameters>,
}

impl Negotiated {
    /// Creates the result of a handshake without extensions.
    #[cfg(any(feature = "client", feature = "server"))]
    pub(crate) fn on_subprotocol(subprotocol: Option<&str>) -> Self {
        Self { subprotocol: subprotocol.map(Into::into), ..Self::default() }
    }

    /// Reports to `tracing` that the handshake has been accepted.
    #[cfg(any(feature = "client", feature = "server"))]
    pub(crate) fn announce(&self, subject: HandshakeSubject<'_>) {
        events::handshake_accepted(subject, self.subprotocol.as_deref(), self.deflate);
    }
}
