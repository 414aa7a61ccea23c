//! The messages of the chat.

use serde::{Deserialize, Serialize};

/// A message of a guest, as its page sends it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Say {
    /// One line of text.
    pub text: String,
}

/// A message of the server to all guests.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum News {
    /// A guest has come.
    Came {
        /// The number of the guest.
        guest: u64,
    },
    /// A guest has said something.
    Said {
        /// The number of the guest.
        guest: u64,
        /// One line of text.
        text: String,
    },
    /// A guest has gone.
    Gone {
        /// The number of the guest.
        guest: u64,
    },
}

impl std::fmt::Display for News {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Came { guest } => write!(f, "guest {guest} has come"),
            Self::Said { guest, text } => write!(f, "guest {guest}: {text}"),
            Self::Gone { guest } => write!(f, "guest {guest} has gone"),
        }
    }
}
