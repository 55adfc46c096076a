use std::{
    fmt,
    num::NonZeroU64,
    sync::{Arc, OnceLock},
};

use super::{
    lot::{self, Known, Lot},
    part::Narrow,
    share::Sizes,
};
use crate::{
    balance::Random,
    directory::{Revision, Subscription},
    model::Address,
};

/// Each caller calls a part of the instances only, and has connections to no others.
///
/// For services that outgrow a mesh of everybody with everybody: 1,000 callers of 1,000 instances are a
/// million connections, and 20,000 with `Subset::of(20)`. Off unless named, and of no use to fewer than
/// some hundred instances: the fewer a caller knows, the less its balancer can choose.
///
/// ```
/// use tower_nacos::{Balance, Instance, Subscription, balance::Subset};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), tower::BoxError> {
/// # let make = |_: &Instance| tower::service_fn(async |n: u32| Ok::<_, std::convert::Infallible>(n));
/// let instances = (1..=100).map(|n| Instance::parse(&format!("10.0.0.{n}:8080")));
/// let orders = Subscription::fixed(instances.collect::<Result<Vec<_>, _>>()?);
/// let balance = Balance::builder(&orders)
///     .subset(Subset::of(20).place(3, 50)) // the fourth of 50 callers
///     .build(make);
/// let mut called = 0;
/// for n in 1..=100 {
///     let address = format!("10.0.0.{n}:8080").parse()?;
///     called += usize::from(balance.explain(&address).is_pickable());
/// }
/// assert!((15..=22).contains(&called));
/// # Ok(())
/// # }
/// ```
///
/// # Who a caller is
///
/// How evenly the instances are called depends on what a caller knows of the others. Load of 10,000 instances
/// by 10,000 callers with 20 each, as it differs from the mean for 99 in 100 of them
/// (`benches/RESULTS.md` has the whole table):
///
/// | a caller knows | by | load at p99 |
/// |---|---|---|
/// | who all callers are | [`among`](Self::among) the instances of their own service | ± 13 % |
/// | which of how many it is | [`place`](Self::place), of a StatefulSet's pod, say | ± 13 % |
/// | itself, by a name that stays | [`caller`](Self::caller) | ± 60 % |
/// | nothing, the default | a random number for each process | ± 60 %, and each start opens other connections |
///
/// # What it does
///
/// Each pair of a caller and an instance draws a number, by weight (weighted rendezvous hashing, as in gRPC's
/// A68). Who is alone takes its first. Where all callers are known, each instance also has places for its
/// share of them, and each caller for the size and a tenth, and pairs are made in the order of their numbers while
/// both have one: as even as the deterministic subsetting of Google's SRE book (chapter 20) or Finagle's
/// deterministic aperture, of which every change of the list moves a great part of the connections ("Reinventing
/// Backend Subsetting at Google", ACM Queue 20, 5). Here an instance that comes or goes moves 2/n of all
/// connections, 1/n of which are its own.
///
/// A caller has between three quarters of the size and the size and a tenth. Of each
/// [cluster](crate::balance::BalanceBuilder::prefer_cluster) that comes first, each tier of sources, and each part of the
/// instances that requests ask for it has a subset; those that get no calls have no connections. Instances of
/// more weight are in more callers' subsets. Instances that are all there are, up to the size, are in every one.
///
/// A call that nobody of the subset can take goes beyond it rather than fail. An instance that was ejected while
/// it was in is probed on when it is not. A [health check](crate::endpoint::HealthCheck) asks all
/// callable instances, over short connections, so that who comes in is known to be well. The
/// [panic threshold](crate::balance::Outliers::panic_threshold) and the cap of ejections are of all callable instances,
/// too: a subset whose instances are all out is no panic, since others come in for them; a panic is when more than half of
/// the service is out. (Envoy's and gRPC's balancers know of a subset as if it were all, and call those that are out.) The connections of what is no longer in are closed once their calls
/// have ended. With [`Maglev`](crate::balance::Maglev) a key sticks within the caller's own subset: other callers
/// send it elsewhere.
///
/// # What it costs
///
/// A pick nothing but a look whether somebody was shut. A change of the list a draw for each instance, or, where all
/// callers are known, for each instance and each of 2,048 to 4,096 callers, off the
/// calls' way where the balancer was built on a runtime.
#[derive(Clone)]
pub struct Subset {
    size: usize,
    min: Option<usize>,
    who: Who,
}

