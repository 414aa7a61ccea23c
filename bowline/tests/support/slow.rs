//! Slow connections: the peer's end accepts and sends one byte per call, and every other call returns
//! `Pending`.

use bowline::{Acceptor, Connector, Limits, Role, WebSocket};

pub use super::modes::Codec;
use super::modes::{MODES, Mode};
use super::open_over;
use super::pairs::{CARRIERS, Carrier};
use super::wire::{Wire, wire};

pub type Case = (Role, Mode, Carrier);

/// Lists all modes in memory, and all other carriers without compression, for both roles.
pub fn cases() -> impl Iterator<Item = Case> {
    let modes = MODES.iter().map(|mode| (*mode, Carrier::Memory));
    let carriers = CARRIERS.iter().filter(|carrier| **carrier != Carrier::Memory);
    let cases = modes.chain(carriers.map(|carrier| (Mode::Plain, *carrier)));
    cases.flat_map(|(mode, carrier)| [(Role::Client, mode, carrier), (Role::Server, mode, carrier)])
}

/// Opens a slow connection.
pub async fn open_slow((role, mode, carrier): Case, write_buffer: usize) -> (WebSocket, Wire, Codec) {
    let (socket, wire, codec) = if carrier == Carrier::Memory {
        open_in_memory(role, mode, write_buffer)
    } else {
        let (socket, wire) = open_over(carrier, role, Limits::default().write_buffer(write_buffer)).await;
        (socket, wire, Codec::new(mode))
    };
    wire.be_slow();
    (socket, wire, codec)
}

/// Opens a connection in memory, at full speed.
pub fn open_in_memory(role: Role, mode: Mode, write_buffer: usize) -> (WebSocket, Wire, Codec) {
    let (stream, wire) = wire();
    let limits = Limits::default().write_buffer(write_buffer);
    let connector = Connector::new().limits(limits.clone());
    let socket = mode.adopt(role, &connector, &Acceptor::new().limits(limits), stream);
    (socket, wire, Codec::new(mode))
}
