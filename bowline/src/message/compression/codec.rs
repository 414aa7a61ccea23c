//! The codec of compressed messages.
//!
//! Without the feature `deflate`, no connection negotiates compression, and stand-ins with the signatures of
//! the codec take its place. The feature is cut off here, so the connection need not ask for it.

#[cfg(not(feature = "deflate"))]
pub(crate) use absent::{Deflater, Inflated, Inflater};
#[cfg(feature = "deflate")]
pub(crate) use bowline_proto::{Deflater, Inflated, Inflater};

#[cfg(not(feature = "deflate"))]
#[expect(clippy::unused_self, reason = "the stand-ins have the signatures of the codec")]
mod absent {
    use bowline_proto::{Failure, MessageKind};

    const WHY: &str = "no connection negotiates compression without the feature `deflate`";

    pub(crate) struct Deflater;

    pub(crate) struct Inflater;

    pub(crate) struct Inflated {
        pub(crate) consumed: usize,
        pub(crate) done: bool,
    }

    impl Deflater {
        pub(crate) fn new(_level: u8, _window_bits: u8, _takes_context_over: bool) -> Self {
            Self
        }

        pub(crate) fn message(&mut self, _payload: &[u8], _out: &mut Vec<u8>) {
            unreachable!("{WHY}")
        }

        pub(crate) fn fragment(&mut self, _payload: &[u8], _flush: bool, _out: &mut Vec<u8>) {
            unreachable!("{WHY}")
        }

        pub(crate) fn last_fragment(&mut self, _payload: &[u8], _out: &mut Vec<u8>) {
            unreachable!("{WHY}")
        }

        pub(crate) fn forget(&mut self) {
            unreachable!("{WHY}")
        }
    }

    impl Inflater {
        pub(crate) fn new(_message_size: u64, _window_bits: u8, _takes_context_over: bool) -> Self {
            Self
        }

        pub(crate) fn begin(&mut self, _kind: MessageKind) {
            unreachable!("{WHY}")
        }

        pub(crate) fn inflate(
            &mut self,
            _input: &[u8],
            _last: bool,
            _out: &mut Vec<u8>,
        ) -> Result<Inflated, Failure> {
            unreachable!("{WHY}")
        }
    }
}
