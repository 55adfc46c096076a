//! What is going to happen in a life, drawn before it begins, so that any of it can be left out.

use std::time::Duration;

use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::{
    network::{MS, SEC},
    tokens::Tokens,
};

/// Something that happens at its time, whatever else does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Step {
    /// Since the start.
    pub(crate) at: Duration,
    pub(crate) what: What,
    /// Decides the rest: to whom, how, for how long.
    pub(crate) dice: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    KillServer,
    LoseRack,
    Freeze,
    Partition,
    BreakLink,
    EndStream,
    ResetLink,
    Detect,
    StepClock,
    Script,
    SlowDown,
    PushAgain,
    NoNames,
    ChangeProvider,
    ToggleSubscription,
    TogglePublication,
    Query,
    RestartAmidReconnect,
    /// An operator sets a protection threshold.
    Protect,
    /// What is asked next is carried out and not answered.
    LeaveUnanswered,
    /// A persistent instance comes or goes.
    Persist,
    MeddleTokens,
    /// Services come and go.
    ChangeServices,
    /// A client gives up a list of services, or wants one.
    ToggleList,
}

/// How often each happens, beside the others.
const OFTEN: [(What, u32); 23] = [
    (What::KillServer, 3),
    (What::LoseRack, 1),
    (What::Freeze, 1),
    (What::Partition, 2),
    (What::BreakLink, 2),
    (What::EndStream, 1),
    (What::ResetLink, 2),
    (What::Detect, 1),
    (What::StepClock, 1),
    (What::Script, 4),
    (What::SlowDown, 1),
    (What::PushAgain, 1),
    (What::NoNames, 1),
    (What::ChangeProvider, 7),
    (What::ToggleSubscription, 2),
    (What::TogglePublication, 3),
    (What::Query, 1),
    (What::RestartAmidReconnect, 2),
    (What::Protect, 1),
    (What::LeaveUnanswered, 2),
    (What::Persist, 1),
    (What::ChangeServices, 4),
    (What::ToggleList, 1),
];

/// A life: its steps in order, and when the last fault ends.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Plan {
    pub(crate) steps: Vec<Step>,
    pub(crate) end: Duration,
}

impl Plan {
    pub(crate) fn draw(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed.rotate_left(32));
        let end = SEC * rng.random_range(30..150);
        let mut steps = Vec::new();
        let mut at = SEC;
        while at < end {
            let what = draw(&mut rng);
            let dice = rng.random();
            steps.push(Step { at, what, dice });
            at += MS
                * match rng.random_range(0..10) {
                    0..=2 => rng.random_range(0..100),
                    3..=7 => rng.random_range(100..2_000),
                    _ => rng.random_range(2_000..25_000),
                };
        }
        let mut at = SEC;
        while at < end && Tokens::are_used(seed) {
            let (what, dice) = (What::MeddleTokens, rng.random());
            steps.push(Step { at, what, dice });
            at += MS * rng.random_range(500..20_000);
        }
        steps.sort_by_key(|step| step.at);
        Self { steps, end }
    }

    /// Nothing happens by itself.
    pub(crate) const fn nothing() -> Self {
        Self {
            steps: Vec::new(),
            end: Duration::from_secs(1_000),
        }
    }

    /// Only these of its steps, by number.
    pub(crate) fn only(&self, numbers: &[usize]) -> Self {
        let steps = numbers.iter().filter_map(|n| self.steps.get(*n)).copied();
        Self {
            steps: steps.collect(),
            end: self.end,
        }
    }
}

fn draw(rng: &mut StdRng) -> What {
    let sum = OFTEN.iter().map(|(_, often)| often).sum();
    let mut at = rng.random_range(0..sum);
    for (what, often) in OFTEN {
        if at < often {
            return what;
        }
        at -= often;
    }
    unreachable!("it is below the sum")
}
