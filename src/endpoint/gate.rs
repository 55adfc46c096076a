//! The word that decides who may call an instance.
//!
//! An admission is one `fetch_add`; a closing is one `fetch_or` on the same word. The two stand in
//! one modification order, so an admission either came before the closing, and is then counted in
//! what the closing waits for, or sees it. `loom/` compiles this file against loom's atomics and
//! fails when one of the orderings below is weakened.
//!
//! Orderings. What `Service::call` did must be visible to whoever found the gate quiet: `leave` is
//! a release, and `state` and the closings are acquires (every change of the word is a
//! read-modify-write, so each `leave` heads a release sequence that the later ones continue). What
//! was written before a reopening must be visible inside of the next call: `reopen` is a release,
//! `admit` an acquire. A call that ended must be visible to whoever found none in flight: `finish`
//! is a release. The rest is advice to pickers, and relaxed.

use std::fmt;

use crate::sync::atomic::{AtomicU64, Ordering};

/// The gate of one generation of one instance, as one consumer holds it.
pub(crate) struct Gate {
    word: AtomicU64,
}

/// What a gate said at one moment.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct State(u64);

/// An admission was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    /// Whether taking the attempt back left a closed gate quiet: whoever waits for that must be
    /// told.
    pub(crate) quieted: bool,
}

impl Gate {
    /// A gate that lets calls in, or one that is closed for now.
    pub(crate) fn new(open: bool) -> Self {
        Self {
            word: AtomicU64::new(if open { 0 } else { CLOSED }),
        }
    }

    /// Lets one call in, counted as entering and as in flight, or refuses it. The caller owes a
    /// [`leave`](Self::leave) and a [`finish`](Self::finish).
    #[inline]
    pub(crate) fn admit(&self) -> Result<(), Refused> {
        self.admit_unless(SHUT)
    }

    /// The same for the holder of the probe token: the gate may be ejected.
    pub(crate) fn admit_probe(&self) -> Result<(), Refused> {
        self.admit_unless(BARRED)
    }

    /// The same for a call that has nobody else to go to: its health check may refuse the instance.
    pub(crate) fn admit_refused(&self) -> Result<(), Refused> {
        self.admit_unless(SHUT & !REFUSED)
    }

    #[inline]
    fn admit_unless(&self, shut: u64) -> Result<(), Refused> {
        let before = State(self.word.fetch_add(ENTER + 1, Ordering::Acquire));
        if before.0 & shut == 0 {
            return Ok(());
        }
        // Nothing was done in between that anybody would have to see.
        let before = State(self.word.fetch_sub(ENTER + 1, Ordering::Relaxed));
        Err(Refused {
            quieted: before.last_to_leave(),
        })
    }

    /// Lets one call in whatever the gate says. Only for the harness that shows what the gate is
    /// good for.
    #[cfg(feature = "testing")]
    pub(crate) fn admit_always(&self) -> State {
        State(self.word.fetch_add(ENTER + 1, Ordering::Acquire))
    }

    /// `Service::call` has returned. True if that left a closed gate quiet: whoever waits for that
    /// must be told.
    #[must_use]
    #[inline]
    pub(crate) fn leave(&self) -> bool {
        State(self.word.fetch_sub(ENTER, Ordering::Release)).last_to_leave()
    }

    /// A call that was let in has ended.
    #[inline]
    pub(crate) fn finish(&self) {
        self.word.fetch_sub(1, Ordering::Release);
    }

    /// Closes for good. From here on nobody gets in; the returned state says whether somebody is
    /// still between admission and the end of `Service::call`.
    pub(crate) fn evict(&self) -> State {
        State(self.word.fetch_or(EVICTED, Ordering::Acquire))
    }

    /// Closes until reopened; otherwise as [`evict`](Self::evict).
    pub(crate) fn close(&self) -> State {
        State(self.word.fetch_or(CLOSED, Ordering::Acquire))
    }

    /// Takes back a [`close`](Self::close).
    pub(crate) fn reopen(&self) {
        self.word.fetch_and(!CLOSED, Ordering::Release);
    }

