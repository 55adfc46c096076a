//! What changed between two snapshots, for the gates and for whoever listens.

use std::{cmp::Ordering, sync::Arc};

use crate::directory::{Entry, Snapshot, Transition, TransitionKind};

/// Both sides of one address; at least one of them is there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pair<'a> {
    pub(super) old: Option<&'a Entry>,
    /// With its position in the new snapshot.
    pub(super) new: Option<(usize, &'a Entry)>,
}

/// Walks two sorted sets of entries side by side.
pub(super) fn pairs<'a>(
    old: &'a [Entry],
    new: &'a [Entry],
) -> impl Iterator<Item = Pair<'a>> + use<'a> {
    let mut old = old.iter().peekable();
    let mut new = new.iter().enumerate().peekable();
    std::iter::from_fn(move || {
        let order = match (old.peek(), new.peek()) {
            (None, None) => return None,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            // One instance in both is the usual case and needs no comparison of addresses.
            (Some(a), Some((_, b))) if Arc::ptr_eq(&a.instance, &b.instance) => Ordering::Equal,
            (Some(a), Some((_, b))) => a.instance.address().cmp(b.instance.address()),
        };
        Some(Pair {
            old: order.is_le().then(|| old.next()).flatten(),
            new: order.is_ge().then(|| new.next()).flatten(),
        })
    })
}

impl Pair<'_> {
    fn is_changed(self) -> bool {
        match (self.old, self.new) {
            (Some(a), Some((_, b))) => {
                a.generation != b.generation
                    || a.standing != b.standing
                    || a.held != b.held
                    || !Arc::ptr_eq(&a.instance, &b.instance)
            }
            _ => true,
        }
    }
}

/// What gates must do to go from `old` to `new` (what closes comes first), and whether the two
/// differ at all.
pub(super) fn transitions(old: &Snapshot, new: &Snapshot) -> (Vec<Transition>, bool) {
    let mut closing = Vec::new();
    let mut opening = Vec::new();
    let mut changed = old.mode != new.mode || old.known != new.known || old.ended != new.ended;
    for pair in pairs(&old.entries, &new.entries) {
        if !pair.is_changed() {
            continue;
        }
        changed = true;
        let same = match (pair.old, pair.new) {
            (Some(a), Some((_, b))) => a.generation == b.generation,
            _ => false,
        };
        if let (Some(old), false) = (pair.old, same) {
            closing.push(transition(old, TransitionKind::Evicted, None));
        }
        let Some((at, new)) = pair.new else { continue };
        let was = same && pair.old.is_some_and(|old| old.standing.is_callable());
        match (was, new.standing.is_callable()) {
            (true, false) => closing.push(transition(new, TransitionKind::Closed, Some(at))),
            (false, true) => opening.push(transition(new, TransitionKind::Opened, Some(at))),
            (true, true) => {
                if pair
                    .old
                    .is_some_and(|old| !Arc::ptr_eq(&old.instance, &new.instance))
                {
                    opening.push(transition(new, TransitionKind::Updated, Some(at)));
                }
            }
            (false, false) => {}
        }
    }
    closing.append(&mut opening);
    (closing, changed)
}

fn transition(entry: &Entry, kind: TransitionKind, at: Option<usize>) -> Transition {
    Transition {
        address: entry.instance.address().clone(),
        generation: entry.generation,
        kind,
        entry: at,
    }
}
