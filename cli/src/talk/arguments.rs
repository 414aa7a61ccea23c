//! The options of a conversation.

use std::fs;
use std::num::{NonZeroU32, ParseIntError};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use bowline::{CloseCode, CloseFrame};
use clap::{ArgAction, Args};
use regex_lite::Regex;

use crate::connect::{ConnectArguments, Target, UsageError, Version};
use crate::talk::display::Verbosity;
use crate::talk::display::record::Recording;
use crate::talk::display::style::{Layout, Timestamps};
use crate::talk::encoding::Encoding;
use crate::talk::goal::Goal;
use crate::talk::input::Split;
use crate::talk::item::Step;
use crate::talk::prompt;

/// The options of a conversation.
#[derive(Args, Debug)]
pub(crate) struct TalkArguments {
    #[command(flatten)]
    sending: SendingArguments,
    #[command(flatten)]
    encoding: EncodingArguments,
    #[command(flatten)]
    lines: LineArguments,
    #[command(flatten)]
    ending: EndingArguments,
    #[command(flatten)]
    verbosity: VerbosityArguments,
    #[command(flatten)]
    connect: ConnectArguments,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Sending")]
struct SendingArguments {
    /// Send this message, then linger; may be repeated. `@FILE` sends a file (`@@` begins a text with @), and
    /// `-` what comes from stdin, which is not read otherwise
    #[arg(short, long, value_name = "TEXT", allow_hyphen_values = true)]
    message: Vec<String>,
    /// Don't read stdin, and listen until the server closes
    #[arg(short, long)]
    receive: bool,
    /// Messages on stdin and stdout end with NUL instead of a newline
    #[arg(short = '0', long, conflicts_with_all = ["whole", "json"])]
    null: bool,
    /// Send all of stdin as one message
    #[arg(long, conflicts_with = "json")]
    whole: bool,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Format")]
struct EncodingArguments {
    /// Send binary messages, stdin as a whole (unless -0), and write received ones as they are
    #[arg(short, long, conflicts_with_all = ["hex", "base64"])]
    binary: bool,
    /// Send binary messages, one in hex a line; received ones are written so by default
    #[arg(long, conflicts_with_all = ["base64"])]
    hex: bool,
    /// Send binary messages, one in base64 a line, and write received ones so
    #[arg(long)]
    base64: bool,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Format")]
struct LineArguments {
    /// Lines of JSON, in both directions, without loss: {"text":"..."}, or "binary", "ping" and "pong"
    /// (base64), or {"close":1000,"reason":"..."}. Received ones have the time and more
    #[arg(long, conflicts_with_all = ["binary", "hex", "base64", "timestamps"])]
    json: bool,
    /// Print the time before each message, in UTC
    #[arg(short, long)]
    timestamps: bool,
    /// Record both directions in this file, as --json prints them. An error of the file is status 1 at
    /// the end
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Ending")]
struct EndingArguments {
    /// End after this number of received messages, waited for without a limit unless --linger or --timeout is
    /// given
    #[arg(short = 'n', long, value_name = "COUNT")]
    count: Option<u64>,
    /// End after a received text that matches this pattern, waited for likewise
    #[arg(long, value_name = "REGEX")]
    until: Option<Regex>,
    /// Once everything is sent, end after this silence of the server, or `forever` [default: 1s, and forever
    /// with --receive, --count or --until, or if nothing was sent]
    #[arg(long, value_name = "DURATION")]
    linger: Option<Linger>,
    /// Give up after this time, with status 7
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    timeout: Option<Duration>,
    /// Ping after one to two times this silence, and give up a server that is silent as long after a ping;
    /// `none` for never [default: 20s]
    #[arg(long, value_name = "DURATION")]
    ping: Option<Keepalive>,
    /// Connect again whenever the connection ends, after a random pause that doubles; give up after COUNT
    /// failures in a row. Sends the messages of --message that precede stdin again. All others are sent at
    /// most once: messages that are on their way when a connection is lost are lost, too
    #[arg(
        long,
        value_name = "COUNT",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "always",
    )]
    reconnect: Option<Reconnect>,
    /// The code, and the reason, to close with
    #[arg(long, value_name = "CODE[:REASON]", default_value = "1000")]
    close: CloseArgument,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Output")]
struct VerbosityArguments {
    /// Print the heads of the handshake to stderr; twice: also a line for each message and control frame
    #[arg(short, long, action = ArgAction::Count)]
    verbose: u8,
    /// Print nothing but errors to stderr
    #[arg(short, long, conflicts_with = "verbose")]
    quiet: bool,
}

/// The time for which the server may be silent once everything is sent.
#[derive(Clone, Copy, Debug)]
pub(super) enum Linger {
    For(Duration),
    Forever,
}

/// The consequence of the end of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) enum Reconnect {
    Never,
    Always,
    /// Until so many attempts in a row have failed.
    Attempts(NonZeroU32),
}

/// The silence after which a ping is sent.
#[derive(Clone, Copy, Debug)]
enum Keepalive {
    After(Duration),
    Never,
}

/// A conversation that can be held: all options are valid, and all files read.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) target: Target,
    pub(super) steps: Vec<Step>,
    pub(super) encoding: Encoding,
    pub(super) split: Split,
    pub(super) layout: Layout,
    pub(super) goal: Goal,
    /// `None` is the default, which depends on what was sent.
    pub(super) linger: Option<Linger>,
    pub(super) timeout: Option<Duration>,
    pub(super) reconnect: Reconnect,
    pub(super) close: CloseFrame,
    pub(super) verbosity: Verbosity,
    pub(super) timestamps: Timestamps,
    pub(super) recording: Recording,
}

impl TryFrom<TalkArguments> for Settings {
    type Error = UsageError;

