//! What an opening handshake has agreed on.

use bowline_proto::DeflateParameters;

/// What holds for a connection beside RFC 6455 itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct Agreed {
    pub(crate) subprotocol: Option<Box<str>>,
    pub(crate) deflate: Option<DeflateParameters>,
}

impl Agreed {
    /// A subprotocol at most.
    #[cfg(any(feature = "client", feature = "server"))]
    pub(crate) fn on_subprotocol(subprotocol: Option<&str>) -> Self {
        Self { subprotocol: subprotocol.map(Into::into), ..Self::default() }
    }
}
