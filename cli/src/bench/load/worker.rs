//! One thread of the load: opening connections, running, draining, closing.

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bowline::CloseCode;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, watch};
use tokio::task::{spawn_local, yield_now};
use tokio::time::{sleep, sleep_until, timeout};

use crate::bench::load::conversation::{Conversation, Conversations};
use crate::bench::load::dial::Dialer;
use crate::bench::load::handshakes;
use crate::bench::load::progress::Progress;
use crate::bench::load::station::{Order, Stage, Station};
use crate::bench::load::timer::ExactTimer;
use crate::bench::plan::schedule::Schedule;
use crate::bench::plan::{Mode, Pace, Plan};
use crate::bench::tally::Measured;
use crate::bench::units::nanos;

/// The number of messages that are sent in a row before replies are received.
const SENT_IN_A_ROW: u32 = 32;

/// The time in which all connections have to be closed.
const CLOSE_TIME: Duration = Duration::from_secs(2);

/// The distance of the reports to the status line.
const REPORT_INTERVAL: Duration = Duration::from_millis(250);

/// One of the threads.
pub(crate) struct Worker {
    pub(crate) plan: Arc<Plan>,
    pub(crate) dialer: Arc<Dialer>,
    /// The number of this thread.
    pub(crate) thread: usize,
    pub(crate) orders: watch::Receiver<Order>,
    pub(crate) progress: Arc<Progress>,
}

impl Worker {
    /// Runs until the end of the run. `ready` is dropped when all connections of the thread are open.
    pub(crate) fn run(self, ready: mpsc::Sender<Infallible>) -> io::Result<Measured> {
        let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
        runtime.block_on(self.work(ready))
    }

    async fn work(mut self, ready: mpsc::Sender<Infallible>) -> io::Result<Measured> {
        let station = Station::new(Arc::clone(&self.plan), Arc::clone(&self.dialer), self.orders.clone());
        let conversations = Rc::<Conversations>::default();
        let reporting = spawn_local(report(Rc::clone(&station), Arc::clone(&self.progress)));
        if self.plan.mode != Mode::Connect {
            let stopped = stopped(self.orders.clone());
            tokio::select! {
                () = self.open_all(&station, &conversations) => {}
                () = stopped => {}
            }
        }
        let opened = station.open();
        drop(ready);
        self.start(&station).await;
        let conversations = conversations.in_order();
        let elapsed = match station.stage() {
            Stage::Running => self.load(&station, &conversations).await?,
            _ => 0,
        };
        self.drain(&station, &conversations, elapsed).await;
        close(&station, &conversations).await;
        reporting.abort();
        self.progress.update(&station);
        let tally = station.tally.borrow().clone();
        Ok(Measured { tally, elapsed, opened })
    }

    /// Opens the connections of this thread, each at its time.
    async fn open_all(&self, station: &Rc<Station>, conversations: &Rc<Conversations>) {
        let Plan { connections, ramp, threads, .. } = &*self.plan;
        let ramp = nanos(*ramp);
        let start = Instant::now();
        for index in (self.thread as u64..*connections).step_by(*threads) {
            let due = u128::from(ramp) * u128::from(index) / u128::from(*connections);
            let due = start + Duration::from_nanos(u64::try_from(due).unwrap_or(u64::MAX));
            if due > Instant::now() {
                sleep_until(due.into()).await;
            }
            station.begin_opening();
            spawn_local(connect(Rc::clone(station), Rc::clone(conversations), index));
        }
        station.all_opened().await;
    }

    /// Waits for the start of the run, or the order that there will be none.
    async fn start(&mut self, station: &Station) {
        // An error means that nobody gives orders any more.
        let _ = self.orders.wait_for(|order| !matches!(order, Order::Connect)).await;
        if let Some(start) = station.begin_as_ordered() {
            sleep_until(start.into()).await;
        }
    }

    /// Runs until the end of the time. Returns the time that the run took.
    async fn load(&self, station: &Rc<Station>, conversations: &[Rc<Conversation>]) -> io::Result<u64> {
        let work = async {
            match (self.plan.mode, self.plan.pace) {
                (Mode::Connect, pace) => handshakes::run(station, self.thread, pace).await?,
                (Mode::Idle, _) => {}
                (Mode::Echo | Mode::Broadcast, Pace::Open(schedule)) => {
                    pace(station, conversations, schedule).await?;
                }
                (Mode::Echo | Mode::Broadcast, Pace::Closed { in_flight }) => {
                    for conversation in conversations {
                        spawn_local(Rc::clone(conversation).begin(in_flight));
                    }
                }
            }
            io::Result::Ok(())
        };
        let all_lost = async {
            match self.plan.mode {
                Mode::Connect => pending().await,
                Mode::Echo | Mode::Broadcast | Mode::Idle => station.all_ended().await,
            }
        };
        let end = station.instant(self.plan.nanos());
        // A program that is late sends the messages of the schedule nevertheless, and their latency counts.
        let last = end + self.plan.grace;
        let work = async {
            work.await?;
            sleep_until(end.into()).await;
            io::Result::Ok(())
        };
        tokio::select! {
            done = work => done?,
            () = sleep_until(last.into()) => {}
            () = all_lost => {}
            () = stopped(self.orders.clone()) => {}
        }
        let elapsed = station.now().min(self.plan.nanos());
        station.enter(Stage::Draining);
        Ok(elapsed)
    }

