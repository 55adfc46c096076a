//! Instances that leave their address to be found.

use super::Driver;
use crate::{
    client::{RequestError, interfaces, operations::Placing},
    logs,
    model::{Address, Instance, ServiceKey},
    session::Placed,
};

impl Driver {
    /// These are about to be registered.
    pub(super) fn look_for<'a>(&mut self, instances: impl IntoIterator<Item = &'a Instance>) {
        let mut own = instances
            .into_iter()
            .filter_map(|instance| instance.address().host().own());
        if own.any(|own| own.needs_interfaces()) {
            self.needs_interfaces = true;
            self.look_at_interfaces();
        }
    }

    /// Who registers on an interface is told of it as it is now.
    pub(super) fn look_at_interfaces(&mut self) {
        if self.needs_interfaces {
            let interfaces = interfaces::read();
            self.core.session_mut().handle_interfaces(interfaces);
        }
    }

    /// Somebody wants to know where an instance is registered, now or once there is a connection.
    pub(super) fn place(&mut self, address: Address, reply: Placing) {
        self.needs_interfaces |= address
            .host()
            .own()
            .is_some_and(|own| own.needs_interfaces());
        self.placing.retain(|(_, waiting)| !waiting.is_closed());
        self.placing.push((address, reply));
        if self.state.borrow().is_connected() {
            self.look_at_interfaces();
            self.place_all();
        }
    }

    pub(super) fn place_all(&mut self) {
        for (address, reply) in std::mem::take(&mut self.placing) {
            match self.core.session().place(&address) {
                Some(placed) => drop(reply.send(placed.map_err(RequestError::from))),
                None => self.placing.push((address, reply)),
            }
        }
    }

    /// Says what is registered in place of what was to be found.
    pub(super) fn placed(&self, key: &ServiceKey, placed: &Placed) {
        let (namespace, group, service) = (&**key.namespace(), &**key.group(), &**key.name());
        let client = self.owner.name();
        match placed {
            Placed::At {
                wanted,
                found,
                before,
            } => {
                match before {
                    None => {
                        tracing::info!(target: logs::REGISTRY, client, namespace, group, service, instance = %found, %wanted, "this machine's address is found and registered");
                    }
                    Some(before) => {
                        tracing::warn!(target: logs::REGISTRY, client, namespace, group, service, instance = %found, %wanted, %before, "this machine's address is another, and registered in place of the former");
                    }
                }
                if found.host().ip().is_some_and(|ip| ip.is_loopback()) {
                    tracing::warn!(target: logs::REGISTRY, client, namespace, group, service, instance = %found, "registered with a loopback address: only this machine can call it");
                }
            }
            Placed::Lost { last, cause } => {
                tracing::warn!(target: logs::REGISTRY, client, namespace, group, service, instance = %last, cause = &**cause, "this machine's address is not found any more; the last one is registered on");
            }
        }
    }
}
