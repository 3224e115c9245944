//! Wakers that only take notes: which parts of one connection have to be looked at again.
//!
//! The h2 package speaks `std::task`. Its connection, and each direction of each stream, gets a [`Waker`] that writes
//! down who was woken; nothing runs because of it. Wakers have to be `Send + Sync`, so the notes are atomic, although
//! they never leave their thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Wake, Waker};

use crossbeam::queue::SegQueue;

/// What has to be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Noted {
    /// The receiving side of this stream.
    Receive(u32),
    /// The sending side of this stream, or both because of a reset.
    Send(u32),
}

/// The notes of one connection: at most two for each stream.
#[derive(Debug, Default)]
pub(super) struct Notes {
    connection: AtomicBool,
    streams: SegQueue<Arc<StreamWaker>>,
}

impl Notes {
    /// The waker of the connection itself.
    pub(super) fn connection_waker(self: &Arc<Self>) -> Waker {
        Waker::from(Arc::new(ConnectionWaker(Arc::clone(self))))
    }

    /// The waker of one direction of a stream.
    pub(super) fn stream_waker(self: &Arc<Self>, noted: Noted) -> Waker {
        Waker::from(Arc::new(StreamWaker {
            notes: Arc::clone(self),
            noted,
            waits: AtomicBool::new(false),
        }))
    }

    /// Whether the connection was woken since this was asked last.
    pub(super) fn take_connection(&self) -> bool {
        self.connection.swap(false, Relaxed)
    }

    /// Whether anything waits to be looked at.
    pub(super) fn is_empty(&self) -> bool {
        !self.connection.load(Relaxed) && self.streams.is_empty()
    }

    /// The next direction of a stream that was woken.
    pub(super) fn pop(&self) -> Option<Noted> {
        let waker = self.streams.pop()?;
        waker.waits.store(false, Relaxed);
        Some(waker.noted)
    }
}

struct ConnectionWaker(Arc<Notes>);

impl Wake for ConnectionWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.connection.store(true, Relaxed);
    }
}

#[derive(Debug)]
struct StreamWaker {
    notes: Arc<Notes>,
    noted: Noted,
    /// Whether it is in the queue.
    waits: AtomicBool,
}

impl Wake for StreamWaker {
    fn wake(self: Arc<Self>) {
        if !self.waits.swap(true, Relaxed) {
            let notes = Arc::clone(&self.notes);
            notes.streams.push(self);
        }
    }

    fn wake_by_ref(self: &Arc<Self>) {
        Arc::clone(self).wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_direction_is_noted_once_until_it_is_looked_at() {
        let notes = Arc::new(Notes::default());
        assert!(notes.is_empty());
        let receive = notes.stream_waker(Noted::Receive(1));
        let send = notes.stream_waker(Noted::Send(1));
        for _ in 0..100 {
            receive.wake_by_ref();
            send.wake_by_ref();
        }
        assert!(!notes.is_empty());
        assert_eq!(notes.pop(), Some(Noted::Receive(1)));
        receive.wake();
        assert_eq!(notes.pop(), Some(Noted::Send(1)));
        assert_eq!(notes.pop(), Some(Noted::Receive(1)));
        assert_eq!(notes.pop(), None);
    }

    #[test]
    fn the_connection_is_noted_apart() {
        let notes = Arc::new(Notes::default());
        notes.connection_waker().wake();
        assert!(!notes.is_empty() && notes.pop().is_none());
        assert!(notes.take_connection());
        assert!(!notes.take_connection() && notes.is_empty());
    }
}
