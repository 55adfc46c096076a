//! Which services lie at which addresses, in this process.

use std::sync::{Mutex, OnceLock, PoisonError};

use crate::{
    client::{Client, RequestError, was_registered_here},
    model::{Address, Callee, ServiceKey},
};

/// What one provider provides.
#[derive(Debug)]
pub(super) struct Names {
    services: Box<[ServiceKey]>,
    given: Places,
    /// Once all are known that were left to be found.
    found: OnceLock<Places>,
}

#[derive(Debug)]
struct Places {
    addresses: Box<[Address]>,
    /// Each service at each address, as a caller would write it.
    written: Box<[Box<[u8]>]>,
}

/// What the providers of this process provide, each by the client that it registers with.
static CLAIMS: Mutex<Vec<Entry>> = Mutex::new(Vec::new());

#[derive(Debug)]
struct Entry {
    client: usize,
    service: ServiceKey,
    address: Address,
}

/// Services and addresses that are one provider's, until it is dropped.
#[derive(Debug)]
pub(super) struct Claim {
    client: usize,
    services: Box<[ServiceKey]>,
    addresses: Box<[Address]>,
}

impl Names {
    pub(super) fn new(services: Vec<ServiceKey>, addresses: Vec<Address>) -> Self {
        Self {
            given: Places::new(&services, addresses),
            services: services.into(),
            found: OnceLock::new(),
        }
    }

    /// The addresses that callers are given, found if they were to be.
    pub(super) async fn find(&self, nacos: &Client) -> Result<&[Address], RequestError> {
        if self.found.get().is_none() {
            let mut addresses = Vec::with_capacity(self.given.addresses.len());
            for address in &self.given.addresses {
                addresses.push(nacos.place(address).await?);
            }
            let _ = self.found.set(Places::new(&self.services, addresses));
        }
        Ok(self.addresses())
    }

    fn places(&self) -> &Places {
        self.found.get().unwrap_or(&self.given)
    }

    pub(super) fn services(&self) -> &[ServiceKey] {
        &self.services
    }

    pub(super) fn addresses(&self) -> &[Address] {
        &self.places().addresses
    }

    /// Whether a caller means a service that nobody in this process provides, at one of our
    /// addresses or at none. What makes no sense says nothing, and what was meant for another address
    /// came through a gateway that copies headers on.
    pub(super) fn is_somebody_else(&self, header: &[u8]) -> bool {
        let places = self.places();
        if places.written.iter().any(|ours| **ours == *header) {
            return false;
        }
        let Some(callee) = Callee::parse(header) else {
            return false;
        };
        let meant_here = callee
            .address()
            .is_none_or(|address| places.addresses.contains(address));
        let service = callee.service();
        meant_here
            && !self.services.contains(service)
            && !is_claimed(service)
            && !was_registered_here(service)
    }

    /// Takes services and addresses for a provider; or says what another one has that registers with
    /// the same client.
    pub(super) fn claim(&self, client: usize) -> Result<Claim, (ServiceKey, Address)> {
        let mut claims = CLAIMS.lock().unwrap_or_else(PoisonError::into_inner);
        // A client registers one instance of a service, or one batch.
        let taken =
            |entry: &&Entry| entry.client == client && self.services.contains(&entry.service);
        if let Some(entry) = claims.iter().find(taken) {
            return Err((entry.service.clone(), entry.address.clone()));
        }
        for service in &self.services {
            claims.extend(self.addresses().iter().map(|address| Entry {
                client,
                service: service.clone(),
                address: address.clone(),
            }));
        }
        Ok(Claim {
            client,
            services: self.services.clone(),
            addresses: self.addresses().into(),
        })
    }
}

impl Places {
    fn new(services: &[ServiceKey], addresses: Vec<Address>) -> Self {
        let at = |address: &Address| {
            let callee = |service: &ServiceKey| Callee::new(service.clone(), address.clone());
            let write = |service: &ServiceKey| callee(service).to_string().into_bytes().into();
            services.iter().map(write).collect::<Vec<_>>()
        };
        let written = addresses.iter().flat_map(at).collect();
        Self {
            written,
            addresses: addresses.into(),
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut claims = CLAIMS.lock().unwrap_or_else(PoisonError::into_inner);
        claims.retain(|entry| {
            !(entry.client == self.client
                && self.services.contains(&entry.service)
                && self.addresses.contains(&entry.address))
        });
    }
}

fn is_claimed(service: &ServiceKey) -> bool {
    let claims = CLAIMS.lock().unwrap_or_else(PoisonError::into_inner);
    claims.iter().any(|entry| entry.service == *service)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(service: &str) -> ServiceKey {
        ServiceKey::new("public", service.parse().unwrap()).unwrap()
    }

    fn names(service: &str) -> Names {
        Names::new(vec![key(service)], vec!["10.0.0.3:80".parse().unwrap()])
    }

    #[test]
    fn only_a_sound_name_of_another_service_at_this_address_is_somebody_else() {
        let ours = names("names-a");
        for served in [
            "names-a;namespace=public;address=10.0.0.3:80",
            "DEFAULT_GROUP@@names-a;namespace=public;address=10.0.0.3:80",
            "names-a",
            "names-a;address=10.0.0.9:80", // by a name of ours that we do not know
            "names-b;address=10.0.0.4:80", // through a gateway that copies headers on
            "names-b;address=",
            "names b",
            "",
            "%%%",
        ] {
            assert!(!ours.is_somebody_else(served.as_bytes()), "{served}");
        }
        for refused in [
            "names-b",
            "G@@names-a",
            "names-a;namespace=dev;address=10.0.0.3:80",
            "names-b;address=10.0.0.3:80",
        ] {
            assert!(ours.is_somebody_else(refused.as_bytes()), "{refused}");
        }
    }

    #[test]
    fn another_provider_of_the_process_is_nobody_else() {
        let (ours, theirs) = (names("names-c"), names("names-d"));
        assert!(ours.is_somebody_else(b"names-d"));
        let claim = theirs.claim(1).unwrap();
        assert!(!ours.is_somebody_else(b"names-d"));
        drop(claim);
        assert!(ours.is_somebody_else(b"names-d"));
    }

    #[test]
    fn a_client_provides_a_service_once() {
        let claim = names("names-e").claim(7).unwrap();
        assert!(names("names-e").claim(7).is_err());
        let other = names("names-e").claim(8).unwrap(); // another client is another registration
        drop(claim);
        drop(names("names-e").claim(7).unwrap());
        drop(other);
    }
}
