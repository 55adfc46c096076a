use std::sync::Arc;

use tokio::sync::watch;

use super::{
    client::Client, counters::Tally, lease::Subscriptions, pace::Paced,
    server_address::ServerAddress, state::ConnectionState,
};
use crate::directory::{Owner, Subscription};

/// What the status page sees of a client. Keeps neither the client nor a subscription alive.
#[derive(Clone, Debug)]
pub(crate) struct Overview {
    subscriptions: Arc<Subscriptions>,
    state: watch::Receiver<ConnectionState>,
    servers: watch::Receiver<Vec<ServerAddress>>,
    namespace: Arc<str>,
    owner: Arc<Owner>,
    tally: Arc<Tally>,
}

impl Client {
    /// What there is to be seen of it.
    pub(crate) fn overview(&self) -> Overview {
        Overview {
            subscriptions: Arc::clone(&self.handle.subscriptions),
            state: self.handle.state.clone(),
            servers: self.handle.servers.clone(),
            namespace: Arc::clone(&self.handle.namespace),
            owner: Arc::clone(&self.handle.owner),
            tally: Arc::clone(&self.handle.tally),
        }
    }
}

impl Overview {
    /// What tells clients of one process apart.
    pub(crate) fn name(&self) -> &str {
        self.owner.name()
    }

    /// Where its services lie.
    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The servers that are known now.
    pub(crate) fn servers(&self) -> Vec<ServerAddress> {
        self.servers.borrow().clone()
    }

    /// How the connection is; `None` if the runtime that the client lived on is gone.
    pub(crate) fn state(&self) -> Option<ConnectionState> {
        let state = self.state.borrow().clone();
        let told = matches!(state, ConnectionState::Closed) || self.state.has_changed().is_ok();
        told.then_some(state)
    }

    /// How quickly the registry answers and tells.
    pub(crate) fn pace(&self) -> Paced {
        self.tally.pace.read()
    }

    /// All that it is subscribed to now.
    pub(crate) fn subscriptions(&self) -> Vec<Subscription> {
        self.subscriptions.all()
    }

    /// Whether both are of one client.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.subscriptions, &other.subscriptions)
    }
}
