use std::time::Duration;

use tokio::time::Instant;

use super::rules::{HealthRules, Outliers};

/// The health of one instance as one consumer knows it.
///
/// ```text
///                 lost                     no connection, silence
///        ┌───────────────► Suspect ───────────────────────────┐
///        │                 │  ▲ a dial is to tell             │
///        │    a dial, an   │  │                               ▼
///   ┌── Open ◄─────────────┘  │        no connection ──►   Ejected ──► dialled after 1, 2, 4 … 30 s,
///   │    ▲ ▲   answer         │                             │          or as soon as a call has nobody
///   │    │ └──────────────────┼── a dial: on probation ◄────┘          else and the last failed 250 ms ago
///   │    │                    │   until an answer
///   │    └── a call goes well, or too many are out ── Outlier
///   └── badly, or lost, once too often in a row ────────▲
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Health {
    standing: Standing,
    probe: Probe,
    /// When a probe is due by itself.
    due: Option<Instant>,
    /// Whether a call waits for a probe to begin.
    asked: bool,
    /// Whether the probe that is out was due by itself, so that its failure makes the rest longer.
    scheduled: bool,
    /// Dials that failed in a row; kept until an answer.
    level: u32,
    /// When a dial last failed.
    failed: Option<Instant>,
    /// How often calls were lost since an answer last came whole; those that were under way together once.
    lost: u16,
    /// Calls that were let in before that was last counted: they were under way when it happened.
    before_loss: u32,
    /// How often it was an outlier, as far as that is not forgotten.
    times: u32,
    /// Since when it is no outlier any more.
    back: Option<Instant>,
    /// Whether it is one for calls that were lost, not for answers.
    for_losses: bool,
}

/// Who may call an instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Standing {
    /// Anybody.
    #[default]
    Open,
    /// Nobody, until it is known what a lost connection means; who has no other choice waits.
    Suspect,
    /// Nobody but its probe: no connection to it could be had.
    Ejected,
    /// Nobody but its probe: it answers badly, or loses what it is given.
    Outlier,
}

/// Who is finding out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Probe {
    #[default]
    Nobody,
    /// The next call, once it comes. Since when.
    Offered(Instant),
    /// A call. Since when.
    Call(Instant),
    /// The maker's own probe; whoever runs it sees to it that it ends.
    Own,
}

/// What happens to an instance. `probe` says whether it happened to the call that is its probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// No connection could be had, or one fell silent.
    Unreachable {
        probe: bool,
    },
    /// A connection ended with a call on it.
    Lost {
        probe: bool,
        turn: Turn,
    },
    /// One ended with a call on it that had been answered, as far as the body.
    BrokeOff {
        turn: Turn,
    },
    /// An answer came, or the head of one.
    Answered {
        probe: bool,
        how: Answer,
    },
    /// All of an answer came: heads alone are none, since each may break off, and calls that are made at
    /// once have them between each other's ends.
    Completed,
    /// It did badly once too often in a row, and may be ejected for it.
    Condemned {
        for_losses: bool,
    },
    /// Too many are out for it to be an outlier.
    Pardoned,
    /// A call has nobody to go to, and waits since then, if it does.
    Asked {
        since: Option<Instant>,
    },
    /// The next call is to be the probe.
    ProbeOffered,
    /// A call is.
    ProbeTaken,
    /// That call ended without having learnt anything.
    ProbeGivenUp,
    /// That call was out of time, and nothing has answered it.
    ProbeLate,
    /// The maker's own probe has begun.
    ProbeBegan,
    ProbeSucceeded,
    ProbeFailed,
    /// It is over without having learnt anything.
    ProbeDropped,
    /// Another instance was reached after none could be.
    OtherReached,
    /// Time has passed.
    Time,
}

/// Which call of its instance it was, from 0, and how many were let in by now. Both begin anew after 2³²: what is
/// compared lies between two answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Turn {
    pub(crate) number: u32,
    pub(crate) of: u32,
}

/// How well it answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Well,
    Badly,
    /// Who knows.
    Somehow,
}

/// What came of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Effect {
    pub(crate) from: Standing,
    pub(crate) to: Standing,
    /// It lost one call too many: whether it may be ejected for that is for its set to say.
    pub(crate) too_many_lost: bool,
}

/// What a call that has nobody to go to may expect of one instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Prospect {
    /// A probe is out, or about to be.
    Awaited,
    /// It was dialled just now, in vain.
    Refused,
    /// Nothing that a dial would tell.
    None,
}

