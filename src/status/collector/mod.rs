//! Looks for what changed: at the registries' states, at the services' change streams, at who is ejected.

mod consumers;
mod finding;
mod look;
mod registries;
mod services;

pub(super) use self::{look::Collector, services::origin};
