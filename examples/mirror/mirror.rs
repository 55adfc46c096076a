//! Keeps the services of one registry in another in step, one way.

use std::{
    collections::{BTreeSet, HashMap},
    future::{Future, pending, ready},
    pin::pin,
    time::Duration,
};

use futures_util::{
    FutureExt, StreamExt,
    future::BoxFuture,
    stream::{AbortHandle, Abortable, BoxStream, FuturesUnordered, SelectAll},
};
use tokio::time::{Instant, sleep_until};
use tower_nacos::{
    Client,
    client::{RequestError, Watched},
    directory::Change,
    model::{Address, Instance, ServiceFilter, ServiceName},
};
use tracing::{info, warn};

use crate::{retries::Retries, service::Service};

/// How many services are mirrored at most: each is a subscription in both registries.
const SERVICES: usize = 10_000;

/// How many services the target is told of at once.
const AT_ONCE: usize = 16;

/// A one-way mirror: whom callers of the source may call, callers of the target may, too.
pub(crate) struct Mirror {
    from: Client,
    to: Client,
    /// What the mark says.
    origin: String,
    services: HashMap<ServiceName, Service>,
    /// Of which the target may not know the newest.
    changed: BTreeSet<ServiceName>,
    targets: SelectAll<Abortable<BoxStream<'static, (ServiceName, Change)>>>,
    publishing: FuturesUnordered<BoxFuture<'static, Published>>,
    retry: Duration,
    retries: Retries,
}

/// What became of an attempt to tell the target.
struct Published {
    service: ServiceName,
    instances: Vec<Instance>,
    /// Whether more is wanted, which the target refused.
    retreats: bool,
    result: Result<(), RequestError>,
}

impl Mirror {
    /// Mirrors services of `from` in `to`. `origin` names the former: what is mirrored is marked by it.
    /// What the target refuses, or does not answer, is told again after `retry`.
    pub(crate) fn new(
        from: Client,
        to: Client,
        origin: impl Into<String>,
        retry: Duration,
    ) -> Self {
        Self {
            from,
            to,
            origin: origin.into(),
            services: HashMap::new(),
            changed: BTreeSet::new(),
            targets: SelectAll::new(),
            publishing: FuturesUnordered::new(),
            retry,
            retries: Retries::default(),
        }
    }

    /// Mirrors what the filters take until `stop`. What it registered stays until its client to the
    /// target is closed.
    ///
    /// # Errors
    ///
    /// When a filter cannot be watched, and when one of the clients is closed. Nothing else ends it:
    /// a registry that is away is waited for, and what the target refuses is tried again.
    pub(crate) async fn run(
        mut self,
        filters: &[ServiceFilter],
        stop: impl Future<Output = ()>,
    ) -> Result<(), RequestError> {
        let mut sources = SelectAll::new();
        for filter in filters {
            sources.push(self.from.watch_all_up_to(filter.clone(), SERVICES).await?);
        }
        let mut stop = pin!(stop);
        loop {
            let retry = self.retries.due();
            let retry = async {
                match retry {
                    Some(at) => sleep_until(at).await,
                    None => pending().await,
                }
            };
            let may_publish = !self.changed.is_empty() && self.publishing.len() < AT_ONCE;
            tokio::select! {
                biased;
                () = &mut stop => return Ok(()),
                news = sources.next() => match news {
                    Some((service, news)) => self.heard_here(service, news)?,
                    None => return Err(RequestError::Closed),
                },
                Some((service, change)) = self.targets.next() => {
                    self.heard_there(service, &change);
                }
                Some(published) = self.publishing.next() => self.published(published)?,
                // After all that is there to be heard: a list is many changes, and one batch.
                () = ready(()), if may_publish => self.publish(),
                () = retry => self.changed.extend(self.retries.pop()),
            }
        }
    }

