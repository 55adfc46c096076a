//! What a merged set is made of, and how the entries of its sources become one set.

use std::sync::Arc;

use crate::{
    directory::{Entry, Generation, Mode, Revision, Snapshot, Standing, admit::Admitted},
    model::{Address, Instance, START_TIME, Source},
};

/// The newest snapshot of each source. Better sources come first.
#[derive(Debug)]
pub(in crate::directory) struct Parts {
    parts: Box<[Part]>,
    /// Parallel to the entries of the merged set: which of a source's each is.
    picked: Vec<Picked>,
}

#[derive(Debug)]
struct Part {
    source: Arc<Source>,
    snapshot: Arc<Snapshot>,
    closed: bool,
}

/// An entry of a source that counts for its address.
#[derive(Debug)]
struct Picked {
    part: usize,
    generation: Generation,
    /// As the source lists it.
    instance: Arc<Instance>,
}

/// A presence in a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::directory) struct Presence {
    pub(in crate::directory) part: usize,
    pub(in crate::directory) generation: Generation,
}

impl Parts {
    /// Of sources in this order, of which nothing is known yet.
    pub(in crate::directory) fn new(sources: impl IntoIterator<Item = Arc<Source>>) -> Self {
        let parts = sources.into_iter().map(|source| Part {
            source,
            snapshot: Arc::default(),
            closed: false,
        });
        Self {
            parts: parts.collect(),
            picked: Vec::new(),
        }
    }

    /// A source shows this from now on.
    pub(super) fn put(&mut self, part: usize, snapshot: Arc<Snapshot>) {
        self.parts[part].snapshot = snapshot;
    }

    /// These sources have ended; none begins again. Whether that is news.
    pub(super) fn close(&mut self, ended: &[bool]) -> bool {
        let mut news = self.parts.is_empty();
        for (part, ended) in self.parts.iter_mut().zip(ended) {
            news |= *ended && !part.closed;
            part.closed |= ended;
        }
        news
    }

    /// Whether all sources have ended.
    pub(super) fn is_closed(&self) -> bool {
        self.parts.iter().all(|part| part.closed)
    }

    /// Whether a source has anything to say.
    pub(super) fn has_begun(&self) -> bool {
        let begun = |part: &Part| part.closed || part.snapshot.revision > Revision::default();
        self.parts.is_empty() || self.parts.iter().any(begun)
    }

    /// Whether somebody may be called, or each source has answered that it has nobody or has ended.
    pub(super) fn has_answered(&self) -> bool {
        let begun = |part: &Part| part.snapshot.revision > Revision::default();
        let answered = |part: &Part| begun(part) && !part.snapshot.ended;
        let done = |part: &Part| part.closed || begun(part);
        let any = self.parts.is_empty() || self.parts.iter().any(answered);
        self.has_callable() || (any && self.parts.iter().all(done))
    }

    /// The same of answers that are believed.
    pub(super) fn is_known(&self) -> bool {
        let known = |part: &Part| part.snapshot.known;
        let settled = |part: &Part| part.closed || part.snapshot.known || part.snapshot.ended;
        let any = self.parts.is_empty() || self.parts.iter().any(known);
        self.has_callable() || (any && self.parts.iter().all(settled))
    }

    fn has_callable(&self) -> bool {
        self.parts.iter().any(|part| part.snapshot.callable > 0)
    }

    /// Whether a server's protection rule is in force somewhere.
    pub(super) fn is_protected(&self) -> bool {
        let flagged = |part: &Part| part.snapshot.mode == Mode::Flagged;
        self.parts.iter().any(flagged)
    }

    /// Who lists this entry of the merged set, at `at` in it, as the same start of a provider.
    pub(in crate::directory) fn presences(&self, at: usize, address: &Address) -> Vec<Presence> {
        let Some(picked) = self.picked.get(at) else {
            return Vec::new();
        };
        let parts = self.parts.iter().enumerate();
        let listed = parts.filter_map(|(part, held)| {
            let entry = held.snapshot.find(address)?;
            let same = start(&entry.instance) == start(&picked.instance);
            same.then_some(Presence {
                part,
                generation: entry.generation,
            })
        });
        listed.collect()
    }

