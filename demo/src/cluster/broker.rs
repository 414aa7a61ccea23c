//! Redis, which writes each message to its disk before it acknowledges the message.

use std::io;
use std::path::Path;

use crate::cluster::program::Program;

/// The name under which the page shows the broker.
const NAME: &str = "broker";

pub(crate) fn program(port: u16, folder: &Path) -> io::Result<Program> {
    let data = folder.join("redis");
    std::fs::create_dir(&data)?;
    let port_text = port.to_string();
    let arguments = ["--bind", "127.0.0.1", "--port", &port_text, "--save", "", "--appendonly", "yes"];
    let arguments = arguments.into_iter().chain(["--appendfsync", "always", "--dir"]).map(Into::into);
    let arguments = arguments.chain([data.clone().into_os_string()]);
    Ok(Program::new(NAME, port, folder, "redis-server", arguments).data(data))
}

pub(crate) fn url(port: u16) -> String {
    format!("redis://127.0.0.1:{port}")
}
