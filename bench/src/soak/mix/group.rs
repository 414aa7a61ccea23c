//! A group of connections, from the first attempt to connect to the judgement of the last.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::sync::oneshot;

use super::cancel::at_most;
use super::carriers::{Group, Network, Opened};
use super::endings::judge;
use super::ledger::Talk;
use super::plan::{ConnectionPlan, GroupPlan, Side};
use super::run::Violation;
use super::servers::Expected;
use super::side::{Task, run};

/// Runs the connections of a group concurrently, until all have ended.
pub async fn talk(network: Arc<Network>, plan: Arc<GroupPlan>) {
    let group = match Group::open(Arc::clone(&network), Arc::clone(&plan)).await {
        Ok(group) => Arc::new(group),
        // The transport failed during the handshake.
        Err(_) if plan.fault.is_some() => return,
        Err(error) => {
            return network.run.violated(
                Violation::First,
                format!("group {}: no HTTP/2 connection: {error:?}", plan.number),
            );
        }
    };
    let connections = plan.connections.iter().map(|connection| {
        let (group, connection) = (Arc::clone(&group), connection.clone());
        Task(tokio::spawn(async move { attend(&group, &connection).await }))
    });
    let connections: Vec<_> = connections.collect();
    for connection in connections {
        connection.await;
    }
    network.run.prepared.forget(plan.number);
}

/// Connects, after cancelled attempts, and runs the connection.
async fn attend(group: &Group, plan: &ConnectionPlan) {
    for attempt in 0.. {
        let talk = Talk::new(&group.network.run, &group.plan, plan, attempt);
        let path = format!("/{}/{attempt}", plan.number);
        let is_over = talk_once(group, &talk, &path).await;
        // The server of a client that gave up may still wait.
        drop(group.network.registry.take(&path));
        if is_over || talk.given_up.is_cancelled() {
            return;
        }
    }
}

/// Makes one attempt to connect, and runs the connection if it succeeds. Returns `false` if the attempt is
/// cancelled.
async fn talk_once(group: &Group, talk: &Arc<Talk>, path: &str) -> bool {
    let (done, server) = oneshot::channel();
    let expected = Expected { talk: Arc::clone(talk), done };
    let probe = talk.probe(Side::Client, "group");
    let connect = at_most(talk.connect_polls(), group.connect(path, expected));
    let connected = tokio::select! {
        connected = probe.during("connect", connect) => connected,
        () = talk.given_up.cancelled() => return true,
    };
    if connected.is_some() {
        talk.handshake_done(talk.connect_polls());
    }
    let opened = match connected {
        Some(Ok(opened)) => opened,
        Some(Err(_)) if talk.is_void() => return false,
        // The transport failed during the handshake.
        Some(Err(_)) if group.plan.fault.is_some() => return true,
        Some(Err(error)) => {
            talk.blame(format_args!("connecting failed: {error:?}"));
            return true;
        }
        None => {
            talk.run.counts.cancelled.fetch_add(1, Relaxed);
            return false;
        }
    };
    let Opened { socket, tasks } = opened;
    let compression = socket.compression();
    let client = run(talk, Side::Client, socket).await;
    let server = tokio::select! {
        server = probe.during("waiting for the server's side", server) => server.ok(),
        () = talk.given_up.cancelled() => return true,
    };
    drop(tasks);
    match server {
        Some(server) => judge(talk, &client, &server),
        None if talk.is_void() => return false,
        // The fault occurred before the server had completed its handshake.
        None if group.plan.fault.is_some() => {}
        None => talk.blame("the server's side never ran, or panicked"),
    }
    talk.covered(compression);
    true
}