/// What a caller knows of itself and the others.
#[derive(Clone)]
enum Who {
    Random,
    Named(Arc<str>),
    Place { at: usize, of: usize },
    Among(Subscription, Address),
}

/// Why a [`Subset`] cannot be meant as it is.
///
/// Example: [a subset](crate::balance::Subset)
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidSubset {
    /// Nobody could be called.
    #[error("a subset of 0 instances: nobody could be called; name at least 1, or no subset")]
    Empty,
    /// More are to be callable than there are in it.
    #[error(
        "a subset of {size} instances of which at least {min} are to be callable; name {size} at most"
    )]
    #[non_exhaustive]
    MinAboveSize {
        /// How many are to be callable.
        min: usize,
        /// Of how many.
        size: usize,
    },
    /// More callers than can be thought of: each caller counts them all.
    #[error("place {at} of {of} callers: 1,000,000 callers are the most")]
    #[non_exhaustive]
    TooMany {
        /// Which.
        at: usize,
        /// Of how many.
        of: usize,
    },
    /// There is no such caller.
    #[error(
        "place {at} of {of} callers: places are counted from 0, so that it has to be below {of}"
    )]
    #[non_exhaustive]
    NoSuchPlace {
        /// Which.
        at: usize,
        /// Of how many.
        of: usize,
    },
}

/// All callers as a balancer knew them when it last looked.
#[derive(Debug)]
pub(in crate::balance) struct Crowd {
    known: Known,
    revision: Option<Revision>,
    /// Rises whenever they may be others.
    stamp: NonZeroU64,
}

impl Subset {
    /// About so many instances for each caller, three quarters of it at least and a tenth more at most. 20 to
    /// 100 are usual: fewer are uneven, and each is missed more. 0 is ignored, with a warning.
    pub const fn of(size: usize) -> Self {
        Self {
            size,
            min: None,
            who: Who::Random,
        }
    }

    /// So many at least can be called at any time, while there are so many: as soon as fewer of the subset can
    /// (they are ejected, or closed by the registry), the next in the caller's own order come in beside
    /// them, and go when they are back. Default: half of the size, so that a rack that is away costs few connections.
    /// More than the size is brought down to it, with a warning.
    ///
    /// A caller that loses its own network in this way tries one instance after the other, as it does
    /// without a subset.
    #[must_use]
    pub const fn min(mut self, callable: usize) -> Self {
        self.min = Some(callable);
        self
    }

    /// Who this caller is, by a name that no other caller has and that a restart does not change: a host's or a
    /// pod's. Two of one name call the same instances, which so get twice the load.
    #[must_use]
    pub fn caller(mut self, name: impl Into<Arc<str>>) -> Self {
        self.who = Who::Named(name.into());
        self
    }

    /// Which of how many callers this is, counted from 0: the ordinal of a StatefulSet's pod. Callers that do not
    /// agree on their number call as unevenly as if they knew nothing of each other until they do, and nothing else
    /// is wrong. A place that is none is taken for a [name](Self::caller), with a warning.
    #[must_use]
    pub fn place(mut self, at: usize, of: usize) -> Self {
        self.who = Who::Place { at, of };
        self
    }

    /// All callers are the callable instances of `callers`, the service that they are themselves registered as, and
    /// this one is at `own`. Until it is listed it counts as if it were. The list is looked at every 5 s,
    /// and held by the balancer. Where clusters come first name the callers of the own one
    /// ([`only_cluster`](Subscription::only_cluster)): others do not call what this one does.
    #[must_use]
    pub fn among(mut self, callers: &Subscription, own: Address) -> Self {
        self.who = Who::Among(callers.clone(), own);
        self
    }

