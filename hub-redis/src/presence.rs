//! Presence: the scripts, and their calls on one server or on all.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use bowline_hub::{EngineError, Lease, NodeId, Present, Topic};
use redis::{FromRedisValue, Script};

use crate::keys::{milliseconds, present};
use crate::server::Server;

/// The leases of all nodes: a sorted set.
const LEASES: &str = "bowline:leases";

/// The runs of Redis in which the leases began: a hash.
const RUNS: &str = "bowline:runs";

/// The number of entries that are reaped at once.
const REAPED: usize = 100;

/// The scripts about presence.
pub(crate) struct Presence {
    begin: Script,
    renew: Script,
    enter: Script,
    exit: Script,
    reap: Script,
}

macro_rules! script {
    ($file:literal) => {
        Script::new(concat!(include_str!("presence.lua"), include_str!($file)))
    };
}

impl Presence {
    pub(crate) fn new() -> Self {
        Self {
            begin: script!("begin.lua"),
            renew: script!("renew.lua"),
            enter: script!("enter.lua"),
            exit: script!("exit.lua"),
            reap: script!("reap.lua"),
        }
    }

    /// Begins a lease on all servers within reach. The others answer later that there is none, and the hub
    /// then begins another.
    pub(crate) async fn begin(
        &self,
        servers: &[Server],
        node: NodeId,
        time: Duration,
    ) -> Result<(), EngineError> {
        let node = node.to_string();
        let calls = servers.iter().map(|server| self.call(server, &self.begin, &node, time));
        let mut outcomes: Vec<Result<(), _>> = all(calls).await;
        let reached = outcomes.iter().position(Result::is_ok);
        outcomes.swap_remove(reached.unwrap_or(0))
    }

    /// Renews the lease on all servers within reach.
    pub(crate) async fn renew(
        &self,
        servers: &[Server],
        node: NodeId,
        time: Duration,
    ) -> Result<Lease, EngineError> {
        let node = node.to_string();
        let calls = servers.iter().map(|server| self.call(server, &self.renew, &node, time));
        let mut outcomes: Vec<Result<bool, _>> = all(calls).await;
        if outcomes.iter().any(|outcome| matches!(outcome, Ok(false))) {
            return Ok(Lease::Lapsed);
        }
        let reached = outcomes.iter().position(Result::is_ok);
        outcomes.swap_remove(reached.unwrap_or(0)).map(|_| Lease::Held)
    }

    async fn call<T: FromRedisValue>(
        &self,
        server: &Server,
        script: &Script,
        node: &str,
        time: Duration,
    ) -> Result<T, EngineError> {
        let mut call = script.key(LEASES);
        call.key(RUNS).arg(node).arg(milliseconds(time));
        let answer = call.invoke_async(&mut server.commands()?).await;
        answer.map_err(|error| server.failed(&error))
    }

    pub(crate) async fn enter(
        &self,
        server: &Server,
        topic: &Topic,
        node: NodeId,
        present: &Present,
    ) -> Result<Lease, EngineError> {
        let mut call = self.enter.key(LEASES);
        call.arg(node.to_string()).arg(server.channel(topic)).arg(topic.name());
        call.arg(&present.key).arg(&present.info);
        let answer = call.invoke_async(&mut server.commands()?).await;
        let is_held: bool = answer.map_err(|error| server.failed(&error))?;
        Ok(if is_held { Lease::Held } else { Lease::Lapsed })
    }

    pub(crate) async fn exit(
        &self,
        server: &Server,
        topic: &Topic,
        node: NodeId,
        key: &str,
    ) -> Result<(), EngineError> {
        let mut call = self.exit.arg(node.to_string());
        call.arg(server.channel(topic)).arg(topic.name()).arg(key);
        let answer = call.invoke_async(&mut server.commands()?).await;
        answer.map_err(|error| server.failed(&error))
    }

    /// Reaps on all servers within reach.
    pub(crate) async fn reap(&self, servers: &[Server], caller: NodeId) -> Result<usize, EngineError> {
        let caller = caller.to_string();
        let reap = async |server: &Server| {
            let mut call = self.reap.key(LEASES);
            call.key(RUNS).arg(&caller).arg(&server.place.channels).arg(REAPED);
            let answer = call.invoke_async(&mut server.commands()?).await;
            answer.map_err(|error| server.failed(&error))
        };
        let mut outcomes: Vec<Result<usize, EngineError>> = all(servers.iter().map(reap)).await;
        if outcomes.iter().all(Result::is_err) {
            return outcomes.swap_remove(0);
        }
        Ok(outcomes.into_iter().flatten().sum())
    }
}

/// Reads who is present in a topic.
pub(crate) async fn read(server: &Server, topic: &Topic) -> Result<Vec<Present>, EngineError> {
    let mut command = redis::cmd("HGETALL");
    let answer = command.arg(present(topic)).query_async(&mut server.commands()?).await;
    let people: Vec<(String, Vec<u8>)> = answer.map_err(|error| server.failed(&error))?;
    let person = |(key, person): (String, Vec<u8>)| Some(Present::new(key).info(info(&person)?));
    let people: Option<_> = people.into_iter().map(person).collect();
    people.ok_or_else(|| EngineError::new("the presence in Redis is not one of a hub"))
}

/// Reads the number of those who are present in a topic.
pub(crate) async fn count(server: &Server, topic: &Topic) -> Result<usize, EngineError> {
    let mut command = redis::cmd("HLEN");
    let answer = command.arg(present(topic)).query_async(&mut server.commands()?).await;
    answer.map_err(|error| server.failed(&error))
}

/// Decodes the information of somebody: see `presence.lua`.
fn info(person: &[u8]) -> Option<&str> {
    let (size, rest) = person.split_first_chunk()?;
    let size = usize::try_from(u32::from_be_bytes(*size)).ok()?;
    std::str::from_utf8(rest.get(..size)?).ok()
}

/// Waits for all futures, and returns their outcomes in order.
async fn all<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut futures: Vec<Pin<Box<F>>> = futures.map(Box::pin).collect();
    let mut outcomes: Vec<_> = futures.iter().map(|_| None).collect();
    poll_fn(|cx| {
        for (future, outcome) in futures.iter_mut().zip(&mut outcomes) {
            // A future that is ready must not be polled again.
            if outcome.is_none() {
                if let Poll::Ready(output) = future.as_mut().poll(cx) {
                    *outcome = Some(output);
                }
            }
        }
        if outcomes.iter().all(Option::is_some) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    outcomes.into_iter().flatten().collect()
}
