//! What the programs of this package share.

use clap::ValueEnum;

/// Whether compression is agreed on, and whether messages may refer to earlier ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Compression {
    /// Not offered, and declined.
    #[default]
    Off,
    /// Each message by itself.
    NoTakeover,
    /// With reference to earlier ones.
    Takeover,
}

impl From<Compression> for bowline::CompressionOptions {
    fn from(compression: Compression) -> Self {
        let compression = match compression {
            Compression::Off => bowline::Compression::Off,
            Compression::NoTakeover => bowline::Compression::NoContextTakeover,
            Compression::Takeover => bowline::Compression::ContextTakeover,
        };
        // Short messages, too, as they are what most of the checks send.
        compression.options().threshold(0)
    }
}
