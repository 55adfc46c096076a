//! The part of a balancer's instances that it calls, and how that grows while some of it are shut.

use std::{fmt::Write, sync::Arc};

use super::{
    keys::{Draw, Drawn},
    lot::Known,
    share::{Share, Sizes, first, share},
};
use crate::balance::{Candidate, hash::stable_hash};

/// What is known as a table is built.
#[derive(Clone, Copy)]
pub(in crate::balance) struct Narrow<'a> {
    pub(super) known: &'a Known,
    pub(super) sizes: Sizes,
    pub(super) min: usize,
    /// What the share follows from, beside the instances' scope: the same as long as these numbers are.
    pub(super) stamp: [u64; 2],
}

/// What is kept from table to table: a share costs more than all else of one.
#[derive(Debug)]
pub(in crate::balance) struct Kept {
    stamp: [u64; 2],
    share: Option<Arc<Share>>,
}

/// Whom of a tier's instances are called.
#[derive(Debug, PartialEq)]
pub(in crate::balance) struct Part {
    /// Who these are among the tier's, in order.
    pub(in crate::balance) members: Box<[u32]>,
    /// How many of them are in beside the share, while some of that are shut.
    pub(in crate::balance) more: usize,
    /// What their weights are multiplied with, where they differ.
    pub(in crate::balance) pulls: Option<Box<[f64]>>,
    /// Who is of the share, in order.
    pub(in crate::balance) share: Box<[u32]>,
}

impl Part {
    /// Its members, with weights by which each gets what it is to get.
    pub(in crate::balance) fn of(&self, tier: &[Candidate]) -> Vec<Candidate> {
        let members = self.members.iter().enumerate();
        let members = members.map(|(place, at)| {
            let candidate = tier[*at as usize].clone();
            let pull = self.pulls.as_ref().map_or(1.0, |pulls| pulls[place]);
            let weight = candidate.weight() * pull;
            candidate.with_weight(weight)
        });
        members.collect()
    }
}

impl Narrow<'_> {
    /// The part of these, of which `is_open` says who may be called now. `None`: all of them.
    pub(in crate::balance) fn part(
        &self,
        tier: &[Candidate],
        is_open: impl Fn(usize) -> bool,
        kept: &mut Option<Kept>,
    ) -> Option<Part> {
        if tier.len() <= self.sizes.about {
            *kept = None;
            return None;
        }
        let mut drawn = None;
        let known = kept.take().filter(|kept| kept.stamp == self.stamp);
        let kept = kept.insert(known.unwrap_or_else(|| Kept {
            stamp: self.stamp,
            share: share(self.known, drawn.insert(draw(tier)), self.sizes).map(Arc::new),
        }));
        let share = kept.share.as_ref()?;
        let open = share.taken.iter().filter(|at| is_open(**at as usize));
        let lacking = self.min.saturating_sub(open.count());
        let mut members = share.taken.clone();
        members.sort_unstable();
        let of_share: Box<[u32]> = members.clone().into();
        if lacking > 0 || tier_is_uneven(tier) {
            drawn.get_or_insert_with(|| draw(tier));
        }
        if let (true, Some(draw)) = (lacking > 0, &drawn) {
            let may = |at| is_open(at as usize) && of_share.binary_search(&at).is_err();
            members.extend(first(self.known.own(), draw, lacking, may));
            members.sort_unstable();
        }
        let pulls = drawn.as_ref().and_then(|draw| {
            let pulls = members.iter().map(|at| {
                let pull = draw.pull(share.rate, *at as usize)?;
                Some(pull / tier[*at as usize].instance().weight().get())
            });
            pulls.collect()
        });
        Some(Part {
            more: members.len() - of_share.len(),
            members: members.into(),
            pulls,
            share: of_share,
        })
    }

    /// Whether a part is no longer what it should be, now that others are open: too few, or more than
    /// the share for no reason.
    pub(in crate::balance) fn is_off(&self, part: &Part, is_open: impl Fn(usize) -> bool) -> bool {
        let open = |at: &&u32| is_open(**at as usize);
        let lacking = self
            .min
            .saturating_sub(part.share.iter().filter(open).count());
        let more = part.members.iter().filter(open);
        let more = more
            .filter(|at| part.share.binary_search(at).is_err())
            .count();
        part.more != lacking || more != lacking
    }
}

/// Shares are by what the registry says, so that who warms up moves nobody.
fn draw(tier: &[Candidate]) -> Draw {
    let mut text = String::new();
    Draw::new(tier.iter().map(|candidate| {
        let instance = candidate.instance();
        text.clear();
        let _ = write!(text, "{}", instance.address());
        Drawn {
            hash: stable_hash(text.as_bytes()),
            weight: instance.weight().get(),
        }
    }))
}

fn tier_is_uneven(tier: &[Candidate]) -> bool {
    let weights = tier.iter().map(|candidate| candidate.instance().weight());
    weights
        .clone()
        .zip(weights.skip(1))
        .any(|(one, next)| one != next)
}
