//! `--files`: a folder of static files for the requests that ask for no WebSocket.

use std::fs::FileType;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bowline::Server;
use bowline::http::header::CONTENT_LENGTH;
use bowline::http::request::Parts;
use bowline::http::{Request, Response, StatusCode};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use percent_encoding::percent_decode_str;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower_http::services::ServeDir;
use tower_service::Service as _;

use super::alt_svc::AltSvc;
use super::guard::HostGuard;
use crate::connect::UsageError;

/// The largest file. A response is kept in memory as a whole.
const FILE_MAX: usize = 64 * 1024 * 1024;
/// The memory of all responses that clients have not received yet, in units of [`UNIT`]: 256 MiB.
const UNITS: usize = 4096;
const UNIT: usize = 64 * 1024;

/// A folder whose files are served.
#[derive(Clone)]
struct Folder {
    root: Arc<Path>,
    files: ServeDir,
    memory: Arc<Semaphore>,
}

/// The content of a response, which counts as memory until the client has it.
struct Body {
    bytes: Bytes,
    _memory: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Body {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Answers requests for files.
pub(crate) fn serve_folder(
    server: Server,
    folder: &Path,
    guard: HostGuard,
    alt_svc: AltSvc,
) -> Result<Server, UsageError> {
    let unusable = |why: &dyn std::fmt::Display| UsageError(format!("--files {}: {why}", folder.display()));
    let root = folder.canonicalize().map_err(|error| unusable(&error))?;
    if !root.is_dir() {
        return Err(unusable(&"this is no folder"));
    }
    let folder =
        Folder { files: ServeDir::new(&root), root: root.into(), memory: Arc::new(Semaphore::new(UNITS)) };
    Ok(server.fallback(move |head: Parts| {
        let (folder, allowed) = (folder.clone(), guard.allows_host_of(&head));
        let alt_svc = alt_svc.clone();
        async move {
            if !allowed {
                return plain(StatusCode::FORBIDDEN);
            }
            let mut response = folder.respond(head).await.unwrap_or_else(plain);
            alt_svc.insert_into(response.headers_mut());
            response
        }
    }))
}

impl Folder {
    async fn respond(mut self, head: Parts) -> Result<Response<Bytes>, StatusCode> {
        self.check(head.uri.path()).await.ok_or(StatusCode::NOT_FOUND)?;
        let request = Request::from_parts(head, Empty::<Bytes>::new());
        let Ok(response) = self.files.call(request).await;
        if !response.status().is_success() && !response.status().is_redirection() {
            return Err(response.status());
        }
        let (head, body) = response.into_parts();
        let size = head.headers.get(CONTENT_LENGTH).and_then(|size| size.to_str().ok()?.parse().ok());
        // A file over the limit is one that this server can't serve, which is no fault of the client.
        let size: usize = size
            .filter(|size| *size <= FILE_MAX)
            .ok_or(StatusCode::NOT_IMPLEMENTED)
            .or_else(|status| if head.status.is_redirection() { Ok(0) } else { Err(status) })?;
        let units = u32::try_from(size.div_ceil(UNIT) + 1).map_err(|_| StatusCode::NOT_IMPLEMENTED)?;
        let memory = Arc::clone(&self.memory).acquire_many_owned(units).await;
        let memory = memory.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
        let body = Limited::new(body, FILE_MAX).collect().await.map_err(|_| StatusCode::NOT_IMPLEMENTED)?;
        let body = Bytes::from_owner(Body { bytes: body.to_bytes(), _memory: memory });
        Ok(Response::from_parts(head, body))
    }

    /// Returns `None` for what is not served: hidden files, links that leave the folder, and files that are
    /// not regular, such as pipes, on which reading would block.
    async fn check(&self, path: &str) -> Option<()> {
        let path = percent_decode_str(path).decode_utf8().ok()?;
        let mut names = path.split('/').filter(|name| !name.is_empty());
        if names.any(|name| name.starts_with('.') && name != ".well-known") {
            return None;
        }
        let kind = self.kind_of(&self.root.join(path.trim_start_matches('/'))).await?;
        let is_served = match kind {
            kind if kind.is_dir() => {
                let index = self.root.join(path.trim_start_matches('/')).join("index.html");
                self.kind_of(&index).await?.is_file()
            }
            kind => kind.is_file(),
        };
        is_served.then_some(())
    }

    /// The kind of a file in the folder, after all links.
    async fn kind_of(&self, path: &Path) -> Option<FileType> {
        let path: PathBuf = tokio::fs::canonicalize(path).await.ok()?;
        if !path.starts_with(&self.root) {
            return None;
        }
        Some(tokio::fs::metadata(&path).await.ok()?.file_type())
    }
}

fn plain(status: StatusCode) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(format!("{status}\n")));
    *response.status_mut() = status;
    response
}
