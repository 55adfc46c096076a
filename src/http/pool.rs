use std::{fmt, sync::Arc};

use crate::{
    client,
    directory::Subscription,
    endpoint,
    http::{
        error::Error,
        name::{BadAddress, Named},
        services::{Busy, Full, Limits, Services},
        sweeper::Sweeper,
    },
    model::{ServiceKey, ServiceName},
};

/// What a client holds of the services that it calls, subscribed to at their first call.
pub(super) struct Pool<T> {
    nacos: client::Client,
    services: Arc<Services<T>>,
    sweeper: Sweeper,
    limits: Limits,
    make: Box<dyn Fn(Subscription) -> T + Send + Sync>,
}

/// Why a service could not be made.
enum Refused {
    Full,
    Registry(client::RequestError),
}

impl<T: Busy + Send + Sync + 'static> Pool<T> {
    pub(super) fn new(
        nacos: &client::Client,
        limits: Limits,
        make: impl Fn(Subscription) -> T + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            nacos: nacos.clone(),
            services: Arc::new(Services::new(limits, endpoint::now())),
            sweeper: Sweeper::default(),
            limits,
            make: Box::new(make),
        })
    }

    /// Uses what is held of the service, which is subscribed to if it is not held.
    pub(super) fn with<R>(
        &self,
        named: Named<'_>,
        used: impl FnOnce(&Arc<T>) -> R,
    ) -> Result<R, Error> {
        if let Some(asked) = named.namespace
            && asked != self.nacos.namespace()
        {
            return Err(Error::namespace(asked, self.nacos.namespace()));
        }
        let group = named.group.unwrap_or_else(|| self.nacos.group());
        let mut used = Some(used);
        let found = self
            .services
            .with(group, named.name, endpoint::now(), |held| {
                used.take().map(|used| used(held))
            });
        if let Some(Some(result)) = found {
            return Ok(result);
        }
        let key = self.key(group, named.name)?;
        let held = self.get(&key)?;
        match used {
            Some(used) => Ok(used(&held)),
            None => unreachable!("taken only to yield a result"),
        }
    }

    /// What is held of the service, which is subscribed to if it is not held.
    pub(super) fn get(&self, key: &ServiceKey) -> Result<Arc<T>, Error> {
        let made = self.services.get_or_make(key, endpoint::now(), || {
            let subscription = self.nacos.subscribe_key(key.clone());
            subscription.map(&self.make).map_err(Refused::Registry)
        });
        let held = made.map_err(|refused| match refused {
            Refused::Full => Error::too_many_services(key, self.limits.most),
            Refused::Registry(error) => Error::registry(key, error),
        })?;
        self.sweeper.sweep(&self.services);
        Ok(held)
    }

    /// The key of a service by its name, in the client's group unless it names another.
    pub(super) fn key_of(&self, name: ServiceName) -> ServiceKey {
        self.nacos.key_of(name)
    }

    /// The services that are held now.
    pub(super) fn keys(&self) -> Vec<ServiceKey> {
        self.services.keys()
    }

    pub(super) const fn nacos(&self) -> &client::Client {
        &self.nacos
    }

    fn key(&self, group: &str, name: &str) -> Result<ServiceKey, Error> {
        let name = ServiceName::new(group, name).map_err(|invalid| {
            Error::address(if invalid.is_group() {
                BadAddress::Group
            } else {
                BadAddress::Name(invalid.to_string())
            })
        })?;
        Ok(self.nacos.key_of(name))
    }
}

impl From<Full> for Refused {
    fn from(_: Full) -> Self {
        Self::Full
    }
}

impl<T> fmt::Debug for Pool<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("nacos", &self.nacos)
            .field("services", &self.services)
            .finish_non_exhaustive()
    }
}
