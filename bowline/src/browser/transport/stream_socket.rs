//! The `WebSocketStream` of JavaScript, whose messages are read from a stream and written to another.
//!
//! ```text
//! Connecting --opened--> Open --our close(): all messages are written first--> Closing
//!     |                    |                                                      |
//!     '--------------------'--closed by the peer, lost, the answer to ours--------'--> Ended
//! ```
//!
//! A read is started by [`StreamSocket::receive`], and at most one is on its way. The promise of the end may
//! be fulfilled before the last messages were read, so the end is reported once the reader has come to it.
//!
//! Promises can't be told to forget their functions, so these belong to JavaScript, which calls them whenever
//! it likes, and frees them. They find the connection by a weak reference.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};

use bowline_proto::CloseCode;
use js_sys::{Array, global};
use wasm_bindgen::prelude::*;

use super::{Listener, Report};

#[wasm_bindgen]
extern "C" {
    type Global;

    #[wasm_bindgen(method, getter, js_name = WebSocketStream)]
    fn constructor(this: &Global) -> JsValue;

    type WebSocketStream;

    #[wasm_bindgen(constructor, catch)]
    fn new(url: &str, options: &Options) -> Result<WebSocketStream, JsValue>;

    #[wasm_bindgen(method, getter)]
    fn opened(this: &WebSocketStream) -> Pending;

    #[wasm_bindgen(method, getter)]
    fn closed(this: &WebSocketStream) -> Pending;

    #[wasm_bindgen(method, catch)]
    fn close(this: &WebSocketStream, info: &Options) -> Result<(), JsValue>;

    /// The options of the constructor and of `close`.
    #[wasm_bindgen(js_name = Object)]
    type Options;

    #[wasm_bindgen(constructor, js_class = "Object")]
    fn new() -> Options;

    #[wasm_bindgen(method, setter)]
    fn set_protocols(this: &Options, protocols: &Array);

    #[wasm_bindgen(method, setter, js_name = closeCode)]
    fn set_close_code(this: &Options, code: u16);

    #[wasm_bindgen(method, setter)]
    fn set_reason(this: &Options, reason: &str);

    /// A promise, whose values have many types.
    type Pending;

    #[wasm_bindgen(method)]
    fn then(this: &Pending, fulfilled: &JsValue, rejected: &JsValue);

    /// The value of `opened`.
    type OpenInfo;

    #[wasm_bindgen(method, getter)]
    fn readable(this: &OpenInfo) -> Readable;

    #[wasm_bindgen(method, getter)]
    fn writable(this: &OpenInfo) -> Writable;

    #[wasm_bindgen(method, getter)]
    fn protocol(this: &OpenInfo) -> String;

    #[wasm_bindgen(method, getter)]
    fn extensions(this: &OpenInfo) -> String;

    /// The value of `closed`, and its error, too.
    type CloseInfo;

    #[wasm_bindgen(method, getter, js_name = closeCode)]
    fn close_code(this: &CloseInfo) -> Option<u16>;

    #[wasm_bindgen(method, getter)]
    fn reason(this: &CloseInfo) -> Option<String>;

    type Readable;

    #[wasm_bindgen(method, js_name = getReader)]
    fn get_reader(this: &Readable) -> Reader;

    #[wasm_bindgen(method, js_name = pipeTo)]
    fn pipe_to(this: &Readable, sink: &WritableStream) -> Pending;

    /// One that discards everything.
    type WritableStream;

    #[wasm_bindgen(constructor)]
    fn new() -> WritableStream;

    type Reader;

    #[wasm_bindgen(method)]
    fn read(this: &Reader) -> Pending;

    #[wasm_bindgen(method, js_name = releaseLock)]
    fn release_lock(this: &Reader);

    /// The value of `read`.
    type ReadResult;

    #[wasm_bindgen(method, getter)]
    fn value(this: &ReadResult) -> JsValue;

    #[wasm_bindgen(method, getter)]
    fn done(this: &ReadResult) -> bool;

    type Writable;

    #[wasm_bindgen(method, js_name = getWriter)]
    fn get_writer(this: &Writable) -> Writer;

    type Writer;

    #[wasm_bindgen(method)]
    fn write(this: &Writer, chunk: &JsValue) -> Pending;

    #[wasm_bindgen(method, js_name = close)]
    fn finish(this: &Writer) -> Pending;
}

