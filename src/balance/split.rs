use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use crate::{
    balance::{Random, Shares, hash::mix, hints::SPILL_BELOW},
    sync::Published,
};

/// Divides the calls of balancers among instances by their metadata, for a gray release by share.
///
/// Give it to [`split`](crate::balance::BalanceBuilder::split), keep a clone, and
/// [`set`](Self::set) other shares while it runs: the next pick follows, nothing is built anew but
/// the tables of instances that were not asked for before. Clones share one state, and one split may
/// serve any number of balancers.
///
/// A call with a hash key sticks to its part by the key, also with other callers and after a restart, and
/// when a part that was named first grows, the keys that it had stay in it. A call without one is
/// drawn anew. A request whose hints name metadata or a cluster has chosen for itself, and takes no
/// part; excluding instances leaves it in.
///
/// A part of whom nobody is listed, or open, goes to everybody; one that lost instances keeps as many calls
/// as they can be expected to take ([`spill_below`](Self::spill_below)), and the rest goes to everybody
/// by weight. So no part of the calls fails for want of its instances.
///
/// Costs a call one look at the shares and, like `Hints`, at a table of each part: no allocation and
/// no lock. Parts are 16 at most, beside the rest.
///
/// ```
/// use tower_nacos::{Balance, Subscription, balance::TrafficSplit};
///
/// let split = TrafficSplit::new("version=2: 5 %, version=1: 95 %".parse()?);
/// let orders = Subscription::fixed([]);
/// let builder = Balance::builder(&orders).split(&split);
/// split.set("version=2: 50 %, version=1: 50 %".parse()?); // while it runs
/// assert!(builder.check().is_ok());
/// # Ok::<(), tower_nacos::balance::SplitError>(())
/// ```
#[derive(Clone)]
pub struct TrafficSplit {
    inner: Arc<Inner>,
}

struct Inner {
    shares: Published<Shares>,
    spill_below: OnceLock<f64>,
}

impl TrafficSplit {
    /// With these shares.
    pub fn new(shares: Shares) -> Self {
        Self {
            inner: Arc::new(Inner {
                shares: Published::new(Arc::new(shares)),
                spill_below: OnceLock::new(),
            }),
        }
    }

    /// What part of its usual weight has to be open for a part of the calls to go to its instances
    /// whole; what [`Hints::spill_below`](crate::balance::Hints::spill_below) says holds here. Default:
    /// 0.7, so that the one survivor of a version does not get all of its calls; 0 for never. Once.
    #[must_use]
    pub fn spill_below(self, part: f64) -> Self {
        let part = if part.is_nan() {
            SPILL_BELOW
        } else {
            part.clamp(0.0, 1.0)
        };
        let _ = self.inner.spill_below.set(part);
        self
    }

    /// Other shares, from the next pick on, for all balancers that have a clone of this.
    pub fn set(&self, shares: Shares) {
        self.inner.shares.store(Arc::new(shares));
    }

    /// The shares that hold now.
    pub fn shares(&self) -> Arc<Shares> {
        let shares = self.inner.shares.load_full();
        shares.expect("a split is made with shares, which are only ever replaced")
    }

    pub(super) fn spills_below(&self) -> Option<f64> {
        let part = self.inner.spill_below.get().copied();
        Some(part.unwrap_or(SPILL_BELOW)).filter(|part| *part > 0.0)
    }

    pub(super) fn published(&self) -> &Published<Shares> {
        &self.inner.shares
    }
}

/// The numbers that decide which part a call is of: its key's, so that the key sticks, or any. Not
/// those by which a key chooses its tier or instance, which would be the same ones for a part each.
#[inline]
pub(super) fn dice(key: Option<u64>, random: &mut Random) -> Random {
    match key {
        Some(key) => Random::seeded(mix(key ^ APART)),
        None => Random::seeded(random.next_u64()),
    }
}

impl fmt::Debug for TrafficSplit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TrafficSplit({})", self.shares())
    }
}

const APART: u64 = 0x5bd1_e995_9b97_f4a7;
