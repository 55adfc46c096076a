//! One instance as a consumer holds it: who may call it, who does, and how.
//!
//! `EndpointSet` is what a balancer holds of one service. It follows the directory's snapshots,
//! closes the gate of what left and never opens one for what a newer snapshot does not call
//! callable. `Call` takes one request through it: pick, admission, `Service::call` and first
//! poll happen in one poll of its future, so that nothing can come in between unseen. What is known
//! of an instance's health, and what follows from it, is `health`.

mod abort;
mod admission;
#[cfg(feature = "testing")]
mod bare;
mod call;
mod choice;
pub mod classify;
mod clock;
mod crowd;
mod discard;
mod error;
mod follow;
mod gate;
mod health;
mod helpers;
mod hub;
mod janitor;
mod latency;
mod legacy;
mod make;
mod member;
mod outliers;
mod pick;
mod probes;
mod progress;
mod rates;
mod room;
mod roster;
mod rules;
mod said;
mod set;
mod settings;
mod shared;
mod slot;
mod state;
#[cfg(feature = "metrics")]
mod tell;
#[cfg(feature = "metrics")]
mod telling;
mod tried;
mod tries;
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
    choice::Picked,
    clock::now,
    health::{
        machine::Standing,
        rules::{FailurePercentage, HealthRules, Outliers, SuccessRate},
    },
    helpers::Upkeep,
    latency::{Timing, Usual},
    member::Endpoint,
    pick::{OwnFirst, Pick},
    progress::Progress,
    roster::Roster,
    said::{in_full, say_causes},
    set::EndpointSet,
    settings::TryRules,
    shared::Shared,
    tried::Tried,
    tries::Timer,
    waiter::Waiter,
};
