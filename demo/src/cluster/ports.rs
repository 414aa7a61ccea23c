//! Free ports, for programs that are started again with the same one.

use std::io;
use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

/// The first port to try. The operating system hands out those from 32,768 on to clients.
const FIRST: u16 = 20_000;

/// Returns a port that nobody uses, each time another one.
pub(crate) fn free() -> io::Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Demonstrations that start at the same time begin at different ports.
    let _ = NEXT.compare_exchange(
        0,
        FIRST + u16::try_from(std::process::id() % 1000).expect("the number is small") * 10,
        Ordering::Relaxed,
        Ordering::Relaxed,
    );
    loop {
        let port = NEXT.fetch_add(1, Ordering::Relaxed);
        if is_free(port)? {
            return Ok(port);
        }
    }
}

/// Returns the first free port from a number on.
pub(crate) fn free_from(first: u16) -> io::Result<u16> {
    for port in first..u16::MAX {
        if is_free(port)? {
            return Ok(port);
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}

fn is_free(port: u16) -> io::Result<bool> {
    match TcpListener::bind(("127.0.0.1", port)) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(false),
        Err(error) => Err(error),
    }
}
