#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod close;
#[cfg(feature = "deflate")]
mod deflate;
mod digest;
mod error;
mod frame;
pub mod handshake;
pub mod header;
#[cfg(feature = "deflate")]
mod inflate;
mod mask;
mod negotiation;
mod receive;
mod send;
mod utf8;

pub use close::{CloseCode, CloseFrame, Escaped};
#[cfg(feature = "deflate")]
pub use deflate::Deflater;
pub use error::{Failure, Limit, Misuse, Violation};
pub use frame::{FrameHeader, MessageKind, Opcode, Role};
#[cfg(feature = "deflate")]
pub use inflate::{Inflated, Inflater};
pub use mask::mask;
pub use negotiation::{DeflateParameters, InvalidAnswer};
pub use receive::{Data, Event, ReceiveHalf, ReceiveLimits, WholeMessage};
pub use send::SendHalf;
pub use utf8::{InvalidUtf8, Utf8Validator};
