//! A run as a whole: the way to the server, the threads, and the end.
//!
//! ```text
//! worker           one thread: opening, running, draining, closing its connections
//!   conversation   one connection, its messages and their replies
//!   handshakes     connections that are opened and closed
//!     station      what the tasks of a thread share: the tally, the stage
//!     window       the messages of a connection that wait for a reply
//!     dial         the way to the server
//!     timer        waiting for an exact time
//! status           the line on a terminal, with the progress of all threads
//! system           open files, and the time of the processors
//! ```

mod conversation;
mod dial;
mod handshakes;
mod progress;
mod station;
mod status;
mod system;
mod timer;
mod window;
mod worker;

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::time::sleep_until;

use self::dial::Dialer;
use self::progress::Progress;
use self::station::Order;
use self::status::StatusLine;
pub(crate) use self::system::allow_connections;
use self::system::cpu_time;
use self::worker::Worker;
use crate::bench::plan::Plan;
use crate::bench::report::Report;
use crate::bench::tally::{Measured, Tally};
use crate::connect::ConnectError;

/// The time between the order to run and the start, in which all threads receive the order.
const LEAD: Duration = Duration::from_millis(5);

/// A run that could not be carried out.
#[derive(Debug)]
pub(crate) enum LoadError {
    /// The first connection failed.
    Connect(ConnectError),
    /// A thread could not be started, or has failed.
    Thread(io::Error),
}

/// Carries out the plan. `stop` ends the run early; there is no report if the server was not reached by then.
///
/// `observe` is called when all connections are open, and again when the time of the run is over, before they
/// are closed.
pub(crate) async fn run(
    plan: Plan,
    stop: impl Future<Output = ()> + Send + 'static,
    mut observe: impl FnMut(),
) -> Result<Option<Report>, LoadError> {
    let (orders, receiver) = watch::channel(Order::Connect);
    let orders = Arc::new(orders);
    let stopping = Arc::clone(&orders);
    tokio::spawn(async move {
        stop.await;
        stopping.send_replace(Order::Stop);
    });
    let mut stopped = receiver.clone();
    let dialer = tokio::select! {
        found = Dialer::find(&plan) => Arc::new(found.map_err(LoadError::Connect)?),
        _ = stopped.wait_for(|order| matches!(order, Order::Stop)) => return Ok(None),
    };
    let plan = Arc::new(plan);
    let mut threads = Threads::start(&plan, &dialer, &receiver).map_err(LoadError::Thread)?;
    let status = StatusLine::show(&plan, &threads.progress);
    threads.all_ready().await;
    observe();
    let (begun, cpu_before) = (Instant::now(), cpu_time());
    orders.send_if_modified(|order| {
        let is_expected = matches!(order, Order::Connect);
        if is_expected {
            *order = Order::Run(begun + LEAD);
        }
        is_expected
    });
    let mut measuring = pin!(threads.measured(plan.nanos()));
    let early = tokio::select! {
        measured = &mut measuring => Some(measured),
        () = sleep_until((begun + LEAD + plan.duration).into()) => None,
    };
    observe();
    let measured = match early {
        Some(measured) => measured,
        None => measuring.await,
    };
    let measured = measured.map_err(LoadError::Thread)?;
    let cpu_time = cpu_time().saturating_sub(cpu_before);
    status.remove();
    let is_interrupted = matches!(*receiver.borrow(), Order::Stop);
    Ok(Some(Report::new(plan, measured, is_interrupted, cpu_time, begun.elapsed())))
}

/// The threads of a run.
struct Threads {
    count: usize,
    progress: Vec<Arc<Progress>>,
    /// Closed when the last thread has dropped its sender.
    ready: mpsc::Receiver<Infallible>,
    results: mpsc::UnboundedReceiver<io::Result<Measured>>,
}

impl Threads {
    fn start(plan: &Arc<Plan>, dialer: &Arc<Dialer>, orders: &watch::Receiver<Order>) -> io::Result<Self> {
        let (ready_sender, ready) = mpsc::channel(1);
        let (result_sender, results) = mpsc::unbounded_channel();
        let progress: Vec<_> = (0..plan.threads).map(|_| Arc::<Progress>::default()).collect();
        for (thread, progress) in progress.iter().enumerate() {
            let worker = Worker {
                plan: Arc::clone(plan),
                dialer: Arc::clone(dialer),
                thread,
                orders: orders.clone(),
                progress: Arc::clone(progress),
            };
            let (ready, results) = (ready_sender.clone(), result_sender.clone());
            thread::Builder::new().name(format!("load-{thread}")).spawn(move || {
                // The receiver waits for all threads.
                let _ = results.send(worker.run(ready));
            })?;
        }
        Ok(Self { count: plan.threads, progress, ready, results })
    }

    /// Waits until all threads have opened their connections, or have failed, which their results say.
    async fn all_ready(&mut self) {
        while self.ready.recv().await.is_some() {}
    }

    /// Waits for the end of all threads, and adds up what they have measured.
    async fn measured(&mut self, duration: u64) -> io::Result<Measured> {
        let mut all = Measured { tally: Tally::new(duration), elapsed: 0, opened: 0 };
        for _ in 0..self.count {
            let ended = || Err(io::Error::other("a thread of the load has panicked"));
            let measured = self.results.recv().await.unwrap_or_else(ended)?;
            all.tally.add(&measured.tally);
            all.elapsed = all.elapsed.max(measured.elapsed);
            all.opened += measured.opened;
        }
        Ok(all)
    }
}
