use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use crate::transport::http2::frames::Told;

/// What the peer told of streams lately, for when the connection fails: `h2` then says the same of
/// all that are open.
///
/// Of a stream that we still send on it forgets that its answer was complete. A server that answers
/// an upload early and closes makes just that.
#[derive(Default)]
pub(in crate::transport) struct Streams {
    ended: Recent,
    /// On which an answer began.
    begun: Recent,
    /// How many of these in the last read.
    begun_last: AtomicUsize,
    /// The last stream that was taken, by a GOAWAY; one more than that.
    last: AtomicU32,
}

/// The newest of some stream ids.
#[derive(Default)]
struct Recent {
    streams: [AtomicU32; KEPT],
    next: AtomicUsize,
}

impl Streams {
    /// Something is read; told by who reads the connection alone, as all of these.
    pub(in crate::transport) fn begin(&self) {
        self.begun_last.store(0, Ordering::Relaxed);
    }

    pub(in crate::transport) fn note(&self, told: Told) {
        match told {
            Told::End(stream) => self.ended.push(stream),
            Told::Head(stream) => {
                let before = self.begun_last.load(Ordering::Relaxed);
                self.begun_last.store(before + 1, Ordering::Relaxed);
                self.begun.push(stream);
            }
            Told::Last(stream) => self.last.store(stream + 1, Ordering::Release),
        }
    }

    /// Whether its answer was complete, as far as is remembered.
    pub(in crate::transport) fn has_ended(&self, stream: u32) -> bool {
        self.ended.contains(stream)
    }

    /// Whether no byte of an answer came to a stream that has none: what is wrong with what was read
    /// last is not its doing.
    pub(in crate::transport) fn is_untouched(&self, stream: u32) -> bool {
        self.begun_last.load(Ordering::Acquire) <= KEPT && !self.begun.contains(stream)
    }

    /// Whether an answer began that is not told as a whole: an interim one came, or the first piece of a
    /// head.
    pub(in crate::transport) fn has_begun(&self, stream: u32) -> bool {
        self.begun.contains(stream)
    }

    /// Who read the connection stops before all of what was read is looked at: no answer is known to be
    /// complete.
    pub(in crate::transport) fn forget_ends(&self) {
        self.ended.clear();
    }

    /// Whether it is the first stream that a GOAWAY left out. Heads are read in the order of streams:
    /// it was this one's that was too much, if one was.
    pub(in crate::transport) fn is_first_left_out(&self, stream: u32) -> bool {
        match self.last.load(Ordering::Acquire) {
            0 => false,
            1 => stream == 1,
            after => stream == after + 1,
        }
    }
}

impl Recent {
    fn push(&self, stream: u32) {
        let at = self.next.load(Ordering::Relaxed);
        self.streams[at % KEPT].store(stream, Ordering::Release);
        self.next.store(at.wrapping_add(1), Ordering::Relaxed);
    }

    fn clear(&self) {
        for stream in &self.streams {
            stream.store(0, Ordering::Release);
        }
    }

    fn contains(&self, stream: u32) -> bool {
        let mut streams = self.streams.iter();
        streams.any(|one| one.load(Ordering::Acquire) == stream)
    }
}

/// A failed connection is told to its streams at once: what came long before has been taken, or is not
/// an answer to an upload that goes on.
const KEPT: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_that_ended_are_known_and_none_else() {
        let streams = Streams::default();
        assert!(!streams.has_ended(1));
        for stream in (1..=201).step_by(2) {
            streams.note(Told::End(stream));
            assert!(streams.has_ended(stream));
        }
        assert!(streams.has_ended(201 - 2 * (KEPT as u32 - 1)));
        assert!(!streams.has_ended(201 - 2 * KEPT as u32));
        assert!(!streams.has_ended(203));
    }

    #[test]
    fn a_stream_is_untouched_until_a_head_began_or_too_many_did_at_once() {
        let streams = Streams::default();
        streams.begin();
        streams.note(Told::Head(3));
        assert!(streams.is_untouched(1) && !streams.is_untouched(3));
        streams.begin();
        for stream in 0..=KEPT as u32 {
            streams.note(Told::Head(101 + 2 * stream));
        }
        assert!(!streams.is_untouched(1), "it may be forgotten");
        streams.begin();
        assert!(streams.is_untouched(1));
    }

    #[test]
    fn the_first_left_out_follows_the_last_taken() {
        let streams = Streams::default();
        assert!(!streams.is_first_left_out(1));
        streams.note(Told::Last(0));
        assert!(streams.is_first_left_out(1) && !streams.is_first_left_out(3));
        streams.note(Told::Last(5));
        assert!(streams.is_first_left_out(7));
        assert!(!streams.is_first_left_out(5) && !streams.is_first_left_out(9));
        streams.note(Told::Last(u32::MAX >> 1)); // what a shutdown says first
        assert!(!streams.is_first_left_out(7));
    }
}
