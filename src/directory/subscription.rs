use std::{
    any::Any,
    fmt,
    ops::Deref,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use crate::{
    directory::{
        Changes, Consumer, Generation, Marks, Options, Revision, Snapshot, Status, StatusChanges,
        SubscriptionCounters, SubscriptionExplanation, explain,
        handle::Handle,
        selection::{Rule, Selection},
        shared::Shared,
    },
    model::{
        Address, DEFAULT_GROUP, Instance, Origin, PUBLIC_NAMESPACE, ServiceDetails, ServiceKey,
        ServiceName,
    },
    sync::Bell,
};

/// A service as it is known here, kept up to date.
///
/// Cheap to clone; clones and everything made of them (views, change streams, balancers) share
/// one subscription, and when the last of them is dropped the registry is told. What it shows is
/// never waited for: it is the last set that the registry told, and [`status`](Self::status) says
/// how far that can be believed.
#[derive(Clone)]
pub struct Subscription {
    pub(super) handle: Handle,
}

/// A consumer that is attached to a subscription, and the subscription that it lives on.
///
/// The directory holds the consumer weakly; this keeps both.
pub(crate) struct Attached<C: ?Sized> {
    subscription: Subscription,
    consumer: Arc<C>,
}

impl Subscription {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            handle: Handle::new(shared),
        }
    }

    /// A set that never changes and needs no registry, for tests and for fixed deployments. Its
    /// key is `fixed` in the default namespace and group.
    pub fn fixed(instances: impl IntoIterator<Item = Instance>) -> Self {
        let key = ServiceName::new(DEFAULT_GROUP, FIXED)
            .and_then(|service| ServiceKey::new(PUBLIC_NAMESPACE, service))
            .expect("a name within the rules");
        let shared = Shared::new(key, Options::default());
        shared.update(|state, out| {
            let instances = instances.into_iter().map(Arc::new).collect();
            state.fix(instances, &shared.options, out);
        });
        Self::new(shared)
    }

    /// Puts in what is dropped with the last clone.
    #[must_use]
    pub(crate) fn with_lease(mut self, lease: Arc<dyn Any + Send + Sync>) -> Self {
        self.handle.put_lease(lease);
        self
    }

    /// The service.
    pub fn key(&self) -> &ServiceKey {
        self.handle.key()
    }

    /// The service as providers may know it: none, for a [`fixed`](Self::fixed) set, and for a merged one,
    /// whose instances say it.
    pub(crate) fn named(&self) -> Option<&ServiceKey> {
        let name = self.key().service();
        let fixed = **name.group() == *DEFAULT_GROUP && **name.name() == *FIXED;
        let merged = self.handle.shared.sources.is_some();
        (!fixed && !merged).then(|| self.key())
    }

    /// The newest snapshot. Lock-free; take it once per piece of work.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.handle.snapshot()
    }

    /// How far the snapshot can be believed.
    pub fn status(&self) -> Status {
        self.handle.status()
    }

    /// The present status, and each that follows it.
    pub fn status_changes(&self) -> StatusChanges {
        StatusChanges::new(self.handle.clone())
    }

    /// What probably is the matter while there are no instances, in words: a similar name, a
    /// namespace that has no services, a registry that denies access. Found out once the registry
    /// answered with an empty list, and again at each safety read while it stays empty, so it is
    /// up to a minute old. The errors that the absence of instances leads to show it too.
    pub fn hint(&self) -> Option<Arc<str>> {
        self.handle.snapshot().hint()
    }

    /// How long ago the newest list came, changed or not; `None` before the first. Lists come when
    /// something changes, and at safety reads: a healthy subscription may be a minute old.
    pub fn age(&self, now: Instant) -> Option<Duration> {
        let heard = self.handle.shared.heard_at()?;
        Some(now.saturating_duration_since(heard))
    }

    /// How the newest list came; `None` before the first. [`Origin::Disk`] until the registry has
    /// answered.
    pub fn origin(&self) -> Option<Origin> {
        self.handle.shared.origin()
    }

    /// The newest revision of the service. A view whose selection a revision did not touch keeps
    /// showing its former one.
    pub fn revision(&self) -> Revision {
        self.handle.shared.revision()
    }

    /// The newest revision that is *applied*: in every balancer and discovery of this service (its consumers) no
    /// call is on its way into an instance that may not be called in it, and none will be.
    pub fn applied_revision(&self) -> Revision {
        self.handle.shared.applied()
    }

    /// What happened to the local copy so far.
    pub fn counters(&self) -> SubscriptionCounters {
        self.handle.shared.counters()
    }

    /// The changes of the callable set, beginning with the instances that are callable now.
    pub fn changes(&self) -> Changes {
        Changes::new(self.handle.clone())
    }

    /// What is known of the instance at `address`: why it may be called or not, or why it left.
    ///
    /// It has the registry asked for what an operator set of the service as a whole (its protection
    /// threshold and metadata), in the background and at most every 5 min: the explanations that follow
    /// show it, if the registry says. [`Client::service_details`](crate::Client::service_details) waits
    /// for it.
    pub fn explain(&self, address: &Address) -> SubscriptionExplanation {
        self.handle.shared.tell_explained();
        explain::explain(&self.handle.shared, &self.handle.view, address)
    }

    /// Only the instances of one cluster. Never falls back to others.
    #[must_use]
    pub fn only_cluster(&self, cluster: impl Into<Arc<str>>) -> Self {
        self.only(Rule::clusters([cluster.into()]))
    }

    /// Only the instances of these clusters. Never falls back to others.
    #[must_use]
    pub fn only_clusters<N: Into<Arc<str>>>(&self, clusters: impl IntoIterator<Item = N>) -> Self {
        self.only(Rule::clusters(clusters.into_iter().map(Into::into)))
    }

    /// Only the instances with this metadata pair. Never falls back to others.
    #[must_use]
    pub fn only_metadata(&self, key: impl Into<Arc<str>>, value: impl Into<Arc<str>>) -> Self {
        self.only(Rule::Metadata(key.into(), value.into()))
    }

    fn only(&self, rule: Rule) -> Self {
        let selection: Selection = self.handle.view.selection.and(rule);
        let view = self
            .handle
            .shared
            .lock()
            .view(selection, &self.handle.shared.options);
        let mut handle = self.handle.clone();
        handle.view = view;
        Self { handle }
    }

    /// Why nothing is known of the service yet, in words: the status, and what stands in the way.
    pub(crate) fn unknown_because(&self) -> String {
        let status = self.status();
        self.hint()
            .map_or_else(|| status.to_string(), |hint| format!("{status}; {hint}"))
    }

    /// Says what stands in the way of an answer, until there is one.
    pub(crate) fn set_hint(&self, text: &str) {
        self.handle.shared.lock().hint.set(Some(text.into()));
    }

    /// Says what probably is the matter, if the registry still lists nothing.
    pub(crate) fn set_hint_while_empty(&self, text: &str) {
        let state = self.handle.shared.lock();
        if state.answered && state.listed == 0 {
            state.hint.set(Some(text.into()));
        }
    }

    /// What the registry said of the service as a whole.
    pub(crate) fn set_details(&self, details: ServiceDetails) {
        self.handle.shared.lock().details = Some(Arc::new(details));
    }

    /// Where marks on responses go.
    pub(crate) fn marks(&self) -> Marks {
        Marks(Arc::clone(&self.handle.shared))
    }

    /// A connection to this instance failed: if the [collapse guard](crate::guide::glossary) holds it, it no longer does.
    ///
    /// Publishes on the caller's thread: hold no lock that a [`Consumer`] takes.
    pub(crate) fn report_unreachable(
        &self,
        address: &Address,
        generation: Generation,
        now: Instant,
    ) {
        self.handle
            .shared
            .report_unreachable(address, generation, now);
    }

    /// Registers a consumer. `build` runs while nothing can be published: what it is given is the
    /// newest snapshot, and the consumer hears of all that follow. The consumer calls
    /// [`ring`](Bell::ring) whenever it has become quiet.
    pub(crate) fn attach<C: Consumer + 'static>(
        &self,
        build: impl FnOnce(Arc<Snapshot>, Arc<Bell>) -> Arc<C>,
    ) -> Attached<C> {
        let state = self.handle.shared.lock();
        let consumer = build(
            self.handle.view.snapshot(),
            Arc::clone(&self.handle.shared.changed),
        );
        let weak: Weak<C> = Arc::downgrade(&consumer);
        self.handle.view.attach(weak);
        drop(state);
        Attached {
            subscription: self.clone(),
            consumer,
        }
    }
}

impl<C: ?Sized> Attached<C> {
    /// What it is attached to.
    pub(crate) fn subscription(&self) -> &Subscription {
        &self.subscription
    }

    /// The consumer.
    pub(crate) fn consumer(&self) -> &Arc<C> {
        &self.consumer
    }
}

impl<C: ?Sized> Deref for Attached<C> {
    type Target = Arc<C>;

    fn deref(&self) -> &Arc<C> {
        &self.consumer
    }
}

impl<C: ?Sized> Clone for Attached<C> {
    fn clone(&self) -> Self {
        Self {
            subscription: self.subscription.clone(),
            consumer: Arc::clone(&self.consumer),
        }
    }
}

impl<C: ?Sized> fmt::Debug for Attached<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Attached").field(&self.subscription).finish()
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.handle.fmt(f)
    }
}

const fn _assert_shareable<T: Clone + Send + Sync + fmt::Debug + 'static>() {}
const _: () = _assert_shareable::<Subscription>();

/// What a set is called that no registry knows. A service of that name is not told to its providers.
const FIXED: &str = "fixed";
