//! A chat whose server and page are both in Rust: `examples/chat_page/run`, then open
//! <http://127.0.0.1:8080> in several windows.
//!
//! [`protocol`] is compiled twice: for the server in `main.rs`, and for the page in `page.rs`.

#[cfg(target_family = "wasm")]
mod page;
pub mod protocol;
