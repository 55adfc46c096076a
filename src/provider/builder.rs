use std::{future::Future, sync::Arc, time::Duration};

use super::{
    clock, error::OnlineError, handle::Handle, inner::Inner, layer::Shared, names::Names,
    no_calls::NoCall, ready::Probe, registration::Wanted, sequence::Sequence, timing::Timing,
    traffic::Traffic,
};
use crate::{
    client::Client,
    model::{Incarnation, Instance, InvalidName, Metadata, START_TIME, ServiceKey, ServiceName},
};

/// Sets up a [`Provider`](crate::provider::Provider).
///
/// | option | default | what it is for |
/// |---|---|---|
/// | [`instance`](Self::instance) | none: one is needed | an address that is registered; several are one batch |
/// | [`service`](Self::service) | the one that it begins with | one more service at the same addresses |
/// | [`ready`](Self::ready), [`ready_path`](Self::ready_path) | ready at once | what has to hold before it is registered |
/// | [`check_address`](Self::check_address) | on | whether somebody listens at the address |
/// | [`delay`](Self::delay) | none | how long to wait between ready and registered |
/// | [`push_delay`](Self::push_delay), [`measure_push_delay`](Self::measure_push_delay) | 600 ms, not measured | how long callers take to hear |
/// | [`deregister_timeout`](Self::deregister_timeout) | 3 s | how long the registry's word is waited for |
/// | [`max_linger`](Self::max_linger) | 10 s | how long it serves on while callers still call |
/// | [`drain_timeout`](Self::drain_timeout) | 15 s | how long calls in flight may take to end |
/// | [`reject_after`](Self::reject_after) | never | when calls that still come are answered 503 |
/// | [`no_call`](Self::no_call) | none | paths that are asked all the time, and are no calls |
///
/// Example: [a provider](crate::provider)
#[derive(Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct ProviderBuilder {
    nacos: Client,
    services: Vec<ServiceKey>,
    instances: Vec<Instance>,
    probe: Option<Probe>,
    checks: bool,
    measures: bool,
    reject_after: Option<Duration>,
    no_calls: Vec<NoCall>,
    timing: Timing,
    broken: Option<OnlineError>,
}

impl ProviderBuilder {
    pub(super) fn new(nacos: Client) -> Self {
        Self {
            nacos,
            services: Vec::new(),
            instances: Vec::new(),
            probe: None,
            checks: true,
            measures: false,
            reject_after: None,
            no_calls: Vec::new(),
            timing: Timing::default(),
            broken: None,
        }
    }

    /// One more service that is provided at the same addresses.
    pub fn service<N>(mut self, service: N) -> Self
    where
        N: TryInto<ServiceName, Error: Into<InvalidName>>,
    {
        match service.try_into() {
            Ok(name) => {
                let key = self.nacos.key_of(name);
                if !self.services.contains(&key) {
                    self.services.push(key);
                }
            }
            Err(error) => {
                self.broken
                    .get_or_insert_with(|| OnlineError::InvalidName(error.into()));
            }
        }
        self
    }

    /// One instance more; the same address again takes the place of the former. Several are one batch,
    /// which servers take from 2.1.1 on. Each response's mark names the start of each of them: all have the
    /// same unless their metadata say another, of which a mark holds 9 at least.
    pub fn instance(mut self, instance: Instance) -> Self {
        self.instances
            .retain(|other| other.address() != instance.address());
        self.instances.push(instance);
        self
    }

    /// Asks this, every 200 ms, until it says yes; then it goes online and is not asked again. What
    /// panics, or takes more than 5 s, is a no. Default: ready at once. It runs in a task of its own: one that
    /// blocks its thread holds up nothing else on a runtime with several, and no second one is begun
    /// beside it.
    pub fn ready<F, R>(mut self, ready: F) -> Self
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = bool> + Send + 'static,
    {
        self.probe = Some(Probe::closure(ready));
        self
    }

    /// Asks this path over HTTP/1.1 at the announced addresses, in place of
    /// [`ready`](Self::ready): a status from 200 to 399 is yes. The listener has to speak plain HTTP.
    /// Requests of this path, with this query if it has one, count as no calls, whoever makes them. What
    /// cannot be one is the error of [`online`](crate::provider::Provider::online).
    pub fn ready_path(mut self, path: impl Into<Box<str>>) -> Self {
        if let Some(path) = self.quiet(&path.into()) {
            self.probe = Some(Probe::of_path(path));
        }
        self
    }

    /// Requests of exactly this path (`"/metrics"`), with this query if it has one, are no calls: they are
    /// served, and keep a provider that leaves from nothing. For those who ask all the time, and would go
    /// on if it was gone; several may be given. [`layer`](crate::provider::Provider::layer) says which it
    /// knows without that.
    pub fn no_call(mut self, path: impl Into<Box<str>>) -> Self {
        let _ = self.quiet(&path.into());
        self
    }

    fn quiet(&mut self, path: &str) -> Option<Box<str>> {
        match NoCall::parse(path) {
            Some(no_call) => {
                let written = no_call.to_string().into();
                self.no_calls.push(no_call);
                Some(written)
            }
            None => {
                self.broken
                    .get_or_insert_with(|| OnlineError::InvalidPath(path.into()));
                None
            }
        }
    }

    /// Between two questions. Default 200 ms: later costs a start as much on average as half of it,
    /// sooner costs the question.
    pub const fn ready_interval(mut self, interval: Duration) -> Self {
        self.timing.ready_interval = interval;
        self
    }

