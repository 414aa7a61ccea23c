//! The shutdown of a server: its signal.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

/// The application's signal to shut down, which the clones of a server share.
#[derive(Clone)]
pub(crate) struct ShutdownSignal(Arc<SignalState>);

struct SignalState {
    /// The application's future. One of those who wait polls it, and another takes over when the wait of that
    /// one is dropped.
    future: Mutex<Pin<Box<dyn Future<Output = ()> + Send>>>,
    completed: CancellationToken,
}

impl ShutdownSignal {
    pub(crate) fn new(signal: impl Future<Output = ()> + Send + 'static) -> Self {
        let (future, completed) = (Mutex::new(Box::pin(signal) as _), CancellationToken::new());
        Self(Arc::new(SignalState { future, completed }))
    }

    /// Waits until the signal has completed.
    pub(crate) async fn completed(&self) {
        let SignalState { future, completed } = &*self.0;
        let polling = async {
            let mut future = future.lock().await;
            if !completed.is_cancelled() {
                future.as_mut().await;
                completed.cancel();
            }
        };
        completed.run_until_cancelled(polling).await;
    }
}
