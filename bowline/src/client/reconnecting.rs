//! A client that connects again after each loss.

use std::fmt::{self, Display};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::time::{Duration, SystemTime};

use bowline_proto::{CloseCode, CloseFrame};
use http::header::RETRY_AFTER;
use http::{Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep_until};

use crate::client::connect_over::Security;
use crate::client::connector::Connector;
use crate::connection::outbound::random::random;
use crate::error::{Error, ErrorKind};
use crate::handshake::deadline::Deadline;
use crate::socket::{Sender, WebSocket};

/// The default of the first bound of a pause.
const BASE: Duration = Duration::from_millis(500);

/// The default of the last bound of a pause.
const MAX: Duration = Duration::from_secs(60);

/// The shortest pause after a close with 1012 or 1013.
const RESTART: Duration = Duration::from_secs(5);

/// The time over which the clients of a server that restarts are spread.
const RESTART_SPREAD: Duration = Duration::from_secs(25);

/// The longest `Retry-After` that is respected.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// The largest `max` that [`Reconnecting::backoff`] accepts: a year.
const LONGEST_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// A client that connects to a server again and again, with pauses that spare the server.
///
/// [`Connector::reconnecting`] returns one. [`connect`](Self::connect) returns a connection; call the method
/// again once that connection has ended. The first attempt is made at once. Each further attempt waits for a
/// random pause first, also if the last call has returned an error or was cancelled:
///
/// | what happened before | pause |
/// |---|---|
/// | a connection ended, or an attempt failed | up to `base`, doubled with each failure, at most `max` |
/// | the server closed with 1012 or 1013 | 5 to 30 s, or the pause above if that is longer |
/// | a response had `Retry-After` (RFC 9110 10.2.3) | that time, of at most an hour, and the pause above |
///
/// The pauses are exponential backoff with full jitter: each is chosen evenly between zero and its bound, so
/// the clients of a server that comes back don't arrive together. A connection that ended within `max` counts
/// as a failure, too, so a server that accepts and drops its clients is spared as well. So does an attempt
/// whose future was dropped. The defaults of [`backoff`](Self::backoff) are 500 ms and 60 s.
///
/// # What is not known
///
/// A new connection knows nothing of the old one. Messages that the server sent between the two are missed,
/// and a message that was sent shortly before the loss may or may not have arrived. Subscribe again, and ask
/// for what was missed if your protocol can tell; nothing is sent again by itself.
///
/// # Examples
///
/// ```no_run
/// use bowline::{Connector, Error, WebSocket};
///
/// async fn follow(mut socket: WebSocket) -> Result<(), Error> {
///     socket.send("subscribe: news").await?;
///     while let Some(message) = socket.recv().await? {
///         println!("{message:?}");
///     }
///     Ok(())
/// }
///
/// # async fn example() -> Result<(), Error> {
/// let mut client = Connector::new()
///     .reconnecting("wss://example.com/feed")
///     .on_retry(|retry| eprintln!("{retry}"));
/// loop {
///     let (socket, _) = client.connect().await?;
///     if let Err(error) = follow(socket).await {
///         eprintln!("{error}");
///     }
/// }
/// # }
/// ```
pub struct Reconnecting {
    connector: Connector,
    url: String,
    base: Duration,
    max: Duration,
    attempts: Option<u32>,
    on_retry: Option<Box<dyn ReportRetry>>,
    /// In place of the connector's own way to the server.
    dial: Option<Box<dyn Dialler>>,
    /// The side that does the TLS of the streams of `dial`.
    security: Security,
    /// The attempts that failed in a row, and the connections that ended soon.
    failures: u32,
    stage: Stage,
}

/// A function of the application's that is told of each pause.
trait ReportRetry: FnMut(&Retry) + Send {}

impl<F: FnMut(&Retry) + Send> ReportRetry for F {}

/// A function that connects over streams of the application's.
trait Dialler: FnMut(&Connector, &str, Security) -> Opening + Send {}

impl<F: FnMut(&Connector, &str, Security) -> Opening + Send> Dialler for F {}

/// The future of an attempt.
type Opening = Pin<Box<dyn Future<Output = Result<(WebSocket, Response<()>), Error>> + Send>>;

