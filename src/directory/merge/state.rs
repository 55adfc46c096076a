use std::{sync::Arc, time::Instant};

use crate::directory::{Options, Snapshot, outbox::Outbox, state::State};

impl State {
    /// The source at `place` of this merged set shows `snapshot` from now on.
    pub(super) fn merge(
        &mut self,
        place: usize,
        snapshot: Arc<Snapshot>,
        options: &Options,
        out: &mut Outbox,
    ) {
        let received = snapshot.received;
        if let Some(parts) = &mut self.parts {
            parts.put(place, snapshot);
        }
        self.collect(received, options, out);
    }

    /// These sources of this merged set have ended.
    pub(super) fn end(&mut self, ended: &[bool], options: &Options, out: &mut Outbox) {
        let Some(parts) = &mut self.parts else { return };
        if parts.close(ended) {
            self.collect(self.root.snapshot().received, options, out);
        }
    }

    fn collect(&mut self, received: Option<Instant>, options: &Options, out: &mut Outbox) {
        let Some(mut parts) = self.parts.take() else {
            return;
        };
        let before = self.root.snapshot();
        let admitted = parts.collect(&before.entries, &mut self.generations);
        let was = (self.known, self.protected, self.closed);
        // What was known once stays so: who calls meanwhile hears that there is nobody.
        self.known |= parts.is_known();
        self.answered |= parts.has_answered();
        self.protected = parts.is_protected();
        self.closed = parts.is_closed();
        let begun = parts.has_begun();
        self.parts = Some(parts);
        let force = was != (self.known, self.protected, self.closed) || self.revision == 0;
        if begun {
            self.advance(admitted, force, received, options, out);
        }
    }
}
