//! The judgement on what a server does after a step.

use bowline_proto::CloseFrame;

use super::answer::listed;
use crate::check::finding::{Finding, Miss, Strictness};
use crate::check::script::{AFTER, Expectation, STILL};
use crate::check::wire::carrier::StreamEnd;
use crate::check::wire::inbox::{Kind, Received};
use crate::check::wire::session::Session;

/// The Close code of an endpoint that was sent none (RFC 6455 7.1.5).
const NO_STATUS: u16 = 1005;

/// The codes with which a server says that a client has violated the protocol.
const BLAME: [u16; 2] = [1002, 1007];

/// The messages that a pong may overtake. More are those of a flood.
const OVERTAKEN: usize = 8;

/// Waits until the server has done what is expected, or something else, or nothing in time.
pub(crate) async fn check(
    session: &mut Session,
    expectation: &Expectation,
    strictness: Strictness,
) -> Result<(), Miss> {
    match expectation {
        Expectation::Fails(codes) => fails(session, codes, strictness).await,
        Expectation::Closes(code) => closes(session, *code, strictness).await,
        Expectation::Ends => ends(session, strictness).await,
        Expectation::Pong(payload) => pong(session, payload).await,
        Expectation::Alive => alive(session).await,
        Expectation::Echo(kind, payload) => echo(session, *kind, payload).await,
        Expectation::Survives => {
            settle(session).await;
            Ok(())
        }
        // The examiner opens the stream.
        Expectation::SiblingOpens => Ok(()),
    }
}

/// RFC 6455 7.1.7: the server sends a Close frame, or only ends the connection, and processes no more.
async fn fails(session: &mut Session, codes: &[u16], strictness: Strictness) -> Result<(), Miss> {
    let expected = match strictness {
        Strictness::Must => "the server fails the connection".to_owned(),
        Strictness::Should => format!("the server closes with the code {}", listed(codes)),
    };
    let found = |observed: String| Err(Finding::new(&*expected, observed).into());
    let deadline = session.deadline();
    while let Some(event) = session.next(deadline).await {
        match event {
            Received::Pong(payload) if payload == AFTER => {
                return found("it went on, and answered a ping sent after the fault".into());
            }
            Received::Close(frame) => {
                if strictness == Strictness::Should && !codes.contains(&frame.code().0) {
                    return found(Received::Close(frame).to_string());
                }
                return match session.next_here() {
                    Some(fault @ Received::Fault(_)) => found(fault.to_string()),
                    _ => Ok(()),
                };
            }
            fault @ Received::Fault(_) => return found(fault.to_string()),
            end @ Received::End(_) => {
                return match strictness {
                    Strictness::Must => Ok(()),
                    Strictness::Should => found(format!("{end} without a Close frame")),
                };
            }
            Received::Message(..) | Received::Ping | Received::Pong(_) => {}
        }
    }
    found("nothing in time".into())
}

/// RFC 6455 5.5.1: a Close frame is answered by one with the same code.
async fn closes(session: &mut Session, code: Option<u16>, strictness: Strictness) -> Result<(), Miss> {
    let expected = match code {
        Some(code) => format!("a Close frame in answer, with the code {code}"),
        None => "a Close frame in answer".to_owned(),
    };
    let found = |observed: String| Err(Finding::new(&*expected, observed).into());
    let deadline = session.deadline();
    while let Some(event) = session.next(deadline).await {
        match event {
            // RFC 6455 5.5.1: no frame after the client's Close frame is of interest.
            Received::Pong(payload) if payload == AFTER => {
                return found("it went on, and answered a ping sent after the Close frame".into());
            }
            Received::Close(frame) => {
                let answer = frame.code().0;
                if BLAME.contains(&answer) && code != Some(answer) {
                    return found(Received::Close(frame).to_string());
                }
                let is_same = code.map_or(matches!(answer, NO_STATUS | 1000), |code| code == answer);
                return match strictness {
                    Strictness::Should if !is_same => found(Received::Close(frame).to_string()),
                    _ => Ok(()),
                };
            }
            event @ (Received::Fault(_) | Received::End(_)) => return found(event.to_string()),
            Received::Message(..) | Received::Ping | Received::Pong(_) => {}
        }
    }
    found("no Close frame in time".into())
}

