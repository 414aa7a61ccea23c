//! Calls of an engine, bounded in time, with panics caught.

use std::pin::Pin;
use std::time::Duration;

use bowline::Message;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::{Timeout, timeout};

use crate::engine::inbox::Inbox;
use crate::engine::{Engine, EngineError, HistoryPage};
use crate::error::{Error, ErrorKind};
use crate::panics::{catch, catch_future};
use crate::position::Position;
use crate::presence::{Lease, NodeId, Present};
use crate::topic::Topic;

/// The longest time for which a publisher waits for its hub.
const CONGESTION: Duration = Duration::from_millis(500);

type Call<'a, T> = Pin<Box<dyn Future<Output = Result<T, EngineError>> + Send + 'a>>;

/// The methods of an [`Engine`] as an object: no type of the application has a parameter for the engine.
trait AnyEngine: Send + Sync {
    fn publish<'a>(&'a self, topic: &'a Topic, message: Message, tag: u64) -> Call<'a, Position>;
    fn publish_once<'a>(
        &'a self,
        topic: &'a Topic,
        key: &'a str,
        message: Message,
        tag: u64,
    ) -> Call<'a, Position>;
    fn want<'a>(&'a self, topic: &'a Topic) -> Call<'a, ()>;
    fn unwant<'a>(&'a self, topic: &'a Topic) -> Call<'a, ()>;
    fn history<'a>(&'a self, topic: &'a Topic, after: u64, limit: usize) -> Call<'a, HistoryPage>;
    fn before_last<'a>(&'a self, topic: &'a Topic, count: u64) -> Call<'a, Position>;
    fn begin(&self, node: NodeId, time: Duration) -> Call<'_, ()>;
    fn renew(&self, node: NodeId, time: Duration) -> Call<'_, Lease>;
    fn enter<'a>(&'a self, topic: &'a Topic, node: NodeId, present: &'a Present) -> Call<'a, Lease>;
    fn exit<'a>(&'a self, topic: &'a Topic, node: NodeId, key: &'a str) -> Call<'a, ()>;
    fn present<'a>(&'a self, topic: &'a Topic) -> Call<'a, Vec<Present>>;
    fn count<'a>(&'a self, topic: &'a Topic) -> Call<'a, usize>;
    fn reap(&self, caller: NodeId) -> Call<'_, usize>;
}

impl<E: Engine> AnyEngine for E {
    fn publish<'a>(&'a self, topic: &'a Topic, message: Message, tag: u64) -> Call<'a, Position> {
        Box::pin(Engine::publish(self, topic, message, tag))
    }

    fn publish_once<'a>(
        &'a self,
        topic: &'a Topic,
        key: &'a str,
        message: Message,
        tag: u64,
    ) -> Call<'a, Position> {
        Box::pin(Engine::publish_once(self, topic, key, message, tag))
    }

    fn want<'a>(&'a self, topic: &'a Topic) -> Call<'a, ()> {
        Box::pin(Engine::want(self, topic))
    }

    fn unwant<'a>(&'a self, topic: &'a Topic) -> Call<'a, ()> {
        Box::pin(Engine::unwant(self, topic))
    }

    fn history<'a>(&'a self, topic: &'a Topic, after: u64, limit: usize) -> Call<'a, HistoryPage> {
        Box::pin(Engine::history(self, topic, after, limit))
    }

    fn before_last<'a>(&'a self, topic: &'a Topic, count: u64) -> Call<'a, Position> {
        Box::pin(Engine::before_last(self, topic, count))
    }

    fn begin(&self, node: NodeId, time: Duration) -> Call<'_, ()> {
        Box::pin(Engine::begin(self, node, time))
    }

    fn renew(&self, node: NodeId, time: Duration) -> Call<'_, Lease> {
        Box::pin(Engine::renew(self, node, time))
    }

    fn enter<'a>(&'a self, topic: &'a Topic, node: NodeId, present: &'a Present) -> Call<'a, Lease> {
        Box::pin(Engine::enter(self, topic, node, present))
    }

    fn exit<'a>(&'a self, topic: &'a Topic, node: NodeId, key: &'a str) -> Call<'a, ()> {
        Box::pin(Engine::exit(self, topic, node, key))
    }

    fn present<'a>(&'a self, topic: &'a Topic) -> Call<'a, Vec<Present>> {
        Box::pin(Engine::present(self, topic))
    }

    fn count<'a>(&'a self, topic: &'a Topic) -> Call<'a, usize> {
        Box::pin(Engine::count(self, topic))
    }

    fn reap(&self, caller: NodeId) -> Call<'_, usize> {
        Box::pin(Engine::reap(self, caller))
    }
}

/// The engine of a hub.
pub(crate) struct EngineCalls {
    engine: Box<dyn AnyEngine>,
    timeout: Duration,
    /// The runtime whose clock measures the time. Callers may be on another executor.
    runtime: Handle,
}

