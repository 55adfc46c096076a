use http::{Request, Response};
use tower::load::completion::TrackCompletion;

use crate::{
    endpoint::{Classify, InFlight, Judge, Recover, Recovered, Verdict},
    transport::{Body, Error, ResponseBody},
};

/// How a balancer deals with [`Transport`](crate::transport::Transport)s: what was provably not
/// processed moves to another instance, a failed connection ejects its instance, and a call is in
/// flight until its response's body has ended.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Rules;

/// A failed connection ejects its instance, a failed call does not.
pub fn classify(error: &Error) -> Verdict {
    error.verdict()
}

impl Recover<Request<Body>, Error> for Rules {
    fn recover(&self, error: &mut Error) -> Option<Recovered<Request<Body>>> {
        error.recovered()
    }
}

impl TrackCompletion<InFlight, Response<ResponseBody>> for Rules {
    type Output = Response<ResponseBody>;

    fn track_completion(
        &self,
        in_flight: InFlight,
        mut response: Response<ResponseBody>,
    ) -> Response<ResponseBody> {
        response.body_mut().track(in_flight);
        response
    }
}

impl Classify<Error> for Rules {
    fn classify(&self, error: &Error) -> Verdict {
        classify(error)
    }
}

impl<Res> Judge<Res, Error> for Rules {}
