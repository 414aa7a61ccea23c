//! `--files`: a folder of static files for the requests that ask for no WebSocket.

use std::path::Path;

use bowline::Server;
use bowline::http::request::Parts;
use bowline::http::{Request, Response, StatusCode};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use tower_http::services::ServeDir;
use tower_service::Service as _;

use crate::connect::UsageError;

/// The largest file. A response is kept in memory as a whole.
const FILE_MAX: usize = 64 * 1024 * 1024;

/// Answers requests for files.
pub(crate) fn serve_folder(server: Server, folder: &Path) -> Result<Server, UsageError> {
    if !folder.is_dir() {
        return Err(UsageError(format!("--files {}: this is no folder", folder.display())));
    }
    let files = ServeDir::new(folder);
    Ok(server.fallback(move |head: Parts| {
        let files = files.clone();
        async move {
            match respond(files, head).await {
                Ok(response) => response,
                Err(status) => plain(status),
            }
        }
    }))
}

async fn respond(mut files: ServeDir, head: Parts) -> Result<Response<Bytes>, StatusCode> {
    let request = Request::from_parts(head, Empty::<Bytes>::new());
    let Ok(response) = files.call(request).await;
    if !response.status().is_success() && !response.status().is_redirection() {
        return Err(response.status());
    }
    let (head, body) = response.into_parts();
    // A file over the limit is one that this server can't serve, which is no fault of the client.
    let body = Limited::new(body, FILE_MAX).collect().await.map_err(|_| StatusCode::NOT_IMPLEMENTED)?;
    Ok(Response::from_parts(head, body.to_bytes()))
}

fn plain(status: StatusCode) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(format!("{status}\n")));
    *response.status_mut() = status;
    response
}
