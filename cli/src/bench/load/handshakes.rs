//! The mode `connect`: connections are opened and closed.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bowline::CloseCode;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_local;
use tokio::time::timeout;

use crate::bench::load::station::{Stage, Station};
use crate::bench::load::timer::ExactTimer;
use crate::bench::plan::Pace;

/// The time that a server has to answer our Close frame.
const CLOSE_TIME: Duration = Duration::from_secs(1);

/// Opens connections until the end of the run.
pub(crate) async fn run(station: &Rc<Station>, thread: usize, pace: Pace) -> io::Result<()> {
    let plan = &station.plan;
    let at_once = (thread as u64..plan.connections).step_by(plan.threads).count();
    let Pace::Open(schedule) = pace else {
        for _ in 0..at_once {
            spawn_local(repeat(Rc::clone(station)));
        }
        return Ok(());
    };
    let mut timer = ExactTimer::new()?;
    let room = Arc::new(Semaphore::new(at_once));
    for number in (thread as u64..).step_by(plan.threads) {
        let due = schedule.rate.due(number);
        if due >= plan.nanos() {
            break;
        }
        timer.sleep_until(station.instant(due)).await?;
        station.tally.borrow_mut().lag.record(station.now().saturating_sub(due));
        station.expect_replies(1);
        // Without room, the connection waits, and its time is counted from when it was due.
        spawn_local(wait_and_open(Rc::clone(station), due, Arc::clone(&room)));
    }
    Ok(())
}

async fn wait_and_open(station: Rc<Station>, due: u64, room: Arc<Semaphore>) {
    let permit = room.acquire_owned().await.expect("the semaphore is never closed");
    open(&station, due, Some(permit)).await;
}

/// Opens one connection after the other.
async fn repeat(station: Rc<Station>) {
    while station.stage() == Stage::Running {
        station.expect_replies(1);
        open(&station, station.now(), None).await;
    }
}

/// Opens a connection that was due at a time, and closes it.
async fn open(station: &Station, due: u64, permit: Option<OwnedSemaphorePermit>) {
    station.tally.borrow_mut().sent.messages += 1;
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
    drop(permit);
    station.ended();
}
