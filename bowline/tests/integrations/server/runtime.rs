//! Runtimes without what the library needs: the caller is told at once, in the words of tokio.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::{Context, Waker};

use bowline::{Acceptor, Connections, Connector, Server};
use http::Request;
use hyper::upgrade::OnUpgrade;
use tokio::io::duplex;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};

use crate::support::http::{Head, echo};

/// A runtime with I/O, but without timers.
fn without_timers() -> Runtime {
    Builder::new_current_thread().enable_io().build().unwrap()
}

/// Returns the text of the panic at the first poll of the future that `make` returns.
fn panic_of<F: IntoFuture>(runtime: Option<&Runtime>, make: impl FnOnce() -> F) -> String {
    let panic = catch_unwind(AssertUnwindSafe(|| {
        let _entered = runtime.map(Runtime::enter);
        let mut future = Box::pin(make().into_future());
        while future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
            std::thread::yield_now();
        }
    }))
    .expect_err("there is no panic");
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).expect("the panic is text")
}

fn handshake() -> Request<()> {
    let mut request = Head::request().to_request();
    let upgrade: OnUpgrade = hyper::upgrade::on(Request::new(()));
    request.extensions_mut().insert(upgrade);
    request
}

#[test]
fn a_runtime_without_timers_is_named_at_once() {
    let runtime = without_timers();
    let listener = runtime.block_on(async { TcpListener::bind("127.0.0.1:0").await.unwrap() });
    let url = format!("ws://{}/", listener.local_addr().unwrap());
    let upgrade = || Acceptor::new().accept::<_, String>(&mut handshake()).unwrap().1;
    let (connector, acceptor, server) = (Connector::new(), Acceptor::new(), Server::new());
    let runtime = Some(&runtime);
    for (what, text) in [
        ("serve", panic_of(runtime, || bowline::serve(listener, echo))),
        ("serve_connection", panic_of(runtime, || server.serve_connection(duplex(64).0, None, echo))),
        ("connect", panic_of(runtime, || bowline::connect(&url))),
        ("connect_over", panic_of(runtime, || connector.connect_over(&url, duplex(64).0))),
        ("accept_stream", panic_of(runtime, || acceptor.accept_stream(duplex(64).0))),
        ("Upgrade", panic_of(runtime, upgrade)),
        ("Upgrade::spawn", panic_of(runtime, || async { upgrade().spawn(echo) })),
        ("Connections::shutdown", {
            panic_of(runtime, || async { Connections::new().shutdown(std::time::Duration::ZERO).await })
        }),
    ] {
        assert!(text.contains("enable_time"), "{what}: {text}");
    }
}

#[test]
fn a_server_outside_of_a_runtime_panics_at_once() {
    let server = Server::new();
    let text = panic_of(None, || server.serve_connection(duplex(64).0, None, echo));
    assert!(text.contains("Tokio 1.x runtime"), "{text}");
}

#[test]
fn a_runtime_without_io_is_named() {
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    let text = panic_of(Some(&runtime), || bowline::connect("ws://127.0.0.1:9/"));
    assert!(text.contains("enable_io"), "{text}");
}

/// The listener works, as it belongs to another runtime, but the connections that it accepts do not.
#[test]
fn a_server_in_a_runtime_without_io_ends_with_its_first_connection() {
    let other = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let listener = other.block_on(async { TcpListener::bind("127.0.0.1:0").await.unwrap() });
    let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    let text = panic_of(Some(&runtime), || bowline::serve(listener, echo));
    assert!(text.contains("enable_io"), "{text}");
}
