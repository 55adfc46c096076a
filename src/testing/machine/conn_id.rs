/// One transport of a client's, for as long as it lives. Never used twice.
///
/// Example: [a registry](crate::testing)
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId(pub(super) u64);
