//! What crosses threads: bounded mailboxes with a wake, and nothing else.
//!
//! ```text
//!   other workers ── stray trains ──┐
//!   control thread ─ answers ───────┼─► bounded queue ─► eventfd ─► the worker's next turn
//!                  ─ drain, stop … ─┘
//! ```
//!
//! A full mailbox drops strays (QUIC sends again) and refuses everything else to the sender's face. Nobody waits.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};

use super::machine::Resolve;
use super::run::Report;
use crate::net::{Train, Waker};
use crate::policy::auth::Verdict;
use crate::policy::resolve::Resolution;

/// A letter to a worker.
#[derive(Debug)]
pub enum Letter {
    /// Packets that arrived at another worker's socket of the same listener.
    Stray {
        /// The listener, by its number in the configuration.
        listener: u32,
        /// The packets.
        train: Box<Train>,
    },
    /// An IP packet for a client of this worker.
    Packet(Bytes),
    /// The answer to [`super::Outside::resolve`].
    Resolved {
        /// Who asked.
        asker: Resolve,
        /// What was found.
        resolution: Resolution,
    },
    /// The answer to [`super::Outside::verify`].
    Verdict(Verdict),
    /// Say what happened so far.
    Report(Sender<Report>),
    /// End gracefully: no new work, tunnels may finish until the deadline.
    Drain,
    /// End now.
    Stop,
}

/// Why a letter was not taken.
#[derive(Debug)]
pub enum PostError {
    /// There is no room for this letter.
    Full(Letter),
    /// The worker has ended; nobody will read this letter.
    Gone(Letter),
}

/// The sending side. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Address {
    sender: Sender<Letter>,
    waker: Arc<OnceLock<Waker>>,
}

impl Address {
    /// Wakes the worker without a letter, for an app with a channel of its own.
    pub fn wake(&self) {
        if let Some(waker) = self.waker.get() {
            waker.wake();
        }
    }

    /// Puts an IP packet into the mailbox, unless it is half full: packets leave room for what cannot be lost. Whether
    /// it was taken.
    #[must_use]
    pub fn post_packet(&self, packet: Bytes) -> bool {
        let places = self.sender.capacity().unwrap_or(usize::MAX);
        self.sender.len() < places / 2 && self.post(Letter::Packet(packet)).is_ok()
    }

    /// Puts a letter into the mailbox.
    ///
    /// # Errors
    /// When there is no room, or nobody reads any more.
    pub fn post(&self, letter: Letter) -> Result<(), PostError> {
        match self.sender.try_send(letter) {
            Ok(()) => {
                self.wake();
                Ok(())
            }
            Err(TrySendError::Full(letter)) => Err(PostError::Full(letter)),
            Err(TrySendError::Disconnected(letter)) => Err(PostError::Gone(letter)),
        }
    }
}

/// The receiving side, owned by one worker.
#[derive(Debug)]
pub struct Mailbox {
    receiver: Receiver<Letter>,
    waker: Arc<OnceLock<Waker>>,
}

impl Mailbox {
    /// Tells senders how to wake the worker. Letters that came before are found in its first turn.
    pub fn attach(&self, waker: Waker) {
        // A second attach would be the same worker's; the first one's waker stays good.
        drop(self.waker.set(waker));
    }

    /// The next letter.
    pub fn take(&self) -> Option<Letter> {
        self.receiver.try_recv().ok()
    }
}

/// A mailbox that holds up to `letters_max` letters.
pub fn mailbox(letters_max: usize) -> (Address, Mailbox) {
    let (sender, receiver) = bounded(letters_max);
    let waker = Arc::new(OnceLock::new());
    (
        Address {
            sender,
            waker: Arc::clone(&waker),
        },
        Mailbox { receiver, waker },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_bounded_and_keeps_the_order() {
        let (address, mailbox) = mailbox(2);
        address.post(Letter::Drain).unwrap();
        address.post(Letter::Stop).unwrap();
        let full = address.post(Letter::Stop);
        assert!(matches!(full, Err(PostError::Full(Letter::Stop))));
        assert!(matches!(mailbox.take(), Some(Letter::Drain)));
        assert!(matches!(mailbox.take(), Some(Letter::Stop)));
        assert!(mailbox.take().is_none());
        drop(mailbox);
        assert!(matches!(
            address.post(Letter::Drain),
            Err(PostError::Gone(_))
        ));
    }
}
