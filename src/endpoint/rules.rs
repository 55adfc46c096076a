use std::{fmt, sync::Arc};

/// Gives back a request that a failed call provably never handed to the instance.
///
/// What it yields is sent to another instance, whatever the method, so it must be certain.
pub trait Recover<Req, E> {
    /// Takes the request out of `error`, if it is there.
    fn recover(&self, error: &mut E) -> Option<Recovered<Req>>;
}

/// A request that was not processed, and how that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Recovered<Req> {
    /// No connection took it. Each callable instance is tried at most once, up to 10.
    Unsent(Req),
    /// The instance said that it did not process it (REFUSED_STREAM, or a GOAWAY that leaves it
    /// out). Another instance is tried at most 3 times after such refusals.
    Refused(Req),
}

/// The default of [`Recover`]: no request ever comes back.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct NeverRecover;

/// Tells from a call's error whether the instance could be reached.
///
/// Every closure `Fn(&E) -> Verdict` is one.
pub trait Classify<E> {
    /// Judges one error.
    fn classify(&self, error: &E) -> Verdict;
}

/// What an error says about the instance.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// It could be reached: the error is about this call only.
    Reachable,
    /// Its connection failed, for this reason. The instance gets no call until a probe succeeds.
    Unreachable(Arc<str>),
}

/// The default of [`Classify`]: no error says anything about the instance.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Unclassified;

impl Verdict {
    /// The connection failed, and `reason` says how.
    pub fn unreachable(reason: impl fmt::Display) -> Self {
        Self::Unreachable(reason.to_string().into())
    }
}

impl<Req, E> Recover<Req, E> for NeverRecover {
    fn recover(&self, _: &mut E) -> Option<Recovered<Req>> {
        None
    }
}

impl<E, F: Fn(&E) -> Verdict> Classify<E> for F {
    fn classify(&self, error: &E) -> Verdict {
        self(error)
    }
}

impl<E> Classify<E> for Unclassified {
    fn classify(&self, _: &E) -> Verdict {
        Verdict::Reachable
    }
}