    /// Keeps all but a probe out, until [`restore`](Self::restore): no connection to the instance
    /// could be had, or it does badly. In place of a [`suspect`](Self::suspect); takes back a
    /// [`grant_probe`](Self::grant_probe).
    pub(crate) fn eject(&self) {
        self.word.fetch_or(EJECTED, Ordering::Relaxed);
        self.word.fetch_and(!(SUSPECT | PROBE), Ordering::Relaxed);
    }

    /// Keeps all but a probe out until it is known whether the instance can be reached.
    pub(crate) fn suspect(&self) {
        self.word.fetch_or(SUSPECT, Ordering::Relaxed);
    }

    /// Takes back an [`eject`](Self::eject) or a [`suspect`](Self::suspect), and a probe token with
    /// it.
    pub(crate) fn restore(&self) {
        self.word
            .fetch_and(!(EJECTED | SUSPECT | PROBE), Ordering::Relaxed);
    }

    /// Keeps all out but who has nobody else, until [`accept`](Self::accept): its health check refuses
    /// the instance.
    pub(crate) fn refuse(&self) {
        self.word.fetch_or(REFUSED, Ordering::Relaxed);
    }

    /// Takes back a [`refuse`](Self::refuse).
    pub(crate) fn accept(&self) {
        self.word.fetch_and(!REFUSED, Ordering::Relaxed);
    }

    /// Keeps all out, since there is no service to call. Holds until [`usable`](Self::usable).
    pub(crate) fn unusable(&self) {
        self.word.fetch_or(UNUSABLE, Ordering::Relaxed);
    }

    /// Takes back an [`unusable`](Self::unusable).
    pub(crate) fn usable(&self) {
        self.word.fetch_and(!UNUSABLE, Ordering::Relaxed);
    }

    /// Offers one probe of an ejected instance.
    pub(crate) fn grant_probe(&self) {
        self.word.fetch_or(PROBE, Ordering::Relaxed);
    }

    /// Takes the probe if one is offered. Only one taker gets it.
    pub(crate) fn take_probe(&self) -> bool {
        let before = State(self.word.fetch_and(!PROBE, Ordering::Relaxed));
        before.offers_probe()
    }

    /// What the gate says now.
    #[inline]
    pub(crate) fn state(&self) -> State {
        State(self.word.load(Ordering::Acquire))
    }
}

impl State {
    /// Whether a call would be let in.
    #[inline]
    pub(crate) const fn is_open(self) -> bool {
        self.0 & SHUT == 0
    }

    /// Whether the holder of the probe token would be let in.
    pub(crate) const fn admits_probe(self) -> bool {
        self.0 & BARRED == 0
    }

    /// Whether a probe is offered and would be let in.
    pub(crate) const fn offers_probe(self) -> bool {
        self.0 & PROBE != 0 && self.admits_probe()
    }

    /// Whether a call that has nobody else would be let in.
    pub(crate) const fn admits_refused(self) -> bool {
        self.0 & (SHUT & !REFUSED) == 0
    }

    /// Whether its health check refuses it.
    pub(crate) const fn is_refused(self) -> bool {
        self.0 & REFUSED != 0
    }

    /// Whether it closed for good.
    #[inline]
    pub(crate) const fn is_evicted(self) -> bool {
        self.0 & EVICTED != 0
    }

    /// Whether it is closed, reversibly.
    pub(crate) const fn is_closed(self) -> bool {
        self.0 & CLOSED != 0
    }

    /// Whether no connection to the instance could be had, or it does badly.
    pub(crate) const fn is_ejected(self) -> bool {
        self.0 & EJECTED != 0
    }

    /// Whether it is being found out if the instance can be reached.
    pub(crate) const fn is_suspect(self) -> bool {
        self.0 & SUSPECT != 0
    }

    /// Whether there is no service to call.
    pub(crate) const fn is_unusable(self) -> bool {
        self.0 & UNUSABLE != 0
    }

