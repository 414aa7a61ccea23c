//! The man pages.

use clap::Command;
use clap::error::ErrorKind;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

/// The promise of the exit statuses.
const STATUSES: [(&str, &str); 11] = [
    ("0", "Everything ended as asked."),
    ("1", "Any other failure."),
    ("2", "Wrong usage: an option, a URL or a file that can't be used."),
    ("3", "The server was not reached: name resolution, TCP, TLS or a proxy failed."),
    (
        "4",
        "The server refused the opening handshake. Its status and the beginning of its answer are on stderr.",
    ),
    ("5", "The connection was lost, or the server violated the protocol."),
    ("6", "The server closed the connection with a code other than 1000, 1001 or none."),
    ("7", "The time of --timeout was up."),
    ("8", "bowline check has found a fault, or a condition of --fail-if was met."),
    ("130", "SIGINT, such as by Ctrl-C."),
    ("143", "SIGTERM."),
];

/// Renders the man page of the program, or of the command that `path` leads to.
pub(crate) fn page(program: &mut Command, path: &[String]) -> Result<Vec<u8>, clap::Error> {
    program.build();
    let mut command = &*program;
    for name in path {
        let Some(found) = command.find_subcommand(name) else {
            let text = format!("there is no command {:?}: see bowline --help", path.join(" "));
            return Err(program.clone().error(ErrorKind::InvalidSubcommand, text));
        };
        command = found;
    }
    let command = command.clone();
    let mut page = Vec::new();
    Man::new(command).render(&mut page)?;
    exit_status().to_writer(&mut page)?;
    Ok(page)
}

fn exit_status() -> Roff {
    let mut section = Roff::new();
    section.control("SH", ["EXIT STATUS"]);
    for (number, meaning) in STATUSES {
        section.control("TP", []);
        section.text([bold(number)]);
        section.text([roman(meaning)]);
    }
    section
}
