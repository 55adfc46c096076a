/// What happened to a service's local copy since it began. All of them only rise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubscriptionCounters {
    /// Lists that were applied, changed or not.
    pub lists: u64,
    /// Lists that changed nothing.
    pub unchanged: u64,
    /// Hosts left out of lists because they could not be used, once for each list. [`client::ClientCounters`](crate::client::ClientCounters) has the sum.
    pub hosts_rejected: u64,
    /// Lists none of whose hosts could be used, and messages that could not be read at all.
    pub undecodable: u64,
    /// Lists whose stamp (the server's time on them) was lower than that of the one before on the same
    /// connection. They are obeyed all the same: a node's clock may be set back.
    pub older_stamps: u64,
    /// Addresses that a list names more than once, once for each list. One of them counts.
    pub duplicates: u64,
    /// Answers to reads that were dropped because a push had just said something newer. [`client::ClientCounters`](crate::client::ClientCounters) has the sum,
    /// with those that the connection dropped.
    pub reads_dropped: u64,
    /// Reads that found a difference which no push had brought. [`client::ClientCounters`](crate::client::ClientCounters) has the sum.
    pub reads_corrected: u64,
    /// Hosts that a first answer would have brought back right after a push removed them.
    pub not_resurrected: u64,
    /// Times an instance was held by the [collapse guard](crate::guide::glossary).
    pub held: u64,
    /// Times the [collapse guard](crate::guide::glossary) began to hold.
    pub collapses: u64,
    /// Times a collapsed list was obeyed in the end, because it stayed so.
    pub collapses_obeyed: u64,
    /// Times a response's mark told of an instance that goes offline before the registry did.
    pub marked: u64,
}

impl SubscriptionCounters {
    /// Adds what another copy counted.
    pub(crate) const fn add(&mut self, other: &Self) {
        self.lists += other.lists;
        self.unchanged += other.unchanged;
        self.hosts_rejected += other.hosts_rejected;
        self.undecodable += other.undecodable;
        self.older_stamps += other.older_stamps;
        self.duplicates += other.duplicates;
        self.reads_dropped += other.reads_dropped;
        self.reads_corrected += other.reads_corrected;
        self.not_resurrected += other.not_resurrected;
        self.held += other.held;
        self.collapses += other.collapses;
        self.collapses_obeyed += other.collapses_obeyed;
        self.marked += other.marked;
    }
}
