//! The collapse guard: a registry that just came back may not know its instances yet.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    directory::{
        Entry, OnAllUnhealthy, Options, Snapshot,
        admit::{Missing, Order},
    },
    model::{Address, Instance},
};

/// How long before the end of a hold the registry is asked: enough for one answer that times out
/// after 3 s and a second try.
const READ_AHEAD: Duration = Duration::from_secs(6);

/// Which instances are held, and until when.
#[derive(Debug, Default)]
pub(super) struct Guard {
    holds: BTreeMap<Address, Hold>,
    /// When the list last grew, or a connection brought its first.
    grown_at: Option<Instant>,
    /// How long after that the holds end.
    idle: Duration,
    /// Whether so few are missing that they probably left.
    brief: bool,
    /// Ends up to this one have been asked about.
    asked: Option<Instant>,
}

/// What to do with what a list lacks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Verdict {
    pub(super) missing: Missing,
    /// If it begins a hold: how.
    pub(super) hold: Option<Begun>,
}

/// A hold that begins, or whose terms change.
#[derive(Clone, Copy, Debug)]
pub(super) struct Begun {
    /// How long it lasts without the list growing.
    idle: Duration,
    /// Whether so few are missing that they probably left.
    brief: bool,
}

#[derive(Debug)]
struct Hold {
    began: Instant,
    last_seen: Option<Instant>,
}

impl Guard {
    pub(super) fn is_holding(&self) -> bool {
        !self.holds.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.holds.len()
    }

    pub(super) const fn is_brief(&self) -> bool {
        self.brief
    }

    pub(super) fn last_seen(&self, address: &Address) -> Option<Instant> {
        self.holds.get(address)?.last_seen
    }

    /// What to do with the instances of `before` that a new list lacks. `lagging` are addresses
    /// that the list names and that stay away all the same.
    pub(super) fn judge(
        before: &Snapshot,
        instances: &[Arc<Instance>],
        order: &Order,
        first_on_connection: bool,
        protected: bool,
        lagging: Option<&BTreeMap<Address, Instant>>,
        options: &Options,
    ) -> Verdict {
        let obey = |missing| Verdict {
            missing,
            hold: None,
        };
        let hold = |idle, brief| Verdict {
            missing: Missing::Hold,
            hold: Some(Begun { idle, brief }),
        };
        if !first_on_connection {
            let Some(guard) = options.mass_drop else {
                return obey(Missing::KeepHeld);
            };
            let missing = count_missing(before, order.addresses(instances), |entry| !entry.held);
            let share = guard.share * before.callable as f64;
            let drops = missing >= guard.minimum.max(1) && missing as f64 > share;
            return if drops {
                hold(guard.hold, false)
            } else {
                obey(Missing::KeepHeld)
            };
        }
        let missing = count_missing(before, order.addresses(instances), |_| true);
        let believed = (options.believed_share * before.callable as f64) as usize;
        let remains = instances.iter().any(|instance| {
            let well = protected
                || instance.is_healthy()
                || options.on_all_unhealthy == OnAllUnhealthy::Panic;
            let comes = lagging.is_none_or(|lagging| !lagging.contains_key(instance.address()));
            well && comes && instance.is_enabled() && !instance.weight().is_zero()
        });
        let brief = missing <= believed.max(1) && remains;
        if missing == 0 || (brief && options.believed_hold.is_zero()) {
            obey(Missing::Remove)
        } else if brief {
            hold(options.believed_hold, true)
        } else {
            hold(options.hold, false)
        }
    }

    /// The list grew, or came first on a new connection: the registry is still coming back.
    pub(super) fn grown(&mut self, now: Instant) {
        if self.is_holding() {
            self.grown_at = Some(now);
        }
    }

    /// Takes over which entries are held. `begins` says that a list was held back just now.
    pub(super) fn track(
        &mut self,
        entries: &[Entry],
        last_seen: Option<Instant>,
        begins: Option<Begun>,
        now: Instant,
    ) {
        if self.holds.is_empty() {
            if begins.is_none() {
                return;
            }
            self.grown_at = Some(now);
        }
        if let Some(begun) = begins {
            (self.idle, self.brief) = (begun.idle, begun.brief);
        }
        let mut former = std::mem::take(&mut self.holds);
        for entry in entries.iter().filter(|entry| entry.held) {
            let address = entry.instance.address();
            let hold = former.remove(address).unwrap_or(Hold {
                began: now,
                last_seen,
            });
            self.holds.insert(address.clone(), hold);
        }
    }

    /// Who is held is all there is by now, and not few that probably left: the holds last longer.
    pub(super) fn lengthen(&mut self, options: &Options) {
        (self.idle, self.brief) = (options.hold, false);
        self.asked = None;
    }

    /// When to ask the registry once more before the next hold ends: the push that would have ended
    /// it well may be lost. `None` if that was done.
    pub(super) fn next_read(&self, options: &Options) -> Option<Instant> {
        let unasked = self.ends(options).filter(|end| Some(*end) > self.asked);
        let end = unasked.min()?;
        Some(end.checked_sub(self.ahead()).unwrap_or(end))
    }

    /// Whether to ask now; once for each end.
    pub(super) fn take_read(&mut self, now: Instant, options: &Options) -> bool {
        let due = self.next_read(options).is_some_and(|at| at <= now);
        if due {
            let ahead = self.ahead();
            let soon = |end: &Instant| end.saturating_duration_since(now) <= ahead;
            self.asked = self.ends(options).filter(soon).max();
        }
        due
    }

    fn ahead(&self) -> Duration {
        READ_AHEAD.min(self.idle / 2)
    }

    /// When each hold ends by itself, as far as time goes.
    fn ends(&self, options: &Options) -> impl Iterator<Item = Instant> {
        let idle = self.grown_at.and_then(|at| at.checked_add(self.idle));
        self.holds.values().filter_map(move |hold| {
            let limit = hold.began.checked_add(options.hold_limit);
            limit.into_iter().chain(idle).min()
        })
    }

    /// When the next hold ends by itself; `None` also if that is further away than time goes.
    pub(super) fn next_end(&self, options: &Options) -> Option<Instant> {
        self.ends(options).min()
    }

    /// Whose time is up.
    pub(super) fn due(&self, now: Instant, options: &Options) -> BTreeSet<Address> {
        let lasted = |since: Instant, limit| now.saturating_duration_since(since) >= limit;
        let idle = self.grown_at.is_some_and(|at| lasted(at, self.idle));
        self.holds
            .iter()
            .filter(|(_, hold)| idle || lasted(hold.began, options.hold_limit))
            .map(|(address, _)| address.clone())
            .collect()
    }
}

/// How many callable entries of `before` are not among `listed` (in order of address).
fn count_missing<'a>(
    before: &Snapshot,
    listed: impl Iterator<Item = &'a Address>,
    counts: impl Fn(&Entry) -> bool,
) -> usize {
    let mut listed = listed.peekable();
    before
        .entries
        .iter()
        .filter(|entry| {
            let address = entry.instance.address();
            while listed.next_if(|other| *other < address).is_some() {}
            let present = listed.peek().is_some_and(|other| *other == address);
            !present && entry.standing.is_callable() && counts(entry)
        })
        .count()
}
