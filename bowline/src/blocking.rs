//! Blocking use, for programs without an async runtime.
//!
//! The connections run on a runtime of their own, on one thread in the background that the first call starts.
//! So pings are answered, keepalive pings are sent, and accepted messages are written while the application
//! computes between two calls. The thread does not keep the process alive: before a program ends, call
//! [`WebSocket::close`] or [`WebSocket::flush`].
//!
//! A fork does not copy that thread. The first call in the child process starts another one, so the child can
//! open connections of its own. Calls in the child on a connection of the parent may block forever.
//!
//! [`block_on`] runs everything else: every future of this crate, with every option of
//! [`Connector`](crate::Connector) and [`Acceptor`](crate::Acceptor).
//!
//! # Examples
//!
//! ```no_run
//! fn main() -> Result<(), bowline::Error> {
//!     let mut socket = bowline::blocking::connect("wss://example.com/feed")?;
//!     socket.send("hello")?;
//!     while let Some(message) = socket.recv()? {
//!         println!("{message:?}");
//!     }
//!     Ok(())
//! }
//! ```
//!
//! With options:
//!
//! ```no_run
//! use bowline::Connector;
//! use bowline::blocking::{WebSocket, block_on};
//!
//! # fn example() -> Result<(), bowline::Error> {
//! let connector = Connector::new().header("authorization", "Bearer 1234");
//! let (socket, response) = block_on(connector.connect("wss://example.com/feed"))?;
//! let socket = WebSocket::from(socket);
//! # Ok(())
//! # }
//! ```

use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use bowline_proto::{CloseCode, CloseFrame};
use tokio::runtime::{Builder, Handle};
use tokio::time::timeout;

use crate::error::{Error, ErrorKind};
use crate::message::{Message, Payload};
use crate::socket;

/// The runtime in the background, once it was started.
static BACKGROUND: Mutex<Option<Background>> = Mutex::new(None);

/// A runtime whose tasks are run by a thread of its own.
struct Background {
    handle: Handle,
    /// The process that the thread belongs to. A fork copies the memory, but not the thread.
    process: u32,
}

/// Runs a future to its end on this thread, while the runtime in the background does the I/O.
///
/// ```
/// use bowline::blocking::block_on;
///
/// # fn main() -> Result<(), bowline::Error> {
/// let (client, mut server) = block_on(async { bowline::pair() });
/// block_on(client.send("hello"))?;
/// assert_eq!(block_on(server.recv())?, Some("hello".into()));
/// # Ok(())
/// # }
/// ```
///
/// # Panics
///
/// Panics within an async task, which must not block. Panics if the operating system can't start the thread
/// of the background.
pub fn block_on<F: Future>(future: F) -> F::Output {
    background().block_on(future)
}

/// Returns the handle of the runtime in the background, and starts the runtime if there is none.
fn background() -> Handle {
    let process = std::process::id();
    let mut background = BACKGROUND.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(Background { handle, .. }) = background.as_ref().filter(|running| running.process == process)
    {
        return handle.clone();
    }
    let handle = start();
    *background = Some(Background { handle: handle.clone(), process });
    handle
}

/// Starts a runtime in the background, and returns its handle.
fn start() -> Handle {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("the operating system offers what a runtime needs");
    let handle = runtime.handle().clone();
    thread::Builder::new()
        .name("bowline".to_owned())
        .spawn(move || runtime.block_on(std::future::pending::<()>()))
        .expect("the operating system starts a thread");
    handle
}

/// Connects to a WebSocket server with the default options, and blocks until the handshake is complete.
///
/// # Errors
///
/// Returns the errors that [`Connector::connect`](crate::Connector::connect) returns.
///
/// # Panics
///
/// Panics where [`block_on`] does.
#[cfg(feature = "client")]
pub fn connect(url: impl std::fmt::Display) -> Result<WebSocket, Error> {
    block_on(crate::connect(url)).map(WebSocket)
}

