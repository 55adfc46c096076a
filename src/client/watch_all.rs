//! Every service that a filter takes, and every change of its instances, as one stream.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    future::poll_fn,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use futures_core::Stream;
use futures_util::stream::{AbortHandle, Abortable, SelectAll};

use super::{client::Client, error::RequestError};
use crate::{
    directory::{Change, Changes, ServiceChange, ServiceChanges},
    model::{ServiceFilter, ServiceName},
};

/// How many services are subscribed to at once unless more are asked for.
const LIMIT: usize = 1_024;

/// What became of a service that is watched.
///
/// Example: [`watch_all`](crate::client::Client::watch_all)
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Watched {
    /// It is there. Its instances follow, each as added.
    Added,
    /// An instance of it came, left or changed.
    Instance(Change),
    /// It is there no longer, and none of its instances is; they are not told one by one.
    Removed,
    /// It is there, but as many services as may be are watched: nothing is told of its instances
    /// until another service goes. Then it is added.
    NotWatched {
        /// How many are watched at most.
        limit: usize,
    },
}

/// The services that a filter takes and the changes of their instances; see
/// [`Client::watch_all`].
///
/// Ends when the client is closed. Its drop ends the subscriptions that nobody else holds.
///
/// Example: [`watch_all`](crate::client::Client::watch_all)
pub struct WatchAll {
    client: Client,
    changes: ServiceChanges,
    watched: HashMap<ServiceName, Watching>,
    /// Those beyond the limit.
    waiting: BTreeSet<ServiceName>,
    instances: SelectAll<Abortable<Instances>>,
    limit: usize,
}

/// The changes of one service, or none once it went.
struct Instances {
    service: ServiceName,
    changes: Arc<Mutex<Option<Changes>>>,
}

/// Ends the changes of one service: its subscription at once, the rest when it is polled next.
struct Watching {
    changes: Arc<Mutex<Option<Changes>>>,
    poll: AbortHandle,
}

impl Client {
    /// Subscribes to every service that `filter` takes, now and later, and tells what becomes of
    /// each in one stream. Of 1,024 services at most; see [`watch_all_up_to`](Self::watch_all_up_to).
    ///
    /// ```no_run
    /// # async fn f(nacos: tower_nacos::Client) -> Result<(), tower_nacos::client::RequestError> {
    /// use tower_nacos::{client::Watched, model::ServiceFilter};
    ///
    /// let mut all = nacos.watch_all(ServiceFilter::group("shop")).await?;
    /// while let Some((service, change)) = all.next().await {
    ///     match change {
    ///         Watched::Instance(change) => println!("{service}: {change}"),
    ///         other => println!("{service}: {other:?}"),
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// It costs a subscription a service: a push for each change, kept as it is held by
    /// [`subscribe`](Self::subscribe), with which it is shared.
    ///
    /// # Errors
    ///
    /// As those of [`services`](Self::services), and
    /// [`TooManyServices`](RequestError::TooManyServices) when there are more than the limit at
    /// first; nothing is subscribed then.
    pub async fn watch_all(
        &self,
        filter: impl Into<ServiceFilter>,
    ) -> Result<WatchAll, RequestError> {
        self.watch_all_up_to(filter, LIMIT).await
    }

    /// The same, of `limit` services at most.
    ///
    /// # Errors
    ///
    /// As those of [`watch_all`](Self::watch_all).
    pub async fn watch_all_up_to(
        &self,
        filter: impl Into<ServiceFilter>,
        limit: usize,
    ) -> Result<WatchAll, RequestError> {
        let list = self.services(filter).await?;
        let services = list.snapshot().len();
        if services > limit {
            return Err(RequestError::TooManyServices {
                filter: list.filter().clone(),
                services,
                limit,
            });
        }
        Ok(WatchAll {
            client: self.clone(),
            changes: list.changes(),
            watched: HashMap::new(),
            waiting: BTreeSet::new(),
            instances: SelectAll::new(),
            limit,
        })
    }
}

impl WatchAll {
    /// The next change; `None` after the client was closed. Cancel safe.
    pub async fn next(&mut self) -> Option<(ServiceName, Watched)> {
        poll_fn(|cx| self.poll_change(cx)).await
    }

    fn poll_change(&mut self, cx: &mut Context<'_>) -> Poll<Option<(ServiceName, Watched)>> {
        if self.watched.len() < self.limit
            && let Some(service) = self.waiting.pop_first()
        {
            return Poll::Ready(self.watch(service));
        }
        match Pin::new(&mut self.changes).poll_next(cx) {
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Ready(Some(ServiceChange::Added(service))) => {
                return Poll::Ready(self.watch(service));
            }
            Poll::Ready(Some(ServiceChange::Removed(service))) => {
                match self.watched.remove(&service) {
                    Some(watching) => watching.end(),
                    None => drop(self.waiting.remove(&service)),
                }
                return Poll::Ready(Some((service, Watched::Removed)));
            }
            Poll::Pending => {}
        }
        match Pin::new(&mut self.instances).poll_next(cx) {
            Poll::Ready(Some((service, change))) => {
                Poll::Ready(Some((service, Watched::Instance(change))))
            }
            // None is watched: what wakes is the list.
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }

    fn watch(&mut self, service: ServiceName) -> Option<(ServiceName, Watched)> {
        if self.watched.len() >= self.limit {
            let limit = self.limit;
            self.waiting.insert(service.clone());
            return Some((service, Watched::NotWatched { limit }));
        }
        let key = self.client.key_of(service.clone());
        let subscription = self.client.subscribe_key(key).ok()?; // else the client is closed
        let changes = Arc::new(Mutex::new(Some(subscription.changes())));
        let instances = Instances {
            service: service.clone(),
            changes: Arc::clone(&changes),
        };
        let (poll, registration) = AbortHandle::new_pair();
        self.instances.push(Abortable::new(instances, registration));
        let watching = Watching { changes, poll };
        self.watched.insert(service.clone(), watching);
        Some((service, Watched::Added))
    }
}

impl Watching {
    fn end(self) {
        drop(lock(&self.changes).take());
        self.poll.abort();
    }
}

fn lock(changes: &Mutex<Option<Changes>>) -> MutexGuard<'_, Option<Changes>> {
    changes.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Stream for Instances {
    type Item = (ServiceName, Change);

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut changes = lock(&self.changes);
        let Some(changes) = &mut *changes else {
            return Poll::Ready(None);
        };
        let change = ready!(Pin::new(changes).poll_next(cx));
        Poll::Ready(change.map(|change| (self.service.clone(), change)))
    }
}

impl Stream for WatchAll {
    type Item = (ServiceName, Watched);

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_change(cx)
    }
}

impl fmt::Debug for WatchAll {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WatchAll")
            .field("changes", &self.changes)
            .field("watched", &self.watched.len())
            .field("waiting", &self.waiting.len())
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}
