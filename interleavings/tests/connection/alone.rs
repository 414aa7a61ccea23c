//! The waker of a connection alone: the steps are few enough for every interleaving.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Poll, Waker};

use loom::sync::atomic::AtomicBool;
use loom::thread;

use crate::sync::block_on;
use crate::waker::ConnectionWaker;

/// Reads like a connection: sleeps only if the transport had no bytes and has not woken the reader since.
async fn read(signals: &ConnectionWaker, ready: &AtomicBool) {
    std::future::poll_fn(|cx| {
        signals.begin_read();
        if ready.load(Ordering::Acquire) {
            let _ = signals.remove_reader();
            return Poll::Ready(());
        }
        if !signals.sleep_reader(cx.waker(), &mut None) {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    })
    .await;
}

#[test]
fn a_reader_hears_of_every_call() {
    loom::model(|| {
        let (signals, ready) = (Arc::new(ConnectionWaker::default()), Arc::new(AtomicBool::new(false)));
        let transport = {
            let (waker, ready) = (Waker::from(Arc::clone(&signals)), Arc::clone(&ready));
            thread::spawn(move || {
                // A spurious wake-up, which is allowed.
                waker.wake_by_ref();
                ready.store(true, Ordering::Release);
                waker.wake();
            })
        };
        block_on(read(&signals, &ready));
        transport.join().unwrap();
        assert!(!signals.has_reader());
    });
}

#[test]
fn the_driver_hears_of_a_call_beside_a_reader_that_comes_and_goes() {
    loom::model(|| {
        let (signals, ready) = (Arc::new(ConnectionWaker::default()), Arc::new(AtomicBool::new(false)));
        signals.set_driver_waits(true);
        let transport = {
            let (waker, ready) = (Waker::from(Arc::clone(&signals)), Arc::clone(&ready));
            thread::spawn(move || {
                ready.store(true, Ordering::Release);
                waker.wake();
            })
        };
        let reader = {
            let signals = Arc::clone(&signals);
            thread::spawn(move || {
                signals.begin_read();
                signals.sleep_reader(Waker::noop(), &mut None);
                let _ = signals.remove_reader();
            })
        };
        block_on(std::future::poll_fn(|cx| {
            signals.set_driver(Some(cx.waker()));
            if ready.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
        }));
        signals.set_driver(None);
        transport.join().unwrap();
        reader.join().unwrap();
        assert!(!signals.has_reader());
    });
}