impl Health {
    /// Takes note of what happened.
    pub(crate) fn apply(
        &mut self,
        event: Event,
        now: Instant,
        rules: &HealthRules,
        outliers: &Outliers,
    ) -> Effect {
        let from = self.standing;
        let mut too_many_lost = false;
        match event {
            Event::Unreachable { probe } => {
                let probe = self.ends_probe(probe);
                self.unreachable(probe, now, rules);
            }
            Event::Lost { probe, turn } => {
                let probe = self.ends_probe(probe);
                self.lost_call(probe, turn, now, outliers);
                too_many_lost = self.is_one_too_many(rules);
            }
            Event::BrokeOff { turn } => {
                self.lost_call(false, turn, now, outliers);
                too_many_lost = self.is_one_too_many(rules);
            }
            Event::Answered { probe, how } => {
                let probe = self.ends_probe(probe);
                self.answered(probe, how, now, outliers);
            }
            Event::Completed => self.lost = 0,
            Event::Condemned { for_losses } => {
                if from != Standing::Ejected {
                    self.for_losses = for_losses;
                    self.condemn(now, outliers);
                }
            }
            Event::Pardoned => {
                if from == Standing::Outlier {
                    self.lost = 0;
                    self.open(now);
                }
            }
            Event::Asked { since } => {
                self.asked |= self.standing == Standing::Ejected
                    && self.probe == Probe::Nobody
                    && !self.is_fresh(now, since, rules);
            }
            Event::ProbeOffered => self.begin(Probe::Offered(now), now),
            Event::ProbeTaken => {
                if let Probe::Offered(_) = self.probe {
                    self.probe = Probe::Call(now);
                }
            }
            Event::ProbeBegan => self.begin(Probe::Own, now),
            // Not the maker's: who began as a probe may end when another has long begun.
            Event::ProbeGivenUp => {
                if self.ends_probe(true) {
                    self.rest_briefly(now);
                }
            }
            // As one that takes longer than a probe may: no connection, for all that anybody knows.
            Event::ProbeLate => {
                if self.ends_probe(true) {
                    match from {
                        Standing::Outlier => self.condemn(now, outliers),
                        Standing::Suspect | Standing::Ejected => self.dial_failed(now, rules),
                        Standing::Open => {}
                    }
                }
            }
            Event::ProbeDropped => {
                if self.probe == Probe::Own {
                    self.probe = Probe::Nobody;
                    self.rest_briefly(now);
                }
            }
            Event::ProbeSucceeded => {
                if self.probe == Probe::Own {
                    self.probe = Probe::Nobody;
                    if matches!(from, Standing::Suspect | Standing::Ejected) {
                        self.open(now);
                    }
                }
            }
            Event::ProbeFailed => {
                if self.probe == Probe::Own {
                    self.probe = Probe::Nobody;
                    // Answered meanwhile, or a matter of answers: a dial says nothing then.
                    if matches!(from, Standing::Suspect | Standing::Ejected) {
                        self.dial_failed(now, rules);
                    }
                }
            }
            Event::OtherReached => {
                if from == Standing::Ejected && self.probe == Probe::Nobody {
                    self.due = Some(self.due.map_or(now, |due| due.min(now)));
                }
            }
            Event::Time => self.time_passed(now, rules),
        }
        Effect {
            from,
            to: self.standing,
            too_many_lost,
        }
    }

    /// Who may call it.
    pub(crate) const fn standing(&self) -> Standing {
        self.standing
    }

    /// Whether it is let in again and has not answered since.
    pub(crate) fn is_on_probation(&self) -> bool {
        self.standing == Standing::Open && self.level > 0
    }

    /// Whether an answer would be news.
    pub(crate) fn awaits_answer(&self) -> bool {
        match self.standing {
            Standing::Open => self.level > 0 || self.lost > 0,
            Standing::Suspect => true,
            Standing::Ejected | Standing::Outlier => false,
        }
    }

    /// Whether a probe is to begin.
    pub(crate) fn wants_probe(&self, now: Instant) -> bool {
        self.standing != Standing::Open
            && self.probe == Probe::Nobody
            && (self.asked || self.due.is_some_and(|due| due <= now))
    }

