//! The stand-in for TLS without the feature `tls`. The types that are proof of TLS are uninhabited.

use std::any::Any;

use tokio::net::TcpStream;

#[cfg(feature = "client")]
pub(crate) use client::{ClientTls, IS_SUPPORTED, check, connect, server_name, with_alert};
#[cfg(feature = "server")]
pub(crate) use server::{ServerTls, TlsInfo};

pub(crate) fn tcp_of_any(_stream: &dyn Any) -> Option<&TcpStream> {
    None
}

pub(crate) fn drained_tcp_of_any(_stream: &dyn Any) -> Option<&TcpStream> {
    None
}

#[cfg(feature = "client")]
mod client {
    use std::error::Error as StdError;

    use crate::error::{Error, ErrorKind};
    use crate::transport::alpn::Alpn;
    use crate::transport::byte_stream::ByteStream;

    pub(crate) const IS_SUPPORTED: bool = false;

    #[derive(Clone, Debug)]
    pub(crate) enum ClientTls {}

    pub(crate) enum ServerName {}

    pub(crate) fn with_alert(text: &str, _error: &(dyn StdError + 'static)) -> String {
        text.to_owned()
    }

    pub(crate) fn server_name(_host: &str) -> Result<ServerName, Error> {
        Err(unsupported())
    }

    pub(crate) fn check(_config: Option<&ClientTls>) -> Result<(), Error> {
        Err(unsupported())
    }

    fn unsupported() -> Error {
        let text = "wss:// and https:// need the feature `ring` or `aws-lc-rs` of the crate bowline";
        Error::new(ErrorKind::InvalidInput, text)
    }

    #[allow(clippy::unused_async, reason = "the signature is that of the real one")]
    pub(crate) async fn connect(
        _config: Option<ClientTls>,
        _protocols: &[Alpn],
        server: ServerName,
        _stream: ByteStream,
    ) -> Result<(ByteStream, Alpn), Error> {
        match server {}
    }
}

#[cfg(feature = "server")]
mod server {
    use std::any::Any;

    use http::Extensions;

    use crate::error::Error;
    use crate::transport::IoStream;
    use crate::transport::alpn::Alpn;

    #[derive(Clone)]
    pub(crate) enum ServerTls {}

    #[derive(Clone)]
    pub(crate) enum TlsInfo {}

    impl TlsInfo {
        pub(crate) fn of_any(_stream: &dyn Any) -> Option<Self> {
            None
        }

        pub(crate) fn describe(&self, _extensions: &mut Extensions) {
            match *self {}
        }
    }

    impl ServerTls {
        pub(crate) fn with_protocols(self, _: &[Alpn]) -> Self {
            match self {}
        }

        #[expect(clippy::unused_async, reason = "the signature is that of the real one")]
        pub(crate) async fn accept<S: IoStream>(&self, _: S) -> Result<(S, Alpn, Option<TlsInfo>), Error> {
            match *self {}
        }
    }
}
