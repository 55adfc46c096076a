use std::{fmt, sync::Arc};

use crate::model::ServiceKey;

/// Where an instance of a merged subscription is listed; see
/// [`Subscription::merge`](crate::Subscription::merge).
///
/// Displays as `eu: G@@orders in namespace dev (tier 0)`, where `eu` is the name of the source's client
/// ([`Builder::client_name`](crate::client::ClientBuilder::client_name)).
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Source {
    client: Option<Arc<str>>,
    service: ServiceKey,
    tier: u8,
    /// Whether its providers know the service by that name.
    known: bool,
}

impl Source {
    pub(crate) const fn new(client: Option<Arc<str>>, service: ServiceKey, tier: u8) -> Self {
        Self {
            client,
            service,
            tier,
            known: true,
        }
    }

    /// One that no registry knows: nobody is told its name.
    pub(crate) const fn unknown(mut self) -> Self {
        self.known = false;
        self
    }

    /// The name of the client that it is a subscription of, if it is a client's.
    pub fn client(&self) -> Option<&str> {
        self.client.as_deref()
    }

    /// What the service is called there.
    pub const fn service(&self) -> &ServiceKey {
        &self.service
    }

    /// The service as its providers may know it.
    pub(crate) fn named(&self) -> Option<&ServiceKey> {
        self.known.then_some(&self.service)
    }

    /// In as few words as tell it apart where the service is known to be this one, as far as it goes.
    pub(crate) fn beside(&self, service: &ServiceKey) -> String {
        match &self.client {
            Some(client) if self.service == *service => format!("{client} (tier {})", self.tier),
            _ => self.to_string(),
        }
    }

    /// Its tier in the merged set: the lower comes first.
    pub const fn tier(&self) -> u8 {
        self.tier
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(client) = &self.client {
            write!(f, "{client}: ")?;
        }
        write!(f, "{} (tier {})", self.service, self.tier)
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Source({self})")
    }
}
