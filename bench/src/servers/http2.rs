//! The echo servers over HTTP/2, in clear text or over TLS.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use anyhow::{Result, bail};
use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Body, Frame, Incoming};
use hyper::server::conn::http2::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::accept::each;
use super::echo::floor::{Frames, echo_opened};
use super::echo::{Side, bowline};
use super::library::Library;

/// The window of a stream, as large as that of bowline.
const STREAM_WINDOW: u32 = 256 * 1024;

/// The window of a connection, as large as that of bowline.
const CONNECTION_WINDOW: u32 = (1 << 31) - 1;

/// The most streams of a connection.
const STREAMS: u32 = 1000;

pub async fn serve(library: Library, listener: TcpListener, tls: Option<Arc<ServerConfig>>) -> Result<()> {
    match (library, tls) {
        (Library::Bowline, None) => Ok(bowline::echo(bowline::server().http2(), listener).await?),
        (Library::Bowline, Some(config)) => {
            Ok(bowline::echo(bowline::server().http2().tls(config), listener).await?)
        }
        (Library::Floor | Library::Limit, None) => {
            each(listener, move |stream| serve_connection(library, stream)).await
        }
        (Library::Floor | Library::Limit, Some(config)) => {
            let acceptor = TlsAcceptor::from(config);
            each(listener, move |stream| {
                let accepting = acceptor.accept(stream);
                async move { serve_connection(library, Box::pin(accepting).await?).await }
            })
            .await
        }
        #[allow(unreachable_patterns, reason = "there may be no other libraries")]
        (other, _) => bail!("{other:?} is not served over HTTP/2"),
    }
}

/// Serves a connection as the floor or as the limit.
async fn serve_connection<S>(library: Library, stream: S) -> Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (stream, mut builder) = (TokioIo::new(stream), builder());
    if library == Library::Floor {
        let service = service_fn(|request: Request<Incoming>| async {
            let frames = Frames::new(Side::Server);
            Ok::<_, Infallible>(Response::new(Echo { body: request.into_body(), frames }))
        });
        return Ok(builder.serve_connection(stream, service).await?);
    }
    let service = service_fn(|request: Request<Incoming>| async {
        tokio::spawn(async {
            let upgraded = hyper::upgrade::on(request).await?;
            anyhow::Ok(echo_opened(Side::Server, TokioIo::new(upgraded)).await?)
        });
        Ok::<_, Infallible>(Response::new(String::new()))
    });
    builder.enable_connect_protocol();
    Ok(builder.serve_connection(stream, service).await?)
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(STREAMS);
    builder
}

/// The body of a request as the body of its response, with the replies to the frames in it.
struct Echo {
    body: Incoming,
    frames: Frames,
}

impl Body for Echo {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        loop {
            let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(cx)?) else {
                return Poll::Ready(None);
            };
            let Ok(data) = frame.into_data() else { continue };
            let mut replies = Vec::with_capacity(data.len());
            self.frames.echo(&data, &mut replies);
            return Poll::Ready(Some(Ok(Frame::data(replies.into()))));
        }
    }
}
