//! A process that forks, and continues twice with equal memory and one thread. This file is a program of its
//! own, with one test.
#![cfg(unix)]
#![allow(unsafe_code, reason = "nothing safe forks")]

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::FromRawFd;
use std::panic::catch_unwind;

use bowline::Connector;
use tokio::io::{AsyncReadExt, duplex};

/// Returns the masking keys of a few frames of a new connection, and the key of an opening handshake.
fn new_keys() -> Vec<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let connector = Connector::new();
    let mut keys = runtime.block_on(async {
        let (client, mut server) = duplex(1024);
        let socket = connector.adopt(client, bowline::Adoption::new()).unwrap();
        let mut keys = Vec::new();
        for _ in 0..8 {
            socket.send("").await.unwrap();
            let mut frame = [0; 6];
            server.read_exact(&mut frame).await.unwrap();
            assert_eq!(frame[..2], [0x81, 0x80], "an empty text that is masked");
            keys.extend_from_slice(&frame[2..]);
        }
        keys
    });
    let (request, _) = connector.request("ws://example.com/").unwrap();
    keys.extend_from_slice(request.headers()["sec-websocket-key"].as_bytes());
    keys
}

/// Blocks until a timer of the background has fired, which a child without a background would wait for in
/// vain.
#[cfg(feature = "blocking")]
fn block() -> Vec<u8> {
    // SAFETY: the alarm ends this process only if it hangs, and is turned off below.
    unsafe { libc::alarm(20) };
    let woken = bowline::blocking::block_on(async {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        vec![1]
    });
    // SAFETY: no alarm is due after this.
    unsafe { libc::alarm(0) };
    woken
}

/// Calls `work` in a forked process, and returns its result.
fn in_a_child(work: fn() -> Vec<u8>) -> Vec<u8> {
    let mut ends = [0; 2];
    // SAFETY: there is room for two descriptors.
    assert_eq!(unsafe { libc::pipe(ends.as_mut_ptr()) }, 0);
    // SAFETY: the descriptors are new, and each has one owner.
    let (mut reader, mut writer) = unsafe { (File::from_raw_fd(ends[0]), File::from_raw_fd(ends[1])) };
    // SAFETY: this file has one test, so no other thread is in the middle of anything, apart from one that
    // waits for events.
    match unsafe { libc::fork() } {
        -1 => panic!("fork failed: {}", std::io::Error::last_os_error()),
        0 => {
            let written = catch_unwind(work).is_ok_and(|result| writer.write_all(&result).is_ok());
            // SAFETY: the process ends here, without what belongs to the parent.
            unsafe { libc::_exit(i32::from(!written)) }
        }
        child => {
            drop(writer);
            let mut result = Vec::new();
            reader.read_to_end(&mut result).unwrap();
            let mut status = 0;
            // SAFETY: it is a child of this process that nobody waits for elsewhere.
            assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
            assert_eq!(status, 0, "the child failed");
            result
        }
    }
}

#[test]
fn rfc6455_5_3_processes_that_were_forked_have_different_masking_keys() {
    // This makes the library keep random bytes.
    new_keys();
    let of_children = [in_a_child(new_keys), in_a_child(new_keys)];
    let all = [&of_children[0], &of_children[1], &new_keys()];
    for (number, keys) in all.iter().enumerate() {
        assert_eq!(keys.len(), 8 * 4 + 24);
        for other in &all[number + 1..] {
            let (masks, other_masks) = (keys[..32].chunks(4), &other[..32]);
            let same = masks.filter(|mask| other_masks.chunks(4).any(|other| other == *mask)).count();
            assert_eq!(same, 0, "{keys:?} and {other:?}");
            assert_ne!(keys[32..], other[32..], "the keys of the opening handshake");
        }
    }
    // A fork copies no thread, also not that of `bowline::blocking`.
    #[cfg(feature = "blocking")]
    for _ in 0..2 {
        assert_eq!(block(), [1]);
        assert_eq!(in_a_child(block), [1]);
    }
}
