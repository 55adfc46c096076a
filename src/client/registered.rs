//! Which services the clients of this process have registered something in: a
//! [`Provider`](crate::provider) at the same address is no stranger to their callers.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use crate::model::ServiceKey;

/// The last ones. Deregistered ones stay, since callers have yet to hear of that.
static REGISTERED: Mutex<VecDeque<ServiceKey>> = Mutex::new(VecDeque::new());

/// More than any process serves at one address.
const MOST: usize = 1_024;

/// A client of this process is about to register something there.
pub(super) fn note(key: &ServiceKey) {
    let mut registered = REGISTERED.lock().unwrap_or_else(PoisonError::into_inner);
    if registered.contains(key) {
        return;
    }
    registered.push_back(key.clone());
    if registered.len() > MOST {
        registered.pop_front();
    }
}

/// Whether a client of this process registers something there, or did.
pub(crate) fn was_registered_here(key: &ServiceKey) -> bool {
    let registered = REGISTERED.lock().unwrap_or_else(PoisonError::into_inner);
    registered.contains(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: usize) -> ServiceKey {
        let name = format!("registered-{n}").parse().unwrap();
        ServiceKey::new("public", name).unwrap()
    }

    #[test]
    fn the_last_ones_are_known_and_no_more_are_kept() {
        for n in 0..=MOST {
            note(&key(n));
            note(&key(n));
        }
        assert!(!was_registered_here(&key(0)));
        assert!(was_registered_here(&key(1 + MOST / 2)) && was_registered_here(&key(MOST)));
        assert!(REGISTERED.lock().unwrap().len() <= MOST);
    }
}
