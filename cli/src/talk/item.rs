//! The items of a conversation: messages in both directions, and commands of users.

use std::collections::VecDeque;

use bowline::{ControlFrame, Message};

/// A message or a control frame, received or to be sent.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Item {
    Message(Message),
    Control(ControlFrame),
}

impl Item {
    pub(super) fn is_binary(&self) -> bool {
        matches!(self, Self::Message(Message::Binary(_)))
    }
}

/// A part of what is to be sent.
#[derive(Debug)]
pub(super) enum Step {
    Item(Item),
    /// Everything that comes from stdin.
    Stdin,
}

/// Something to do.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Order {
    Send(Item),
    /// Send a ping with this payload, or with a random one if it is empty, and show the round-trip time.
    Ping(Vec<u8>),
    /// Show the headers of the server's response.
    Headers,
    /// Show the numbers of the connection.
    Stats,
    /// Close now.
    Leave,
    /// End as if a signal had arrived: Ctrl-C at the prompt.
    Interrupt,
}

/// Things to do, in order, or why stdin can't be read on.
pub(super) type Input = Result<VecDeque<Order>, String>;
