use std::{fmt, sync::Arc};

use crate::{
    client,
    directory::Subscription,
    endpoint,
    http::{
        each::Each,
        error::Error,
        name::{BadAddress, Named},
        services::{Busy, Full, Limits, Services},
        sweeper::Sweeper,
    },
    model::{ServiceKey, ServiceName},
};

/// What a client holds of the services that it calls, subscribed to at their first call.
pub(super) struct Pool<T> {
    /// The first is that of addresses that name none.
    registries: Box<[Registry<T>]>,
    rule: Option<Box<Rule>>,
    limits: Limits,
    pub(super) each: Each,
    make: Box<dyn Fn(Subscription) -> T + Send + Sync>,
}

/// Where services are looked for. The first has no name.
pub(super) struct Registries {
    named: Vec<(Box<str>, client::Client)>,
    /// What is subscribed to for services of the first, if not its own.
    pub(super) rule: Option<Box<Rule>>,
}

type Rule = dyn Fn(&ServiceKey) -> Result<Subscription, client::RequestError> + Send + Sync;

/// What is held of one registry's services.
struct Registry<T> {
    name: Box<str>,
    nacos: client::Client,
    services: Arc<Services<T>>,
    sweeper: Sweeper,
}

/// Why a service could not be made.
enum Refused {
    Full,
    Registry(client::RequestError),
}

impl Registries {
    pub(super) fn new(first: client::Client) -> Self {
        Self {
            named: vec![("".into(), first)],
            rule: None,
        }
    }

    pub(super) fn add(&mut self, name: Box<str>, nacos: client::Client) {
        match self.named[1..].iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = nacos,
            None => self.named.push((name, nacos)),
        }
    }
}

impl<T: Busy + Send + Sync + 'static> Pool<T> {
    pub(super) fn new(
        registries: Registries,
        limits: Limits,
        each: Each,
        make: impl Fn(Subscription) -> T + Send + Sync + 'static,
    ) -> Arc<Self> {
        let held = registries.named.into_iter().map(|(name, nacos)| Registry {
            name,
            nacos,
            services: Arc::new(Services::new(limits, endpoint::now())),
            sweeper: Sweeper::default(),
        });
        Arc::new(Self {
            registries: held.collect(),
            rule: registries.rule,
            limits,
            each,
            make: Box::new(make),
        })
    }

    /// Uses what is held of the service, which is subscribed to if it is not held.
    pub(super) fn with<R>(
        &self,
        named: Named<'_>,
        used: impl FnOnce(&Arc<T>) -> R,
    ) -> Result<R, Error> {
        let registry = self.registry(named.registry, named.namespace)?;
        let group = named.group.unwrap_or_else(|| registry.nacos.group());
        let mut used = Some(used);
        let found = registry
            .services
            .with(group, named.name, endpoint::now(), |held| {
                used.take().map(|used| used(held))
            });
        if let Some(Some(result)) = found {
            return Ok(result);
        }
        let held = self.get(registry, &registry.key(group, named.name)?)?;
        match used {
            Some(used) => Ok(used(&held)),
            None => unreachable!("taken only to yield a result"),
        }
    }

    /// What is held of a service by its name, in the registry's default group unless it names another.
    pub(super) fn service(
        &self,
        registry: Option<&str>,
        name: ServiceName,
    ) -> Result<Arc<T>, Error> {
        let registry = self.registry(registry, None)?;
        self.get(registry, &registry.nacos.key_of(name))
    }

    /// The registry of that name, or the first; the first of that namespace, if one is asked for.
    fn registry(&self, name: Option<&str>, namespace: Option<&str>) -> Result<&Registry<T>, Error> {
        let first = &self.registries[0];
        let mut all = self.registries.iter();
        match (name, namespace) {
            (Some(name), _) => {
                let mut named = self.registries[1..].iter();
                named
                    .find(|registry| *registry.name == *name)
                    .ok_or_else(|| {
                        let known = self.registries[1..].iter().map(|r| r.name.clone());
                        Error::address(BadAddress::Registry {
                            name: name.into(),
                            known: known.collect(),
                        })
                    })
            }
            (None, Some(asked)) => all
                .find(|registry| registry.nacos.namespace() == asked)
                .ok_or_else(|| Error::namespace(asked, first.nacos.namespace())),
            (None, None) => Ok(first),
        }
    }

    fn get(&self, registry: &Registry<T>, key: &ServiceKey) -> Result<Arc<T>, Error> {
        let first = std::ptr::eq(registry, &self.registries[0]);
        let made = registry.services.get_or_make(key, endpoint::now(), || {
            let subscription = match &self.rule {
                Some(rule) if first => rule(key),
                _ => registry.nacos.subscribe_key(key.clone()),
            };
            subscription.map(&self.make).map_err(Refused::Registry)
        });
        let held = made.map_err(|refused| match refused {
            Refused::Full => Error::too_many_services(key, self.limits.most),
            Refused::Registry(error) => Error::registry(key, error),
        })?;
        registry.sweeper.sweep(&registry.services);
        Ok(held)
    }

    /// Shows what is held now, and is no use of it.
    #[cfg(feature = "status")]
    pub(super) fn each(&self, mut visit: impl FnMut(&Arc<T>)) {
        for registry in &self.registries {
            registry.services.each(&mut visit);
        }
    }

    /// The services that are held now.
    pub(super) fn keys(&self) -> Vec<ServiceKey> {
        let held = self.registries.iter().map(|r| r.services.keys());
        held.flatten().collect()
    }

    pub(super) fn nacos(&self) -> &client::Client {
        &self.registries[0].nacos
    }
}

impl<T> Registry<T> {
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
        let mut shown = f.debug_struct("Pool");
        for registry in &self.registries {
            let name = if registry.name.is_empty() {
                "nacos"
            } else {
                &*registry.name
            };
            shown.field(name, &registry.nacos);
        }
        let services = self.registries.iter().map(|r| &r.services);
        shown
            .field("services", &services.collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Registries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(self.named.iter().map(|(name, nacos)| (name, nacos)))
            .finish()
    }
}
