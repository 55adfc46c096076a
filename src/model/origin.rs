/// How a list came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Origin {
    /// The registry sent it by itself. Applied in the order of arrival, whatever its stamp. May be
    /// the first list of its connection, if it overtook the answer to the subscription.
    Push,
    /// It answers the first subscribe on a connection. After a reconnect the [collapse guard](crate::guide::glossary)
    /// judges it, and what a push removed shortly before stays away.
    FirstAnswer,
    /// It answers a query, or a later subscribe. Dropped less than a second after a push. (That a
    /// push came between the question and its answer only the asker can know: drop it there.)
    Read,
    /// It was kept on disk by a process before this one. Only taken while the registry has not
    /// answered; its first answer is then judged as after a reconnect.
    Disk,
}
