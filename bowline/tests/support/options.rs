//! Options of the connection that a test looks at, whatever its role.

use std::time::Duration;

use bowline::{Acceptor, Connector, Limits};

#[derive(Clone, Default)]
pub struct Options {
    limits: Limits,
    /// The interval, if it is not the default.
    keepalive: Option<Duration>,
}

impl Options {
    pub fn keepalive(interval: Duration) -> Self {
        Self { keepalive: Some(interval), ..Self::default() }
    }

    /// Adds these options to a connector.
    pub fn connector(&self, connector: Connector) -> Connector {
        let connector = connector.limits(self.limits.clone());
        match self.keepalive {
            Some(interval) => connector.keepalive(interval),
            None => connector,
        }
    }

    pub fn acceptor(&self) -> Acceptor {
        let acceptor = Acceptor::new().limits(self.limits.clone());
        match self.keepalive {
            Some(interval) => acceptor.keepalive(interval),
            None => acceptor,
        }
    }
}

impl From<Limits> for Options {
    fn from(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }
}
