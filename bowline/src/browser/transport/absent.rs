//! The names of `stream_socket.rs`, without the feature `websocket-stream`.

use std::rc::Rc;

use bowline_proto::CloseCode;
use js_sys::Array;
use wasm_bindgen::JsValue;

use super::Listener;

/// No `WebSocketStream`.
pub(crate) enum StreamSocket {}

impl StreamSocket {
    pub(super) fn exists() -> bool {
        false
    }

    pub(super) fn open(_: &str, _: &Array, _: &Listener) -> Result<Rc<Self>, JsValue> {
        Err(JsValue::UNDEFINED)
    }

    pub(super) fn buffered(&self) -> u32 {
        match *self {}
    }

    pub(super) fn is_open(&self) -> bool {
        match *self {}
    }

    pub(super) fn subprotocol(&self) -> String {
        match *self {}
    }

    pub(super) fn extensions(&self) -> String {
        match *self {}
    }

    pub(super) fn send(&self, _: &JsValue, _: usize) -> Result<(), JsValue> {
        match *self {}
    }

    pub(super) fn receive(&self) {
        match *self {}
    }

    pub(super) fn close(&self, _: CloseCode, _: &str) -> Result<(), JsValue> {
        match *self {}
    }

    pub(super) fn leave(&self) {
        match *self {}
    }
}
