//! Who takes which instances. Pure: the same for every caller that knows the same.

use super::{
    keys::{Band, Draw, TWO_64},
    lot::{Known, Lot},
};
use crate::balance::hash::mix;

/// How many instances a caller takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sizes {
    pub(super) about: usize,
}

impl Sizes {
    /// The most.
    pub(super) const fn most(self) -> usize {
        self.about.saturating_add(self.about.div_ceil(10))
    }

    /// The fewest.
    pub(super) const fn fewest(self) -> usize {
        self.about.saturating_mul(3).div_ceil(4)
    }
}

/// What one caller takes, and the rate at which the likes of it come by instances.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Share {
    /// In no order that means anything.
    pub(super) taken: Vec<u32>,
    pub(super) rate: f64,
}

/// What the caller takes. `None`: everything.
pub(super) fn share(known: &Known, draw: &Draw, sizes: Sizes) -> Option<Share> {
    if draw.len() <= sizes.about {
        return None;
    }
    Some(match known {
        Known::Alone(own) => Share {
            taken: first(*own, draw, sizes.about, |_| true),
            rate: draw.rate(sizes.about as f64),
        },
        Known::All(lot) => {
            let rate = draw.rate(sizes.about as f64 * DEALT);
            let taken = deal(lot, draw, rate, sizes.most()).swap_remove(lot.own);
            Share {
                taken: fill_up(lot.callers[lot.own], draw, taken, sizes),
                rate,
            }
        }
    })
}

/// Who is dealt few takes more, by its own order.
pub(super) fn fill_up(caller: u64, draw: &Draw, mut taken: Vec<u32>, sizes: Sizes) -> Vec<u32> {
    let lacking = sizes.fewest().saturating_sub(taken.len());
    if lacking > 0 {
        let more = first(caller, draw, lacking, |at| !taken.contains(&at));
        taken.extend(more);
    }
    taken
}

/// Deals the instances out among the callers of a lot; what each got.
///
/// Each instance has places for its share of callers, each caller has places for `most` instances, and
/// the pairs are made in the order of their keys while both have one. So an instance that comes or goes
/// moves the pairs that are of it, and a few that these stood in the way of.
pub(super) fn deal(lot: &Lot, draw: &Draw, rate: f64, most: usize) -> Vec<Vec<u32>> {
    let mut dealt = vec![Vec::new(); lot.callers.len()];
    let mut left: Vec<u32> = (0..draw.len())
        .map(|at| places(lot, draw, rate, at))
        .collect();
    let mut open: u64 = left.iter().map(|left| u64::from(*left)).sum();
    let mut wanting: Vec<u32> = (0..draw.len() as u32).collect();
    let mut pairs: Vec<(u64, u32, u32)> = Vec::new();
    // In bands of rates, so that only what may be dealt is sorted.
    let (mut from, mut to) = (0.0, draw.rate(3.0 * most as f64));
    for band in 1_u32.. {
        let limits = Band::between(draw, from, to);
        wanting.retain(|at| left[*at as usize] > 0);
        pairs.clear();
        for (caller, hash) in lot.callers.iter().enumerate() {
            if dealt[caller].len() >= most {
                continue;
            }
            for at in &wanting {
                if let Some(key) = draw.within(*hash, *at as usize, &limits) {
                    pairs.push((key, caller as u32, *at));
                }
            }
        }
        pairs.sort_unstable();
        for (_, caller, at) in &pairs {
            let (taken, left) = (&mut dealt[*caller as usize], &mut left[*at as usize]);
            if taken.len() < most && *left > 0 {
                taken.push(*at);
                *left -= 1;
                open -= 1;
            }
        }
        if open == 0 || to == f64::INFINITY {
            break; // if some are left, all callers that do not have them are full
        }
        let next = if band < MOST_BANDS {
            to * 2.0
        } else {
            f64::INFINITY
        };
        (from, to) = (to, next);
    }
    dealt
}

/// How many callers of the lot an instance is for. Over all lots that is its share, or one more or less:
/// where it is rounded up is another in each.
fn places(lot: &Lot, draw: &Draw, rate: f64, at: usize) -> u32 {
    let phase = mix(draw.instances[at].hash) as f64 / TWO_64 + lot.at as f64 / lot.of as f64;
    let places = (draw.chance(rate, at) * lot.mean + phase.fract()) as u32;
    places.min(lot.callers.len() as u32)
}

/// The first so many in a caller's own order of those that may be.
pub(super) fn first(caller: u64, draw: &Draw, many: usize, may: impl Fn(u32) -> bool) -> Vec<u32> {
    let all = (0..draw.len() as u32).filter(|at| may(*at));
    let mut keys: Vec<(u64, u32)> = all.map(|at| (draw.key(caller, at as usize), at)).collect();
    if many < keys.len() {
        keys.select_nth_unstable(many);
        keys.truncate(many);
    }
    keys.sort_unstable();
    keys.into_iter().map(|(_, at)| at).collect()
}

/// What part of the instances that callers take is dealt: a little less than all, so that callers have
/// places left, and few have to give way as somebody comes.
pub(super) const DEALT: f64 = 0.99;
/// After which all that is left is looked at.
const MOST_BANDS: u32 = 10;
