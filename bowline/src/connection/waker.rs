//! The waker of a connection, which decides whom a ready transport wakes.
//!
//! A transport remembers one waker for each direction, or a single one. If a caller's waker reached it, then
//! a later poll by someone else would replace that waker, and the caller would sleep forever. Each poll of
//! the transport, whoever makes it, therefore uses the waker of the connection. The waker of the connection
//! wakes those who wait at that time: a reader, and the driver.
//!
//! ```text
//!          a ready transport
//!                   |
//!                   v
//!            ConnectionWaker --> the reader, if a recv sleeps
//!                   '----------> the driver, if it waits for the transport, or if the driver does not
//!                                yet watch whether a reader that was woken reads
//! ```
//!
//! # How a reader falls asleep
//!
//! A wake-up by the transport between the reader's last poll and the reader's sleep must not be lost. The
//! flag `woken` closes that gap:
//!
//! ```text
//! reader                                         transport, on another thread
//! ------                                         ----------------------------
//! begin_read: woken = false
//! poll the transport: Pending
//!                                                wake: lock the slots, take the reader
//!                                                (there is none yet), woken = true
//! sleep_reader: lock the slots,
//!   woken is true: do not sleep, poll again
//! ```
//!
//! The flag is set and tested with the slots locked, so exactly one of two things happens: the reader sees
//! the wake-up, or the wake-up finds the reader.
//!
//! A second flag, `quiet`, spares the reader the lock of the inbound half. While `quiet` is set, nothing was
//! left in that half for the application, and nobody has touched the half since.
//!
//! `interleavings/` runs these functions in every order that loom finds.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::task::{Wake, Waker};

use crate::sync::{AtomicBool, Mutex, MutexGuard};
use crate::transport::polling;

/// The waker of a connection, for both directions of its transport.
///
/// The reader's waker is foreign: no lock of the connection is held while it is woken or dropped. A wake-up
/// from within a poll runs under these locks, so the driver wakes the reader later. The waker of the driver
/// is tokio's own, which only schedules, and may be woken anywhere.
///
/// The size counts. Measured: 8 bytes more are 100 bytes more of resident memory, as the rest of a connection
/// then does not fit between tokio's blocks.
#[derive(Default)]
pub(crate) struct ConnectionWaker {
    slots: Mutex<Slots>,
    /// Set if the transport has woken the connection since [`begin_read`](Self::begin_read). Set with `slots`
    /// locked.
    woken: AtomicBool,
    /// Set if a reader is in `slots`, as far as the reader itself knows.
    ///
    /// `Relaxed` is enough: only the reader sets the flag, so the reader never misses its own registration. A
    /// stale `true` costs the reader one lock.
    asleep: AtomicBool,
    /// Set if nobody has touched the inbound half since the application was handed something, and nothing was
    /// left in the half for the application. Changed with the inbound half locked.
    ///
    /// `Relaxed` is enough: a stale `false` costs a look at the half, and
    /// [`sleep_quiet_locked`](Self::sleep_quiet_locked) excludes a stale `true`.
    quiet: AtomicBool,
}

#[derive(Default)]
struct Slots {
    reader: Option<Waker>,
    driver: Option<Waker>,
    /// Set if the driver waits for the transport, too, whether there is a reader or not.
    driver_waits: bool,
    /// Set if the driver will check by itself whether a reader that was woken has read, and need not be woken
    /// for that.
    driver_watches: bool,
    /// Set if the transport was polled when it woke the connection: the driver has to wake the reader.
    reader_is_due: bool,
}

