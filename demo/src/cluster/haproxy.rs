//! HAProxy, which keeps each room on one node.

use std::fmt::Write;
use std::io;
use std::path::Path;

use crate::cluster::program::Program;
use crate::node::{HEALTH, ROOMS};

/// The configuration without the nodes.
///
/// - `balance uri` and `hash-type consistent`: the path, and so the room, decides on the node. When a node is
///   away, its rooms are spread over the others, and all other rooms stay where they are.
/// - `option redispatch` and `retries`: a client that finds its node dead is sent to the next one, also
///   before the health check has noticed.
/// - `timeout tunnel` is longer than the silence after which bowline sends a ping.
const CONFIGURATION: &str = "
global
    maxconn 1000

defaults
    mode http
    timeout connect 1s
    timeout http-request 10s
    timeout client 30s
    timeout server 30s
    timeout tunnel 75s

frontend all
    bind 127.0.0.1:{port}
    use_backend rooms if { path_beg {rooms} }
    default_backend control

backend control
    server control 127.0.0.1:{control}

backend rooms
    balance uri
    hash-type consistent
    retries 3
    option redispatch 1
    option httpchk GET {health}
    default-server check inter 500ms fall 2 rise 1
";

pub(crate) fn program(
    port: u16,
    nodes: &[(String, u16)],
    control: u16,
    folder: &Path,
) -> io::Result<Program> {
    let mut configuration = CONFIGURATION
        .replace("{port}", &port.to_string())
        .replace("{control}", &control.to_string())
        .replace("{rooms}", ROOMS)
        .replace("{health}", HEALTH);
    for (name, port) in nodes {
        let _ = writeln!(configuration, "    server {name} 127.0.0.1:{port}");
    }
    let file = folder.join("haproxy.cfg");
    std::fs::write(&file, configuration)?;
    let arguments = ["-db".into(), "-f".into(), file.into_os_string()];
    Ok(Program::new("haproxy", port, folder, "haproxy", arguments))
}
