use crate::model::Instance;

/// Makes the service that calls one instance.
///
/// Runs at the instance's first use, in the context of the call that needs it, once for each of
/// its generations, and again if the service said that it can no longer be used (an error of
/// `poll_ready`). It should return at once and leave dialling to the service; calls to the same
/// instance wait for it meanwhile, calls to others do not. A panic in it marks that instance as
/// unusable until its attributes change, and nothing else. Every closure
/// `Fn(&Instance) -> S` is one.
///
/// For an eviction to close connections the service must own them: one that is a clone of a shared
/// pooled client cannot close anything by being dropped.
pub trait MakeEndpoint: Send + Sync + 'static {
    /// What calls the instance.
    type Service;

    /// Makes it.
    fn make(&self, instance: &Instance) -> Self::Service;
}

impl<F, S> MakeEndpoint for F
where
    F: Fn(&Instance) -> S + Send + Sync + 'static,
{
    type Service = S;

    fn make(&self, instance: &Instance) -> S {
        self(instance)
    }
}
