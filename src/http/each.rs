use std::time::Duration;

use ::http::Request;

use crate::{
    http::deadline::Deadline,
    model::ServiceKey,
    traces::{CallSpan, Traces},
    transport::Body,
};

/// What a client does with each of its requests.
#[derive(Clone, Default)]
pub(super) struct Each {
    /// The longest that it may take.
    pub(super) timeout: Option<Duration>,
    pub(super) traces: Option<Traces>,
}

impl Each {
    /// The request's own deadline, or ours if that is sooner.
    pub(super) fn deadline(&self, request: &Request<Body>) -> Option<Deadline> {
        let own = request.extensions().get::<Deadline>().copied();
        let ours = self.timeout.map(Deadline::within);
        own.into_iter().chain(ours).min()
    }

    pub(super) fn span(
        &self,
        service: &ServiceKey,
        request: &mut Request<Body>,
    ) -> Option<Box<CallSpan>> {
        let traces = self.traces.as_ref()?;
        CallSpan::http(traces, service, request)
    }
}
