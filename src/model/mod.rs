//! Plain values that every other room shares: services, instances, addresses, weights, lists.
//!
//! No tokio, no clock, no I/O. Nacos's words are used for Nacos's things: an instance is never
//! called a host, a node or a backend.

mod address;
mod callee;
mod incarnation;
mod instance;
mod listing;
mod metadata;
mod origin;
mod service;
mod weight;

pub(crate) use self::service::{group, namespace};
pub use self::{
    address::{Address, Host, InvalidAddress},
    callee::{Callee, SERVICE_HEADER},
    incarnation::{Incarnation, OFFLINE_HEADER, START_TIME},
    instance::{DEFAULT_CLUSTER, Instance},
    listing::{Listing, Rejected},
    metadata::Metadata,
    origin::Origin,
    service::{DEFAULT_GROUP, InvalidName, PUBLIC_NAMESPACE, ServiceKey, ServiceName},
    weight::Weight,
};
