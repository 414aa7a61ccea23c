//! The parts that a connection is made of.

use std::time::Duration;

use bowline_proto::Role;

use crate::connection::outbound::control::ControlHook;
use crate::handshake::negotiated::Negotiated;
use crate::limits::Limits;
use crate::message::compression::{Compression, CompressionOptions};
use crate::transport::Transport;

/// The parts of a connection whose opening handshake is done.
pub(crate) struct ConnectionParts<'a> {
    pub(crate) transport: Transport,
    pub(crate) role: Role,
    /// The bytes that were received after the handshake.
    pub(crate) leftover: &'a [u8],
    pub(crate) config: &'a Config,
    pub(crate) negotiated: Negotiated,
}

/// The settings of a connection that both builders have.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) limits: Limits,
    pub(crate) keepalive: Option<Duration>,
    pub(crate) compression: CompressionOptions,
    /// The application's function for control frames. Only clients have one.
    pub(crate) control_hook: Option<ControlHook>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            keepalive: Some(Duration::from_secs(20)),
            compression: Compression::Off.options(),
            control_hook: None,
        }
    }
}
