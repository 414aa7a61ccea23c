//! Timers of JavaScript, which belong to the thread that creates them.

use std::cell::Cell;
use std::time::Duration;

use js_sys::Date;
use wasm_bindgen::prelude::*;

#[wasm_bindgen]
extern "C" {
    // Pages, workers and other runtimes have these two in their global scopes, which have no type in common.
    #[wasm_bindgen(js_name = setTimeout)]
    fn set_timeout(callback: &JsValue, milliseconds: i32) -> JsValue;

    #[wasm_bindgen(js_name = clearTimeout)]
    fn clear_timeout(timer: &JsValue);
}

/// A timer that calls a function once after each [`set`](Self::set).
pub(crate) struct Timer {
    callback: Closure<dyn Fn(JsValue)>,
    /// The timer that runs, as JavaScript names it.
    running: Cell<Option<JsValue>>,
    /// The point in time at which it calls the function, by the clock of JavaScript.
    due: Cell<f64>,
}

impl Timer {
    pub(crate) fn new(callback: impl Fn() + 'static) -> Self {
        // With an argument, all functions of the library are of one type, which makes programs smaller.
        Self { callback: Closure::new(move |_| callback()), running: Cell::new(None), due: Cell::new(0.0) }
    }

    /// Calls the function after `delay`, instead of any earlier point in time that was set.
    pub(crate) fn set(&self, delay: Duration) {
        self.clear();
        // The limits allow no longer ones.
        let milliseconds = i32::try_from(milliseconds(delay)).unwrap_or(i32::MAX);
        self.due.set(Date::now() + f64::from(milliseconds));
        self.running.set(Some(set_timeout(self.callback.as_ref(), milliseconds)));
    }

    /// Returns whether the function is called by more than a second too late, because the page was busy or
    /// frozen.
    pub(crate) fn is_late(&self) -> bool {
        Date::now() - self.due.get() > 1000.0
    }

    /// Calls the function after `delay`, unless it will be called anyway.
    pub(crate) fn start(&self, delay: Duration) {
        let running = self.running.take();
        if running.is_none() {
            return self.set(delay);
        }
        self.running.set(running);
    }

    /// Forgets the point in time that was set.
    pub(crate) fn clear(&self) {
        if let Some(timer) = self.running.take() {
            clear_timeout(&timer);
        }
    }
}

/// Returns a duration in milliseconds, as the timers of JavaScript count.
pub(crate) fn milliseconds(duration: Duration) -> u64 {
    duration.as_secs() * 1000 + u64::from(duration.subsec_millis())
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.clear();
    }
}
