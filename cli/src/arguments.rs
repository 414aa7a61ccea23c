//! The command line, and the command that it selects.

use std::io::{self, Write as _};

use clap::error::ErrorKind;
use clap::{Args as _, FromArgMatches as _, Parser, Subcommand};
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
#[command(arg_required_else_help = true, max_term_width = 100, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

const EXAMPLES: &str = "\
Examples:
  bowline wss://example.com/feed                     a prompt
  echo hello | bowline wss://example.com/echo        send a line, print the replies
  bowline wss://example.com/echo -m hello -n 1       send a message, end after one reply
  bowline wss://example.com/feed -r -m subscribe     subscribe, and print what comes
  bowline wss://example.com/feed -r | jq .           print what comes

On a terminal, bowline URL is a prompt: /help lists what it can do. In a pipe, stdout carries messages alone.

Exit status: 0 ended as asked, 1 another failure, 2 wrong usage, 3 not reached, 4 handshake refused,
5 connection lost, 6 closed by the server with an error, 7 timed out, 8 check or --fail-if, \
130 SIGINT, 143 SIGTERM";

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
        /// The command: serve, check, bench or bench compare
        command: Vec<String>,
    },
}

/// The command line. Without a command, the arguments are those of a conversation.
fn command_line() -> clap::Command {
    // The description is that of the last one.
    Arguments::augment_args(TalkArguments::augment_args(clap::Command::new("bowline")))
}

/// Reads the arguments of the process, and runs the command that they select.
pub(crate) fn run() -> Exit {
    let matches = match command_line().try_get_matches() {
        Ok(matches) => matches,
        Err(error) => explain(error).exit(),
    };
    match Arguments::from_arg_matches(&matches) {
        Ok(Arguments { command: Some(command) }) => command.run(),
        Ok(Arguments { command: None }) => match TalkArguments::from_arg_matches(&matches) {
            Ok(arguments) => talk::run(arguments),
            Err(error) => error.exit(),
        },
        Err(error) => error.exit(),
    }
}

/// Explains an error that clap blames on a later argument: the number after `--reconnect` became the URL.
fn explain(error: clap::Error) -> clap::Error {
    let arguments: Vec<_> =
        std::env::args_os().map(|argument| argument.to_string_lossy().into_owned()).collect();
    let count = arguments.windows(2).find_map(|pair| match pair {
        [option, count] if option == "--reconnect" && count.parse::<u32>().is_ok() => Some(count),
        _ => None,
    });
    match count {
        Some(count) if error.kind() == ErrorKind::ArgumentConflict => command_line().error(
            ErrorKind::ArgumentConflict,
            format!("the count is part of the option: --reconnect={count}"),
        ),
        _ => error,
    }
}

impl Command {
    fn run(self) -> Exit {
        match self {
            Self::Serve(arguments) => serve::run(*arguments),
            Self::Check(arguments) => check::run(&arguments),
            Self::Bench(arguments) => bench::run(&arguments),
            Self::Completions { shell } => {
                let mut text = Vec::new();
                clap_complete::generate(shell, &mut command_line(), "bowline", &mut text);
                print(&text)
            }
            Self::Man { command } => match manual::page(&mut command_line(), &command) {
                Ok(page) => print(&page),
                Err(error) => error.exit(),
            },
        }
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
