//! The echo servers of frameworks, which bring their own runtimes: one thread accepts, and one serves.

mod actix;
mod ntex;

use std::net::TcpListener;

use anyhow::{Result, bail};

use super::library::Library;

pub fn serve(library: Library, listener: TcpListener) -> Result<()> {
    match library {
        Library::ActixWs => actix::serve(listener)?,
        Library::Ntex => ntex::serve(listener)?,
        other => bail!("{other:?} is no framework"),
    }
    Ok(())
}