    /// The union of all sources, by address. Of an address that several list the first counts that
    /// does list it, not merely holds it; whoever is going offline for one is so for all.
    ///
    /// What is in `before` goes on as the generation that it is, unless the source that counted and
    /// counts says that it started anew. What has not changed is not made again.
    pub(super) fn collect(&mut self, before: &[Entry], generations: &mut u64) -> Admitted {
        let size = self.parts.iter().map(|part| part.snapshot.entries.len());
        let size = size.max().unwrap_or_default();
        let mut out = Admitted {
            entries: Vec::with_capacity(size),
            health: Vec::with_capacity(size),
            ..Admitted::default()
        };
        let mut picked = Vec::with_capacity(size);
        let mut former = before.iter().zip(&self.picked).peekable();
        let mut cursors: Vec<_> = self.parts.iter().map(Part::entries).collect();
        loop {
            let heads = cursors
                .iter_mut()
                .filter_map(|cursor| cursor.peek().copied());
            let Some(address) = heads.map(|entry| entry.instance.address()).min() else {
                break;
            };
            let mut best: Option<(usize, &Entry)> = None;
            let mut leaving = Vec::new(); // nearly always empty
            for (part, cursor) in cursors.iter_mut().enumerate() {
                let Some(entry) = cursor.next_if(|e| e.instance.address() == address) else {
                    continue;
                };
                leaving.extend(entry.leaving.then_some(entry));
                if best.is_none_or(|(_, best)| best.held && !entry.held) {
                    best = Some((part, entry));
                }
            }
            let Some((part, entry)) = best else { break };
            let leaving = leaving
                .iter()
                .any(|other| start(&other.instance) == start(&entry.instance));
            while former
                .next_if(|(gone, _)| gone.instance.address() < address)
                .is_some()
            {
                out.changed = true;
            }
            let prior = former.next_if(|(entry, _)| entry.instance.address() == address);
            let next = self.parts[part].next(entry, leaving, part, prior, generations);
            out.changed |= prior.is_none_or(|(prior, _)| {
                prior.generation != next.generation
                    || prior.held != next.held
                    || prior.leaving != next.leaving
                    || prior.health != next.health
                    || !Arc::ptr_eq(&prior.instance, &next.instance)
            });
            out.health.push(next.health);
            out.entries.push(next);
            picked.push(Picked {
                part,
                generation: entry.generation,
                instance: Arc::clone(&entry.instance),
            });
        }
        out.changed |= former.next().is_some();
        drop(former);
        drop(cursors);
        self.picked = picked;
        out
    }
}

impl Part {
    /// Those within its own selection, in order of address.
    fn entries(&self) -> std::iter::Peekable<impl Iterator<Item = &Entry>> {
        let entries = self.snapshot.entries.iter();
        let inside = |entry: &&Entry| entry.standing != Standing::OutsideSelection;
        entries.filter(inside).peekable()
    }

    /// The merged set's entry for one of this source, which is the one numbered `part`.
    fn next(
        &self,
        entry: &Entry,
        leaving: bool,
        part: usize,
        prior: Option<(&Entry, &Picked)>,
        generations: &mut u64,
    ) -> Entry {
        let same_source = prior.filter(|(_, picked)| picked.part == part);
        let instance = match same_source {
            Some((prior, picked)) if Arc::ptr_eq(&picked.instance, &entry.instance) => {
                Arc::clone(&prior.instance)
            }
            _ => {
                let instance = Instance::clone(&entry.instance);
                Arc::new(instance.with_source(Arc::clone(&self.source)))
            }
        };
        let restarted =
            same_source.is_some_and(|(_, picked)| picked.generation != entry.generation);
        let generation = match prior {
            Some((prior, _)) if !restarted => prior.generation,
            _ => {
                *generations += 1;
                Generation(*generations)
            }
        };
        Entry {
            instance,
            generation,
            standing: Standing::Callable,
            held: entry.held,
            leaving,
            health: entry.health,
        }
    }
}

/// Which process it is, as far as its provider says.
fn start(instance: &Instance) -> Option<&str> {
    instance.metadata().get(START_TIME)
}
