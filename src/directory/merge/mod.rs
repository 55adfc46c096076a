//! Several subscriptions as one.
//!
//! A merged set has no writer of its own. A [`Part`] is attached to each source; as the source
//! publishes, under its writer's lock, the part puts the snapshot into the merged set and publishes
//! that: what leaves the last source is shut in the merged set before the source has finished, with no
//! task and nothing queued in between. Locks are taken from source to merged set, never the other way;
//! whatever runs code that is not ours waits until both are free.

mod part;
pub(in crate::directory) mod parts;
mod reads;
mod state;

use std::{borrow::Borrow, sync::Arc};

use crate::{
    directory::{
        Attached, Consumer, Options, Subscription,
        merge::part::Part,
        shared::{Shared, Upstream},
    },
    model::{DEFAULT_GROUP, PUBLIC_NAMESPACE, ServiceKey, ServiceName, Source},
};

impl Subscription {
    /// Several subscriptions as one: of a service in two registries while it moves from one to the
    /// other or lives in both, in several namespaces or groups, or of several services that do the same.
    ///
    /// ```
    /// # use tower_nacos::{Client, Subscription, client::RequestError};
    /// # async fn example(eu: Client, us: Client) -> Result<Subscription, RequestError> {
    /// let near = eu.subscribe_lazy("orders")?;
    /// let far = us.subscribe_lazy("orders")?;
    /// let orders = Subscription::merge([(near, 0), (far, 1)]);
    /// # Ok(orders) }
    /// ```
    ///
    /// Whatever takes a subscription takes this one. It is kept up to date by its sources and holds
    /// them: each ends, unless it is held elsewhere, with the last clone of the merged one.
    ///
    /// # What is in it
    ///
    /// Every instance that a source shows (within its own `only_*`), with [`Instance::source`] that tells
    /// which. An address is one endpoint, for as long as one source or the other lists it: it keeps its
    /// [`Generation`](crate::directory::Generation), its connections and its load when one drops it, and
    /// leaves at the moment at which the last does. Where several list it, weight, metadata, cluster,
    /// health and a ban by an operator are those of the lowest tier, and in it of the source that was
    /// given first; one that only holds it by the collapse guard comes after one that lists it. It starts
    /// anew when the source that counts says so. A provider that says itself that it goes offline does so
    /// for all.
    ///
    /// Health is judged over the whole: an unhealthy instance is called only while no source has a
    /// healthy one.
    ///
    /// # Tiers
    ///
    /// [`Balance`](crate::Balance) sends calls to the lowest tier by the rules of
    /// [`prefer_cluster`](crate::balance::BalanceBuilder::prefer_cluster): all of them until more than
    /// 28 % of it are gone, then ever more to the next, without a push when they are merely
    /// unreachable. Clusters are preferred within each tier. [`discover`](Self::discover) gives the lowest
    /// tier that has anybody. Sources of one tier are one pool: take one tier while a service moves, since
    /// the first instance in a better tier would take all calls.
    ///
    /// # Sources that are away
    ///
    /// A source that is away, or closed, keeps its last set, which goes on serving; instances of it that
    /// are dead are found out by their connections. The merged set is [known](crate::directory::Snapshot::is_known), and
    /// [`ready`](Self::ready), once somebody may be called or every source has answered, so that one registry which
    /// never answers stops nobody. [`status`](Self::status) is the worst of the sources that are open, [`age`](Self::age) that
    /// of the one that was heard longest ago, [`counters`](Self::counters) are sums, and
    /// [`explain`](Self::explain) says what each source knows. It is closed when all of them are.
    ///
    /// The same subscription twice counts once, in its lower tier. None at all is an empty set that is
    /// closed. Of several keys [`key`](Self::key) is that of the first source of the lowest tier. A merged
    /// subscription can be a source; the tier that it is given counts.
    ///
    /// Views of one subscription are sources of their own: an instance that goes over from one to another
    /// leaves and comes.
    ///
    /// What several sources say of rules is taken from that first source:
    /// [`on_all_unhealthy`](Options::on_all_unhealthy).
    ///
    /// [`Instance::source`]: crate::model::Instance::source
    pub fn merge<S: Borrow<Self>>(sources: impl IntoIterator<Item = (S, u8)>) -> Self {
        let mut given: Vec<(Self, u8)> = Vec::new();
        for (source, tier) in sources {
            let source: &Self = source.borrow();
            let same =
                |(known, _): &&mut (Self, u8)| Arc::ptr_eq(&known.handle.view, &source.handle.view);
            match given.iter_mut().find(same) {
                Some((_, known)) => *known = tier.min(*known),
                None => given.push((source.clone(), tier)),
            }
        }
        given.sort_by_key(|(_, tier)| *tier); // stable: within a tier as they were given
        let key = given
            .first()
            .map_or_else(no_service, |(first, _)| first.key().clone());
        let upstreams = given.iter().map(|(source, tier)| Upstream {
            source: Arc::new(source.as_source(*tier)),
            shared: Arc::clone(&source.handle.shared),
            view: Arc::clone(&source.handle.view),
        });
        let shared = Shared::merged(key, rules(&given), upstreams.collect());
        let attach = |(place, (source, _)): (usize, &(Self, u8))| {
            source.attach(|snapshot, _| Part::new(place, snapshot, &shared))
        };
        let parts: Vec<Attached<Part>> = given.iter().enumerate().map(attach).collect();
        for part in &parts {
            part.wake();
        }
        shared.look();
        Self::new(shared).with_lease(Arc::new(parts))
    }

    /// As a source of a merged set.
    fn as_source(&self, tier: u8) -> Source {
        let owner = self.handle.shared.options.owner.as_ref();
        let client = owner.map(|owner| owner.name().into());
        let source = Source::new(client, self.key().clone(), tier);
        match self.named() {
            Some(_) => source,
            None => source.unknown(),
        }
    }

    /// The tiers of what was merged, in order; none where nothing was.
    pub(crate) fn tiers(&self) -> Vec<u8> {
        let upstreams = self.handle.shared.upstreams().iter();
        let mut tiers: Vec<u8> = upstreams.map(|u| u.source.tier()).collect();
        tiers.dedup(); // they are sorted
        tiers
    }
}

/// The rules that hold for all of them.
fn rules(given: &[(Subscription, u8)]) -> Options {
    let of = |(source, _): &(Subscription, u8)| source.handle.shared.options.clone();
    let mut rules = given.first().map(of).unwrap_or_default();
    let mut owners = given.iter().map(|given| of(given).owner);
    let one = owners.all(|other| match (&rules.owner, &other) {
        (Some(first), Some(other)) => Arc::ptr_eq(first, other),
        _ => false,
    });
    rules.owner = rules.owner.filter(|_| one);
    rules
}

/// The key of a set of no source.
fn no_service() -> ServiceKey {
    ServiceName::new(DEFAULT_GROUP, "merged")
        .and_then(|service| ServiceKey::new(PUBLIC_NAMESPACE, service))
        .expect("a name within the rules")
}
