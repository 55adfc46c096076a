use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, ready},
};

use pin_project::{pin_project, pinned_drop};
use tokio::time::Instant;
use tower::{BoxError, Service, load::completion::TrackCompletion};

use crate::{
    balance::{Policy, choose::Chosen},
    endpoint::{Call, CallError, InFlight, Judge, Recover, Timer},
};

pub(super) type ChosenCall<S, Req, P, R, C, V> = Call<Chosen<S, P, R, C, V>, S, Req, R, C, V>;

/// A second call for one request beside the first, if that is not answered in time: a hedge.
#[pin_project(PinnedDrop)]
pub(super) struct Second<S, Req, P, R, C, V>
where
    S: Service<Req>,
    P: Policy,
{
    /// When it begins.
    at: Instant,
    #[pin]
    timer: Timer,
    #[pin]
    call: Option<ChosenCall<S, Req, P, R, C, V>>,
    /// Whether the first knows where it is.
    placed: bool,
    /// Whether it has come to nothing, or is not to begin.
    over: bool,
    /// What the first failed with: now this one is waited for alone.
    failed: Option<CallError>,
}

impl<S, Req, P, R, C, V> Second<S, Req, P, R, C, V>
where
    S: Service<Req>,
    P: Policy,
{
    pub(super) fn at(at: Instant) -> Pin<Box<Self>> {
        Box::pin(Self {
            at,
            timer: Timer::default(),
            call: None,
            placed: false,
            over: false,
            failed: None,
        })
    }

    /// Whether the first is over.
    pub(super) const fn is_alone(&self) -> bool {
        self.failed.is_some()
    }

    /// A deadline has passed for both.
    pub(super) fn expire(self: Pin<&mut Self>) {
        if let Some(call) = self.project().call.as_pin_mut() {
            call.expire();
        }
    }
}

impl<S, Req, P, R, C, V> Second<S, Req, P, R, C, V>
where
    S: Service<Req> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    P: Policy,
    R: Recover<Req, S::Error>,
    C: TrackCompletion<InFlight, S::Response>,
    V: Judge<S::Response, S::Error>,
{
    /// The first has not been answered yet, or has `failed`. Ready with what is the call's result.
    pub(super) fn poll(
        self: Pin<&mut Self>,
        mut first: Pin<&mut ChosenCall<S, Req, P, R, C, V>>,
        failed: Option<CallError>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<C::Output, CallError>> {
        let mut this = self.project();
        if let Some(failed) = failed {
            if this.call.is_none() {
                return Poll::Ready(Err(failed));
            }
            *this.failed = Some(failed);
        }
        if *this.over {
            return Poll::Pending;
        }
        if !*this.placed && this.failed.is_none() && first.is_sent_again() {
            // It has found no room so far, and that try of the first takes its place.
            if let Some(call) = this.call.as_ref().as_pin_ref() {
                refund(&call);
                this.call.set(None);
                *this.over = true;
                return Poll::Pending;
            }
        }
        if this.call.is_none() {
            ready!(this.timer.poll(*this.at, cx));
            let still = first.second_at().is_some();
            let Some(request) = still.then(|| first.as_mut().hedge()).flatten() else {
                *this.over = true;
                return Poll::Pending;
            };
            let pick = first.picker();
            let pick = Chosen {
                stripe: Arc::clone(&pick.stripe),
                hints: pick.hints.clone(),
            };
            this.call.set(Some(Call::beside(&first, pick, request)));
        }
        let Some(mut call) = this.call.as_mut().as_pin_mut() else {
            return Poll::Pending;
        };
        let polled = call.as_mut().poll(cx);
        if !*this.placed && (polled.is_ready() || call.has_entered()) {
            *this.placed = true;
            if call.has_gone_out() {
                let hub = first.picker().stripe.0.set().hub();
                hub.hedges.fetch_add(1, Ordering::Relaxed);
                first.picker().stripe.0.set().tell_hedge();
                first.as_mut().second_went_out();
            } else {
                refund(&call); // there is nobody else
            }
        }
        match polled {
            Poll::Ready(Ok(response)) => {
                let hub = first.picker().stripe.0.set().hub();
                hub.hedges_won.fetch_add(1, Ordering::Relaxed);
                first.give_up();
                Poll::Ready(Ok(response))
            }
            Poll::Ready(Err(_)) => {
                this.call.set(None);
                *this.over = true;
                match this.failed.take() {
                    Some(failed) => Poll::Ready(Err(failed)),
                    None => Poll::Pending,
                }
            }
            Poll::Pending => {
                if call.has_entered() {
                    first.avoid(&call);
                } else if first.holds_answer()
                    && let Some(failed) = this.failed.take()
                {
                    return Poll::Ready(Err(failed)); // nor is an answer held for what waits for room
                }
                Poll::Pending
            }
        }
    }
}

/// It came to nobody: that was no load.
fn refund<S, Req, P, R, C, V>(call: &ChosenCall<S, Req, P, R, C, V>)
where
    S: Service<Req>,
    P: Policy,
{
    let set = call.picker().stripe.0.set();
    if let Some(rules) = set.settings().tries() {
        rules.retry.refund();
    }
}

#[pinned_drop]
impl<S, Req, P, R, C, V> PinnedDrop for Second<S, Req, P, R, C, V>
where
    S: Service<Req>,
    P: Policy,
{
    fn drop(self: Pin<&mut Self>) {
        if !self.placed
            && let Some(call) = &self.call
        {
            refund(call);
        }
    }
}