impl ConnectionWaker {
    /// Forgets the wake-ups by the transport until now. Has to precede each poll of the transport for bytes.
    ///
    /// The orderings make the bytes of a forgotten wake-up visible to that poll. `Acquire` pairs with the
    /// `Release` of [`wake`](Wake::wake). The flag is cleared by a swap, since a second wake-up may come
    /// between the load and the clearing: the swap reads from that wake-up, too, and the poll sees its bytes.
    /// A plain store would overwrite the second wake-up unseen, the poll could miss the bytes, and nobody
    /// would wake the connection again. The `Release` half orders `quiet`: see
    /// [`sleep_quiet_locked`](Self::sleep_quiet_locked).
    pub(crate) fn begin_read(&self) {
        if self.woken.load(Ordering::Acquire) {
            self.woken.swap(false, Ordering::AcqRel);
        }
    }

    /// Returns whether the transport has woken the connection since [`begin_read`](Self::begin_read).
    ///
    /// `Acquire`: the poll that follows a wake-up sees the bytes of that wake-up.
    #[inline]
    pub(crate) fn was_woken(&self) -> bool {
        self.woken.load(Ordering::Acquire)
    }

    /// Registers the reader, which sleeps after the transport had nothing. Returns `false` without
    /// registering if the transport has woken the connection since.
    ///
    /// A waker from an earlier poll is moved to `retired`, to be dropped once no lock is held. The caller
    /// holds the lock of the inbound half, so nobody else has called [`begin_read`](Self::begin_read) since
    /// the transport had nothing.
    pub(crate) fn sleep_reader(&self, waker: &Waker, retired: &mut Option<Waker>) -> bool {
        let mut slots = self.slots();
        if self.woken.load(Ordering::Acquire) {
            return false;
        }
        *retired = slots.reader.replace(waker.clone());
        self.asleep.store(true, Ordering::Relaxed);
        true
    }

    /// Registers a reader that has not locked the inbound half, if that half is quiet and the transport has
    /// not woken the connection.
    ///
    /// This is the fast check, whose result may be out of date.
    /// [`sleep_quiet_locked`](Self::sleep_quiet_locked) decides.
    #[inline]
    pub(crate) fn try_sleep_quiet(&self, waker: &Waker) -> bool {
        self.quiet.load(Ordering::Relaxed)
            && !self.woken.load(Ordering::Relaxed)
            && self.sleep_quiet_locked(waker)
    }

    /// Registers the reader if the half is quiet and the transport has not woken the connection.
    ///
    /// Someone who reads in the application's place, the driver, may be running on another thread without the
    /// lock of the slots:
    ///
    /// ```text
    /// driver                                   reader
    /// ------                                   ------
    /// inbound(): quiet = false
    /// begin_read: woken = false (Release)
    ///                                          lock the slots
    ///                                          woken is false (Acquire)
    ///                                          quiet is false: do not sleep
    /// poll the transport: a message
    /// wake_reader: lock the slots
    /// ```
    ///
    /// `woken` is loaded first, with `Acquire`. If that load sees the driver's `false`, then the load of
    /// `quiet` sees the driver's `false`, too. In the other order, the reader could find the half still
    /// quiet, and the wake-up by the transport already forgotten. A driver that reads later finds the reader
    /// in the slots, and wakes it if anything is left for the application.
    #[inline(never)]
    fn sleep_quiet_locked(&self, waker: &Waker) -> bool {
        let waker = waker.clone();
        let mut slots = self.slots();
        // The flags are reliable only once the slots are locked.
        if self.woken.load(Ordering::Acquire) || !self.quiet.load(Ordering::Relaxed) {
            drop(slots);
            return false;
        }
        let retired = slots.reader.replace(waker);
        self.asleep.store(true, Ordering::Relaxed);
        drop(slots);
        drop(retired);
        true
    }

    /// Sets whether nothing is in the inbound half for the application. The caller holds the lock of that
    /// half.
    pub(crate) fn set_quiet(&self, quiet: bool) {
        self.quiet.store(quiet, Ordering::Relaxed);
    }

    /// Returns whether nothing was left in the inbound half for the application, unless somebody has touched
    /// the half since.
    #[inline]
    pub(crate) fn is_quiet(&self) -> bool {
        self.quiet.load(Ordering::Relaxed)
    }

