//! Holds the claims against the books.

use std::{collections::HashMap, time::Duration};

use crate::books::{Call, Failure, Life, Outcome, Pages};

/// What the books say, claim by claim.
pub(crate) struct Findings {
    pub(crate) requests: usize,
    pub(crate) failed: usize,
    /// Failures that a killed provider explains: it, or a connection to it, had taken the request.
    pub(crate) lost_in_flight: usize,
    /// Of those, the ones that the provider's journal knows; the others had got no further than
    /// into a connection.
    pub(crate) lost_begun: usize,
    /// Of those, calls that began once there was no process any more: into a connection of which
    /// it was not known yet that it had ended.
    pub(crate) lost_after_death: usize,
    pub(crate) after_eviction: usize,
    /// From a push until it was applied, if there were any.
    pub(crate) evicted_p99: Option<Duration>,
    /// What is not as it was claimed; empty if all is well.
    pub(crate) wrong: Vec<String>,
}

/// Reads the books when everything has ended.
pub(crate) fn check(pages: &Pages, kill: bool) -> Findings {
    let mut wrong = Vec::new();

    // Nothing was done twice. No call here may be repeated, so no request may be begun twice, by
    // whomever.
    let mut begun: HashMap<u64, Vec<&str>> = HashMap::new();
    for life in &pages.lives {
        for (id, times) in &life.begun {
            let by = begun.entry(*id).or_default();
            by.extend((0..*times).map(|_| &*life.name));
        }
    }
    for (id, by) in begun.iter().filter(|(_, by)| by.len() > 1) {
        wrong.push(format!(
            "request {id} was begun {} times: {}",
            by.len(),
            by.join(", ")
        ));
    }

    // What was answered was done, by the one that the answer names.
    let lives: HashMap<&str, &Life> = pages.lives.iter().map(|life| (&*life.name, life)).collect();
    let mut findings = Findings {
        requests: pages.calls.len(),
        failed: pages.failed,
        lost_in_flight: 0,
        lost_begun: 0,
        lost_after_death: 0,
        after_eviction: 0,
        evicted_p99: p99(&pages.evictions),
        wrong: Vec::new(),
    };
    for call in &pages.calls {
        match &call.outcome {
            Outcome::Answered(by) => {
                let done = lives
                    .get(&**by)
                    .and_then(|life| life.finished.get(&call.id));
                if done != Some(&1) {
                    wrong.push(format!(
                        "request {} was answered, and {by} did not do it",
                        call.id
                    ));
                }
            }
            Outcome::Failed(failure) => match killer(pages, call, failure) {
                Some(life) if kill => {
                    findings.lost_in_flight += 1;
                    findings.lost_begun += usize::from(life.begun.contains_key(&call.id));
                    let dead = life
                        .killed
                        .as_ref()
                        .is_some_and(|killed| call.began > killed.to);
                    findings.lost_after_death += usize::from(dead);
                }
                _ => wrong.push(format!(
                    "{:?} request {} failed at {:.3} s after {:.3} s, at {}: {}",
                    call.way,
                    call.id,
                    call.ended.as_secs_f64(),
                    (call.ended - call.began).as_secs_f64(),
                    failure.at.as_deref().unwrap_or("nobody"),
                    failure.text
                )),
            },
        }
    }

    for life in &pages.lives {
        // Nobody was called that was known to be gone.
        if let Some(last) = life.evicted_at {
            let late = life.begun.keys().filter(|id| **id > last).count();
            if late > 0 {
                wrong.push(format!(
                    "{late} requests entered {} after its eviction",
                    life.name
                ));
            }
            findings.after_eviction += late;
        }
        // Nobody is left out.
        if life.begun.is_empty() {
            wrong.push(format!("{} got no calls", life.name));
        }
        // A provider that is not killed finishes what it has begun.
        let unfinished = life
            .begun
            .keys()
            .filter(|id| !life.finished.contains_key(id))
            .count();
        if unfinished > 0 && life.killed.is_none() {
            wrong.push(format!(
                "{} did not finish {unfinished} requests",
                life.name
            ));
        }
    }
    findings.wrong = wrong;
    findings
}

impl Findings {
    pub(crate) const fn failed_other(&self) -> usize {
        self.failed - self.lost_in_flight
    }
}

/// The killed provider whose end explains this failure: the call was under way then, and the
/// error says that a connection to it had taken the request and was lost.
fn killer<'a>(pages: &'a Pages, call: &Call, failure: &Failure) -> Option<&'a Life> {
    let at = failure.at.as_deref()?;
    pages
        .lives
        .iter()
        .filter(|_| failure.taken_and_lost)
        .find(|life| {
            life.killed.as_ref().is_some_and(|killed| {
                let named = at == life.name || at == killed.address.to_string();
                let before_it_was_known = life.evicted_at.is_none_or(|last| call.id <= last);
                named && before_it_was_known && call.ended >= killed.from
            })
        })
}

fn p99(values: &[Duration]) -> Option<Duration> {
    let mut sorted = values.to_vec();
    sorted.sort();
    let at = (sorted.len() * 99).div_ceil(100).saturating_sub(1);
    sorted.get(at).copied()
}