    /// Waits for the missing replies, and counts those that don't arrive.
    async fn drain(&self, station: &Station, conversations: &[Rc<Conversation>], elapsed: u64) {
        if let (Mode::Broadcast, Pace::Open(schedule)) = (self.plan.mode, self.plan.pace) {
            let tally = station.tally.borrow();
            // Each message goes to all connections. Not all servers include the one that has sent it.
            let own = if tally.own == 0 { tally.sent.messages } else { 0 };
            let expected = schedule.rate.due_before(elapsed) * station.open();
            station.expect_replies(expected.saturating_sub(own + tally.received.messages));
        }
        let _ = timeout(self.plan.grace, station.all_replied()).await;
        if self.plan.mode != Mode::Broadcast {
            station.tally.borrow_mut().errors_of("missing replies", station.outstanding());
        }
        // In a run that was interrupted, the last messages may just have become due.
        let (Pace::Open(schedule), true) = (self.plan.pace, elapsed == self.plan.nanos()) else { return };
        match self.plan.mode {
            Mode::Idle => {}
            Mode::Echo | Mode::Broadcast => {
                for conversation in conversations {
                    conversation.count_unsent(schedule, elapsed);
                }
            }
            Mode::Connect => {
                let due = schedule.rate.due_before(elapsed).saturating_sub(self.thread as u64);
                let mut tally = station.tally.borrow_mut();
                let missing = due.div_ceil(self.plan.threads as u64).saturating_sub(tally.sent.messages);
                tally.errors_of("handshakes that were too late to begin", missing);
            }
        }
    }
}

/// Returns when the run has to end early.
async fn stopped(mut orders: watch::Receiver<Order>) {
    // An error means that nobody gives orders any more.
    let _ = orders.wait_for(|order| matches!(order, Order::Stop)).await;
}

/// Opens a connection, and receives on it.
async fn connect(station: Rc<Station>, conversations: Rc<Conversations>, index: u64) {
    let start = Instant::now();
    let opened = station.dialer.open().await;
    let opened = match opened {
        Ok(opened) => opened,
        Err(error) => {
            station.error(error.kind());
            station.end_opening();
            return;
        }
    };
    opened.record(start, &mut station.tally.borrow_mut().openings);
    let conversation = Rc::new(Conversation::new(Rc::clone(&station), index, opened.socket.sender()));
    if let Some(first) = &station.plan.first {
        // `recv` reports the end of the connection.
        let _ = opened.socket.send(conversation.payload(first)).await;
    }
    conversations.add(Rc::clone(&conversation));
    station.end_opening();
    conversation.receive(opened.socket).await;
}

/// Sends the messages of all connections of the thread, each when it is due.
async fn pace(station: &Station, conversations: &[Rc<Conversation>], schedule: Schedule) -> io::Result<()> {
    let mut timer = ExactTimer::new()?;
    let end = station.plan.nanos();
    let mut in_a_row = 0;
    for sequence in 0.. {
        for conversation in conversations {
            let due = schedule.due(conversation.index, sequence);
            if due >= end {
                return Ok(());
            }
            if due > station.now() {
                timer.sleep_until(station.instant(due)).await?;
                in_a_row = 0;
            } else if in_a_row == SENT_IN_A_ROW {
                yield_now().await;
                in_a_row = 0;
            }
            conversation.send_due(schedule, sequence);
            in_a_row += 1;
        }
        if conversations.is_empty() {
            return Ok(());
        }
    }
    Ok(())
}

/// Closes all connections.
async fn close(station: &Station, conversations: &[Rc<Conversation>]) {
    station.enter(Stage::Closing);
    for conversation in conversations {
        // The only error is an invalid code.
        let _ = conversation.sender.begin_close(CloseCode::NORMAL, "");
    }
    let _ = timeout(CLOSE_TIME, station.all_ended()).await;
}

/// Reports to the status line.
async fn report(station: Rc<Station>, progress: Arc<Progress>) {
    loop {
        progress.update(&station);
        sleep(REPORT_INTERVAL).await;
    }
}