    /// Whether somebody may wait for what a probe finds.
    pub(crate) fn is_awaited(&self) -> bool {
        match self.standing {
            Standing::Open | Standing::Outlier => false,
            Standing::Suspect => true,
            Standing::Ejected => self.asked || self.probe != Probe::Nobody,
        }
    }

    /// Whether its probe is for the maker: only a call tells how it answers.
    pub(crate) fn is_a_dials_matter(&self) -> bool {
        matches!(self.standing, Standing::Suspect | Standing::Ejected)
    }

    /// When it will be probed; `None` if somebody is at it, or there is no need.
    pub(crate) fn probe_due(&self) -> Option<Instant> {
        let due = self.probe == Probe::Nobody && self.standing != Standing::Open;
        self.due.filter(|_| due)
    }

    /// When to look at it again.
    pub(crate) fn next(&self, rules: &HealthRules) -> Option<Instant> {
        match (self.standing, self.probe) {
            (Standing::Open, _) | (_, Probe::Own) => None,
            (Standing::Suspect, Probe::Offered(since) | Probe::Call(since)) => {
                since.checked_add(rules.redial_after)
            }
            (Standing::Ejected, Probe::Call(since)) => since.checked_add(rules.probe_timeout),
            (_, Probe::Offered(_) | Probe::Call(_)) => None,
            (_, Probe::Nobody) => self.due,
        }
    }

    /// What a call that has nobody to go to may expect; it waits since then, if it does.
    pub(crate) fn prospect(
        &self,
        now: Instant,
        since: Option<Instant>,
        rules: &HealthRules,
    ) -> Prospect {
        match self.standing {
            Standing::Open | Standing::Outlier => Prospect::None,
            Standing::Suspect => Prospect::Awaited,
            Standing::Ejected if self.is_fresh(now, since, rules) => Prospect::Refused,
            Standing::Ejected => Prospect::Awaited,
        }
    }

    /// Whether there is nothing to remember.
    pub(crate) fn is_spotless(&self) -> bool {
        self.standing == Standing::Open
            && self.probe == Probe::Nobody
            && self.level == 0
            && self.lost == 0
            && self.times == 0
    }

    /// Whether this call is the probe that is out; it is no longer.
    fn ends_probe(&mut self, probe: bool) -> bool {
        let is = probe && matches!(self.probe, Probe::Offered(_) | Probe::Call(_));
        if is {
            self.probe = Probe::Nobody;
        }
        is
    }

    /// A probe has told nothing.
    fn rest_briefly(&mut self, now: Instant) {
        // A caller with a short deadline is not to be the next at once.
        let pause = match self.standing {
            Standing::Suspect => Duration::ZERO,
            _ => PAUSE,
        };
        self.due = (self.standing != Standing::Open).then(|| now + pause);
    }

    /// What is known of its connections is not older than what the caller may be told.
    fn is_fresh(&self, now: Instant, since: Option<Instant>, rules: &HealthRules) -> bool {
        self.failed.is_some_and(|failed| {
            now.saturating_duration_since(failed) < rules.redial_after
                || since.is_some_and(|since| failed >= since)
        })
    }

    fn unreachable(&mut self, probe: bool, now: Instant, rules: &HealthRules) {
        match self.standing {
            Standing::Ejected if !probe => self.failed = Some(now), // told by several calls
            Standing::Ejected => self.dial_failed(now, rules),
            _ => {
                self.scheduled = true;
                self.dial_failed(now, rules);
                self.scheduled = false; // what a probe that is out finds is the same failure
                if let Probe::Offered(_) | Probe::Call(_) = self.probe {
                    self.probe = Probe::Nobody;
                }
            }
        }
    }

    fn dial_failed(&mut self, now: Instant, rules: &HealthRules) {
        self.failed = Some(now);
        // One that a call asked for, and that took as long as the rest would have, was that rest's.
        let is_due = self.due.is_none_or(|due| due <= now);
        if self.scheduled || self.standing != Standing::Ejected || is_due {
            self.level = self.level.saturating_add(1);
            self.due = Some(now + rest(self.level));
        } else {
            // Nor does what was due follow at once on what a call asked for.
            self.due = self.due.max(now.checked_add(rules.redial_after));
        }
        self.standing = Standing::Ejected;
        self.asked = false;
    }

