//! One address listed twice: which of the two counts.

use std::{cmp::Ordering, sync::Arc};

use crate::model::Instance;

/// Whether two entries of lists are the same registration, as far as lists tell: health, weight
/// and the like change within one registration.
pub(super) fn same_registration(a: &Instance, b: &Instance) -> bool {
    a.cluster() == b.cluster() && a.metadata() == b.metadata()
}

/// Takes the one that counts out of `group` (not empty; all of one address) and tells it which
/// other clusters it belongs to. `before` is the one that counted last time and its twins then.
///
/// The position in the list is never a reason: it changes from push to push.
pub(super) fn choose(
    group: &mut Vec<Arc<Instance>>,
    before: Option<(&Instance, &[Arc<Instance>])>,
) -> Arc<Instance> {
    let known = |candidate: &Instance| {
        before.is_none_or(|(chosen, twins)| {
            same_registration(candidate, chosen)
                || twins.iter().any(|twin| same_registration(candidate, twin))
        })
    };
    let chosen_before = |candidate: &Instance| {
        before.is_some_and(|(chosen, _)| same_registration(candidate, chosen))
    };
    // Health comes before novelty, and the last choice before content also among the unhealthy:
    // so the same list again always gives the same choice, which makes it no revision.
    let rank = |candidate: &Instance| {
        (
            !candidate.is_enabled(), // pre-2.1.1 servers list disabled ones; never prefer such
            !candidate.is_healthy(),
            known(candidate),
            !chosen_before(candidate),
        )
    };
    let best = (1..group.len()).fold(0, |best, at| {
        let order = rank(&group[at])
            .cmp(&rank(&group[best]))
            .then_with(|| by_content(&group[at], &group[best]));
        if order == Ordering::Less { at } else { best }
    });
    let winner = group.swap_remove(best);
    let mut others: Vec<_> = group
        .iter()
        .map(|twin| twin.cluster())
        .filter(|cluster| *cluster != winner.cluster())
        .cloned()
        .collect();
    others.sort();
    others.dedup();
    Arc::new(Arc::unwrap_or_clone(winner).with_also_in(others))
}

fn by_content(a: &Instance, b: &Instance) -> Ordering {
    a.cluster()
        .cmp(b.cluster())
        .then_with(|| a.metadata().iter().cmp(b.metadata().iter()))
        .then_with(|| b.weight().cmp(&a.weight())) // the heavier first, only to be definite
}
