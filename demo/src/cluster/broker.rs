//! The brokers.

use std::io;
use std::path::Path;

use clap::ValueEnum;

use crate::cluster::program::Program;

/// The name under which the page shows the broker.
const NAME: &str = "broker";

const REDIS: &str = r#"
bind 127.0.0.1
port {port}
dir "{data}"
save ""
appendonly yes
appendfsync always
"#;

const NATS: &str = r#"
listen: "127.0.0.1:{port}"
jetstream { store_dir: "{data}", max_file: 1G }
"#;

/// The kind of the broker.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Broker {
    Redis,
    Nats,
}

impl Broker {
    /// Returns the URL for the nodes.
    pub(crate) fn url(self, port: u16) -> String {
        match self {
            Self::Redis => format!("redis://127.0.0.1:{port}"),
            Self::Nats => format!("nats://127.0.0.1:{port}"),
        }
    }

    /// Makes a broker that remembers everything when it is killed.
    pub(crate) fn program(self, port: u16, folder: &Path) -> io::Result<Program> {
        let data = folder.join("data");
        std::fs::create_dir(&data)?;
        let (executable, option, configuration) = match self {
            Self::Redis => ("redis-server", None, REDIS),
            Self::Nats => ("nats-server", Some("-c"), NATS),
        };
        let configuration =
            configuration.replace("{port}", &port.to_string()).replace("{data}", &data.display().to_string());
        let file = folder.join("broker.conf");
        std::fs::write(&file, configuration)?;
        let arguments = option.into_iter().map(Into::into).chain([file.into_os_string()]);
        Ok(Program::new(NAME, port, folder, executable, arguments).data(data))
    }
}
