use std::{
    fmt,
    time::{Duration, Instant},
};

use super::{
    sequence::{Deregistered, Milestones},
    stage::Stage,
    timing::UNCONFIRMED,
    traffic::Counted,
};

/// How a provider is, and how it went offline.
///
/// A copy of a moment: complete once [`stage`](Self::stage) is [`Stage::Over`].
///
/// Example: [a provider](crate::provider)
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Report {
    /// How far it is.
    pub stage: Stage,
    /// Whether it is online and not about to leave ([`Provider::is_ready`](super::Provider::is_ready)).
    pub ready: bool,
    /// While it starts: what the question whether it is ready, or the look at its address, last came to, if
    /// that was a no.
    pub waits_for: Option<String>,
    /// How it leaves, from the signal on.
    pub offline: Option<Offline>,
    /// Calls in flight now.
    pub in_flight: usize,
    /// Calls refused with 421, since they meant a service that is not here.
    pub misdirected: u64,
    /// Why it is not online, if it is not and something failed.
    pub error: Option<String>,
}

/// How a provider went offline, as far as it has.
///
/// Example: [a provider](crate::provider)
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Offline {
    /// From the signal until the registry confirmed that nobody is listed; `None` if it did not.
    pub acknowledged_in: Option<Duration>,
    /// Nothing was registered, so nobody can have been given the address.
    pub never_online: bool,
    /// Why the registry did not confirm it. It may list the instance until it notices, for 30 s as a
    /// rule, and callers may call until then.
    pub unconfirmed: Option<String>,
    /// From the mark until it stopped listening.
    pub linger: Duration,
    /// From the mark until the last call came.
    pub last_call_after: Option<Duration>,
    /// Calls that came after the mark.
    pub calls_after_offline: u64,
    /// Of those, the ones that came after it had stopped listening, over connections of before.
    pub calls_after_listening: u64,
    /// Calls refused with 503.
    pub rejected: u64,
    /// Calls in flight when it stopped listening.
    pub in_flight_at_end: usize,
    /// Calls that were cut when `drain_timeout` had passed.
    pub cut: u64,
    /// A second signal ended the waiting.
    pub hastened: bool,
    /// From the signal to the end.
    pub took: Duration,
}

impl Offline {
    pub(super) fn new(
        at: Milestones,
        counted: Counted,
        unconfirmed: Option<&str>,
        now: Instant,
    ) -> Option<Self> {
        let signal = at.signal?;
        let since = |from: Instant, to: Instant| to.saturating_duration_since(from);
        let (how, deregistered) = at.deregistered.unzip();
        let late = counted
            .last
            .zip(at.marked)
            .filter(|(last, marked)| last >= marked);
        let confirmed = how == Some(Deregistered::Acknowledged);
        let failed =
            (at.marked.is_some() && how.is_none()) || how == Some(Deregistered::Unconfirmed);
        Some(Self {
            acknowledged_in: deregistered
                .filter(|_| confirmed)
                .map(|at| since(signal, at)),
            never_online: how == Some(Deregistered::Nothing),
            unconfirmed: failed.then(|| unconfirmed.unwrap_or("no answer in time").to_owned()),
            linger: at.marked.map_or(Duration::ZERO, |marked| {
                since(marked, at.stopped.unwrap_or(now))
            }),
            last_call_after: late.map(|(last, marked)| since(marked, last)),
            calls_after_offline: counted.after_offline,
            calls_after_listening: counted.after_stop,
            rejected: counted.rejected,
            in_flight_at_end: counted.at_stop.unwrap_or_default(),
            cut: counted.cut,
            hastened: at.hastened,
            took: since(signal, at.over.unwrap_or(now)),
        })
    }

    /// Whether the registry confirmed that nobody is listed, or nobody ever was.
    pub const fn is_confirmed(&self) -> bool {
        self.acknowledged_in.is_some() || self.never_online
    }
}

impl Report {
    /// The same as JSON: an object, durations in seconds.
    pub fn to_json(&self) -> String {
        let seconds = |time: Duration| time.as_secs_f64();
        let offline = self.offline.as_ref().map(|offline| {
            serde_json::json!({
                "acknowledged_in": offline.acknowledged_in.map(seconds),
                "never_online": offline.never_online,
                "unconfirmed": offline.unconfirmed,
                "linger": seconds(offline.linger),
                "last_call_after": offline.last_call_after.map(seconds),
                "calls_after_offline": offline.calls_after_offline,
                "calls_after_listening": offline.calls_after_listening,
                "rejected": offline.rejected,
                "in_flight_at_end": offline.in_flight_at_end,
                "cut": offline.cut,
                "hastened": offline.hastened,
                "took": seconds(offline.took),
            })
        });
        serde_json::json!({
            "stage": self.stage.name(),
            "ready": self.ready,
            "waits_for": self.waits_for,
            "offline": offline,
            "in_flight": self.in_flight,
            "misdirected": self.misdirected,
            "error": self.error,
        })
        .to_string()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(offline) = &self.offline {
            return offline.fmt(f);
        }
        write!(
            f,
            "{}, {} calls in flight",
            self.stage.name(),
            self.in_flight
        )?;
        match self.error.as_ref().or(self.waits_for.as_ref()) {
            Some(error) => write!(f, ": {error}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Offline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.acknowledged_in, &self.unconfirmed) {
            (Some(time), _) => write!(f, "acknowledged after {}", Shown(time))?,
            (None, Some(why)) => write!(
                f,
                "not confirmed by the registry, which may list it for {UNCONFIRMED:?} ({why})"
            )?,
            (None, None) if self.never_online => f.write_str("never registered")?,
            (None, None) => f.write_str("not acknowledged yet")?,
        }
        match self.last_call_after {
            Some(time) => write!(
                f,
                ", {} calls since, the last {} after that",
                self.calls_after_offline,
                Shown(time)
            )?,
            None => f.write_str(", no call since")?,
        }
        write!(
            f,
            ", listened {} more, {} calls after that, {} in flight then, {} cut",
            Shown(self.linger),
            self.calls_after_listening,
            self.in_flight_at_end,
            self.cut
        )?;
        if self.rejected > 0 {
            write!(f, ", {} refused", self.rejected)?;
        }
        if self.hastened {
            f.write_str(", hastened by a second signal")?;
        }
        write!(f, ", {} in all", Shown(self.took))
    }
}

struct Shown(Duration);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            time if time < Duration::from_millis(100) => write!(f, "{} ms", time.as_millis()),
            time => write!(f, "{:.2} s", time.as_secs_f64()),
        }
    }
}
