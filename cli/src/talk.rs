//! `bowline URL`: talk to a server.

use clap::Args;

use crate::connect::ConnectArguments;
use crate::exit::Exit;

/// The options of a conversation.
#[derive(Args, Debug)]
pub(crate) struct TalkArguments {
    #[command(flatten)]
    connect: ConnectArguments,
}

/// Talks to a server.
pub(crate) fn run(arguments: TalkArguments) -> Exit {
    let target = match arguments.connect.target() {
        Ok(target) => target,
        Err(error) => {
            anstream::eprintln!("bowline: {error}");
            return Exit::Usage;
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            anstream::eprintln!("bowline: {error}");
            return Exit::Failure;
        }
    };
    runtime.block_on(async {
        let (mut socket, _) = match target.connect().await {
            Ok(connected) => connected,
            Err(error) => {
                anstream::eprintln!("bowline: {error}");
                return error.exit();
            }
        };
        loop {
            match socket.recv().await {
                Ok(Some(message)) => anstream::println!("{message:?}"),
                Ok(None) => return Exit::Success,
                Err(error) => {
                    anstream::eprintln!("bowline: {error}");
                    return Exit::of_connection(&error);
                }
            }
        }
    })
}