/// A `WebSocketStream`.
pub(crate) struct StreamSocket {
    js: WebSocketStream,
    listener: Listener,
    /// The functions that promises call.
    functions: Functions,
    /// Set when the connection is open.
    open: OnceCell<OpenStreams>,
    stage: RefCell<StreamStage>,
    reading: Cell<Reading>,
    /// The sizes of the messages that were handed to the browser and are not written yet.
    unwritten: RefCell<VecDeque<u32>>,
    buffered: Cell<u32>,
}

/// The streams of an open connection.
struct OpenStreams {
    info: OpenInfo,
    reader: Reader,
    writer: Writer,
}

/// The stage of a connection: see the diagram above.
enum StreamStage {
    Connecting,
    Open,
    /// The code and the reason of our Close frame, until all messages before it are written.
    Closing(Option<(CloseCode, String)>),
    /// The code and the reason, until the end is reported.
    Ended(u16, String),
    /// Nothing is reported any more.
    Left,
}

/// The progress of the reader.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reading {
    Paused,
    /// A promise will tell.
    Waiting,
    Ended,
}

struct Functions {
    opened: JsValue,
    failed: JsValue,
    closed: JsValue,
    read: JsValue,
    read_failed: JsValue,
    written: JsValue,
    ignored: JsValue,
}

impl StreamSocket {
    /// Returns whether there are such streams here.
    pub(super) fn exists() -> bool {
        global().unchecked_into::<Global>().constructor().is_function()
    }

    pub(super) fn open(url: &str, subprotocols: &Array, listener: &Listener) -> Result<Rc<Self>, JsValue> {
        let options = Options::new();
        options.set_protocols(subprotocols);
        let js = WebSocketStream::new(url, &options)?;
        let socket = Rc::new_cyclic(|socket| Self {
            js,
            listener: listener.clone(),
            functions: Functions::new(socket),
            open: OnceCell::new(),
            stage: RefCell::new(StreamStage::Connecting),
            reading: Cell::new(Reading::Paused),
            unwritten: RefCell::default(),
            buffered: Cell::new(0),
        });
        socket.js.opened().then(&socket.functions.opened, &socket.functions.failed);
        // The error has the same fields as the value.
        socket.js.closed().then(&socket.functions.closed, &socket.functions.closed);
        Ok(socket)
    }

    pub(super) fn buffered(&self) -> u32 {
        self.buffered.get()
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(*self.stage.borrow(), StreamStage::Open)
    }

    pub(super) fn subprotocol(&self) -> String {
        self.open.get().map(|open| open.info.protocol()).unwrap_or_default()
    }

    pub(super) fn extensions(&self) -> String {
        self.open.get().map(|open| open.info.extensions()).unwrap_or_default()
    }

    /// Hands a message of `size` bytes to the browser.
    pub(super) fn send(&self, message: &JsValue, size: usize) -> Result<(), JsValue> {
        let Some(open) = self.open.get() else { return Err(JsValue::UNDEFINED) };
        let size = u32::try_from(size).unwrap_or(u32::MAX);
        self.unwritten.borrow_mut().push_back(size);
        self.buffered.set(self.buffered.get().saturating_add(size));
        // If the message was not written, the connection ends.
        open.writer.write(message).then(&self.functions.written, &self.functions.ignored);
        Ok(())
    }

    /// Reads a message, unless this goes on already.
    pub(super) fn receive(&self) {
        let Some(open) = self.open.get() else { return };
        let has_left = matches!(*self.stage.borrow(), StreamStage::Left);
        if self.reading.get() == Reading::Paused && !has_left {
            self.reading.set(Reading::Waiting);
            open.reader.read().then(&self.functions.read, &self.functions.read_failed);
        }
    }

    pub(super) fn close(&self, code: CloseCode, reason: &str) -> Result<(), JsValue> {
        if self.is_open() {
            self.stage.replace(StreamStage::Closing(Some((code, reason.to_owned()))));
        }
        self.close_when_written()
    }

    /// Sends our Close frame, if all messages before it are written: the browser would discard them.
    fn close_when_written(&self) -> Result<(), JsValue> {
        if !self.unwritten.borrow().is_empty() {
            return Ok(());
        }
        let frame = match &mut *self.stage.borrow_mut() {
            StreamStage::Closing(frame) => frame.take(),
            _ => None,
        };
        frame.map_or(Ok(()), |(code, reason)| self.send_close(code, &reason))
    }

