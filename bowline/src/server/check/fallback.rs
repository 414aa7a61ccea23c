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
pub(crate) struct Fallback {
    answer: Arc<dyn Fn(Parts) -> PageFuture + Send + Sync>,
    /// Is asked after each page. Without this, connections are kept.
    after_page: Option<Arc<dyn Fn() -> AfterPage + Send + Sync>>,
}

/// The fate of a connection whose client has received a page.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum AfterPage {
    Keep,
    /// The connection has no permit, and a page must not prolong its life.
    Close,
}

struct PageFuture(Pin<Box<dyn Future<Output = Response<Bytes>> + Send>>);

impl Fallback {
    pub(crate) fn new<F, Fut, B>(fallback: F) -> Self
    where
        F: Fn(Parts) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Response<B>> + Send + 'static,
        B: Into<Bytes>,
    {
        let answer = Arc::new(move |head| {
            let answering = fallback(head);
            PageFuture(Box::pin(async move { answering.await.map(Into::into) }))
        });
        Self { answer, after_page: None }
    }

    /// Returns the same fallback, whose connections are kept only if `after_page` says so.
    pub(crate) fn with_end(&self, after_page: impl Fn() -> AfterPage + Send + Sync + 'static) -> Self {
        Self { answer: Arc::clone(&self.answer), after_page: Some(Arc::new(after_page)) }
    }

    /// Answers a request. The answer is refused if the application panics, or returns no final status.
    pub(crate) async fn answer(&self, head: Parts) -> Result<(Response<Bytes>, AfterPage), Refusal> {
        let text = match CatchPanic::call(|| (self.answer)(head).0).await {
            // RFC 9110 15.2: after an informational response, another one follows.
            Ok(page) if page.status().is_informational() => {
                format!("Server::fallback returned {}, but the status has to be 200 or above", page.status())
            }
            Ok(page) => {
                let after = self.after_page.as_ref().map_or(AfterPage::Keep, |after_page| after_page());
                return Ok((page, after));
            }
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