    fn heard_here(&mut self, name: ServiceName, news: Watched) -> Result<(), RequestError> {
        match news {
            Watched::Added => self.watch_there(name)?,
            Watched::Instance(change) => {
                if let Some(service) = self.services.get_mut(&name)
                    && service.changed_here(&change)
                {
                    self.changed.insert(name);
                }
            }
            Watched::Removed => {
                if let Some(service) = self.services.get_mut(&name) {
                    service.removed_here();
                    self.changed.insert(name);
                }
            }
            other => warn!(service = %name, "it is not mirrored: {other:?}"),
        }
        Ok(())
    }

    /// Watches the service in the target as well, for who registers there by itself.
    fn watch_there(&mut self, name: ServiceName) -> Result<(), RequestError> {
        let service = self.services.entry(name.clone()).or_default();
        if service.watch.is_some() {
            return Ok(()); // two filters take it
        }
        let changes = self.to.subscribe_lazy(name.clone())?.changes();
        let changes = changes.map(move |change| (name.clone(), change)).boxed();
        let (handle, registration) = AbortHandle::new_pair();
        self.targets.push(Abortable::new(changes, registration));
        service.watch = Some(handle);
        Ok(())
    }

    fn heard_there(&mut self, name: ServiceName, change: &Change) {
        if let Some(service) = self.services.get_mut(&name)
            && service.changed_there(change)
        {
            self.changed.insert(name);
        }
    }

    /// Tells the target of one service that changed.
    fn publish(&mut self) {
        let Some(name) = self.changed.pop_first() else {
            return;
        };
        let Some(service) = self.services.get_mut(&name) else {
            return;
        };
        if service.busy {
            service.missed = true; // it is looked at again once that is done
            return;
        }
        let retreats = std::mem::take(&mut service.retreats);
        let instances = if retreats {
            match service.left() {
                Some(left) => left,
                None => return self.retry(name),
            }
        } else {
            service.wanted(&self.origin)
        };
        if service.published.as_ref() == Some(&instances) {
            if service.is_over() {
                self.services.remove(&name);
            }
            return;
        }
        service.busy = true;
        let to = self.to.clone();
        let publishing = async move {
            let result = if instances.is_empty() {
                to.deregister(name.clone()).await
            } else {
                let batch = instances.iter().cloned();
                to.register_batch(name.clone(), batch).await
            };
            Published {
                service: name,
                instances,
                retreats,
                result,
            }
        };
        self.publishing.push(publishing.boxed());
    }

    fn published(&mut self, published: Published) -> Result<(), RequestError> {
        let Published {
            service: name,
            instances,
            retreats,
            result,
        } = published;
        let Some(service) = self.services.get_mut(&name) else {
            return Ok(());
        };
        service.busy = false;
        let missed = std::mem::take(&mut service.missed);
        match result {
            // It lists none of ours, or will not for long.
            Ok(()) | Err(RequestError::NotRegistered | RequestError::Unconfirmed { .. }) => {
                let count = instances.len();
                info!(service = %name, instances = count, "mirrored");
                service.confirmed(instances);
                if missed || !retreats {
                    self.changed.insert(name.clone()); // for what came meanwhile
                }
                if retreats {
                    self.retry(name); // the rest
                }
            }
            Err(error) if error.is_closed() => return Err(error),
            Err(error) => {
                if let Some(address) = unfit(&error)
                    && service.is_unfit(address.clone())
                {
                    warn!(service = %name, "one is left out: {error}");
                    self.changed.insert(name); // without it
                    return Ok(());
                }
                service.failed();
                if !retreats && !error.is_timeout() {
                    service.retreats = true;
                    self.changed.insert(name.clone());
                }
                let after = self.retry;
                warn!(service = %name, ?after, "the target does not take it, and is told again: {error}");
                self.retry(name);
            }
        }
        Ok(())
    }

    fn retry(&mut self, name: ServiceName) {
        self.retries.push(Instant::now() + self.retry, name);
    }
}

/// Whom it is about, if nothing was sent because nobody could call it.
fn unfit(error: &RequestError) -> Option<&Address> {
    match error {
        RequestError::Uncallable { address, .. }
        | RequestError::NoPort(address)
        | RequestError::NoOwnAddress {
            instance: address, ..
        } => Some(address),
        _ => None,
    }
}