    fn send_close(&self, code: CloseCode, reason: &str) -> Result<(), JsValue> {
        let info = Options::new();
        if code != CloseCode::NO_STATUS {
            info.set_close_code(code.0);
            info.set_reason(reason);
        }
        self.js.close(&info)
    }

    /// Stops all reports, and closes: with the frame that waits, or without a code after what was sent.
    pub(super) fn leave(&self) {
        let Functions { ignored, .. } = &self.functions;
        match (self.stage.replace(StreamStage::Left), self.open.get()) {
            (StreamStage::Ended(..) | StreamStage::Left, _) => return,
            (StreamStage::Open, Some(open)) => open.writer.finish().then(ignored, ignored),
            (StreamStage::Closing(Some((code, reason))), _) => drop(self.send_close(code, &reason)),
            (StreamStage::Closing(None), _) => {}
            _ => drop(self.js.close(&Options::new())),
        }
        if let Some(open) = self.open.get() {
            // The peer's Close frame is behind what the browser has not read.
            open.reader.release_lock();
            open.info.readable().pipe_to(&WritableStream::new()).then(ignored, ignored);
        }
    }

    fn opened(&self, info: JsValue) {
        if !matches!(*self.stage.borrow(), StreamStage::Connecting) {
            return;
        }
        let info: OpenInfo = info.unchecked_into();
        let (reader, writer) = (info.readable().get_reader(), info.writable().get_writer());
        if self.open.set(OpenStreams { info, reader, writer }).is_ok() {
            self.stage.replace(StreamStage::Open);
            self.listener.report(Report::Opened);
        }
    }

    fn failed(&self, _: JsValue) {
        self.listener.report(Report::Failed(None));
    }

    fn read(&self, result: JsValue) {
        let result: ReadResult = result.unchecked_into();
        if result.done() {
            return self.read_failed(JsValue::UNDEFINED);
        }
        self.reading.set(Reading::Paused);
        let has_ended = matches!(*self.stage.borrow(), StreamStage::Ended(..));
        self.listener.report(Report::Message(result.value()));
        if has_ended {
            self.receive();
        }
    }

    /// The reader has come to the end, or the connection was lost.
    fn read_failed(&self, _: JsValue) {
        self.reading.set(Reading::Ended);
        self.report_end();
    }

    fn closed(&self, info: JsValue) {
        if matches!(*self.stage.borrow(), StreamStage::Left) {
            return;
        }
        let info: CloseInfo = info.unchecked_into();
        let code = info.close_code().unwrap_or(CloseCode::ABNORMAL.0);
        self.stage.replace(StreamStage::Ended(code, info.reason().unwrap_or_default()));
        // The rest is in the memory of the browser anyway.
        self.receive();
        self.report_end();
    }

    /// Reports the end, once all messages before it have arrived.
    fn report_end(&self) {
        if self.open.get().is_some() && self.reading.get() != Reading::Ended {
            return;
        }
        let stage = self.stage.replace(StreamStage::Left);
        match stage {
            StreamStage::Ended(code, reason) => self.listener.report(Report::Closed(code, reason)),
            stage => drop(self.stage.replace(stage)),
        }
    }

    fn written(&self, _: JsValue) {
        let size = self.unwritten.borrow_mut().pop_front().unwrap_or_default();
        self.buffered.set(self.buffered.get() - size);
        let _ = self.close_when_written();
        self.listener.report(Report::Written);
    }
}

impl Functions {
    fn new(socket: &Weak<StreamSocket>) -> Self {
        let function = |method: fn(&StreamSocket, JsValue)| {
            let socket = Weak::clone(socket);
            let call = move |value| {
                if let Some(socket) = socket.upgrade() {
                    method(&socket, value);
                }
            };
            Closure::<dyn Fn(JsValue)>::new(call).into_js_value()
        };
        Self {
            opened: function(StreamSocket::opened),
            failed: function(StreamSocket::failed),
            closed: function(StreamSocket::closed),
            read: function(StreamSocket::read),
            read_failed: function(StreamSocket::read_failed),
            written: function(StreamSocket::written),
            ignored: function(|_, _| ()),
        }
    }
}