/// The stage of a client between two connections.
///
/// ```text
/// New --connect--> Attempting --the attempt succeeds--> Connected --connect is called again--.
///                   ^      |                                                                 |
///                   |      '--the attempt fails, or connect is called after its future was --+--> Paused
///                   |         dropped                                                             |
///                   '------------------------ the time is up -------------------------------------'
/// ```
enum Stage {
    /// No attempt was made.
    New,
    /// An attempt is under way, or its future was dropped.
    Attempting,
    /// A connection was returned at this time.
    Connected(Sender, Instant),
    /// The next attempt begins at this time.
    Paused(Instant),
}

impl Connector {
    /// Returns a client that connects to a server again after each loss.
    ///
    /// The URL and the options are those of [`connect`](Self::connect). An invalid URL is reported by
    /// [`Reconnecting::connect`].
    ///
    /// ```
    /// let client = bowline::Connector::new().reconnecting("wss://example.com/feed");
    /// ```
    pub fn reconnecting(self, url: impl Display) -> Reconnecting {
        Reconnecting {
            connector: self,
            url: url.to_string(),
            base: BASE,
            max: MAX,
            attempts: None,
            on_retry: None,
            dial: None,
            security: Security::Ours,
            failures: 0,
            stage: Stage::New,
        }
    }
}

impl Reconnecting {
    /// Waits until the next attempt is due, and connects. Repeats both until an attempt succeeds, or fails in
    /// a way that would only repeat.
    ///
    /// # Errors
    ///
    /// - Returns [`ErrorKind::Handshake`] if the server refuses the request: with a status of 3xx or 4xx,
    ///   except for 408, 425 and 429. [`Error::response`] returns the response.
    /// - Returns [`ErrorKind::InvalidInput`] if the URL or an option is invalid.
    /// - Returns [`ErrorKind::Limit`] if the head of the response is too large.
    /// - Returns the error of the last attempt if as many attempts as [`attempts`](Self::attempts) allows
    ///   failed in a row.
    ///
    /// Another call waits and tries once more.
    ///
    /// # Panics
    ///
    /// The future panics in a runtime without timers or I/O.
    ///
    /// # Cancel safety
    ///
    /// This method is cancel safe. Dropping the future ends the attempt under way, which has then failed. A
    /// pause that has begun is continued by the next call.
    pub async fn connect(&mut self) -> Result<(WebSocket, Response<()>), Error> {
        self.validate()?;
        if let Some(retry) = self.after_last_call() {
            self.report(&retry);
        }
        loop {
            if let Stage::Paused(until) = self.stage {
                sleep_until(until).await;
            }
            self.stage = Stage::Attempting;
            let opened = match &mut self.dial {
                Some(dial) => dial(&self.connector, &self.url, self.security).await,
                None => self.connector.connect(&self.url).await,
            };
            match opened {
                Ok((socket, response)) => {
                    self.stage = Stage::Connected(socket.sender(), Instant::now());
                    return Ok((socket, response));
                }
                Err(error) => {
                    let retry = self.pause_after_failure(Reason::Failed(error.clone()));
                    let is_last = self.attempts.is_some_and(|attempts| self.failures >= attempts);
                    if is_last || !is_transient(&error) {
                        return Err(error);
                    }
                    self.report(&retry);
                }
            }
        }
    }

    /// Sets the bounds of the pauses: `base` after the first failure, and twice as much after each further
    /// one, up to `max`. Default: 500 ms and 60 s.
    ///
    /// Neither may be zero, `base` may not be longer than `max`, and `max` may be at most a year.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use bowline::Connector;
    ///
    /// let client = Connector::new()
    ///     .reconnecting("wss://example.com/feed")
    ///     .backoff(Duration::from_secs(1), Duration::from_secs(300));
    /// ```
    pub fn backoff(mut self, base: Duration, max: Duration) -> Self {
        (self.base, self.max) = (base, max);
        self
    }

