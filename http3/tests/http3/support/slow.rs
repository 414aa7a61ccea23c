//! Slow connections: the peer accepts and sends one byte per call, every other call returns `Pending`, and
//! flow control lets few bytes pass.

use bowline::{Limits, Role, WebSocket};

use super::frames::Frame;
use super::pairs::{CARRIERS, Carrier, with_narrow_peer};
use super::wire::{self, Wire};

/// The window of each stream, in bytes: less than most messages, so frames are cut off anywhere.
const WINDOW: u32 = 40;

pub(crate) type Case = (Role, Carrier);

pub(crate) fn cases() -> impl Iterator<Item = Case> {
    CARRIERS.iter().flat_map(|carrier| [(Role::Client, *carrier), (Role::Server, *carrier)])
}

/// Opens a slow connection.
pub(crate) async fn open_slow((role, _): Case, write_buffer: usize) -> (WebSocket, Wire, Codec) {
    let limits = Limits::default().write_buffer(write_buffer);
    let (socket, peer) = with_narrow_peer(role, limits, WINDOW).await;
    let wire = wire::beyond(peer);
    wire.be_slow();
    (socket, wire, Codec)
}

/// The codec of a peer that does not compress.
pub(crate) struct Codec;

#[expect(clippy::unused_self, reason = "the codec of other carriers may compress")]
impl Codec {
    pub(crate) fn encode(&mut self, frames: Vec<Frame>) -> Vec<Frame> {
        frames
    }

    pub(crate) fn decode(&mut self, frames: Vec<Frame>) -> Vec<Frame> {
        frames
    }
}
