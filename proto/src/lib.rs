#![doc = include_str!("../README.md")]
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod close;
mod digest;
mod error;
mod frame;
pub mod handshake;
pub mod header;
mod mask;
mod receive;
mod send;
mod utf8;

pub use close::{CloseCode, CloseFrame};
pub use error::{Failure, Limit, Misuse, Violation};
pub use frame::{FrameHeader, MessageKind, Opcode, Role};
pub use mask::mask;
pub use receive::{Data, Event, ReceiveHalf, ReceiveLimits, WholeMessage};
pub use send::SendHalf;
pub use utf8::{InvalidUtf8, Utf8Validator};
