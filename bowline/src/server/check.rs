//! The decision about a request, over HTTP/1.1 and HTTP/2 alike.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bowline_proto::Role;
use http::request::Parts;
use http::{Response, StatusCode, header};

use crate::error::{Error, ErrorKind};
use crate::events;
use crate::server::catch_panic::CatchPanic;
use crate::server::handshake::{Agreement, Terms};
use crate::server::rejection::Rejection;

/// The application's decision about a request that is a valid handshake. By default every such request is
/// accepted.
#[derive(Clone, Default)]
pub(crate) struct RequestCheck(Option<Arc<dyn Fn(Parts) -> CheckFuture + Send + Sync>>);

struct CheckFuture(Pin<Box<dyn Future<Output = Result<Parts, Rejection>> + Send>>);

impl RequestCheck {
    pub(crate) fn new<F, Fut>(check: F) -> Self
    where
        F: Fn(Parts) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Parts, Rejection>> + Send + 'static,
    {
        Self(Some(Arc::new(move |head| CheckFuture(Box::pin(check(head))))))
    }
}

impl fmt::Debug for RequestCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "a closure" } else { "none" })
    }
}

/// Decides about a request. Returns the decision for the server, and the response for the client.
///
/// If the application panics, the client receives a plain 500.
pub(crate) async fn answer(
    head: Parts,
    terms: &Terms,
    check: &RequestCheck,
) -> (Result<(Parts, Agreement), Error>, Response<String>) {
    let agreeing = async {
        let agreement = terms.check(&head)?;
        let head = match &check.0 {
            Some(check) => check(head).0.await?,
            None => head,
        };
        Ok((head, agreement))
    };
    match CatchPanic::call(|| agreeing).await {
        Ok(Ok((head, agreement))) => {
            agreement.agreed.announce(Role::Server);
            let response = agreement.response();
            (Ok((head, agreement)), response)
        }
        Ok(Err(rejection)) => rejected(Rejection::clone(&rejection).into_error(), rejection),
        Err(panic) => {
            let rejection = Rejection::from(StatusCode::INTERNAL_SERVER_ERROR);
            let text = format!("the check of a client's request {panic}");
            let error = Error::with_source(ErrorKind::Handshake, text, rejection.clone());
            rejected(error, rejection)
        }
    }
}

/// Returns the error and the response for a request that is rejected.
pub(crate) fn rejected<T>(error: Error, rejection: Rejection) -> (Result<T, Error>, Response<String>) {
    events::handshake_rejected(Role::Server, rejection.status(), &rejection);
    let mut response: Response<String> = rejection.into_response();
    for name in [header::CONTENT_LENGTH, header::TRANSFER_ENCODING] {
        // hyper sets these headers to fit the body. It would send the application's values even if they
        // don't.
        response.headers_mut().remove(name);
    }
    (Err(error), response)
}