impl EngineCalls {
    pub(crate) fn new(engine: impl Engine, timeout: Duration, runtime: Handle) -> Self {
        Self { engine: Box::new(engine), timeout, runtime }
    }

    pub(crate) async fn publish(&self, topic: &Topic, message: Message, tag: u64) -> Result<Position, Error> {
        self.bounded("publish", || self.engine.publish(topic, message, tag)).await
    }

    pub(crate) async fn publish_once(
        &self,
        topic: &Topic,
        key: &str,
        message: Message,
        tag: u64,
    ) -> Result<Position, Error> {
        self.bounded("publish", || self.engine.publish_once(topic, key, message, tag)).await
    }

    pub(crate) async fn want(&self, topic: &Topic) -> Result<(), Error> {
        self.bounded("subscribe", || self.engine.want(topic)).await
    }

    pub(crate) async fn unwant(&self, topic: &Topic) -> Result<(), Error> {
        self.bounded("unsubscribe", || self.engine.unwant(topic)).await
    }

    pub(crate) async fn history(
        &self,
        topic: &Topic,
        after: u64,
        limit: usize,
    ) -> Result<HistoryPage, Error> {
        self.bounded("read the history", || self.engine.history(topic, after, limit)).await
    }

    pub(crate) async fn before_last(&self, topic: &Topic, count: u64) -> Result<Position, Error> {
        self.bounded("read the history", || self.engine.before_last(topic, count)).await
    }

    pub(crate) async fn begin(&self, node: NodeId, time: Duration) -> Result<(), Error> {
        self.bounded("begin a lease", || self.engine.begin(node, time)).await
    }

    pub(crate) async fn renew(&self, node: NodeId, time: Duration) -> Result<Lease, Error> {
        self.bounded("renew a lease", || self.engine.renew(node, time)).await
    }

    pub(crate) async fn enter(&self, topic: &Topic, node: NodeId, present: &Present) -> Result<Lease, Error> {
        self.bounded("enter a presence", || self.engine.enter(topic, node, present)).await
    }

    pub(crate) async fn exit(&self, topic: &Topic, node: NodeId, key: &str) -> Result<(), Error> {
        self.bounded("end a presence", || self.engine.exit(topic, node, key)).await
    }

    pub(crate) async fn present(&self, topic: &Topic) -> Result<Vec<Present>, Error> {
        self.bounded("read who is present", || self.engine.present(topic)).await
    }

    pub(crate) async fn count(&self, topic: &Topic) -> Result<usize, Error> {
        self.bounded("count who is present", || self.engine.count(topic)).await
    }

    pub(crate) async fn reap(&self, caller: NodeId) -> Result<usize, Error> {
        self.bounded("look for nodes that are gone", || self.engine.reap(caller)).await
    }

    /// Waits for the outcome of a call that another task makes, for the time of one call.
    pub(crate) async fn outcome<T>(
        &self,
        what: &str,
        outcome: oneshot::Receiver<Result<T, Error>>,
    ) -> Result<T, Error> {
        self.in_time(what, outcome).await?.map_err(|_| Error::ended())?
    }

    /// Waits for something, for the time of one call.
    pub(crate) async fn in_time<T>(&self, what: &str, future: impl Future<Output = T>) -> Result<T, Error> {
        // A timer panics when it is polled after its runtime has ended. The caller may be on another one.
        let outcome = catch_future(self.start_timeout(self.timeout, future)).await;
        outcome.map_err(|_| Error::ended())?.map_err(|_| self.late(what))
    }

    /// Starts a task in the runtime of the hub.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(task);
    }

    /// Waits until the inbox has room for more messages of a topic, but not for long.
    pub(crate) async fn wait_for_room(&self, inbox: &Inbox, topic: &Topic) {
        // A worker that is stuck for so long is not waited for.
        let _ = catch_future(self.start_timeout(CONGESTION, inbox.room(topic))).await;
    }

    async fn bounded<'a, T>(&self, what: &str, call: impl FnOnce() -> Call<'a, T>) -> Result<T, Error> {
        let failed = |cause: Box<dyn std::error::Error + Send + Sync>| {
            Error::with_source(ErrorKind::Unavailable, format!("the engine did not {what}"), cause)
        };
        let call = catch(call).map_err(|panicked| failed(panicked.into()))?;
        match self.in_time(what, catch_future(call)).await? {
            Ok(Ok(output)) => Ok(output),
            Ok(Err(error)) => Err(failed(error.into())),
            Err(panicked) => Err(failed(panicked.into())),
        }
    }

    fn late(&self, what: &str) -> Error {
        let text = format!("the engine did not {what} within {:?} (HubLimits::engine_timeout)", self.timeout);
        Error::new(ErrorKind::Unavailable, text)
    }

    /// Starts the clock. Without a runtime in the context, a timer can't be created.
    fn start_timeout<F: Future>(&self, time: Duration, future: F) -> Timeout<F> {
        let _context = self.runtime.enter();
        timeout(time, future)
    }
}
