use std::sync::Arc;

use crate::{
    model::{Address, Callee, ServiceKey},
    transport::{
        connections::Connections,
        dial::{dialler::Dialler, options::DialOptions, own::Bound, target::Target},
        form::{Named, TryLimit},
        http1::{options::Http1Options, pool::Http1Pool},
        http2::{options::Http2Options, pool::Http2Pool},
        peer::Peer,
    },
};

/// What is to be called, and how.
pub(super) struct Plan {
    pub(super) instance: Address,
    pub(super) target: Result<Target, String>,
    /// The service that each request says it means.
    pub(super) service: Option<ServiceKey>,
    pub(super) settings: Arc<Settings>,
    /// Who connects, if it is not us.
    pub(super) own: Option<Bound>,
}

/// How instances are called: shared by all transports of a balancer.
#[derive(Clone, Default)]
pub(super) struct Settings {
    pub(super) dial: DialOptions,
    pub(super) http1: Http1Options,
    pub(super) http2: Http2Options,
    pub(super) max_calls: Option<usize>,
    /// Whether a balancer takes back what finds an instance full.
    pub(super) balanced: bool,
    /// The service that each request says it means, whatever an instance's source says.
    pub(super) service: Option<ServiceKey>,
    pub(super) hides_service: bool,
    pub(super) try_limit: Option<TryLimit>,
    /// Whether requests note where they go.
    pub(super) notes_routes: bool,
}

impl Plan {
    /// No connection is made yet.
    pub(super) fn connections(self) -> Connections {
        let settings = &*self.settings;
        let named = Named::new(match &self.target {
            Ok(target) => &target.address,
            Err(_) => &self.instance,
        });
        // As it is listed, whatever port is dialled: that is what a provider registers.
        let callee = self
            .service
            .map(|service| Callee::new(service, self.instance.clone()));
        let peer = Peer {
            named: named.telling(callee.as_ref()).limited(settings.try_limit),
            secure: self.target.as_ref().is_ok_and(|target| target.tls),
            instance: self.instance,
        };
        let dialler = Dialler {
            target: self.target,
            options: settings.dial.clone(),
            own: self.own,
        };
        let mut connections = Connections::new(
            peer,
            dialler,
            settings.balanced,
            |peer| Http1Pool::new(peer, settings.http1.clone()),
            |peer| Http2Pool::new(peer, settings.http2.clone()),
        );
        connections.notes_routes = settings.notes_routes;
        connections
    }
}
