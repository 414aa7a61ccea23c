//! The application's answers to requests that ask for no WebSocket.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::request::Parts;
use http::{Response, StatusCode};
use hyper::body::{Body, Frame, SizeHint};

use crate::error::{Error, ErrorKind};
use crate::server::catch_panic::CatchPanic;
use crate::server::check::acceptance::Refusal;
use crate::server::rejection::{Rejection, RejectionReason};

/// The application's closure that answers requests that ask for no WebSocket.
#[derive(Clone)]
pub(crate) struct Fallback(Arc<dyn Fn(Parts) -> PageFuture + Send + Sync>);

struct PageFuture(Pin<Box<dyn Future<Output = Response<Bytes>> + Send>>);

impl Fallback {
    pub(crate) fn new<F, Fut, B>(fallback: F) -> Self
    where
        F: Fn(Parts) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Response<B>> + Send + 'static,
        B: Into<Bytes>,
    {
        Self(Arc::new(move |head| {
            let answering = fallback(head);
            PageFuture(Box::pin(async move { answering.await.map(Into::into) }))
        }))
    }

    /// Answers a request. The answer is refused if the application panics, or returns no final status.
    pub(crate) async fn answer(&self, head: Parts) -> Result<Response<Bytes>, Refusal> {
        let text = match CatchPanic::call(|| (self.0)(head).0).await {
            // RFC 9110 15.2: after an informational response, another one follows.
            Ok(page) if page.status().is_informational() => {
                format!("Server::fallback returned {}, but the status has to be 200 or above", page.status())
            }
            Ok(page) => return Ok(page),
            Err(panic) => format!("the fallback {panic}"),
        };
        let rejection = Rejection::from(StatusCode::INTERNAL_SERVER_ERROR);
        let rejection = rejection.because_of(RejectionReason::Fallback);
        let error = Error::with_source(ErrorKind::Handshake, text, rejection.clone());
        Err(Refusal { error, rejection })
    }
}

impl fmt::Debug for Fallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a closure")
    }
}

/// The body of a response, for hyper.
pub(crate) struct WholeBody(Bytes);

impl From<Bytes> for WholeBody {
    fn from(bytes: Bytes) -> Self {
        Self(bytes)
    }
}

impl Body for WholeBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let rest = std::mem::take(&mut self.0);
        Poll::Ready((!rest.is_empty()).then(|| Ok(Frame::data(rest))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.len() as u64)
    }
}
