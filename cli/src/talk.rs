//! `bowline URL`: a conversation with a server, at a prompt or through pipes.
//!
//! [`TalkArguments`] become [`Settings`], with every file read and every pattern compiled. A [`Conversation`]
//! owns what outlives a connection: the `Outbox` of messages to send, and the
//! [`Display`](display::Display) of those received. Threads of their own read stdin and write stdout, so
//! neither a silent writer nor a slow reader keeps pings from being answered, or a signal from being seen.

mod arguments;
mod conversation;
mod display;
mod encoding;
mod goal;
mod head;
mod input;
mod item;
mod json_line;
mod prompt;

pub(crate) use arguments::TalkArguments;

use crate::exit::Exit;
use arguments::Settings;
use conversation::Conversation;

/// Talks to a server.
pub(crate) fn run(arguments: TalkArguments) -> Exit {
    let settings = match Settings::try_from(arguments) {
        Ok(settings) => settings,
        Err(error) => return fail(&error, Exit::Usage),
    };
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(Conversation::new(settings).run()),
        Err(error) => fail(&error, Exit::Failure),
    }
}

fn fail(error: &dyn std::fmt::Display, exit: Exit) -> Exit {
    display::error(&error.to_string());
    exit
}
