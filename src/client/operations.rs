//! What handles ask of the driver.

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use tokio::sync::oneshot;

use super::error::{CloseError, RequestError};
use crate::{
    directory::{ListWriter, Writer},
    model::{Address, Instance, ServiceDetails, ServiceFilter, ServiceKey},
    session::{Outcome, Ticket},
};

/// Where the outcome of a request goes.
pub(super) type Reply = oneshot::Sender<Result<Outcome, RequestError>>;

/// Where an address goes that was to be found.
pub(super) type Placing = oneshot::Sender<Result<Address, RequestError>>;

/// Which subscription of a service a lease belongs to. Never used twice: a release that was
/// overtaken by the next subscription must not end that one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SlotId(pub(super) u64);

/// Why there is no connection.
pub(super) struct Unconnected {
    /// What each server says, if one of them refused the login; else how far the attempts came.
    pub(super) text: String,
    pub(super) login_refused: bool,
}

/// Who wants to know what an operator set of a service.
pub(super) enum Asker {
    Caller(oneshot::Sender<Result<ServiceDetails, RequestError>>),
    /// An explanation, which shows what is known by then. Cleared when the driver has heard of it.
    Explanation(Arc<AtomicBool>),
}

pub(super) enum Operation {
    /// A service that nobody had subscribed to; the driver becomes its writer.
    Subscribe { key: ServiceKey, writer: Writer },
    /// The last handle on a service was dropped; another may have been taken since.
    Release(ServiceKey, SlotId),
    /// What callers reported may have changed when the service's copy wants to be woken.
    Reported(ServiceKey),
    /// Say so if the server refuses the subscription for good.
    Await {
        key: ServiceKey,
        reply: oneshot::Sender<RequestError>,
    },
    Register {
        ticket: Ticket,
        key: ServiceKey,
        instance: Box<Instance>,
        reply: Reply,
    },
    RegisterBatch {
        ticket: Ticket,
        key: ServiceKey,
        instances: Vec<Instance>,
        reply: Reply,
    },
    /// A persistent instance comes or goes.
    Persist {
        ticket: Ticket,
        key: ServiceKey,
        instance: Box<Instance>,
        on: bool,
        reply: Reply,
    },
    Deregister {
        ticket: Ticket,
        key: ServiceKey,
        reply: Reply,
    },
    Query {
        ticket: Ticket,
        key: ServiceKey,
        reply: Reply,
    },
    List {
        ticket: Ticket,
        group: Arc<str>,
        page: u32,
        page_size: u32,
        reply: Reply,
    },
    /// Ask what an operator set of a service.
    Details { key: ServiceKey, asker: Asker },
    /// A list of services that nobody had; the driver becomes its writer.
    Watch {
        filter: ServiceFilter,
        writer: Box<ListWriter>,
    },
    /// The last handle on a list was dropped; another may have been taken since.
    Unwatch(ServiceFilter, SlotId),
    /// Say so if the server refuses the list for good.
    AwaitServices {
        filter: ServiceFilter,
        reply: oneshot::Sender<RequestError>,
    },
    /// Say why there is no list of services.
    DiagnoseServices {
        filter: ServiceFilter,
        reply: oneshot::Sender<Option<Arc<str>>>,
    },
    /// Say where an instance is registered that leaves its address to be found, once there is a
    /// connection.
    Place(Address, Placing),
    /// Say so if the login is refused and no server is left to be tried.
    AwaitLogin(oneshot::Sender<Arc<str>>),
    /// Say why there is no list of a service.
    Diagnose {
        key: ServiceKey,
        reply: oneshot::Sender<Option<String>>,
    },
    /// Say why there is no connection.
    WhyUnconnected(oneshot::Sender<Unconnected>),
    /// The caller waits no longer.
    Cancel(Ticket),
    /// The last clone of the client is gone: deregister everything.
    Withdraw,
    Close {
        deadline: Duration,
        reply: oneshot::Sender<Result<(), CloseError>>,
    },
}
