//! The parts that the tests of `bowline-hub` and of its engines share.
//!
//! - [`client`]: a client with its connection in a hub, and waiting for messages and events.
//! - [`presence`]: a client that is told who is in a room.
//! - [`presence_chaos`]: schedules of failures against the presence of a broker.
//! - [`notes`]: the notes that clients of random schedules take.
//! - [`proxy`]: a line between a node and its broker, which fails on command.
//! - [`process`]: nodes and brokers in processes of their own.
//! - [`random`]: random numbers from a seed.
//! - [`restore`]: the measurement of the examples `restore_redis` and `restore_nats`.
//!
//! The crate is not published. The packages of the hub and of its engines leave their tests out.

pub mod client;
pub mod notes;
pub mod presence;
pub mod presence_chaos;
pub mod process;
pub mod proxy;
pub mod random;
pub mod restore;

use std::error::Error;
use std::time::Duration;

use tokio::time::{sleep, timeout};

/// The result of a test.
pub type TestResult = Result<(), Box<dyn Error>>;

/// The result of a task.
pub type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// The time within which a frame or an event must arrive.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Waits until a condition holds.
///
/// # Errors
///
/// Returns an error that names the condition, if it does not hold within [`PATIENCE`].
pub async fn eventually(what: &str, condition: impl AsyncFn() -> bool) -> TestResult {
    let met = async {
        while !condition().await {
            sleep(Duration::from_millis(20)).await;
        }
    };
    Ok(timeout(PATIENCE, met).await.map_err(|_| format!("not within {PATIENCE:?}: {what}"))?)
}