    /// How many are between admission and the end of `Service::call`.
    #[inline]
    pub(crate) const fn entering(self) -> u64 {
        (self.0 & ENTERING) >> ENTER.trailing_zeros()
    }

    /// How many calls were let in and have not ended.
    #[inline]
    pub(crate) const fn in_flight(self) -> u64 {
        self.0 & IN_FLIGHT
    }

    /// Whether a lowering of ENTERING that found this left a closed gate quiet.
    #[inline]
    const fn last_to_leave(self) -> bool {
        self.0 & (EVICTED | CLOSED) != 0 && self.entering() == 1
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.state().fmt(f)
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate")
            .field("evicted", &self.is_evicted())
            .field("closed", &self.is_closed())
            .field("ejected", &self.is_ejected())
            .field("suspect", &self.is_suspect())
            .field("refused", &self.is_refused())
            .field("unusable", &self.is_unusable())
            .field("entering", &self.entering())
            .field("in_flight", &self.in_flight())
            .finish()
    }
}

const EVICTED: u64 = 1 << 63;
const CLOSED: u64 = 1 << 62;
const EJECTED: u64 = 1 << 61;
const UNUSABLE: u64 = 1 << 60;
const PROBE: u64 = 1 << 59;
const SUSPECT: u64 = 1 << 58;
const REFUSED: u64 = 1 << 57;
/// What keeps a probe out.
const BARRED: u64 = EVICTED | CLOSED | UNUSABLE | REFUSED;
/// What keeps a call out.
const SHUT: u64 = BARRED | EJECTED | SUSPECT;
/// One in ENTERING: bits 40 to 56, as many threads as may be inside of `Service::call` at once.
const ENTER: u64 = 1 << 40;
const IN_FLIGHT: u64 = ENTER - 1;
const ENTERING: u64 = (REFUSED - 1) & !IN_FLIGHT;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_shuts_a_gate_refuses_at_admission_and_leaves_no_count() {
        type Change = fn(&Gate);
        let shut: [(Change, Change); 5] = [
            (
                |gate| {
                    gate.close();
                },
                Gate::reopen,
            ),
            (Gate::eject, Gate::restore),
            (Gate::suspect, Gate::restore),
            (Gate::unusable, Gate::usable),
            (Gate::refuse, Gate::accept),
        ];
        for (at, (shut, open)) in shut.into_iter().enumerate() {
            let gate = Gate::new(true);
            shut(&gate);
            assert!(gate.admit().is_err() && !gate.state().is_open(), "{at}");
            assert_eq!((gate.state().entering(), gate.state().in_flight()), (0, 0));
            open(&gate);
            assert!(gate.admit().is_ok(), "{at}");
        }
    }

    #[test]
    fn a_probe_is_let_in_by_what_was_found_out_and_not_by_what_was_listed() {
        let gate = Gate::new(true);
        for shut in [Gate::eject, Gate::suspect] {
            shut(&gate);
            assert!(!gate.take_probe(), "none was granted");
            gate.grant_probe();
            assert!(gate.state().offers_probe() && gate.take_probe() && !gate.take_probe());
            assert!(gate.admit_probe().is_ok());
        }
        gate.grant_probe();
        gate.eject();
        assert!(
            !gate.take_probe(),
            "who is ejected anew is not probed at once"
        );
        let _ = gate.close();
        assert!(gate.admit_probe().is_err());
    }

    #[test]
    fn who_has_nobody_else_is_let_in_by_a_refusal_and_by_nothing_else() {
        let gate = Gate::new(true);
        gate.refuse();
        assert!(gate.admit().is_err() && gate.admit_probe().is_err());
        assert!(gate.state().admits_refused() && gate.admit_refused().is_ok());
        for shut in [Gate::eject, Gate::suspect, Gate::unusable] {
            let gate = Gate::new(true);
            gate.refuse();
            shut(&gate);
            assert!(!gate.state().admits_refused() && gate.admit_refused().is_err());
        }
    }
}
