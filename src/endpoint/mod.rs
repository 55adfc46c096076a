//! One instance as a consumer holds it: who may call it, who does, and how.
//!
//! `EndpointSet` is what a balancer holds of one service. It follows the directory's snapshots,
//! closes the gate of what left and never opens one for what a newer snapshot does not call
//! callable. `Call` takes one request through it: pick, admission, `Service::call` and first
//! poll happen in one poll of its future, so that nothing can come in between unseen. What is known
//! of an instance's health, and what follows from it, is `health`.
//!
//! # Who needs what
//!
//! | you | take |
//! |---|---|
//! | call through a [`Balance`](crate::Balance) or `discover` | [`CallError`], and a closure as a [`MakeEndpoint`] |
//! | want instances left out for errors of your own client | [`classify`](mod@classify), ready for hyper, hyper-util, reqwest and tonic, or a closure that returns a [`Verdict`] |
//! | want them left out for what they answer | a closure that returns an [`Outcome`] |
//! | have a client of your own that can hand back what was not sent, as our transports do | [`Recover`] and [`Recovered`] |
//! | count a call until its body has ended | [`InFlight`], which a [`TrackCompletion`](tower::load::completion::TrackCompletion) of yours gets |
//! | name the type of a balancer | [`NeverRecover`], [`Unclassified`], [`WithOutcomes`], [`WithAgain`], [`Replaying`]: what the parameters are where nothing was said, and where a method was called. Or call [`Balance::boxed`](crate::Balance::boxed), and name none |
//! | write a judge that is reused | [`Judge`], which is [`Classify`] with an opinion of answers |

mod abort;
mod admission;
#[cfg(feature = "testing")]
mod bare;
mod call;
mod checks;
mod choice;
pub mod classify;
mod clock;
mod crowd;
mod discard;
mod error;
mod fate;
mod follow;
mod gate;
mod health;
mod helpers;
mod hub;
mod janitor;
mod known;
mod latency;
mod legacy;
mod limit;
mod make;
mod member;
mod outliers;
mod pick;
mod probes;
mod progress;
mod rates;
mod refusals;
mod room;
mod roster;
mod rules;
mod said;
mod set;
mod settings;
mod shared;
mod slot;
mod state;
mod tale;
#[cfg(feature = "metrics")]
mod tell;
#[cfg(feature = "metrics")]
mod telling;
mod tried;
mod tries;
mod trying;
mod verdicts;
mod view;
mod waiter;

#[cfg(feature = "testing")]
#[doc(hidden)]
pub use self::bare::Bare;
#[cfg(test)]
pub(crate) use self::said::{Layer, assert_said_once};
pub use self::{
    admission::InFlight,
    checks::{
        config::{HealthCheck, InvalidHealthCheck},
        question::Asker,
    },
    error::CallError,
    make::MakeEndpoint,
    rules::{
        Classify, Judge, Keep, NeverRecover, Outcome, Recover, Recovered, Replaying, Unclassified,
        Verdict, WithAgain, WithOutcomes,
    },
};
pub(crate) use self::{
    admission::{Admitted, Place},
    call::Call,
    checks::question::{Asking, Asks, Failure, Question},
    choice::Picked,
    clock::now,
    fate::Fate,
    health::{
        machine::Standing,
        rules::{FailurePercentage, HealthRules, Outliers, SuccessRate},
    },
    helpers::Upkeep,
    known::Known,
    latency::{Mark, Timing},
    limit::machine::LimitRules,
    member::Endpoint,
    pick::{OwnFirst, Pick},
    progress::Progress,
    roster::Roster,
    said::{in_full, say_causes},
    set::EndpointSet,
    settings::TryRules,
    shared::Shared,
    tried::Tried,
    trying::Timer,
    waiter::Waiter,
};
#[cfg(feature = "metrics")]
pub(crate) use self::{fate::FATES, helpers::Reckoning};
#[cfg(feature = "metrics")]
pub(crate) use crate::metrics::{Buckets, Filled};
