//! The `WebSocket` of JavaScript, which all browsers have.

use bowline_proto::CloseCode;
use js_sys::Array;
#[cfg(target_feature = "atomics")]
use js_sys::Uint8Array;
use wasm_bindgen::prelude::*;
use web_sys::{BinaryType, CloseEvent, MessageEvent, WebSocket};

use super::{Listener, Report};

#[wasm_bindgen]
extern "C" {
    type ErrorEvent;

    /// The cause, which other runtimes than browsers tell.
    #[wasm_bindgen(method, getter)]
    fn message(this: &ErrorEvent) -> Option<String>;
}

/// A `WebSocket`, with the functions that it calls.
pub(crate) struct EventSocket {
    js: WebSocket,
    _handlers: [Closure<dyn Fn(JsValue)>; 4],
}

impl EventSocket {
    pub(super) fn open(url: &str, subprotocols: &Array, listener: &Listener) -> Result<Self, JsValue> {
        let js = WebSocket::new_with_str_sequence(url, subprotocols)?;
        js.set_binary_type(BinaryType::Arraybuffer);
        let handlers = [opened, message_arrived, failed, closed].map(|report: fn(JsValue) -> Report| {
            let listener = listener.clone();
            Closure::<dyn Fn(JsValue)>::new(move |event| listener.report(report(event)))
        });
        let [open, message, error, close] = &handlers;
        js.set_onopen(Some(open.as_ref().unchecked_ref()));
        js.set_onmessage(Some(message.as_ref().unchecked_ref()));
        js.set_onerror(Some(error.as_ref().unchecked_ref()));
        js.set_onclose(Some(close.as_ref().unchecked_ref()));
        Ok(Self { js, _handlers: handlers })
    }

    pub(super) fn buffered(&self) -> u32 {
        self.js.buffered_amount()
    }

    pub(super) fn is_open(&self) -> bool {
        self.js.ready_state() == WebSocket::OPEN
    }

    pub(super) fn subprotocol(&self) -> String {
        self.js.protocol()
    }

    pub(super) fn extensions(&self) -> String {
        self.js.extensions()
    }

    pub(super) fn send_text(&self, text: &str) -> Result<(), JsValue> {
        self.js.send_with_str(text)
    }

    // A view of shared memory is refused by browsers, so the payload is copied into memory of its own.
    #[cfg(target_feature = "atomics")]
    pub(super) fn send_binary(&self, payload: &[u8]) -> Result<(), JsValue> {
        self.js.send_with_js_u8_array(&Uint8Array::new_from_slice(payload))
    }

    #[cfg(not(target_feature = "atomics"))]
    pub(super) fn send_binary(&self, payload: &[u8]) -> Result<(), JsValue> {
        self.js.send_with_u8_array(payload)
    }

    pub(super) fn close(&self, code: CloseCode, reason: &str) -> Result<(), JsValue> {
        if code == CloseCode::NO_STATUS {
            return self.js.close();
        }
        self.js.close_with_code_and_reason(code.0, reason)
    }

    /// Takes the handlers off, so JavaScript never calls a function that was dropped, and closes.
    pub(super) fn leave(&self) {
        self.js.set_onopen(None);
        self.js.set_onmessage(None);
        self.js.set_onerror(None);
        self.js.set_onclose(None);
        let _ = self.js.close();
    }
}

fn opened(_: JsValue) -> Report {
    Report::Opened
}

fn message_arrived(event: JsValue) -> Report {
    Report::Message(event.unchecked_into::<MessageEvent>().data())
}

fn failed(event: JsValue) -> Report {
    Report::Failed(event.unchecked_into::<ErrorEvent>().message())
}

fn closed(event: JsValue) -> Report {
    let event: CloseEvent = event.unchecked_into();
    Report::Closed(event.code(), event.reason())
}
