//! Events for the crate `tracing`, with the target `bowline`; nothing at all without the feature.
//!
//! They tell what becomes of handshakes and connections: never what is in messages, nor in the queries and headers of
//! requests, where secrets may be. There is none for a message.

/// An event, if the feature is on. What is in it is not even looked at otherwise.
macro_rules! event {
    ($level:ident, $($content:tt)*) => {{
        #[cfg(feature = "tracing")]
        tracing::$level!(target: "bowline", $($content)*);
    }};
}

pub(crate) use event;