/// RFC 6455 7.1.1: the server closes the connection below first.
async fn ends(session: &mut Session, strictness: Strictness) -> Result<(), Miss> {
    let expected = "the server ends the connection";
    let deadline = session.deadline();
    while let Some(event) = session.next(deadline).await {
        match event {
            Received::End(StreamEnd::Abrupt(why)) if strictness == Strictness::Should => {
                return Err(Finding::new("an orderly end of the connection", why).into());
            }
            Received::End(_) => return Ok(()),
            fault @ Received::Fault(_) => return Err(Finding::new(expected, fault.to_string()).into()),
            _ => {}
        }
    }
    Err(Finding::new(expected, "it is still open").into())
}

/// RFC 6455 5.5.3: a ping is answered by a pong with the same payload.
async fn pong(session: &mut Session, payload: &[u8]) -> Result<(), Miss> {
    let found = |observed: String| {
        Err(Finding::new(format!("a pong with the payload \"{}\"", shown(payload)), observed).into())
    };
    let mut last = "nothing in time".to_owned();
    let mut messages = Vec::new();
    let deadline = session.deadline();
    while let Some(event) = session.next(deadline).await {
        match event {
            Received::Pong(other) if other == payload => {
                // Pongs may overtake messages, and the next step may expect one of these.
                session.put_back(messages);
                return Ok(());
            }
            // Perhaps that of an earlier ping.
            Received::Pong(other) => last = format!("a pong with \"{}\"", shown(&other)),
            message @ Received::Message(..) if messages.len() < OVERTAKEN => messages.push(message),
            Received::Message(..) | Received::Ping => {}
            Received::Close(frame) if !BLAME.contains(&frame.code().0) => return Err(closed(&frame)),
            event => return found(event.to_string()),
        }
    }
    found(last)
}

/// The server accepts what was sent, and answers a ping.
async fn alive(session: &mut Session) -> Result<(), Miss> {
    let found =
        |observed: String| Err(Finding::new("the server accepts this, and answers a ping", observed).into());
    let deadline = session.deadline();
    while let Some(event) = session.next(deadline).await {
        match event {
            Received::Pong(payload) if payload == STILL => return Ok(()),
            Received::Close(frame) if BLAME.contains(&frame.code().0) => {
                return found(Received::Close(frame).to_string());
            }
            Received::Close(frame) => return Err(closed(&frame)),
            event @ (Received::Fault(_) | Received::End(_)) => return found(event.to_string()),
            Received::Message(..) | Received::Ping | Received::Pong(_) => {}
        }
    }
    found("no pong in time".into())
}

async fn echo(session: &mut Session, kind: Kind, payload: &[u8]) -> Result<(), Miss> {
    let expected = Received::Message(kind, payload.to_vec()).to_string();
    let found = |observed: String| Err(Finding::new(format!("{expected} comes back"), observed).into());
    let mut last = "no message in time".to_owned();
    let deadline = session.deadline();
    while let Some(event) = session.next(deadline).await {
        match event {
            Received::Message(other, message) if other == kind && message == payload => return Ok(()),
            // Perhaps a greeting.
            Received::Message(other, message) if other == kind && message.len() == payload.len() => {
                last = "another payload of this size".into();
            }
            Received::Message(other, message) => last = Received::Message(other, message).to_string(),
            Received::Ping | Received::Pong(_) => {}
            event => return found(event.to_string()),
        }
    }
    found(last)
}

/// Waits until the server has closed, or answered a ping, or has had its time.
async fn settle(session: &mut Session) {
    let deadline = session.deadline();
    while let Some(event) = session.next(deadline).await {
        if !matches!(event, Received::Message(..) | Received::Ping) {
            return;
        }
    }
}

/// An application may close at any time, such as after a message that it does not know.
fn closed(frame: &CloseFrame) -> Miss {
    Miss::Inapplicable(format!("the application closed with the code {}", frame.code().0))
}

fn shown(payload: &[u8]) -> String {
    let start = payload[..payload.len().min(32)].escape_ascii().to_string();
    if payload.len() > 32 { format!("{start}... ({} bytes)", payload.len()) } else { start }
}
