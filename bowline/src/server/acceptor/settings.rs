//! The settings of an acceptor.

use crate::error::Error;
use crate::server::handshake::Terms;

/// The settings that the clones of an acceptor share.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    pub(crate) terms: Terms,
    /// The error of the first invalid setting.
    pub(crate) invalid: Option<Error>,
}

impl Settings {
    /// Returns the error of the first invalid setting, if there is one.
    pub(crate) fn validate(&self) -> Result<(), Error> {
        self.invalid.clone().map_or(Ok(()), Err)
    }
}
