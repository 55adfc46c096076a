//! What a service's calls and probes go through, a line each at debug. Calls that go well have none.

use crate::{
    endpoint::{error::CallError, member::Endpoint, set::EndpointSet},
    logs,
};

impl<S> EndpointSet<S> {
    /// A request leaves this instance for another one, since that `cause`.
    #[cold]
    pub(super) fn tell_move(&self, endpoint: &Endpoint<S>, cause: &CallError, again: bool) {
        let service = self.service();
        logs::of_service!(
            debug, BALANCE, self.client(), service,
            instance = %endpoint.address(),
            cause = cause.words(),
            "{}", if again {
                "a request is sent again by policy"
            } else {
                "a request that the instance did not process moves to another"
            }
        );
    }

    /// A request has failed, and goes nowhere else.
    #[cold]
    pub(crate) fn tell_failure(&self, error: &CallError) {
        let service = self.service();
        let instance = error.instance().map(tracing::field::display);
        logs::of_service!(
            debug,
            BALANCE,
            self.client(),
            service,
            instance,
            cause = error.words(),
            "{}",
            if instance.is_some() {
                "a request failed"
            } else {
                "a request was refused before an instance had it"
            }
        );
    }

    /// A second try was begun beside a first that is slow.
    #[cold]
    pub(crate) fn tell_hedge(&self) {
        let service = self.service();
        logs::of_service!(
            debug,
            BALANCE,
            self.client(),
            service,
            "a second try was begun beside one that is not answered"
        );
    }

    /// An instance that is out is to be probed.
    pub(super) fn tell_probe(&self, endpoint: &Endpoint<S>, by_dial: bool) {
        let service = self.service();
        logs::of_service!(
            debug, BALANCE, self.client(), service,
            instance = %endpoint.address(),
            "{}", if by_dial {
                "an instance is probed by a dial"
            } else {
                "an instance is to be probed by the next call"
            }
        );
    }

    /// That was in vain.
    pub(super) fn tell_probe_failed(&self, endpoint: &Endpoint<S>, cause: &str) {
        let service = self.service();
        logs::of_service!(
            debug, BALANCE, self.client(), service,
            instance = %endpoint.address(),
            cause,
            "a probe failed"
        );
    }
}
