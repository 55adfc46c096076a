use super::{Client, RequestError};
use crate::{
    directory::Subscription,
    model::{Address, ServiceKey},
};

/// A provider's look at its own service, with the eyes of a caller.
#[derive(Debug)]
pub(crate) struct Witness(Subscription);

impl Client {
    /// Subscribes to a service for what it lists; shares the subscription that callers have.
    pub(crate) fn witness(&self, key: &ServiceKey) -> Result<Witness, RequestError> {
        self.subscribe_key(key.clone()).map(Witness)
    }
}

impl Witness {
    /// Whether the registry lists any of these, as far as callers have heard.
    pub(crate) fn lists_any(&self, addresses: &[Address]) -> bool {
        let snapshot = self.0.snapshot();
        addresses
            .iter()
            .any(|address| snapshot.find(address).is_some())
    }
}
