use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use super::{
    machine::{Effect, Event, Health},
    rules::{HealthRules, Outliers},
};

/// Where an endpoint keeps its [`Health`]. Costs two words until there is something to remember.
#[derive(Default)]
pub(crate) struct Record(Mutex<Option<Box<Health>>>);

impl Record {
    /// Takes note of what happened. `follow` sees what came of it, and whether an answer would be
    /// news, before anything else can happen.
    pub(crate) fn apply(
        &self,
        event: Event,
        now: Instant,
        (rules, outliers): (&HealthRules, &Outliers),
        follow: impl FnOnce(&Effect, bool),
    ) -> Effect {
        let mut record = self.lock();
        let mut fresh = Health::default();
        let health = record.as_deref_mut().unwrap_or(&mut fresh);
        let effect = health.apply(event, now, rules, outliers);
        follow(&effect, health.awaits_answer());
        match (health.is_spotless(), record.is_some()) {
            (true, _) => *record = None,
            (false, false) => *record = Some(Box::new(fresh)),
            (false, true) => {}
        }
        effect
    }

    /// Looks at it.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&Health) -> T) -> T {
        match self.lock().as_deref() {
            Some(health) => look(health),
            None => look(&Health::default()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Box<Health>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
