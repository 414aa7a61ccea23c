//! The page: a client of the chat, in a browser.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use bowline::{Error, Sender};
use gloo_timers::future::sleep;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::spawn_local;
use web_sys::{Document, Event, HtmlFormElement, HtmlInputElement};

use crate::protocol::{News, Say};

/// The longest pause before the page connects again.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The handle of the connection, while there is one.
type Line = Rc<RefCell<Option<Sender>>>;

#[wasm_bindgen(start)]
fn start() -> Result<(), JsValue> {
    let window = web_sys::window().ok_or("this is no page")?;
    let document = window.document().ok_or("the window has no document")?;
    let url = format!("{}/chat", window.location().origin()?.replacen("http", "ws", 1));
    let line = Line::default();
    send_what_is_typed(&document, &line)?;
    spawn_local(async move { stay_connected(&url, &document, &line).await });
    Ok(())
}

/// Connects, and connects again after each end, with pauses that spare the server.
async fn stay_connected(url: &str, document: &Document, line: &Line) {
    let mut pause = Duration::from_millis(500);
    loop {
        let end = match chat(url, document, line, &mut pause).await {
            Ok(()) => "the server has closed the connection".to_owned(),
            Err(error) => error.to_string(),
        };
        line.take();
        show(document, &format!("({end})"));
        sleep(pause.mul_f64(f64::midpoint(1.0, js_sys::Math::random()))).await;
        pause = (2 * pause).min(LONGEST_PAUSE);
    }
}

/// Shows all news, until the connection ends.
async fn chat(url: &str, document: &Document, line: &Line, pause: &mut Duration) -> Result<(), Error> {
    let mut socket = bowline::connect(url).await?;
    *pause = Duration::from_millis(500);
    line.replace(Some(socket.sender()));
    while let Some(news) = socket.recv_json::<News>().await? {
        show(document, &news.to_string());
    }
    Ok(())
}

/// Sends the text of the form when it is submitted.
fn send_what_is_typed(document: &Document, line: &Line) -> Result<(), JsValue> {
    let form: HtmlFormElement = find(document, "form")?;
    let input: HtmlInputElement = find(document, "input")?;
    let line = Rc::clone(line);
    let submit = Closure::<dyn Fn(Event)>::new(move |event: Event| {
        event.prevent_default();
        let Some(sender) = line.borrow().clone() else { return };
        let say = Say { text: input.value() };
        if say.text.is_empty() {
            return;
        }
        let input = input.clone();
        spawn_local(async move {
            // After an error, the text stays in the input.
            if sender.send_json(&say).await.is_ok() {
                input.set_value("");
            }
        });
    });
    form.set_onsubmit(Some(submit.as_ref().unchecked_ref()));
    // The page keeps the function for as long as it lives.
    submit.forget();
    Ok(())
}

fn show(document: &Document, text: &str) {
    let Ok(output) = find::<web_sys::Element>(document, "output") else { return };
    // As text, so that nobody's message becomes a part of the page.
    let _ = output.append_with_str_1(&format!("{text}\n"));
}

fn find<T: JsCast>(document: &Document, selector: &str) -> Result<T, JsValue> {
    let element = document.query_selector(selector)?.ok_or_else(|| format!("the page has no {selector}"))?;
    element.dyn_into().map_err(JsValue::from)
}