    /// Whether to see, before it is registered, that somebody accepts connections at the announced
    /// address. Default true, as a wrong one (a container's own, an interface that is not listened on)
    /// costs callers a dial each. While it is online Linux is asked each second whether somebody still
    /// listens there, without a connection: if nobody does for 10 s, the server has ended and told nobody,
    /// and the provider leaves for good, as if its last handle were gone. Turn it off where a provider cannot
    /// reach itself by the address that others use, and where what listens there (a proxy, say) may be
    /// away for longer.
    pub const fn check_address(mut self, on: bool) -> Self {
        self.checks = on;
        self
    }

    /// From ready to the registration. Default none; caches that are still to be filled want some.
    pub const fn delay(mut self, delay: Duration) -> Self {
        self.timing.delay = delay;
        self
    }

    /// From a change at the registry until its last consumer knows. Default 600 ms, what one Nacos
    /// node takes at most (measured: 0.51 to 0.61 s); a cluster needs 1.6 s. It lingers for twice that:
    /// shorter, and callers that do not heed the mark lose calls; longer costs each restart as much.
    pub const fn push_delay(mut self, delay: Duration) -> Self {
        self.timing.push_delay = delay;
        self
    }

    /// Whether to see for itself how long news take: it subscribes to its (first) service, goes on lingering until
    /// the registry's push has told that subscription that it is gone, and then for as long again, in the
    /// limits of [`max_linger`](Self::max_linger) and twice [`push_delay`](Self::push_delay). Default false:
    /// a subscription that the program does not have anyway gets each change of the service, which
    /// among n providers are n pushes a change. For registries that are slower than their kind.
    pub const fn measure_push_delay(mut self, on: bool) -> Self {
        self.measures = on;
        self
    }

    /// How long to wait for the registry to confirm that it does not list us any more. Default 3 s, as
    /// long as the client waits for an answer on a connection that stands. An answer that comes later,
    /// in the linger, counts as well.
    pub const fn deregister_timeout(mut self, timeout: Duration) -> Self {
        self.timing.deregister_timeout = timeout;
        self
    }

    /// How long to go on serving at most while callers still call or the registry has not confirmed
    /// it. Default 10 s: with the other two limits it fits into Kubernetes's 30 s. Shorter, and callers
    /// that have not heard fail.
    pub const fn max_linger(mut self, most: Duration) -> Self {
        self.timing.max_linger = most;
        self
    }

    /// How long calls in flight may take to end once it listens no more; then they are cut. Default
    /// 15 s. Endless streams take all of it.
    pub const fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.timing.drain_timeout = timeout;
        self
    }

    /// Answers 503 to calls that come so long after the mark began. Default never: each call that
    /// still comes is served, as it fails otherwise for callers that do not retry.
    pub const fn reject_after(mut self, time: Duration) -> Self {
        self.reject_after = Some(time);
        self
    }

    pub(super) fn has_instances(&self) -> bool {
        !self.instances.is_empty()
    }

    pub(super) const fn drain_limit(&self) -> Duration {
        self.timing.drain_timeout
    }

    /// All that it is.
    pub(super) fn into_handle(self) -> Handle {
        let start = clock::start_time().to_string();
        let started: Vec<Instance> = self
            .instances
            .iter()
            .map(|instance| with_start(instance, &start))
            .collect();
        let marks = Incarnation::marks(started.iter().filter_map(Incarnation::of));
        let marks = marks.iter().filter_map(|mark| mark.parse().ok());
        let addresses = started.iter().map(|i| i.address().clone()).collect();
        let shared = Shared {
            traffic: Arc::new(Traffic::new()),
            names: Names::new(self.services, addresses),
            marks: marks.collect(),
            reject_after: self.reject_after,
            no_calls: self.no_calls.into(),
        };
        let none = started.is_empty().then_some(OnlineError::NoInstance);
        let sequence = Sequence::new(self.timing, self.probe.is_some(), self.checks);
        let inner = Inner::new(
            self.nacos,
            Arc::new(shared),
            self.probe,
            Wanted::new(started),
            self.checks,
            self.measures,
            self.broken.or(none),
        );
        Handle::new(inner, sequence)
    }
}

/// With a start time beside the user's own metadata, unless they name one that a mark can carry.
fn with_start(instance: &Instance, start: &str) -> Instance {
    if Incarnation::of(instance).is_some() {
        return instance.clone();
    }
    let pairs: Metadata = instance
        .metadata()
        .iter()
        .chain([(START_TIME, start)])
        .collect();
    instance.clone().with_metadata(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_time_stands_beside_the_users_own_metadata() {
        let meta = |pairs: &[(&str, &str)]| pairs.iter().copied().collect::<Metadata>();
        let instance = Instance::parse("10.0.0.3:80").unwrap();
        let mine = instance.clone().with_metadata(meta(&[("version", "2")]));
        let started = with_start(&mine, "17");
        assert_eq!(
            started.metadata(),
            &meta(&[("version", "2"), ("startTime", "17")])
        );
        let told = instance.clone().with_metadata(meta(&[("startTime", "3")]));
        assert_eq!(with_start(&told, "17"), told);
        let unfit = instance.with_metadata(meta(&[("startTime", "a b")]));
        assert_eq!(
            with_start(&unfit, "17").metadata().get("startTime"),
            Some("17")
        );
    }
}
