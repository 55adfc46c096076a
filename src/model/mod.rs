//! Plain values that all other modules share: services, instances, addresses, weights, lists.
//!
//! No tokio, no clock, no I/O. Nacos's words are used for Nacos's things: an instance is never
//! called a host, a node or a backend.

mod address;
mod callee;
mod details;
mod filter;
mod incarnation;
mod instance;
mod listing;
mod metadata;
mod origin;
mod own;
mod reach;
mod service;
mod source;
mod weight;

#[cfg(feature = "testing")]
pub(crate) use self::service::grouped;
pub use self::{
    address::{Address, Host, InvalidAddress},
    callee::{Callee, SERVICE_HEADER},
    details::ServiceDetails,
    filter::ServiceFilter,
    incarnation::{Incarnation, OFFLINE_HEADER, START_TIME},
    instance::{DEFAULT_CLUSTER, Instance},
    listing::{Listing, Rejected},
    metadata::Metadata,
    origin::Origin,
    own::{Cidr, InvalidCidr, OwnHost},
    service::{DEFAULT_GROUP, InvalidName, PUBLIC_NAMESPACE, ServiceKey, ServiceName},
    source::Source,
    weight::Weight,
};
pub(crate) use self::{
    filter::MOST_SERVICES,
    metadata::Pairs,
    own::Interfaces,
    reach::objection,
    service::{group, namespace},
};
