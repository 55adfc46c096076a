//! The balancer: a tower `Service` that picks inside of the call.
//!
//! [`Balance`] is `Clone`, and needs no `Buffer` and no task between a caller and its instance. It picks from what the
//! registry last pushed, whether or not requests flow. No call enters an instance that left, whatever a policy picks: the
//! instance's gate decides that in the same poll as the call.
//!
//! While nothing is known of a service, calls wait for a bounded time. Once it is known to have no instance they fail at
//! once, and the error says why. A service whose first list is empty counts as unknown for 3 s, since a registry that has
//! just started answers so to everybody ([`unknown_while_empty`](crate::directory::Options::unknown_while_empty)): the
//! first call of a name that nobody provides fails after 3 s, and later ones at once.
//!
//! ```
//! use tower::{ServiceExt, service_fn};
//! use tower_nacos::{Instance, Subscription, balance::{Balance, WeightedRoundRobin}};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), tower::BoxError> {
//! let orders = Subscription::fixed([Instance::parse("10.0.0.3:8080")?]);
//! let balance = Balance::builder(&orders)
//!     .policy(WeightedRoundRobin::new())
//!     .build(|instance: &Instance| {
//!         let address = instance.address().to_string();
//!         service_fn(move |request: u32| {
//!             let answer = format!("{address} got {request}");
//!             async move { Ok::<_, std::io::Error>(answer) }
//!         })
//!     });
//! assert_eq!(balance.clone().oneshot(7).await?, "10.0.0.3:8080 got 7");
//! println!("{}", balance.explain(&"10.0.0.3:8080".parse()?));
//! # Ok(())
//! # }
//! ```
//!
//! # Which policy
//!
//! | policy | chooses | take it when |
//! |---|---|---|
//! | [`P2c`] | of two drawn by weight the one with fewer calls for its weight | you have no reason for another |
//! | [`PeakEwma`] | of two the one with the lower latency × calls | instances differ in speed, or stall |
//! | [`WeightedRandom`] | by weight | you want what Nacos's own clients do |
//! | [`WeightedRoundRobin`] | in turn, by weight | calls cost alike and shares must be exact |
//! | [`Maglev`] | by a key of the request | instances keep caches or sessions |
//! | [`BoundedMaglev`] | the same, within each one's share of the load | and some keys are hot |
//!
//! A [`Policy`] of your own is two functions. The [guide](crate::guide) says more about which to take.
//!
//! # Around a policy
//!
//! Each works with every policy, and costs nothing while it is not asked for:
//!
//! * clusters in order: [`prefer_cluster`](BalanceBuilder::prefer_cluster);
//! * clusters in proportion to who calls from where: [`ZoneAware`];
//! * what one request asks for: [`Hints`], with metadata as a [`Selector`];
//! * new instances little by little: [`SlowStart`];
//! * instances that answer badly: [`Outliers`];
//! * instances that have too much to do: [`AdaptiveConcurrency`];
//! * a version that gets a share of the calls: [`TrafficSplit`];
//! * a part of the instances for each caller, where there are thousands of both: [`Subset`].

mod adaptive;
mod alias;
mod behind;
mod bounded;
mod boxed;
mod builder;
mod candidates;
mod choose;
mod core;
mod counters;
mod ewma;
mod explain;
mod fallback;
mod hash;
mod hints;
mod lease;
#[cfg(feature = "status")]
mod look;
mod maglev;
mod outliers;
mod p2c;
mod passage;
mod picker;
mod policy;
mod pool;
mod random;
mod requests;
mod round_robin;
mod second;
mod selector;
mod service;
mod shares;
mod slow_start;
mod split;
mod split_error;
mod subset;
mod table;
mod tiers;
mod zone_aware;
mod zones;

#[cfg(test)]
mod adaptive_tests;
#[cfg(test)]
mod tests;

pub(crate) use self::builder::check_others;
#[cfg(feature = "status")]
pub(crate) use self::look::{Looked, Out};
pub use self::{
    adaptive::AdaptiveConcurrency,
    alias::Alias,
    bounded::{BoundedMaglev, BoundedSlots},
    boxed::BoxBalance,
    builder::{BalanceBuilder, BalanceLayer},
    counters::BalanceCounters,
    ewma::PeakEwma,
    explain::{Activity, BalanceExplanation, Panic, Pickable, TierShare},
    fallback::{FallbackFuture, OnNoInstance},
    hash::stable_hash,
    hints::{Hints, HintsOf, InExtensions, KeyOnly, NoHints},
    lease::Lease,
    maglev::{Maglev, Slots},
    outliers::{FailurePercentage, Outliers, SuccessRate},
    p2c::{P2c, WeightedRandom},
    picker::{Picker, Picking},
    policy::{Candidate, Loads, PickContext, Policy, Timing},
    random::Random,
    round_robin::{Strides, WeightedRoundRobin},
    selector::Selector,
    service::{Balance, ResponseFuture},
    shares::Shares,
    slow_start::SlowStart,
    split::TrafficSplit,
    split_error::SplitError,
    subset::{InvalidSubset, Subset},
    zone_aware::ZoneAware,
};
