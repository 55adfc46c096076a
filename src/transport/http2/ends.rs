use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

/// The streams that the peer ended last.
///
/// Of a stream that we still send on, `h2` forgets that its answer was complete as soon as the
/// connection fails: it tells of the failure in place of the end. A server that answers an upload
/// early and closes makes just that.
#[derive(Default)]
pub(in crate::transport) struct Ends {
    streams: [AtomicU32; KEPT],
    next: AtomicUsize,
}

impl Ends {
    /// One more; told by who reads the connection alone.
    pub(in crate::transport) fn note(&self, stream: u32) {
        let at = self.next.load(Ordering::Relaxed);
        self.streams[at % KEPT].store(stream, Ordering::Release);
        self.next.store(at.wrapping_add(1), Ordering::Relaxed);
    }

    /// Whether this one ended, and no more than a few after it.
    pub(in crate::transport) fn contain(&self, stream: u32) -> bool {
        let mut streams = self.streams.iter();
        streams.any(|one| one.load(Ordering::Acquire) == stream)
    }
}

/// A failed connection is told to its streams at once: what ended long before it has been read, or
/// is not an answer to an upload that goes on.
const KEPT: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_are_known_and_none_else() {
        let ends = Ends::default();
        assert!(!ends.contain(1));
        for stream in (1..=201).step_by(2) {
            ends.note(stream);
            assert!(ends.contain(stream));
        }
        assert!(ends.contain(201 - 2 * (KEPT as u32 - 1)));
        assert!(!ends.contain(201 - 2 * KEPT as u32));
        assert!(!ends.contain(203));
    }
}
