//! The mode `connect`: connections are opened and closed.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bowline::CloseCode;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{spawn_local, yield_now};
use tokio::time::timeout;

use crate::bench::load::station::{Stage, Station};
use crate::bench::load::timer::ExactTimer;
use crate::bench::plan::Pace;
use crate::bench::plan::schedule::Schedule;

/// The time that a server has to answer our Close frame.
const CLOSE_TIME: Duration = Duration::from_secs(1);

/// The number of connections that are begun in a row before others go on.
const BEGUN_IN_A_ROW: u32 = 32;

/// Opens connections until the end of the run.
pub(crate) async fn run(station: &Rc<Station>, thread: usize, pace: Pace) -> io::Result<()> {
    let plan = &station.plan;
    let at_once = (thread as u64..plan.connections).step_by(plan.threads).count();
    match pace {
        Pace::Open(schedule) => follow(station, thread, schedule, at_once).await,
        Pace::Closed { .. } => {
            for _ in 0..at_once {
                spawn_local(repeat(Rc::clone(station)));
            }
            Ok(())
        }
    }
}

/// Opens each connection of the thread when it is due. If there is no room for it, the connection waits, and
/// its time is counted from when it was due.
async fn follow(station: &Rc<Station>, thread: usize, schedule: Schedule, at_once: usize) -> io::Result<()> {
    let mut timer = ExactTimer::new()?;
    let room = Arc::new(Semaphore::new(at_once));
    let (mut delay, mut in_a_row) = (Delay::Own, 0);
    for number in (thread as u64..).step_by(station.plan.threads) {
        let due = schedule.rate.due(number);
        if due >= station.plan.nanos() {
            break;
        }
        if due > station.now() {
            timer.sleep_until(station.instant(due)).await?;
            delay = Delay::Own;
            in_a_row = 0;
        } else if in_a_row == BEGUN_IN_A_ROW {
            yield_now().await;
            in_a_row = 0;
        }
        in_a_row += 1;
        if room.available_permits() == 0 {
            delay = Delay::OfServer;
        }
        let permit = Arc::clone(&room).acquire_owned().await.expect("the semaphore is never closed");
        if delay == Delay::Own {
            station.tally.borrow_mut().lag.record(station.now().saturating_sub(due));
        }
        station.begin_handshake();
        spawn_local(open_with(Rc::clone(station), due, permit));
    }
    Ok(())
}

/// The reason why a connection is begun after it was due.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Delay {
    /// This program is late.
    Own,
    /// The server is: there was no room since a connection was begun in time.
    OfServer,
}

async fn open_with(station: Rc<Station>, due: u64, permit: OwnedSemaphorePermit) {
    open(&station, due).await;
    drop(permit);
}

/// Opens one connection after the other.
async fn repeat(station: Rc<Station>) {
    while station.stage() == Stage::Running {
        station.begin_handshake();
        open(&station, station.now()).await;
    }
}

/// Opens a connection that was due at a time, and closes it.
async fn open(station: &Station, due: u64) {
    let start = station.instant(due);
    let opened = match station.dialer.open().await {
        Ok(opened) => opened,
        Err(error) => {
            station.error(error.kind());
            station.failed();
            return;
        }
    };
    opened.record(start, &mut station.tally.borrow_mut().openings);
    station.opened();
    station.replied(due, station.now(), 0);
    let _ = timeout(CLOSE_TIME, opened.socket.close(CloseCode::NORMAL, "")).await;
    station.ended();
}
