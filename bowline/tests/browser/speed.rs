//! The speed beside plain JavaScript in the same page.

use bowline::WebSocket;
use js_sys::{Function, Promise};
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use wasm_bindgen_test::wasm_bindgen_test;

use crate::support::{connect, next, url};

/// The number of messages that arrive in a row, and of those that are sent back and forth.
const RECEIVED: u32 = 50_000;
const ECHOED: u32 = 3_000;

/// A program in JavaScript that does what the functions below do, and returns the milliseconds.
const JAVASCRIPT: &str = "
    return new Promise(resolve => {
        const socket = new WebSocket(url);
        socket.binaryType = 'arraybuffer';
        let start, left = count, bytes = 0;
        socket.onopen = () => { start = performance.now(); if (echoes) socket.send('a message of 16'); };
        socket.onmessage = event => {
            bytes += event.data.byteLength ?? event.data.length;
            if (--left === 0) { socket.close(); resolve(performance.now() - start); }
            else if (echoes) socket.send('a message of 16');
        };
    });
";

async fn in_javascript(url: &str, count: u32, echoes: bool) -> f64 {
    let function = Function::new_with_args("url, count, echoes", JAVASCRIPT);
    let promise = function.call3(&JsValue::UNDEFINED, &url.into(), &count.into(), &echoes.into()).unwrap();
    JsFuture::from(promise.unchecked_into::<Promise>()).await.unwrap().as_f64().unwrap()
}

async fn receive(mut socket: WebSocket) {
    for _ in 0..RECEIVED {
        assert_eq!(next_at_once(&mut socket).await, 16);
    }
}

async fn echo(mut socket: WebSocket) {
    for _ in 0..ECHOED {
        socket.send("a message of 16").await.unwrap();
        next_at_once(&mut socket).await;
    }
}

async fn next_at_once(socket: &mut WebSocket) -> usize {
    socket.recv().await.unwrap().expect("the connection is open").len()
}

/// Prints and compares the best of some rounds.
#[wasm_bindgen_test]
#[ignore = "its figures are those of a release build"]
async fn at_least_0_8_times_the_messages_of_plain_javascript() {
    let flood = format!("/flood/{RECEIVED}/16");
    let mut best = [f64::INFINITY; 4];
    for _ in 0..5 {
        let socket = connect(&flood).await;
        let start = js_sys::Date::now();
        receive(socket).await;
        let received = js_sys::Date::now() - start;
        let mut socket = connect("/echo").await;
        socket.send("warm").await.unwrap();
        next(&mut socket).await;
        let start = js_sys::Date::now();
        echo(socket).await;
        let echoed = js_sys::Date::now() - start;
        let figures = [
            received,
            in_javascript(&url(&flood), RECEIVED, false).await,
            echoed,
            in_javascript(&url("/echo"), ECHOED, true).await,
        ];
        for (best, figure) in best.iter_mut().zip(figures) {
            *best = best.min(figure);
        }
    }
    let rate = |count: u32, milliseconds: f64| f64::from(count) / milliseconds * 1000.0;
    let [received, received_plain, echoed, echoed_plain] = best;
    wasm_bindgen_test::console_log!(
        "messages/s: received {:.0}, by JavaScript {:.0}; echoed {:.0}, by JavaScript {:.0}",
        rate(RECEIVED, received),
        rate(RECEIVED, received_plain),
        rate(ECHOED, echoed),
        rate(ECHOED, echoed_plain),
    );
    assert!(received_plain / received >= 0.8 && echoed_plain / echoed >= 0.8);
}
