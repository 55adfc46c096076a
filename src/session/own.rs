//! Addresses of this machine, found as they are registered: on each connection anew.

use std::net::{IpAddr, Ipv4Addr};

use super::{error::OperationError, event::Placed, link::Link};
use crate::model::{Address, Host, Instance, Interfaces};

/// What is known of this machine while there is a connection.
#[derive(Clone, Copy)]
pub(super) struct Own<'a> {
    /// Where the connection leaves from.
    link: IpAddr,
    interfaces: &'a Interfaces,
}

/// What was found last for each address of a publication that was to be found.
#[derive(Debug, Default)]
pub(super) struct Found(Vec<Place>);

#[derive(Debug)]
struct Place {
    wanted: Address,
    found: Address,
    /// It is not there any more.
    lost: bool,
}

impl<'a> Own<'a> {
    pub(super) fn new(link: &Link, interfaces: &'a Interfaces) -> Self {
        // Nobody can call the unspecified address: of a link that does not know, none is found.
        let link = link.local.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        Self { link, interfaces }
    }

    /// The address itself, unless it is to be found.
    pub(super) fn place(self, address: &Address) -> Result<Address, OperationError> {
        let Some(own) = address.host().own() else {
            return Ok(address.clone());
        };
        match own.find(self.link, self.interfaces) {
            Ok(ip) => Ok(Address::new(Host::Ip(ip), address.port())),
            Err(what) => Err(OperationError::NoOwnAddress {
                instance: address.clone(),
                what,
            }),
        }
    }
}

impl Found {
    /// The instances with the addresses that they are registered by. One that was found before and
    /// is not now keeps the last; `tell` hears of whatever is new.
    pub(super) fn place(
        &mut self,
        instances: &[Instance],
        own: Own<'_>,
        tell: impl FnMut(Placed),
    ) -> Result<Vec<Instance>, OperationError> {
        let mut places = Vec::new();
        let mut placed = Vec::with_capacity(instances.len());
        let mut news = Vec::new();
        for instance in instances {
            let wanted = instance.address();
            if wanted.host().own().is_none() {
                placed.push(instance.clone());
                continue;
            }
            let last = self.last(wanted);
            let (found, lost) = match (own.place(wanted), last) {
                (Ok(found), last) => {
                    if last.is_none_or(|last| last.found != found) {
                        news.push(Placed::At {
                            wanted: wanted.clone(),
                            found: found.clone(),
                            before: last.map(|last| last.found.clone()),
                        });
                    }
                    (found, false)
                }
                (Err(error), Some(last)) => {
                    if !last.lost {
                        news.push(Placed::Lost {
                            last: last.found.clone(),
                            cause: error.to_string(),
                        });
                    }
                    (last.found.clone(), true)
                }
                (Err(error), None) => return Err(error),
            };
            placed.push(instance.clone().with_address(found.clone()));
            let wanted = wanted.clone();
            places.push(Place {
                wanted,
                found,
                lost,
            });
        }
        self.0 = places;
        news.into_iter().for_each(tell);
        Ok(placed)
    }

    /// What an address was found to be, or itself.
    pub(super) fn of<'a>(&'a self, address: &'a Address) -> &'a Address {
        self.last(address).map_or(address, |place| &place.found)
    }

    /// Whether one of `instances` is found elsewhere by now.
    pub(super) fn is_elsewhere(&self, instances: &[Instance], own: Own<'_>) -> bool {
        instances.iter().map(Instance::address).any(|wanted| {
            let now = own.place(wanted);
            now.is_ok_and(|now| self.last(wanted).is_some_and(|last| last.found != now))
        })
    }

    fn last(&self, wanted: &Address) -> Option<&Place> {
        self.0.iter().find(|place| place.wanted == *wanted)
    }
}