    /// Whether it can be meant so. A balancer does without what cannot, and warns of it.
    ///
    /// # Errors
    ///
    /// The first that cannot.
    pub fn check(&self) -> Result<(), InvalidSubset> {
        let size = self.size;
        match (self.min, &self.who) {
            _ if size == 0 => Err(InvalidSubset::Empty),
            (Some(min), _) if min > size => Err(InvalidSubset::MinAboveSize { min, size }),
            (_, &Who::Place { at, of }) if of > MOST_CALLERS => {
                Err(InvalidSubset::TooMany { at, of })
            }
            (_, &Who::Place { at, of }) if at >= of => Err(InvalidSubset::NoSuchPlace { at, of }),
            _ => Ok(()),
        }
    }

    /// Leaves out what makes no sense, and says what that was. `None`: all of it.
    pub(in crate::balance) fn settle(
        mut self,
        mut complain: impl FnMut(InvalidSubset),
    ) -> Option<Self> {
        while let Err(invalid) = self.check() {
            complain(invalid);
            match invalid {
                InvalidSubset::Empty => return None,
                InvalidSubset::MinAboveSize { size, .. } => self.min = Some(size),
                InvalidSubset::NoSuchPlace { at, .. } | InvalidSubset::TooMany { at, .. } => {
                    self.who = Who::Named(format!("place {at}").into());
                }
            }
        }
        Some(self)
    }

    /// Whether who the callers are may change.
    pub(in crate::balance) const fn has_list(&self) -> bool {
        matches!(self.who, Who::Among(..))
    }

    /// Looks who the callers are; false if that is known.
    pub(in crate::balance) fn look(&self, crowd: &mut Option<Crowd>) -> bool {
        let revision = match &self.who {
            Who::Among(callers, _) => Some(callers.snapshot().revision()),
            _ => None,
        };
        if crowd
            .as_ref()
            .is_some_and(|crowd| crowd.revision == revision)
        {
            return false;
        }
        let known = self.known();
        let stamp = match crowd {
            Some(Crowd {
                known: former,
                stamp,
                ..
            }) if *former == known => *stamp,
            Some(Crowd { stamp, .. }) => stamp.saturating_add(1),
            None => NonZeroU64::MIN,
        };
        let changed = crowd.as_ref().is_none_or(|crowd| crowd.stamp != stamp);
        *crowd = Some(Crowd {
            known,
            revision,
            stamp,
        });
        changed
    }

    fn known(&self) -> Known {
        match &self.who {
            Who::Random => Known::Alone(of_process()),
            Who::Named(name) => Known::Alone(lot::caller(name)),
            Who::Place { at, of } => Known::All(Lot::of(lot::place(*at), (0..*of).map(lot::place))),
            Who::Among(callers, own) => {
                let snapshot = callers.snapshot();
                let listed = snapshot.callable().map(|entry| entry.instance().address());
                let all = listed.map(|address| lot::caller(&address.to_string()));
                Known::All(Lot::of(lot::caller(&own.to_string()), all))
            }
        }
    }

    /// How parts are made of the instances of a membership.
    pub(in crate::balance) fn narrow<'a>(&self, crowd: &'a Crowd, membership: u64) -> Narrow<'a> {
        Narrow {
            known: &crowd.known,
            sizes: Sizes { about: self.size },
            min: self.min.unwrap_or_else(|| self.size.div_ceil(2)),
            stamp: [membership, crowd.stamp.get()],
        }
    }
}

impl fmt::Debug for Subset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Subset");
        debug.field("size", &self.size);
        match &self.who {
            Who::Random => debug.field("caller", &"random"),
            Who::Named(name) => debug.field("caller", name),
            Who::Place { at, of } => debug.field("place", &(at, of)),
            Who::Among(callers, own) => debug.field("among", callers.key()).field("own", own),
        };
        debug.finish_non_exhaustive()
    }
}

/// A number of this process's.
fn of_process() -> u64 {
    static OWN: OnceLock<u64> = OnceLock::new();
    *OWN.get_or_init(|| Random::of_thread().next_u64())
}

/// A million of them is no number of processes that call one service.
const MOST_CALLERS: usize = 1_000_000;
