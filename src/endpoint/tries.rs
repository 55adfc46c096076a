use std::{
    sync::atomic::{AtomicU64, Ordering},
    task::{Context, Poll},
};

use tokio::time::Instant;

use crate::{
    endpoint::{
        admission::InFlight,
        clock,
        rules::Keep,
        settings::TryRules,
        trying::{Course, Trying},
    },
    retry::Again,
};

/// What one call has done so far, beyond its first way to an instance: nothing, until there are rules.
pub(crate) struct Tries<Req, Res, E>(Option<Watched<Req, Res, E>>);

struct Watched<Req, Res, E> {
    trying: Trying,
    kept: Kept<Req, E>,
    /// The answer to the last, for want of a better one. Boxed: seldom there.
    held: Option<Box<(InFlight, Res)>>,
}

/// What is kept to send the request again; `None` if it may not be.
struct Kept<Req, E>(Option<Box<dyn Keep<Req, E>>>);

/// Why there is no further try.
pub(crate) enum Refused {
    /// The policy says so, or the request cannot be sent again.
    Over,
    /// It might be, but for the budget.
    Budget,
}

impl Refused {
    /// Counts it, if it was for the budget.
    pub(crate) fn count(self, over_budget: &AtomicU64) {
        if matches!(self, Self::Budget) {
            over_budget.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl<Req, E> Drop for Kept<Req, E> {
    fn drop(&mut self) {
        if let Some(kept) = self.0.take() {
            kept.let_go();
        }
    }
}

impl<Req, Res, E> Tries<Req, Res, E> {
    pub(crate) const NONE: Self = Self(None);

    fn course(&self) -> Option<&Course> {
        self.0.as_ref().map(|watched| watched.trying.course())
    }

    /// Whether anything of this was set.
    #[inline]
    pub(crate) const fn are_watched(&self) -> bool {
        self.0.is_some()
    }

    /// Whether an instance had it and nobody knows what came of that, or it was answered and is to be sent
    /// again.
    pub(crate) fn have_been(&self) -> bool {
        self.course().is_some_and(|course| course.used > 0)
    }

    /// The request goes into an instance. `keep` keeps what it takes to send it again, at the first.
    pub(crate) fn begin(
        &mut self,
        rules: &TryRules,
        keep: impl FnOnce() -> Option<Box<dyn Keep<Req, E>>>,
    ) {
        let now = clock::now();
        let watched = self.0.get_or_insert_with(|| {
            let kept = Kept(keep());
            if kept.0.is_some() {
                rules.retry.begin();
            }
            Watched {
                trying: Trying::new(now),
                kept,
                held: None,
            }
        });
        let course = watched.trying.course_mut();
        course.resting = false;
        course.entered = now;
        // Overflow is as good as no limit.
        course.until = rules.per_try.and_then(|within| now.checked_add(within));
        drop(watched.held.take());
    }

    /// Ready once the try that is under way is out of time. Outside of a runtime, which has no timer, that
    /// is as late as somebody polls.
    #[inline]
    pub(crate) fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.0 {
            Some(watched) => watched.trying.poll_late(cx),
            None => Poll::Pending,
        }
    }

    /// Whether the try that is under way is out of time, whatever the timer says, which is a ms late.
    pub(crate) fn are_out_of_time(&self) -> bool {
        let until = self.course().and_then(|course| course.until);
        until.is_some_and(|until| until <= clock::now())
    }

    /// Ready once the next may begin; at once, but for a rest.
    #[inline]
    pub(crate) fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.0 {
            Some(watched) => watched.trying.poll_rest(cx),
            None => Poll::Ready(()),
        }
    }

    /// The request, if it is to be sent again after that. `cost` is how often it went out at the instance; its
    /// caller waits `until` then, and so no longer rest is begun; `failed` may be told why it is not.
    pub(crate) fn further(
        &mut self,
        rules: &TryRules,
        again: Again,
        cost: u32,
        until: Option<Instant>,
        failed: Option<&mut E>,
    ) -> Result<Req, Refused> {
        let watched = self.0.as_mut().ok_or(Refused::Over)?;
        let course = watched.trying.course_mut();
        let nth = course.used.saturating_add(cost);
        course.used = nth;
        course.until = None;
        let retry = &rules.retry;
        let now = clock::now();
        let age = now.saturating_duration_since(course.began);
        let kept = watched.kept.0.as_mut().ok_or(Refused::Over)?;
        if again == Again::No || cost == 0 || !retry.has_more(nth.saturating_sub(1), age) {
            return Err(Refused::Over);
        }
        if let Err(why) = kept.can_again() {
            if let Some(failed) = failed {
                kept.explain(failed, why);
            }
            return Err(Refused::Over);
        }
        let rest = retry.rest(nth, again);
        // A peer may ask for a longer one than is left.
        if !retry.has_more(nth.saturating_sub(1), age.saturating_add(rest)) {
            return Err(Refused::Over);
        }
        // What is longer than anybody's life is too long, too.
        let rested = now.checked_add(rest).ok_or(Refused::Over)?;
        if until.is_some_and(|until| until <= rested) {
            return Err(Refused::Over);
        }
        if !retry.afford() {
            return Err(Refused::Budget);
        }
        let request = kept.again(nth.saturating_add(1)).ok_or(Refused::Over)?;
        course.resting = true;
        course.until = (!rest.is_zero()).then_some(rested);
        Ok(request)
    }

    /// The request came back, and is on its way again; what went out before that counts as `cost` tries.
    pub(crate) fn came_back(&mut self, request: &Req, cost: u32) {
        if let Some(watched) = &mut self.0 {
            let course = watched.trying.course_mut();
            course.used = course.used.saturating_add(cost);
            course.until = None;
            if let Some(kept) = &mut watched.kept.0 {
                kept.moves(request);
            }
        }
    }

    /// Holds an answer until the next try begins, or waits for room.
    pub(crate) fn hold(&mut self, in_flight: InFlight, response: Res) {
        if let Some(watched) = &mut self.0 {
            watched.held = Some(Box::new((in_flight, response)));
        }
    }

    /// The answer that is held: there is no further try, or what it holds may be what that waits for.
    pub(crate) fn take_held(&mut self) -> Option<(InFlight, Res)> {
        let held = self.0.as_mut()?.held.take();
        held.map(|held| *held)
    }

    /// Whether one is held.
    pub(crate) fn hold_answer(&self) -> bool {
        let watched = self.0.as_ref();
        watched.is_some_and(|watched| watched.held.is_some())
    }

    /// Nobody is left whom the call has not tried. Whether those may be asked again: once, since a service of
    /// one instance has tries, too.
    pub(crate) fn may_repeat(&mut self) -> bool {
        let watched = self.0.as_mut();
        watched.is_some_and(|watched| std::mem::take(&mut watched.trying.course_mut().resting))
    }

    /// Whether a second one was begun, or would have been.
    pub(crate) fn are_hedged(&self) -> bool {
        self.course().is_some_and(|course| course.hedged)
    }

    /// When a second try is to be begun beside the first, if ever.
    pub(crate) fn hedge_at(&self, rules: &TryRules) -> Option<Instant> {
        let Watched { trying, kept, .. } = self.0.as_ref()?;
        let course = trying.course();
        if course.hedged || course.used > 0 || kept.0.is_none() {
            return None;
        }
        course.entered.checked_add(rules.hedge_delay()?)
    }

    /// The first has not been answered by then: the request for a second one, if there may be one.
    pub(crate) fn hedge(&mut self, rules: &TryRules) -> Result<Req, Refused> {
        let watched = self.0.as_mut().ok_or(Refused::Over)?;
        let course = watched.trying.course_mut();
        course.hedged = true;
        let now = clock::now();
        if let Some(hedge) = &rules.hedge {
            let age = now.saturating_duration_since(course.entered);
            hedge.learn(&rules.usual, age, true);
        }
        let kept = watched.kept.0.as_mut().ok_or(Refused::Over)?;
        let age = now.saturating_duration_since(course.began);
        if !rules.retry.has_more(course.used, age) {
            return Err(Refused::Over);
        }
        let attempt = course.used.saturating_add(2);
        let request = kept.beside(attempt).ok_or(Refused::Over)?;
        if !rules.retry.afford() {
            return Err(Refused::Budget);
        }
        Ok(request)
    }

    /// The second one has gone out.
    pub(crate) fn count_second(&mut self) {
        if let Some(watched) = &mut self.0 {
            let used = &mut watched.trying.course_mut().used;
            *used = used.saturating_add(1);
        }
    }

    /// The answer to the try that is under way has come.
    pub(crate) fn learn(&self, rules: &TryRules) {
        if let (Some(course), Some(hedge)) = (self.course(), &rules.hedge)
            && !course.hedged
        {
            let age = clock::now().saturating_duration_since(course.entered);
            hedge.learn(&rules.usual, age, false);
        }
    }

    /// It has come to its end: nothing is kept any more.
    #[inline]
    pub(crate) fn end(&mut self) {
        if self.are_watched() {
            *self = Self::NONE;
        }
    }
}
