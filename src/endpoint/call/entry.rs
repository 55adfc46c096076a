//! The way in: an instance is picked, its service made and ready, and the gate lets the call in.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::time::Instant;
use tower::{BoxError, Service, load::completion::TrackCompletion};

use super::{Call, Parts};
use crate::endpoint::{
    admission::{InFlight, Place},
    choice::Picked,
    clock,
    error::CallError,
    fate::Fate,
    pick::Pick,
    room::Room,
    rules::{Judge, Outcome, Recover, Verdict},
    set::EndpointSet,
    settings::TryRules,
    shared::Shared,
    slot::Obtained,
    tried::Tried,
    tries::Tries,
};

impl<P, S, Req, R, C, V> Call<P, S, Req, R, C, V>
where
    P: Pick<S, R, C, V>,
    S: Service<Req> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    R: Recover<Req, S::Error>,
    C: TrackCompletion<InFlight, S::Response>,
    V: Judge<S::Response, S::Error>,
{
    /// Goes into an instance, or finds that the one it looked at is no good or has no room, to look
    /// `again`: not at those that it waits at, which it does first. Place and service stay in this frame
    /// unless they have to wait.
    #[inline]
    pub(super) fn poll_entry(
        mut self: Pin<&mut Self>,
        again: bool,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Box<CallError>>> {
        if !again && !self.rooms.is_empty() && self.as_mut().poll_rooms(cx) {
            return Poll::Ready(Ok(()));
        }
        // The service is dropped before the place, which is taken out of what was picked once: each
        // further wrapping is a copy.
        let mut place = match self.pick.pick(&self.tried) {
            Picked::Place(place) => place,
            none => match ready!(self.as_mut().poll_place(none, cx)) {
                Ok(place) => place,
                Err(error) => return Poll::Ready(Err(error)),
            },
        };
        let this = self.as_mut().project();
        this.waiter.leave(this.pick.shared().set());
        let counted = this.rooms.is_empty();
        let mut service = match poll_service(this.pick.shared(), &mut place, counted, cx) {
            Poll::Ready(Some(service)) => service,
            Poll::Ready(None) => {
                self.pass_by(&place);
                return Poll::Ready(Ok(()));
            }
            Poll::Pending => {
                let service = None;
                return self.wait_at(Room { service, place }, cx).map(Ok);
            }
        };
        if !place.reserve() {
            place.wait(counted, cx);
            if !place.reserve() {
                if !place.is_open() {
                    return Poll::Ready(Ok(()));
                }
                let service = Some(service);
                return self.wait_at(Room { service, place }, cx).map(Ok);
            }
        }
        match service.poll_ready(cx) {
            Poll::Ready(Ok(())) => {
                self.project().enter(&mut service, &mut place);
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => {
                drop(service);
                self.broken(&mut place, error);
                Poll::Ready(Ok(()))
            }
            Poll::Pending => {
                place.put_back();
                place.wait(counted, cx);
                if !place.is_open() {
                    return Poll::Ready(Ok(()));
                }
                let service = Some(service);
                self.wait_at(Room { service, place }, cx).map(Ok)
            }
        }
    }

    /// Looks at those that it waits at, in the order in which it came to them. True if one let it
    /// in, or is of no more use.
    ///
    /// Like all that is seldom done this takes the call and not its parts: to hand those on they would
    /// have to be gathered in memory at each poll.
    #[cold]
    fn poll_rooms(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> bool {
        let mut at = 0;
        while at < self.rooms.len() {
            let mut room = self.as_mut().project().rooms.remove(at);
            if self.as_mut().poll_room(&mut room, cx) {
                let this = self.project();
                if this.admitted.is_some() {
                    this.waiter.leave(this.pick.shared().set());
                }
                forget_rooms(this.rooms, this.tried);
                return true;
            }
            self.as_mut().project().rooms.insert(at, room);
            at += 1;
        }
        false
    }

    /// Goes into one that it waits at. True if it was let in, or the instance is of no more use.
    fn poll_room(self: Pin<&mut Self>, room: &mut Room<S>, cx: &mut Context<'_>) -> bool {
        let counted = self.rooms.is_empty();
        let service = match &mut room.service {
            Some(service) => service,
            empty => match poll_service(self.pick.shared(), &mut room.place, counted, cx) {
                Poll::Ready(Some(service)) => empty.insert(service),
                Poll::Ready(None) => {
                    self.pass_by(&room.place);
                    return true;
                }
                Poll::Pending => return false,
            },
        };
        if !room.place.reserve() {
            room.place.wait(counted, cx);
            if !room.place.reserve() {
                return !room.place.is_open();
            }
        }
        match service.poll_ready(cx) {
            Poll::Ready(Ok(())) => {
                self.project().enter(service, &mut room.place);
                true
            }
            Poll::Ready(Err(error)) => {
                room.service = None;
                self.broken(&mut room.place, error);
                true
            }
            Poll::Pending => {
                room.place.put_back();
                room.place.wait(counted, cx);
                !room.place.is_open()
            }
        }
    }

    /// Waits for there to be an endpoint, if it was `none` that was picked.
    #[cold]
    fn poll_place(
        self: Pin<&mut Self>,
        none: Picked<S>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Place<S>, Box<CallError>>> {
        let this = self.project();
        let (mut picked, mut registered) = (none, false);
        loop {
            match picked {
                Picked::Place(place) => return Poll::Ready(Ok(place)),
                Picked::Wait if registered => return Poll::Pending,
                Picked::Wait => {
                    // Looked for again after this, so that no change falls in between.
                    this.waiter.register(this.pick.shared().set(), cx.waker());
                    let now = clock::now();
                    this.tried.wait_since(now);
                    this.tried.begin_waiting(now);
                    registered = true;
                }
                Picked::Nobody(_) if this.tries.may_repeat() => this.tried.forgive(),
                Picked::Nobody(error) => {
                    return Poll::Ready(Err(this.failure.take().unwrap_or(error)));
                }
            }
            picked = this.pick.pick(this.tried);
        }
    }

    /// The endpoint is no good, and its gate says so. Without gates nothing else keeps it from being
    /// picked again and again.
    #[cold]
    fn pass_by(self: Pin<&mut Self>, place: &Place<S>) {
        if !self.pick.shared().set().is_gated() {
            self.project().tried.push(place.endpoint().generation());
        }
    }

    /// By the contract of `poll_ready` this service is of no more use. The request is still ours.
    #[cold]
    fn broken(self: Pin<&mut Self>, place: &mut Place<S>, error: S::Error) {
        let this = self.project();
        let shared = this.pick.shared();
        let endpoint = Arc::clone(place.endpoint());
        let probe = place.hand_over_probe();
        drop(endpoint.slot.discard());
        let verdict = shared.classify.classify(&error);
        let error = CallError::inner_of(shared.set().service(), endpoint.address(), error);
        let verdict = match verdict {
            Verdict::Reachable => Verdict::unreachable(error.words()),
            failed => failed,
        };
        *this.fate = Fate::of_verdict(&verdict);
        let next = (probe, endpoint.turn(0).of); // it was not let in
        shared.judged(&endpoint, next, &verdict, Outcome::Ignored);
        *this.failure = Some(Box::new(error));
        this.tried.push(endpoint.generation());
    }

    /// It has no room now: others are looked at. Ready to do so, unless it waits at as many as it
    /// may.
    #[cold]
    fn wait_at(self: Pin<&mut Self>, room: Room<S>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        // Somebody is there to be asked. What the answer before holds may be the very room that is waited
        // for, here or by a call that holds what this one waits for; what is said of it stays.
        drop(this.tries.take_held());
        let more = this.tried.push_full(room.place.endpoint().generation());
        this.tried.begin_waiting(clock::now());
        this.rooms.push(room);
        // What was looked at before has this task's waker; what is new has it through the set.
        this.waiter.register(this.pick.shared().set(), cx.waker());
        if more { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl<P, S, Req, R, C, V> Parts<'_, P, S, Req, R, C, V>
where
    P: Pick<S, R, C, V>,
    S: Service<Req> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    R: Recover<Req, S::Error>,
    C: TrackCompletion<InFlight, S::Response>,
    V: Judge<S::Response, S::Error>,
{
    /// Calls the service, if the gate lets the call in.
    #[inline(always)] // what it is given would go through memory
    fn enter(&mut self, service: &mut S, place: &mut Place<S>) {
        let shared = self.pick.shared();
        let Some(admitted) = place.admit(shared.set()) else {
            return;
        };
        let admitted = self.admitted.insert(admitted);
        let entering = admitted.enter();
        let request = self.request.take();
        let mut request = request.expect("polled after it was done, or after a panic");
        if let Some(rules) = shared.set().settings().tries() {
            begin_try(
                self.tries,
                rules,
                &shared.recover,
                &mut request,
                *self.second,
            );
        }
        let future = service.call(request);
        self.future.set(Some(future));
        drop(entering);
        if let Some(began) = self.tried.end_waiting() {
            waited(self.pick.shared().set(), began);
        }
        if !self.rooms.is_empty() {
            forget_rooms(self.rooms, self.tried); // room that was handed to it there is for the next
        }
    }
}

/// The request is about to go into an instance, and that is watched.
#[cold]
fn begin_try<Req, Res, E>(
    tries: &mut Tries<Req, Res, E>,
    rules: &TryRules,
    recover: &impl Recover<Req, E>,
    request: &mut Req,
    second: bool,
) {
    tries.begin(rules, || match second {
        true => None,
        false => recover.keep(request, &rules.retry),
    });
}

/// It has an instance, for which it waited since then.
#[cold]
fn waited<S>(set: &EndpointSet<S>, began: Instant) {
    let took = clock::now().saturating_duration_since(began);
    #[cfg(feature = "metrics")]
    set.hub().waits.observe(took);
    #[cfg(not(feature = "metrics"))]
    let _ = (set, took);
}

/// It waits at none of them any more.
#[cold]
fn forget_rooms<S>(rooms: &mut Vec<Room<S>>, tried: &mut Tried) {
    rooms.clear();
    tried.clear_full();
}

/// Clones the endpoint's service; makes it if nobody has. `None`: the endpoint is no good.
#[inline]
fn poll_service<S: Clone + 'static, R, C, V>(
    shared: &Shared<S, R, C, V>,
    place: &mut Place<S>,
    counted: bool,
    cx: &mut Context<'_>,
) -> Poll<Option<S>> {
    if let Some(service) = place.endpoint().slot.get() {
        return Poll::Ready(Some(service));
    }
    poll_making(shared, place, counted, cx)
}

#[cold]
fn poll_making<S: Clone + 'static, R, C, V>(
    shared: &Shared<S, R, C, V>,
    place: &mut Place<S>,
    counted: bool,
    cx: &mut Context<'_>,
) -> Poll<Option<S>> {
    let mut registered = false;
    loop {
        let endpoint = place.endpoint();
        match endpoint
            .slot
            .obtain(|| shared.make.make(&endpoint.instance()))
        {
            Obtained::Idle(service) => return Poll::Ready(Some(service)),
            Obtained::Made(service) => {
                endpoint.wakers().wake_all();
                return Poll::Ready(Some(service));
            }
            Obtained::Busy if place.is_open() => {
                if registered {
                    return Poll::Pending;
                }
                place.wait(counted, cx);
                registered = true;
            }
            Obtained::Panicked => {
                shared.set().unusable(endpoint);
                return Poll::Ready(None);
            }
            // Shut, and the gate says so: the next pick passes it by.
            Obtained::Busy | Obtained::Never => return Poll::Ready(None),
        }
    }
}
