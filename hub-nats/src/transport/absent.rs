//! TLS, in a build without the feature `tls`.

use bowline_hub::EngineError;
use tokio::net::TcpStream;

use crate::transport::Transport;

/// # Errors
///
/// Returns an error that names the feature.
pub(crate) async fn secure(_: TcpStream, _: &str) -> Result<Transport, EngineError> {
    Err(EngineError::new("TLS needs the feature `tls` of bowline-hub-nats"))
}
