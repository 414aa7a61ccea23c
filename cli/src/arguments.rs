//! The command line, and the command that it selects.

use std::io::{self, Write as _};

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use crate::bench::{self, BenchArguments};
use crate::check::{self, CheckArguments};
use crate::exit::Exit;
use crate::manual;
use crate::serve::{self, ServeArguments};
use crate::talk::{self, TalkArguments};

/// Talk to a WebSocket server, serve, check a server, measure it
#[derive(Parser)]
#[command(name = "bowline", version, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(arg_required_else_help = true, max_term_width = 100)]
pub(crate) struct Arguments {
    #[command(flatten)]
    talk: Option<TalkArguments>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Run a server: echo, broadcast, programs, or a gateway to TCP, Unix sockets or another server
    Serve(Box<ServeArguments>),
    /// Check a server against the RFCs
    Check(Box<CheckArguments>),
    /// Load a server, and measure its latency
    Bench(Box<BenchArguments>),
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the man page, or that of a command
    Man {
        /// The command: serve, check or bench
        command: Option<String>,
    },
}

/// Runs the command that the arguments select.
pub(crate) fn run(arguments: Arguments) -> Exit {
    match (arguments.command, arguments.talk) {
        (Some(Command::Serve(arguments)), _) => serve::run(*arguments),
        (Some(Command::Check(arguments)), _) => check::run(*arguments),
        (Some(Command::Bench(arguments)), _) => bench::run(*arguments),
        (Some(Command::Completions { shell }), _) => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "bowline", &mut text);
            print(&text)
        }
        (Some(Command::Man { command }), _) => {
            match manual::page(&mut Arguments::command(), command.as_deref()) {
                Ok(page) => print(&page),
                Err(error) => error.exit(),
            }
        }
        (None, Some(arguments)) => talk::run(arguments),
        (None, None) => Exit::Usage,
    }
}

/// Writes a text to stdout. A reader that has seen enough is no failure.
fn print(text: &[u8]) -> Exit {
    match io::stdout().write_all(text) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            let _ = writeln!(anstream::stderr(), "bowline: stdout: {error}");
            Exit::Failure
        }
        _ => Exit::Success,
    }
}