    /// Sets the number of failures in a row after which [`connect`](Self::connect) returns the error of the
    /// last attempt. Default: no limit.
    ///
    /// Connections that ended soon and attempts whose future was dropped count as failures, too. The number
    /// can't be zero.
    ///
    /// ```
    /// let client = bowline::Connector::new().reconnecting("wss://example.com/feed").attempts(5);
    /// ```
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = Some(attempts);
        self
    }

    /// Sets a function that is called before each pause, such as to log it. Default: none.
    ///
    /// The last failure before [`connect`](Self::connect) returns an error is not reported.
    ///
    /// ```
    /// use bowline::Connector;
    ///
    /// let client = Connector::new()
    ///     .reconnecting("wss://example.com/feed")
    ///     .on_retry(|retry| eprintln!("{retry}"));
    /// ```
    pub fn on_retry(mut self, on_retry: impl FnMut(&Retry) + Send + 'static) -> Self {
        self.on_retry = Some(Box::new(on_retry));
        self
    }

    /// Sets a function that opens the stream for each attempt, such as to a Unix socket. Default: none, and
    /// the connector dials.
    ///
    /// The handshake is then that of [`Connector::connect_over`]. The stream has to be open within
    /// [`Limits::handshake_timeout`](crate::Limits::handshake_timeout), and the handshake has as much time
    /// again. An error of `dial` is a failed attempt, and [`connect`](Self::connect) tries again.
    ///
    /// ```
    /// use bowline::Connector;
    ///
    /// # #[cfg(unix)]
    /// let client = Connector::new()
    ///     .reconnecting("ws://localhost/feed")
    ///     .dial(|| tokio::net::UnixStream::connect("/run/feed.sock"));
    /// ```
    pub fn dial<F, Fut, S>(mut self, mut dial: F) -> Self
    where
        F: FnMut() -> Fut + Send + 'static,
        Fut: Future<Output = io::Result<S>> + Send + 'static,
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        self.dial = Some(Box::new(move |connector: &Connector, url: &str, security| -> Opening {
            let deadline = Deadline::after(connector.handshake_timeout());
            let (connector, url, dialing) = (connector.clone(), url.to_owned(), dial());
            Box::pin(async move {
                let text = "opening a stream to the server failed (Reconnecting::dial)";
                let opened = async { dialing.await.map_err(|error| Error::of_transport(text, error)) };
                let stream = deadline.bound("opening a stream to the server", opened).await?;
                connector.connect_over(url, stream).with_security(security).await
            })
        }));
        self
    }

    /// Leaves the TLS of a wss:// URL to the streams of [`dial`](Self::dial), as
    /// [`ConnectOver::already_tls`](crate::ConnectOver::already_tls) does. Default: the library does TLS on
    /// top of them.
    ///
    /// Without `dial`, this method has no effect.
    ///
    /// ```
    /// use bowline::Connector;
    /// # async fn connect_tls(_: &str) -> std::io::Result<tokio::io::DuplexStream> { unimplemented!() }
    ///
    /// // `connect_tls` stands for a TLS library other than rustls.
    /// let client = Connector::new()
    ///     .reconnecting("wss://example.com/feed")
    ///     .dial(|| connect_tls("example.com"))
    ///     .already_tls();
    /// ```
    pub fn already_tls(mut self) -> Self {
        self.security = Security::OfStream;
        self
    }

    fn validate(&self) -> Result<(), Error> {
        let text = if self.base.is_zero() || self.base > self.max {
            "the backoff has to begin with more than zero and at most its longest pause: see \
             Reconnecting::backoff"
        } else if self.max > LONGEST_MAX {
            "the longest pause is more than a year: see Reconnecting::backoff"
        } else if self.attempts == Some(0) {
            "the number of attempts is zero: see Reconnecting::attempts"
        } else {
            return Ok(());
        };
        Err(Error::new(ErrorKind::InvalidInput, text))
    }

    /// Begins the pause after what the last call has left: a connection, or an attempt without its future.
    fn after_last_call(&mut self) -> Option<Retry> {
        match &self.stage {
            Stage::New | Stage::Paused(_) => None,
            Stage::Connected(sender, since) => {
                let (frame, lasted) = (sender.close_frame(), since.elapsed() >= self.max);
                if lasted {
                    self.failures = 0;
                    return Some(self.pause(Reason::Ended(frame)));
                }
                Some(self.pause_after_failure(Reason::Ended(frame)))
            }
            Stage::Attempting => {
                let text = "the attempt was given up: the future of Reconnecting::connect was dropped";
                Some(self.pause_after_failure(Reason::Failed(Error::new(ErrorKind::Timeout, text))))
            }
        }
    }

    fn pause_after_failure(&mut self, reason: Reason) -> Retry {
        self.failures = self.failures.saturating_add(1);
        self.pause(reason)
    }

    /// Begins a pause.
    fn pause(&mut self, reason: Reason) -> Retry {
        let doubled = self.base.saturating_mul(1 << self.failures.saturating_sub(1).min(30));
        let pause = random_up_to(doubled.min(self.max));
        let pause = match Wish::of(&reason) {
            Wish::None => pause,
            Wish::Restart => pause.max(RESTART + random_up_to(RESTART_SPREAD)),
            Wish::After(time) => pause.saturating_add(time),
        };
        self.stage = Stage::Paused(Instant::now() + pause);
        Retry { reason, failures: self.failures, pause }
    }

    fn report(&mut self, retry: &Retry) {
        if let Some(on_retry) = &mut self.on_retry {
            on_retry(retry);
        }
    }
}

