use std::{
    fmt,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{
    sync::{oneshot, watch},
    task::coop::consume_budget,
    time::timeout,
};

use super::{
    counters::ClientCounters,
    error::{CloseError, RequestError},
    handle::Handle,
    operations::Operation,
    registered,
    server_address::ServerAddress,
    state::ConnectionState,
};
use crate::{
    directory::Subscription,
    model::{Address, DEFAULT_GROUP, Instance, InvalidName, Listing, ServiceKey, ServiceName},
    session::{Outcome, Ticket},
};

/// A connection to a Nacos registry, in one namespace.
///
/// Clones share one connection and one background task, which lives on the runtime that was
/// current when the client was built, or on a [thread of its own](crate::client::ClientBuilder::own_thread). It ends when the last clone of the client *and* the last
/// [`Subscription`] taken from it are gone, or at [`close`](Self::close). When the last clone of
/// the client alone is dropped, what it registered is deregistered in the background, and its
/// subscriptions go on.
///
/// While the registry cannot be reached the client reconnects without limit, and every
/// subscription keeps serving the instances it knew last.
///
/// When the runtime is gone, operations return [`RequestError::RuntimeGone`] and never hang. They may
/// be awaited on any tokio runtime that has time enabled. One that is dropped half-way may have been
/// carried out: what was registered stays until [`deregister`](Self::deregister).
#[derive(Clone)]
pub struct Client {
    pub(super) handle: Arc<Handle>,
}

impl Client {
    /// Subscribes to a service (`"orders"` or `"billing@orders"`) and waits for the registry's first
    /// answer.
    ///
    /// An answer without instances is an answer: the subscription is then known to be empty, and
    /// fills when the first one registers. All handles on one service share one subscription.
    ///
    /// # Errors
    ///
    /// When the name breaks Nacos's rules, the server refuses, or no answer comes within the
    /// client's patience (10 s unless set); nothing is subscribed then.
    pub async fn subscribe<N>(&self, service: N) -> Result<Subscription, RequestError>
    where
        N: TryInto<ServiceName, Error: Into<InvalidName>>,
    {
        consume_budget().await;
        let key = self.key(service)?;
        let subscription = self.handle.subscribe(key.clone())?;
        // What could not be read before this call is asked for anew.
        let unreadable = subscription.counters().undecodable;
        let ready = || subscription.ready_since(unreadable);
        let (reply, refused) = oneshot::channel();
        self.handle.send(Operation::Await {
            key: key.clone(),
            reply,
        })?;
        let answered = async {
            tokio::select! {
                biased;
                ready = ready() => ready.map_err(|e| self.handle.unready(&e)),
                refused = refused => match refused {
                    Ok(refused) => Err(refused),
                    // The driver let go of us because the answer came, or because it ended.
                    Err(_) => ready().await.map_err(|e| self.handle.unready(&e)),
                },
            }
        };
        match timeout(self.handle.patience, answered).await {
            Ok(Ok(())) => Ok(subscription),
            Ok(Err(error)) => Err(error),
            Err(_) => {
                let trouble = self.handle.diagnose(key).await;
                Err(self.handle.timed_out_on(subscription.hint().or(trouble)))
            }
        }
    }

    /// Subscribes and returns at once; the subscription is unknown until the registry answers.
    ///
    /// # Errors
    ///
    /// When the name breaks Nacos's rules, or the client is closed.
    pub fn subscribe_lazy<N>(&self, service: N) -> Result<Subscription, RequestError>
    where
        N: TryInto<ServiceName, Error: Into<InvalidName>>,
    {
        self.handle.subscribe(self.key(service)?)
    }

    /// Registers `instance` as an ephemeral instance of `service`, for as long as this client
    /// lives; registered anew after each reconnect.
    ///
    /// A Nacos server keeps one instance per connection and service, so a client registers one
    /// instance of a service. Another weight, cluster, metadata or `enabled` of the same address
    /// take the place of what is registered, and consumers see them change in place; the same again
    /// is the same call. This returns when the server acknowledged it; consumers hear of it about
    /// 0.5 s later.
    ///
    /// # Errors
    ///
    /// Nothing changed, and what the server had confirmed before stays registered, when
    ///
    /// * this client registers another address in this service,
    /// * the instance has port 0, an address that nobody can call (`0.0.0.0`, say), or none that can be found,
    /// * the instance is marked as persistent ([`register_persistent`](Self::register_persistent) is for those),
    /// * or the server refuses.
    ///
    /// When no answer came in time ([`request_timeout`](crate::client::ClientBuilder::request_timeout)), the registration
    /// stays wanted and is carried out when the registry is back; [`deregister`](Self::deregister) withdraws it.
    pub async fn register<N>(&self, service: N, instance: Instance) -> Result<(), RequestError>
    where
        N: TryInto<ServiceName, Error: Into<InvalidName>>,
    {
        consume_budget().await;
        let key = self.key(service)?;
        self.handle.check(&key, &instance, true)?;
        registered::note(&key);
        let instance = Box::new(instance);
        let done = |ticket, reply| Operation::Register {
            ticket,
            key,
            instance,
            reply,
        };
        self.handle.request(done).await.map(|_| ())
    }

    /// Registers several addresses of `service`, as ephemeral instances, in place of whatever this
    /// client registers there; for as long as this client lives. Servers from 2.1.1 on.
    ///
    /// It is one registration: another batch takes its place as a whole, the same again is the same
    /// call, and [`deregister`](Self::deregister) withdraws all of it. rnacos adds a batch to the one
    /// before by itself, so what that had beside this one is taken back by a request more, a round
    /// trip after this returned.
    ///
    /// # Errors
    ///
    /// As those of [`register`](Self::register), and when there is no instance at all.
    pub async fn register_batch<N>(
        &self,
        service: N,
        instances: impl IntoIterator<Item = Instance>,
    ) -> Result<(), RequestError>
    where
        N: TryInto<ServiceName, Error: Into<InvalidName>>,
    {
        let key = self.key(service)?;
        let instances: Vec<Instance> = instances.into_iter().collect();
        if instances.is_empty() {
            return Err(RequestError::EmptyBatch);
        }
        for instance in &instances {
            self.handle.check(&key, instance, true)?;
        }
        registered::note(&key);
        let done = |ticket, reply| Operation::RegisterBatch {
            ticket,
            key,
            instances,
            reply,
        };
        self.handle.request(done).await.map(|_| ())
    }

    /// Registers `instance` as a persistent instance of `service`: the registry keeps it when this
    /// client is gone, and says by its own checks whether it is healthy. It lasts until
    /// [`deregister_persistent`](Self::deregister_persistent), from whichever client. Servers from
    /// 2.3 on.
    ///
    /// # Errors
    ///
    /// When the instance has port 0, or the server refuses: a service is ephemeral or persistent as
    /// a whole (400 for the other kind). When no answer came in time, it may be registered.
    pub async fn register_persistent<N>(
        &self,
        service: N,
        instance: Instance,
    ) -> Result<(), RequestError>
    where
        N: TryInto<ServiceName, Error: Into<InvalidName>>,
    {
        self.persist(self.key(service)?, instance, true).await
    }

    /// Takes a persistent instance back, whoever registered it.
    ///
    /// # Errors
    ///
    /// When the server refuses. When no answer came in time, it may be gone or not: ask again.
    pub async fn deregister_persistent<N>(
        &self,
        service: N,
        instance: Instance,
    ) -> Result<(), RequestError>
    where
        N: TryInto<ServiceName, Error: Into<InvalidName>>,
    {
        self.persist(self.key(service)?, instance, false).await
    }

    async fn persist(
        &self,
        key: ServiceKey,
        instance: Instance,
        on: bool,
    ) -> Result<(), RequestError> {
        self.handle.check(&key, &instance, false)?;
        registered::note(&key);
        let instance = Box::new(instance.with_ephemeral(false));
        let done = |ticket, reply| Operation::Persist {
            ticket,
            key,
            instance,
            on,
            reply,
        };
        self.handle.request(done).await.map(|_| ())
    }

    /// Withdraws what this client registered in `service`.
    ///
    /// Consumers hear of it about 0.5 s after this returns (1.6 s on other nodes of a cluster) and
    /// call until then: go on serving for twice that.
    ///
    /// # Errors
    ///
    /// When nothing is registered. [`Unconfirmed`](RequestError::Unconfirmed) when the connection
    /// that carried it was lost before the server said that it is gone: only the server can end it
    /// then, so go on serving until it has. When no answer came in time, it stays withdrawn, the
    /// server is asked again, and lists it until then.
    pub async fn deregister<N>(&self, service: N) -> Result<(), RequestError>
    where
        N: TryInto<ServiceName, Error: Into<InvalidName>>,
    {
        consume_budget().await;
        let key = self.key(service)?;
        let done = |ticket, reply| Operation::Deregister { ticket, key, reply };
        self.handle.request(done).await.map(|_| ())
    }

    /// Reads the list of a service once, without subscribing.
    ///
    /// As the server lists it: disabled ones are absent, unhealthy ones and those of weight 0 are
    /// there. Up to 0.6 s old, as Nacos serves reads from the state of its last push.
    ///
    /// # Errors
    ///
    /// When the name breaks Nacos's rules, the server refuses, or no answer comes in time.
    pub async fn instances<N>(&self, service: N) -> Result<Listing, RequestError>
    where
        N: TryInto<ServiceName, Error: Into<InvalidName>>,
    {
        consume_budget().await;
        let key = self.key(service)?;
        match self
            .handle
            .request(|ticket, reply| Operation::Query { ticket, key, reply })
            .await?
        {
            Outcome::Listing(listing) => Ok(listing.unwrap_or_default()),
            _ => Ok(Listing::default()),
        }
    }

    /// How the connection is now.
    pub fn state(&self) -> ConnectionState {
        self.handle.state.borrow().clone()
    }

    /// A watch of [`state`](Self::state).
    pub fn watch_state(&self) -> watch::Receiver<ConnectionState> {
        self.handle.state.clone()
    }

    /// What happened so far, summed up over all subscriptions. Takes each one's lock for a moment;
    /// no call waits for those.
    pub fn counters(&self) -> ClientCounters {
        self.handle
            .tally
            .read(&self.handle.subscriptions.counters())
    }

    /// The registry's servers as they are known now: those that were given, or what the
    /// [address server](crate::client::ClientBuilder::address_server) listed last.
    pub fn servers(&self) -> Vec<ServerAddress> {
        self.handle.servers.borrow().clone()
    }

    /// The namespace that this client's services lie in.
    pub fn namespace(&self) -> &str {
        &self.handle.namespace
    }

    /// The group of services that are named without one: `DEFAULT_GROUP` unless set.
    pub fn group(&self) -> &str {
        self.handle.group.as_deref().unwrap_or(DEFAULT_GROUP)
    }

    /// Deregisters, unsubscribes and hangs up, all within `deadline`.
    ///
    /// Change streams end; balancers keep the instances they knew last, which are on disk then where
    /// there is a [`cache_dir`](crate::client::ClientBuilder::cache_dir). Other clones of this
    /// client are closed with it.
    ///
    /// # Errors
    ///
    /// Names the services whose deregistration the server did not confirm, in time and on a
    /// connection that stands; the connection is closed all the same, and the server drops what was
    /// left when it notices, within 30 s as a rule, and 180 s if its node was lost, too. A second call while one is under way waits for
    /// that one, whatever its own deadline, and returns the same; later ones have nothing to do.
    pub async fn close(&self, deadline: Duration) -> Result<(), CloseError> {
        consume_budget().await;
        let (reply, done) = oneshot::channel();
        let sent = self.handle.send(Operation::Close { deadline, reply });
        match (sent, done.await) {
            (Ok(()), Ok(result)) => result,
            _ if matches!(self.state(), ConnectionState::Closed) => Ok(()), // it was before
            _ => Err(CloseError::runtime_gone()),
        }
    }

    pub(super) fn key<N>(&self, service: N) -> Result<ServiceKey, RequestError>
    where
        N: TryInto<ServiceName, Error: Into<InvalidName>>,
    {
        let service = service
            .try_into()
            .map_err(|e| RequestError::InvalidName(e.into()))?;
        Ok(self.key_of(service))
    }

    /// The key of a service of this client, in its default group if the name was given without.
    pub(crate) fn key_of(&self, service: ServiceName) -> ServiceKey {
        let service = match &self.handle.group {
            Some(group) => service.or_in(group),
            None => service,
        };
        ServiceKey::in_checked(self.handle.namespace.clone(), service)
    }

    /// Tells clients apart, for as long as one of them lives; clones are the same.
    pub(crate) fn id(&self) -> usize {
        Arc::as_ptr(&self.handle).addr()
    }

    /// Withdraws what this client registered in a service, and waits for nothing.
    pub(crate) fn withdraw(&self, key: ServiceKey) {
        let ticket = Ticket(self.handle.tickets.fetch_add(1, Ordering::Relaxed));
        let reply = oneshot::channel().0;
        let _ = self
            .handle
            .send(Operation::Deregister { ticket, key, reply });
    }

    /// Where an instance would be registered that leaves its address to be found; waits for a
    /// connection. Any other address is itself.
    pub(crate) async fn place(&self, address: &Address) -> Result<Address, RequestError> {
        if address.host().own().is_none() {
            return Ok(address.clone());
        }
        self.handle.asks()?;
        let (reply, placed) = oneshot::channel();
        self.handle.send(Operation::Place(address.clone(), reply))?;
        self.handle.reply(placed).await
    }

    /// Subscribes to exactly this service, of this client's namespace.
    pub(crate) fn subscribe_key(&self, key: ServiceKey) -> Result<Subscription, RequestError> {
        self.handle.subscribe(key)
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("namespace", &self.handle.namespace)
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

/// What every handle of this crate promises, held by the compiler.
const _: () = {
    const fn handle<T: Clone + Send + Sync + 'static>() {}
    handle::<Client>();
    handle::<Subscription>();

    const fn future<T: Send>(_: &T) {}
    #[expect(dead_code, reason = "compiled, never called")]
    fn futures(client: &Client, subscription: &Subscription, instance: Instance) {
        future(&Client::connect(""));
        future(&client.subscribe(""));
        future(&client.register_batch("", [instance.clone()]));
        future(&client.register_persistent("", instance.clone()));
        future(&client.deregister_persistent("", instance.clone()));
        future(&client.register("", instance));
        future(&client.deregister(""));
        future(&client.instances(""));
        future(&client.services(""));
        future(&client.service_names(""));
        future(&client.watch_all(""));
        future(&client.close(Duration::ZERO));
        future(&subscription.ready());
        future(&subscription.wait_for(1, Duration::ZERO));
        future(&subscription.applied(subscription.revision()));
    }
};
