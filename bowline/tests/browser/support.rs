//! Connections to the server, and waiting.

use std::cell::RefCell;
use std::fmt::Display;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use bowline::{Error, Message, WebSocket};
use futures_util::future::{Either, select};
use js_sys::{Function, Promise, Reflect, global};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;

/// The address of the server, from `.ci/browser`.
const SERVER: Option<&str> = option_env!("BOWLINE_BROWSER_SERVER");

/// The URL of `bowline serve`, which is the path `/echo` of these tests.
const ECHO_SERVER: Option<&str> = option_env!("BOWLINE_BROWSER_ECHO");

/// Set by `.ci/browser` for a run without `WebSocketStream` where there is one.
const WITHOUT_STREAMS: Option<&str> = option_env!("BOWLINE_BROWSER_WITHOUT_STREAMS");

/// Returns whether connections are `WebSocketStream`s here, so the server can be made to wait.
pub(crate) fn has_streams() -> bool {
    if WITHOUT_STREAMS.is_some() {
        Reflect::delete_property(&global(), &"WebSocketStream".into()).unwrap();
    }
    Reflect::has(&global(), &"WebSocketStream".into()).unwrap()
}

/// Returns the URL of a path of the server.
pub(crate) fn url(path: impl Display) -> String {
    has_streams();
    let (address, echo) = SERVER.zip(ECHO_SERVER).expect("run these tests by .ci/browser");
    match &*path.to_string() {
        "/echo" => format!("{echo}/echo"),
        path => format!("ws://{address}{path}"),
    }
}

/// Connects to a path of the server.
pub(crate) async fn connect(path: impl Display) -> WebSocket {
    soon(bowline::connect(url(path))).await.expect("the server accepts this path")
}

/// Returns a name that no other test and no other run has.
pub(crate) fn unique_name() -> String {
    js_sys::Math::random().to_string()
}

/// Receives a message that has to come.
pub(crate) async fn next(socket: &mut WebSocket) -> Message {
    soon(socket.recv()).await.expect("the connection is in order").expect("the connection is open")
}

/// Returns how `/record` has ended under this name.
pub(crate) async fn outcome(name: &str) -> String {
    let mut socket = connect(format_args!("/outcome?{name}")).await;
    next(&mut socket).await.into_text().expect("text").to_string()
}

/// Returns the error of a result that has to be one.
pub(crate) fn error_of<T>(result: Result<T, Error>) -> Error {
    match result {
        Ok(_) => panic!("this has to fail"),
        Err(error) => error,
    }
}

/// Waits for a future for at most ten seconds.
pub(crate) async fn soon<F: Future>(future: F) -> F::Output {
    match select(pin!(future), pin!(sleep(Duration::from_secs(10)))).await {
        Either::Left((output, _)) => output,
        Either::Right(_) => panic!("the test hangs"),
    }
}

/// Waits for a timer of JavaScript. Other tasks run meanwhile.
pub(crate) async fn sleep(duration: Duration) {
    let set_timeout = Reflect::get(&global(), &"setTimeout".into()).unwrap().unchecked_into::<Function>();
    let milliseconds = JsValue::from_f64(duration.as_secs_f64() * 1000.0);
    let promise = Promise::new(&mut |resolve, _| {
        set_timeout.call2(&JsValue::UNDEFINED, &resolve, &milliseconds).unwrap();
    });
    JsFuture::from(promise).await.unwrap();
}

/// Collects what appears on the console: exceptions that nobody caught, rejections that nobody handled, and
/// errors that were logged.
///
/// Node ends at the first two, which is a failure, too.
pub(crate) struct Console {
    lines: Rc<RefCell<Vec<String>>>,
    listener: Closure<dyn Fn(JsValue)>,
    object: JsValue,
    log_error: JsValue,
}

/// The events of the first two.
const COMPLAINTS: [&str; 2] = ["error", "unhandledrejection"];

impl Console {
    pub(crate) fn watch() -> Self {
        let lines = Rc::new(RefCell::new(Vec::new()));
        let kept = Rc::clone(&lines);
        let listener = Closure::<dyn Fn(JsValue)>::new(move |complaint: JsValue| {
            let text = ["message", "reason"].map(|name| Reflect::get(&complaint, &name.into()));
            kept.borrow_mut().push(format!("{complaint:?} {text:?}"));
        });
        let object = Reflect::get(&global(), &"console".into()).unwrap();
        let log_error = Reflect::get(&object, &"error".into()).unwrap();
        Reflect::set(&object, &"error".into(), listener.as_ref()).unwrap();
        let console = Self { lines, listener, object, log_error };
        console.call_for_complaints("addEventListener");
        console
    }

    pub(crate) fn assert_silent(&self) {
        assert_eq!(self.lines.borrow().join("\n"), "");
    }

    fn call_for_complaints(&self, method: &str) {
        if let Ok(method) = Reflect::get(&global(), &method.into()).unwrap().dyn_into::<Function>() {
            for event in COMPLAINTS {
                method.call2(&global(), &event.into(), self.listener.as_ref()).unwrap();
            }
        }
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        self.call_for_complaints("removeEventListener");
        Reflect::set(&self.object, &"error".into(), &self.log_error).unwrap();
    }
}

/// Polls a future once.
pub(crate) fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    struct Ignore;
    impl Wake for Ignore {
        fn wake(self: Arc<Self>) {}
    }
    std::pin::Pin::new(future).poll(&mut Context::from_waker(&Waker::from(Arc::new(Ignore))))
}

/// A waker that notes that it was called.
#[derive(Default)]
pub(crate) struct Flag(AtomicBool);

impl Flag {
    pub(crate) fn is_raised(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}