impl fmt::Debug for Reconnecting {
    /// Omits the URL, which may have a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connector, base, max, attempts, failures, .. } = self;
        f.debug_struct("Reconnecting")
            .field("connector", connector)
            .field("base", base)
            .field("max", max)
            .field("attempts", attempts)
            .field("failures", failures)
            .finish_non_exhaustive()
    }
}

/// A pause of a [`Reconnecting`] client, and the reason for it.
///
/// `Display` writes both in one line.
///
/// ```
/// use bowline::Connector;
///
/// let client = Connector::new().reconnecting("wss://example.com/feed").on_retry(|retry| {
///     if retry.failures() >= 10 {
///         eprintln!("offline: {retry}");
///     }
/// });
/// ```
#[derive(Clone, Debug)]
pub struct Retry {
    reason: Reason,
    failures: u32,
    pause: Duration,
}

/// The reason for a pause.
#[derive(Clone, Debug)]
enum Reason {
    /// A connection has ended, perhaps with this Close frame of the server.
    Ended(Option<CloseFrame>),
    /// An attempt has failed.
    Failed(Error),
}

/// The server's wish about the next attempt.
enum Wish {
    None,
    /// The server restarts or is overloaded (1012, 1013).
    Restart,
    /// A response has named the time.
    After(Duration),
}

impl Wish {
    fn of(reason: &Reason) -> Self {
        match reason {
            Reason::Ended(Some(frame))
                if [CloseCode::SERVICE_RESTART, CloseCode::TRY_AGAIN_LATER].contains(&frame.code()) =>
            {
                Self::Restart
            }
            Reason::Ended(_) => Self::None,
            Reason::Failed(error) => error.response().and_then(retry_after).map_or(Self::None, Self::After),
        }
    }
}

impl Retry {
    /// Returns the error of the failed attempt, or `None` if a connection has ended.
    pub fn error(&self) -> Option<&Error> {
        match &self.reason {
            Reason::Failed(error) => Some(error),
            Reason::Ended(_) => None,
        }
    }

    /// Returns the Close frame with which the server ended the connection, if it did so.
    pub fn close_frame(&self) -> Option<&CloseFrame> {
        match &self.reason {
            Reason::Ended(frame) => frame.as_ref(),
            Reason::Failed(_) => None,
        }
    }

    /// Returns the number of attempts that failed in a row, and of connections that ended soon. 0 after a
    /// connection that lasted.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Returns the time until the next attempt.
    pub fn pause(&self) -> Duration {
        self.pause
    }
}

impl Display for Retry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.reason {
            Reason::Ended(Some(frame)) => write!(f, "the server closed the connection with {frame}")?,
            Reason::Ended(None) => f.write_str("the connection has ended")?,
            Reason::Failed(error) => error.fmt(f)?,
        }
        write!(f, "; next attempt in {:.1} s", self.pause.as_secs_f64())
    }
}

/// Returns whether another attempt may succeed without a change of the request.
fn is_transient(error: &Error) -> bool {
    match error.response().map(Response::status) {
        Some(StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS) => true,
        Some(status) => !status.is_client_error() && !status.is_redirection(),
        None => !matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Limit),
    }
}

/// Returns the time that the server wants to be left alone for: seconds, or the time until a date (RFC 9110
/// 10.2.3).
fn retry_after<B>(response: &Response<B>) -> Option<Duration> {
    let value = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim();
    let is_number = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    let time = if is_number {
        // A number that is too large asks for the longest time.
        value.parse().map_or(RETRY_AFTER_MAX, Duration::from_secs)
    } else {
        httpdate::parse_http_date(value).ok()?.duration_since(SystemTime::now()).ok()?
    };
    Some(time.min(RETRY_AFTER_MAX))
}

/// Returns a random duration of at most `bound`.
fn random_up_to(bound: Duration) -> Duration {
    bound.mul_f64(f64::from(u32::from_le_bytes(random())) / f64::from(u32::MAX))
}
