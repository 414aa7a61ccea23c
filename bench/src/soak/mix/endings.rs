//! The judgement of a connection that has ended: the views of both sides have to match the plan.

use bowline::{CloseFrame, Error, ErrorKind};

use super::ledger::Talk;
use super::plan::{Closers, ConnectionPlan, Reading, Side};
use super::side::{End, Outcome};

/// Records all violations of the connection.
pub fn judge(talk: &Talk, client: &Outcome, server: &Outcome) {
    let outcomes = [client, server];
    if outcomes.iter().any(|outcome| matches!(outcome.end, End::GivenUp)) {
        // The watchdog has reported the reason.
        return;
    }
    for side in Side::BOTH {
        let outcome = outcomes[side as usize];
        let wrong =
            if talk.is_undisturbed() { in_order(&talk.plan, side, outcome) } else { at_all(&outcome.end) };
        if let Err(text) = wrong {
            talk.blame(format_args!(
                "{side:?}: {text}\n  the client saw {client:?}\n  the server saw {server:?}"
            ));
        }
        // All messages of a side arrived if the other side was not the first to close, or if all had been
        // sent.
        let Closers::One(by) = talk.plan.ending.by else {
            balance(talk, side, talk.plan.ending.is_complete(), outcomes);
            continue;
        };
        balance(talk, side, by == side || talk.plan.ending.is_complete(), outcomes);
    }
}

fn balance(talk: &Talk, side: Side, is_complete: bool, outcomes: [&Outcome; 2]) {
    let is_complete = is_complete && talk.is_undisturbed();
    let mut balance = talk.balance(side, is_complete);
    if is_complete && talk.plan.ending.is_complete() && !outcomes[side.other() as usize].is_whole {
        balance = balance.and(Err(format!("{side:?}: the end of a stream of bytes is missing")));
    }
    if let Err(text) = balance {
        talk.blame(format_args!("{text}\n  the client and the server saw {outcomes:?}"));
    }
}

/// Judges the end of a connection with an intact transport.
fn in_order(plan: &ConnectionPlan, side: Side, outcome: &Outcome) -> Result<(), String> {
    let ending = &plan.ending;
    if let Some(Err(error)) = &outcome.closed {
        return Err(format!("close failed with {error:?}"));
    }
    let is_first = ending.by == Closers::One(side);
    if is_first && outcome.interruption.as_ref().is_some_and(|error| error.close_frame().is_some()) {
        return Err("it closed, but its reader calls the answer the peer's Close".to_owned());
    }
    // The error of a byte stream or reader that is closed in the middle of a message. The middle includes the
    // point at which all bytes have arrived and only an empty last fragment is missing.
    let is_interrupted = |error: &Error| {
        let is_stream =
            plan.side(side).reading == Reading::Bytes && (!ending.is_complete() || outcome.is_whole);
        is_stream && error.kind() == ErrorKind::Closed && error.close_frame().is_none()
    };
    if ending.is_by(side) {
        // RFC 6455 7.1.5: the first Close frame decides. It is ours, unless both sides send one.
        return match &outcome.end {
            End::Normal | End::Left => Ok(()),
            End::Failed(error) if !is_first && is_planned(plan, error.close_frame()) => Ok(()),
            End::Failed(error) if is_interrupted(error) => Ok(()),
            End::Failed(_) | End::GivenUp => Err("it closed, but its receiver failed".to_owned()),
        };
    }
    if !is_planned(plan, outcome.frame.as_ref()) {
        return Err(format!("the Close frame is {:?}", outcome.frame));
    }
    let is_normal = matches!(ending.code, 1000 | 1001);
    match &outcome.end {
        End::Normal if is_normal => Ok(()),
        End::Failed(error) if is_normal && is_interrupted(error) => Ok(()),
        End::Failed(error)
            if !is_normal
                && error.kind() == ErrorKind::Closed
                && error.close_frame() == outcome.frame.as_ref() =>
        {
            Ok(())
        }
        _ => Err("the receiver does not say what the Close frame does".to_owned()),
    }
}

fn is_planned(plan: &ConnectionPlan, frame: Option<&CloseFrame>) -> bool {
    let ending = &plan.ending;
    frame.is_some_and(|frame| frame.code().0 == ending.code && frame.reason() == ending.reason)
}

/// Judges the end of a connection whose transport may have failed: the end has to report this, and blame
/// nobody.
fn at_all(end: &End) -> Result<(), String> {
    match end {
        End::Normal | End::Left | End::GivenUp => Ok(()),
        End::Failed(error) => match error.kind() {
            ErrorKind::Closed | ErrorKind::Disconnected | ErrorKind::Io => Ok(()),
            kind => Err(format!("after a fault, the receiver failed with {kind:?}")),
        },
    }
}
