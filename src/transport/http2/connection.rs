use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use bytes::Bytes;
use h2::client::SendRequest;

use crate::transport::{
    attempt::Past,
    http2::{io::Traffic, told},
};

/// One HTTP/2 connection. It closes when this is dropped and its streams have ended.
pub(in crate::transport) struct Http2Connection {
    sender: SendRequest<Bytes>,
    state: Arc<Streams>,
}

/// What calls and the connection's task know of each other.
#[derive(Default)]
pub(in crate::transport) struct Streams {
    /// The peer's limit; 0 until its SETTINGS came.
    pub(in crate::transport) limit: AtomicUsize,
    pub(in crate::transport) in_use: AtomicUsize,
    pub(in crate::transport) closed: AtomicBool,
    answered: AtomicBool,
    /// Whether a call ever had a place, and whether another one did.
    used: AtomicBool,
    shared: AtomicBool,
    /// Whether calls were begun that the task has not seen.
    pub(in crate::transport) begun: AtomicBool,
    pub(in crate::transport) traffic: Arc<Traffic>,
    /// That a PING was not answered, in words.
    pub(in crate::transport) silence: OnceLock<String>,
}

impl Http2Connection {
    pub(in crate::transport) const fn new(sender: SendRequest<Bytes>, state: Arc<Streams>) -> Self {
        Self { sender, state }
    }

    pub(in crate::transport) fn sender(&self) -> SendRequest<Bytes> {
        self.sender.clone()
    }

    /// No further call takes it.
    pub(in crate::transport) fn close(&self) {
        self.state.closed.store(true, Ordering::SeqCst);
    }

    /// Whether the peer takes no stream at all.
    pub(in crate::transport) fn takes_none(&self) -> bool {
        self.state.limit.load(Ordering::Relaxed) == 0
    }

    pub(in crate::transport) fn is_closed(&self) -> bool {
        self.state.closed.load(Ordering::SeqCst)
    }

    /// Takes a place for a stream, if there is one.
    pub(in crate::transport) fn occupy(&self) -> bool {
        let state = &self.state;
        if self.is_closed() {
            return false;
        }
        let before = state.in_use.fetch_add(1, Ordering::SeqCst);
        // Closed is looked at again: the task of one that is idle or old closes it, and ends it if
        // nobody has a place after that.
        if before >= state.limit.load(Ordering::Relaxed) || self.is_closed() {
            state.in_use.fetch_sub(1, Ordering::SeqCst);
            return false;
        }
        if !state.shared.load(Ordering::Relaxed) && state.used.swap(true, Ordering::Relaxed) {
            state.shared.store(true, Ordering::Relaxed);
        }
        true
    }

    /// Gives a place back.
    pub(in crate::transport) fn vacate(&self) {
        self.state.in_use.fetch_sub(1, Ordering::SeqCst);
    }

    /// A call is about to be begun.
    pub(in crate::transport) fn beginning(&self) {
        self.state.begun.store(true, Ordering::Release);
    }

    /// A response came.
    pub(in crate::transport) fn answered(&self) {
        if !self.has_answered() {
            self.state.answered.store(true, Ordering::Relaxed);
        }
    }

    pub(in crate::transport) fn has_answered(&self) -> bool {
        self.state.answered.load(Ordering::Relaxed)
    }

    /// What it has done so far.
    pub(in crate::transport) fn past(&self) -> Past {
        if self.has_answered() {
            Past::Answered
        } else if self.state.shared.load(Ordering::Relaxed) {
            Past::Shared
        } else {
            Past::Fresh
        }
    }

    /// How often something was written. What was handed to the connection after a look at this
    /// was not written for as long as another look says the same.
    pub(in crate::transport) fn writes(&self) -> u64 {
        self.state.traffic.writes.load(Ordering::Acquire)
    }

    /// What the peer told of streams lately.
    pub(in crate::transport) fn told(&self) -> &told::Streams {
        &self.state.traffic.streams
    }

    /// That it was given up since a PING was not answered.
    pub(in crate::transport) fn silence(&self) -> Option<&str> {
        self.state.silence.get().map(|text| &**text)
    }
}
