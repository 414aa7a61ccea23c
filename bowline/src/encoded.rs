//! Messages that are encoded from values.

use std::future::Future;

use bowline_proto::MessageKind;

use crate::connection::Connection;
use crate::error::Error;
use crate::message::Payload;
use crate::scratch::Scratch;

impl Connection {
    /// Has `encode` make a message, and sends it.
    ///
    /// It is made before anything is locked, in memory of the thread: `encode` is code of the application's, and may well
    /// send something itself.
    pub(crate) fn send_encoded(
        &self,
        kind: MessageKind,
        encode: impl FnOnce(&mut Vec<u8>) -> Result<(), Error>,
    ) -> impl Future<Output = Result<(), Error>> {
        let mut scratch = Scratch::take();
        let encoded = encode(&mut scratch).map(|()| scratch);
        async move {
            let encoded = encoded?;
            self.send_with(|transmit| transmit.accept(Payload::borrowed(kind, &encoded))).await
        }
    }
}
