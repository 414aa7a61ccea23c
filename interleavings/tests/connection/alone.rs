//! The waker of a connection alone: the steps are few enough for every interleaving.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Poll, Waker};

use loom::sync::atomic::AtomicBool;
use loom::thread;

use crate::sync::block_on;
use crate::waker::ConnectionWaker;

/// Reads as a connection does: sleeps only if the transport had no bytes and has not woken the reader since.
async fn read(connection_waker: &ConnectionWaker, ready: &AtomicBool) {
    std::future::poll_fn(|cx| {
        connection_waker.begin_read();
        if ready.load(Ordering::Acquire) {
            let _ = connection_waker.remove_reader();
            return Poll::Ready(());
        }
        if !connection_waker.sleep_reader(cx.waker(), &mut None) {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    })
    .await;
}

#[test]
fn a_reader_hears_of_every_wake_up() {
    loom::model(|| {
        let (connection_waker, ready) =
            (Arc::new(ConnectionWaker::default()), Arc::new(AtomicBool::new(false)));
        let transport = {
            let (waker, ready) = (Waker::from(Arc::clone(&connection_waker)), Arc::clone(&ready));
            thread::spawn(move || {
                // A spurious wake-up, which is allowed.
                waker.wake_by_ref();
                ready.store(true, Ordering::Release);
                waker.wake();
            })
        };
        block_on(read(&connection_waker, &ready));
        transport.join().unwrap();
        assert!(!connection_waker.has_reader());
    });
}

#[test]
fn the_driver_hears_of_a_wake_up_beside_a_reader_that_comes_and_goes() {
    loom::model(|| {
        let (connection_waker, ready) =
            (Arc::new(ConnectionWaker::default()), Arc::new(AtomicBool::new(false)));
        connection_waker.set_driver_waits(true);
        let transport = {
            let (waker, ready) = (Waker::from(Arc::clone(&connection_waker)), Arc::clone(&ready));
            thread::spawn(move || {
                ready.store(true, Ordering::Release);
                waker.wake();
            })
        };
        let reader = {
            let connection_waker = Arc::clone(&connection_waker);
            thread::spawn(move || {
                connection_waker.begin_read();
                connection_waker.sleep_reader(Waker::noop(), &mut None);
                let _ = connection_waker.remove_reader();
            })
        };
        block_on(std::future::poll_fn(|cx| {
            connection_waker.set_driver(Some(cx.waker()));
            if ready.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
        }));
        connection_waker.set_driver(None);
        transport.join().unwrap();
        reader.join().unwrap();
        assert!(!connection_waker.has_reader());
    });
}