/// Performs the server's side of an opening handshake on a TCP stream with the default options, and blocks
/// until the handshake is complete.
///
/// ```no_run
/// use std::net::TcpListener;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let listener = TcpListener::bind("127.0.0.1:8080")?;
/// for stream in listener.incoming() {
///     let stream = stream?;
///     std::thread::spawn(move || {
///         let mut socket = bowline::blocking::accept(stream)?;
///         while let Some(message) = socket.recv()? {
///             socket.send(message)?;
///         }
///         Ok::<_, bowline::Error>(())
///     });
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// Returns the errors that [`Acceptor::accept_stream`](crate::Acceptor::accept_stream) returns.
///
/// # Panics
///
/// Panics where [`block_on`] does.
#[cfg(feature = "server")]
pub fn accept(stream: std::net::TcpStream) -> Result<WebSocket, Error> {
    let registering = |error| Error::with_source(ErrorKind::Io, "the stream could not be registered", error);
    block_on(async {
        stream.set_nonblocking(true).map_err(registering)?;
        let stream = tokio::net::TcpStream::from_std(stream).map_err(registering)?;
        let (socket, _) = crate::Acceptor::new().accept_stream(stream).await?;
        Ok(WebSocket(socket))
    })
}

/// A [`WebSocket`](crate::WebSocket) whose methods block the thread.
///
/// Each method does what the async method of its name does, with the same errors. To send from other threads,
/// share a [`Sender`](crate::Sender) of [`get_ref`](Self::get_ref); its `try_send` never waits, and
/// [`block_on`] runs the rest.
///
/// ```
/// use bowline::blocking::{WebSocket, block_on};
///
/// # fn main() -> Result<(), bowline::Error> {
/// let (client, server) = block_on(async { bowline::pair() });
/// let (client, mut server) = (WebSocket::from(client), WebSocket::from(server));
/// client.send("hello")?;
/// assert_eq!(server.recv()?, Some("hello".into()));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct WebSocket(socket::WebSocket);

impl WebSocket {
    /// Receives the next message, or `None` after the connection has ended normally: see
    /// [`WebSocket::recv`](crate::WebSocket::recv).
    ///
    /// # Errors
    ///
    /// Returns the errors that `WebSocket::recv` returns.
    pub fn recv(&mut self) -> Result<Option<Message>, Error> {
        block_on(self.0.recv())
    }

    /// Receives the next message, and waits for at most `time`.
    ///
    /// The connection stays as it is when the time is up, and no part of a message is lost.
    ///
    /// # Errors
    ///
    /// - Returns [`ErrorKind::Timeout`] if no message has arrived in time. A connection that was found dead
    ///   has the same kind, and [`is_closed`](crate::WebSocket::is_closed).
    /// - Returns the errors that `WebSocket::recv` returns.
    pub fn recv_timeout(&mut self, time: Duration) -> Result<Option<Message>, Error> {
        let text = "no message has arrived in the time that was given to recv_timeout";
        block_on(async { timeout(time, self.0.recv()).await })
            .unwrap_or_else(|_| Err(Error::new(ErrorKind::Timeout, text)))
    }

    /// Sends a message: see [`WebSocket::send`](crate::WebSocket::send).
    ///
    /// # Errors
    ///
    /// Returns the errors that `WebSocket::send` returns.
    pub fn send<'a>(&self, message: impl Into<Payload<'a>>) -> Result<(), Error> {
        block_on(self.0.send(message))
    }

    /// Waits until the transport has taken all messages that were sent before: see
    /// [`WebSocket::flush`](crate::WebSocket::flush).
    ///
    /// # Errors
    ///
    /// Returns the errors that `WebSocket::flush` returns.
    pub fn flush(&self) -> Result<(), Error> {
        block_on(self.0.flush())
    }

    /// Closes the connection, waits for its end, and returns the Close frame of the peer: see
    /// [`WebSocket::close`](crate::WebSocket::close).
    ///
    /// # Errors
    ///
    /// Returns the errors that `WebSocket::close` returns.
    pub fn close(&self, code: CloseCode, reason: &str) -> Result<CloseFrame, Error> {
        block_on(self.0.close(code, reason))
    }

    /// Returns the connection with its async methods, for [`block_on`] and for what needs no waiting.
    pub fn get_ref(&self) -> &socket::WebSocket {
        &self.0
    }

    /// Returns the connection with its async methods, for [`block_on`].
    pub fn get_mut(&mut self) -> &mut socket::WebSocket {
        &mut self.0
    }
}

impl From<socket::WebSocket> for WebSocket {
    fn from(socket: socket::WebSocket) -> Self {
        Self(socket)
    }
}

impl From<WebSocket> for socket::WebSocket {
    fn from(socket: WebSocket) -> Self {
        socket.0
    }
}
