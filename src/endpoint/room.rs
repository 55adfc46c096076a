use crate::endpoint::admission::Place;

/// An instance that one call waits at until there is room for it: its service becomes ready, or is
/// made by another call.
pub(super) struct Room<S> {
    /// `None` while it is being made. Dropped before the place.
    pub(super) service: Option<S>,
    pub(super) place: Place<S>,
}
