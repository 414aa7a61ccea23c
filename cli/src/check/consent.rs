//! The question before a server is checked that is not on this machine.

use std::net::IpAddr;

use crate::connect::{ConnectError, Dialer};

/// The servers that the cases would reach.
pub(super) enum Reach {
    ThisMachine,
    /// Other machines, at these addresses.
    Others(Vec<IpAddr>),
}

/// Finds out where the server is, by all of its addresses.
pub(super) async fn reach(dialer: &Dialer) -> Result<Reach, ConnectError> {
    let addresses = dialer.addresses().await?.unwrap_or_default();
    let others: Vec<IpAddr> = addresses
        .into_iter()
        .map(|address| address.ip().to_canonical())
        .filter(|address| !address.is_loopback())
        .collect();
    Ok(if others.is_empty() { Reach::ThisMachine } else { Reach::Others(others) })
}

/// Returns the text that says what the cases do to a server.
pub(super) fn warning(others: &[IpAddr], cases: usize) -> String {
    let addresses: Vec<String> = others.iter().map(IpAddr::to_string).collect();
    format!(
        "{cases} cases would open connections to {}, which is not this machine: with invalid requests and \
         frames, messages of up to 17 MiB, and floods of small frames",
        addresses.join(", ")
    )
}