    fn try_from(arguments: TalkArguments) -> Result<Self, UsageError> {
        let TalkArguments { connect, sending, encoding, lines, ending, verbosity } = arguments;
        let encoding = if lines.json { Encoding::Json } else { encoding.encoding() };
        let mut target = connect.target()?;
        if let Some(interval) = ending.ping {
            target.configure(|connector| {
                connector.keepalive(match interval {
                    Keepalive::After(time) => Some(time),
                    Keepalive::Never => None,
                })
            })?;
        }
        if ending.reconnect.is_some() && connect.http_version() == Version::Http3 {
            return Err(UsageError("--reconnect can't be used with --http 3".into()));
        }
        let linger = match ending.linger {
            None if sending.receive => Some(Linger::Forever),
            linger => linger,
        };
        Ok(Self {
            target,
            steps: sending.steps(encoding)?,
            split: sending.split(encoding),
            layout: sending.layout(),
            encoding,
            goal: Goal { count: ending.count, until: ending.until },
            linger,
            timeout: ending.timeout,
            reconnect: ending.reconnect.unwrap_or(Reconnect::Never),
            close: ending.close.0,
            verbosity: verbosity.verbosity(),
            timestamps: if lines.timestamps { Timestamps::Shown } else { Timestamps::Hidden },
            recording: Recording::open(lines.record.as_deref())?,
        })
    }
}

impl SendingArguments {
    /// The steps of sending, in order.
    fn steps(&self, encoding: Encoding) -> Result<Vec<Step>, UsageError> {
        if self.message.is_empty() && !self.receive {
            return Ok(vec![Step::Stdin]);
        }
        let mut steps = Vec::new();
        for text in &self.message {
            match text.as_str() {
                "-" if self.receive => {
                    return Err(UsageError("--message - reads stdin, and --receive doesn't".into()));
                }
                "-" => steps.push(Step::Stdin),
                text => steps.extend(step(text, encoding)?),
            }
        }
        Ok(steps)
    }

    /// The layout of messages. There is a prompt if lines are read from a terminal, and written to one.
    fn layout(&self) -> Layout {
        let reads_stdin = self.message.iter().any(|text| text == "-") || self.message.is_empty();
        let reads_lines = reads_stdin && !self.receive && !self.null && !self.whole;
        if reads_lines && prompt::is_possible() { Layout::Prompt } else { Layout::of_stdout() }
    }

    fn split(&self, encoding: Encoding) -> Split {
        match (self.null, self.whole, encoding) {
            (true, _, _) => Split::Nulls,
            (_, true, _) | (_, _, Encoding::Raw) => Split::Whole,
            _ => Split::Lines,
        }
    }
}

/// A message of `--message`.
fn step(text: &str, encoding: Encoding) -> Result<Option<Step>, UsageError> {
    let failed = |why: String| UsageError(format!("--message {}: {why}", crate::escape::line(text)));
    let bytes = match text.strip_prefix('@') {
        Some(rest) if rest.starts_with('@') => rest.as_bytes().to_vec(),
        Some(file) => fs::read(file).map_err(|error| failed(error.to_string()))?,
        None => text.as_bytes().to_vec(),
    };
    Ok(encoding.decode(bytes).map_err(failed)?.map(Step::Item))
}

impl EncodingArguments {
    fn encoding(&self) -> Encoding {
        match (self.binary, self.hex, self.base64) {
            (true, _, _) => Encoding::Raw,
            (_, true, _) => Encoding::Hex,
            (_, _, true) => Encoding::Base64,
            (false, false, false) => Encoding::Text,
        }
    }
}

impl VerbosityArguments {
    fn verbosity(&self) -> Verbosity {
        match (self.quiet, self.verbose) {
            (true, _) => Verbosity::Errors,
            (false, 0) => Verbosity::Notices,
            (false, 1) => Verbosity::Heads,
            (false, _) => Verbosity::Frames,
        }
    }
}

impl FromStr for Linger {
    type Err = humantime::DurationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "forever" => Ok(Self::Forever),
            text => humantime::parse_duration(text).map(Self::For),
        }
    }
}

impl FromStr for Reconnect {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "always" => Ok(Self::Always),
            text => text.parse().map(Self::Attempts),
        }
    }
}

impl FromStr for Keepalive {
    type Err = humantime::DurationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "none" => Ok(Self::Never),
            text => humantime::parse_duration(text).map(Self::After),
        }
    }
}

/// A close code and a reason, as in `4001:logged out`.
#[derive(Clone, Debug)]
struct CloseArgument(CloseFrame);

impl FromStr for CloseArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (code, reason) = text.split_once(':').unwrap_or((text, ""));
        let code = code.parse().map_err(|error: ParseIntError| format!("the code: {error}"))?;
        CloseFrame::new(CloseCode(code), reason).map(Self).map_err(|misuse| misuse.to_string())
    }
}