    /// Returns whether a reader is registered, as far as the reader itself knows.
    #[inline]
    pub(crate) fn has_sleeping_reader(&self) -> bool {
        self.asleep.load(Ordering::Relaxed)
    }

    /// Unregisters the reader. Returns the waker if the reader was asleep, to be dropped once no lock is
    /// held.
    #[inline]
    #[must_use = "the waker has to be dropped once no lock is held"]
    pub(crate) fn remove_reader(&self) -> Option<Waker> {
        if !self.asleep.load(Ordering::Relaxed) {
            return None;
        }
        self.take_reader(&mut self.slots())
    }

    /// Takes the reader out of the slots.
    fn take_reader(&self, slots: &mut Slots) -> Option<Waker> {
        self.asleep.store(false, Ordering::Relaxed);
        slots.reader.take()
    }

    /// Returns whether a reader is registered.
    pub(crate) fn has_reader(&self) -> bool {
        self.slots().reader.is_some()
    }

    /// Stops watching a reader that is registered. Returns whether one is registered.
    pub(crate) fn leave_to_reader(&self) -> bool {
        let mut slots = self.slots();
        slots.driver_watches &= slots.reader.is_none();
        slots.reader.is_some()
    }

    /// Returns whether the driver watches a reader that was woken.
    pub(crate) fn is_watched(&self) -> bool {
        self.slots().driver_watches
    }

    /// Sets whether the driver checks by itself if a reader that was woken has read.
    pub(crate) fn watch(&self, watches: bool) {
        self.slots().driver_watches = watches;
    }

    /// Wakes the reader, if one is registered.
    pub(crate) fn wake_reader(&self) {
        let reader = self.take_reader(&mut self.slots());
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// Wakes the driver.
    pub(crate) fn wake_driver(&self) {
        let driver = self.slots().driver.clone();
        if let Some(driver) = driver {
            driver.wake();
        }
    }

    /// Sets the waker of the driver, or `None` once the driver has ended. Wakes a reader that was left to the
    /// driver.
    pub(crate) fn set_driver(&self, waker: Option<&Waker>) {
        let mut slots = self.slots();
        match (&mut slots.driver, waker) {
            (Some(known), Some(waker)) => known.clone_from(waker),
            (driver, waker) => *driver = waker.cloned(),
        }
        if std::mem::take(&mut slots.reader_is_due) {
            let reader = self.take_reader(&mut slots);
            drop(slots);
            reader.into_iter().for_each(Waker::wake);
        }
    }

    /// Sets whether the driver is woken even if a reader is registered.
    pub(crate) fn set_driver_waits(&self, waits: bool) {
        self.slots().driver_waits = waits;
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for ConnectionWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let mut slots = self.slots();
        let reader = if polling::is_polled(Arc::as_ptr(self).addr()) {
            slots.reader_is_due |= slots.reader.is_some();
            None
        } else {
            self.take_reader(&mut slots)
        };
        // The flag is set even if there is a reader: that waker may belong to an earlier poll, while a later
        // poll is about to go to sleep.
        //
        // A swap with `AcqRel`, as in `begin_read`: of the two, the later one sees everything that happened
        // before the earlier one. Either the poll after `begin_read` finds the bytes of this wake-up, or the
        // reader finds the flag set before the reader sleeps.
        self.woken.swap(true, Ordering::AcqRel);
        // A reader that was woken need not read: its future may be kept without being polled. The driver
        // checks that, but is woken for this check only once in a while.
        let watched = slots.driver_watches;
        slots.driver_watches |= reader.is_some();
        let wakes_driver = slots.driver_waits || slots.reader_is_due || !watched;
        let driver = if wakes_driver { slots.driver.clone() } else { None };
        drop(slots);
        reader.into_iter().chain(driver).for_each(Waker::wake);
    }
}