    fn lost_call(&mut self, probe: bool, turn: Turn, now: Instant, outliers: &Outliers) {
        match self.standing {
            Standing::Open => {
                self.standing = Standing::Suspect;
                self.due = Some(now);
            }
            // There was a connection to lose.
            Standing::Suspect | Standing::Ejected if probe => self.open(now),
            Standing::Outlier if probe => self.condemn(now, outliers),
            _ => {}
        }
        // One process that dies takes all calls with it, however many connections they were on.
        if self.lost == 0 || turn.is_after(self.before_loss) {
            self.lost = self.lost.saturating_add(1);
            self.before_loss = turn.of;
        }
    }

    /// Whether the last of those that were lost is one too many; they are counted anew, also if the
    /// instance is spared.
    fn is_one_too_many(&mut self, rules: &HealthRules) -> bool {
        let counts = matches!(self.standing, Standing::Open | Standing::Suspect);
        let too_many = counts && rules.most_lost > 0 && self.lost >= rules.most_lost;
        if too_many {
            self.lost = 0;
        }
        too_many
    }

    fn answered(&mut self, probe: bool, how: Answer, now: Instant, outliers: &Outliers) {
        match self.standing {
            Standing::Open | Standing::Suspect => {}
            // By a connection that was there before: another cannot be had all the same.
            Standing::Ejected | Standing::Outlier if !probe => return,
            Standing::Ejected => {}
            Standing::Outlier => match how {
                Answer::Badly if !self.for_losses => return self.condemn(now, outliers),
                Answer::Somehow if !self.for_losses => {
                    self.due = Some(now + PAUSE);
                    return;
                }
                _ => {}
            },
        }
        self.level = 0;
        self.open(now);
    }

    /// Lets everybody in; how often it failed is forgotten only with an answer.
    fn open(&mut self, now: Instant) {
        if self.times > 0 && self.back.is_none() {
            self.back = Some(now);
        }
        self.standing = Standing::Open;
        self.due = None;
        self.asked = false;
        if self.probe != Probe::Own {
            self.probe = Probe::Nobody;
        }
    }

    /// The rest is longer each time. For each interval that it was back since, one time is forgotten,
    /// as in gRPC's A50 (step 5 of its timer), which follows Envoy.
    fn condemn(&mut self, now: Instant, outliers: &Outliers) {
        if let Some(back) = self.back.take() {
            let well = now.saturating_duration_since(back).as_secs_f64();
            let forgotten = well / outliers.interval.as_secs_f64().max(f64::MIN_POSITIVE);
            self.times = self.times.saturating_sub(forgotten as u32);
        }
        self.times = self.times.saturating_add(1);
        let rest = outliers.base.saturating_mul(self.times);
        self.due = now.checked_add(rest.min(outliers.longest).min(ENDLESS));
        self.standing = Standing::Outlier;
        self.asked = false;
        self.lost = 0;
        if self.probe != Probe::Own {
            self.probe = Probe::Nobody;
        }
    }

    fn begin(&mut self, probe: Probe, now: Instant) {
        if self.wants_probe(now) {
            self.scheduled = self.due.is_some_and(|due| due <= now);
            self.asked = false;
            self.probe = probe;
        }
    }

    fn time_passed(&mut self, now: Instant, rules: &HealthRules) {
        let for_so_long = |since| now.saturating_duration_since(since);
        match (self.standing, self.probe) {
            // The call that was to tell takes its time, or none has come: nothing speaks against it.
            (Standing::Suspect, Probe::Offered(since) | Probe::Call(since))
                if for_so_long(since) >= rules.redial_after =>
            {
                self.open(now);
            }
            (Standing::Ejected, Probe::Call(since))
                if for_so_long(since) >= rules.probe_timeout =>
            {
                self.probe = Probe::Nobody;
                self.dial_failed(now, rules);
            }
            _ => {}
        }
    }
}

impl Turn {
    /// Whether so many had been let in before it.
    const fn is_after(self, calls: u32) -> bool {
        self.number.wrapping_sub(calls) as i32 >= 0
    }
}

/// 1 s after the first failure, twice as long after each further one, 30 s at most.
fn rest(level: u32) -> Duration {
    FIRST_REST
        .saturating_mul(1 << level.saturating_sub(1).min(10))
        .min(LONGEST_REST)
}

const FIRST_REST: Duration = Duration::from_secs(1);
const LONGEST_REST: Duration = Duration::from_secs(30);
/// After a probe that was given up.
const PAUSE: Duration = Duration::from_secs(1);
/// What longer rests are cut to, so that there is an instant at which they end.
const ENDLESS: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
