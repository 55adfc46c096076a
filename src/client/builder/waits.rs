use std::time::Duration;

use crate::client::builder::ClientBuilder;

/// # How long it waits, and when it tries again
impl ClientBuilder {
    /// How long [`connect`](Self::connect) waits. Default 10 s: enough for three attempts at
    /// servers that do not answer.
    #[must_use]
    pub const fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long a subscription's first answer, a registration, a deregistration or a read is
    /// waited for, being disconnected included. Default 10 s.
    #[must_use]
    pub const fn request_timeout(mut self, timeout: Duration) -> Self {
        self.patience = timeout;
        self
    }

    /// How long a single call to a server may take. Default 3 s, as in Nacos's Java client.
    #[must_use]
    pub const fn call_timeout(mut self, timeout: Duration) -> Self {
        self.call_timeout = timeout;
        self
    }

    /// A server is asked for its health when nothing was sent to it, or no answer came from it,
    /// for this long. Default 5 s.
    ///
    /// A server that froze is noticed after `idle` plus [`tries`](Self::tries) times
    /// [`call_timeout`](Self::call_timeout): 14 s by default. Keep it well below 20 s: servers
    /// question a client that is silent for that long, and drop one in ten that answers. At least
    /// 100 ms.
    #[must_use]
    pub const fn idle_check(mut self, idle: Duration) -> Self {
        self.idle = idle;
        self
    }

    /// How many calls in a row must go unanswered before the connection counts as lost. Default 3;
    /// fewer find a frozen server sooner and drop one that merely stalls. At least 1.
    #[must_use]
    pub const fn tries(mut self, tries: u32) -> Self {
        self.tries = if tries == 0 { 1 } else { tries };
        self
    }

    /// How long the servers' names may take to resolve, at each attempt. Default 3 s, as a dial:
    /// names that answer by then are dialled, and what is given as an address never waits for a name
    /// (200 ms at most). A longer one waits out a resolver that loses packets (most ask again after
    /// 5 s); it costs that much before an attempt fails whose names do not resolve at all.
    #[must_use]
    pub const fn resolve_timeout(mut self, timeout: Duration) -> Self {
        self.resolve_timeout = timeout;
        self
    }

    /// How long a dial may take, the HTTP/2 handshake included. Default 3 s, as in Nacos's Java
    /// client: packets that a firewall drops are noticed after that and another server is tried.
    #[must_use]
    pub const fn dial_timeout(mut self, timeout: Duration) -> Self {
        self.dial_timeout = timeout;
        self
    }

    /// How long the first question to a server, whether it is one, may stay unanswered. Default
    /// 3 s, as in Nacos's Java client: a port that takes connections and is no Nacos server, or one
    /// that hangs, is left after that.
    #[must_use]
    pub const fn check_timeout(mut self, timeout: Duration) -> Self {
        self.check_timeout = timeout;
        self
    }

    /// How long a server may take to register the connection. Default 5 s: servers that have just
    /// started take a second or two. A shorter one gives up servers that would have come.
    #[must_use]
    pub const fn ready_timeout(mut self, timeout: Duration) -> Self {
        self.ready_timeout = timeout;
        self
    }

    /// After a first attempt to connect that failed, the next waits a random time up to this. Default 300 ms.
    /// Shorter finds a server that is back sooner, and costs it more at that moment.
    #[must_use]
    pub const fn first_retry(mut self, wait: Duration) -> Self {
        self.first_retry = wait;
        self
    }

    /// After a connection was lost, or the server asked to leave it, the next attempt waits a random time up to
    /// this. Default 1.2 s: all clients of a server that dies lose it in the same moment, and so the others
    /// get them over more than a second. It costs 0.6 s in the mean until changes are heard again;
    /// calls are not held up, since the last set serves. Zero reconnects at once: for a registry with few clients.
    #[must_use]
    pub const fn reconnect_spread(mut self, spread: Duration) -> Self {
        self.reconnect_spread = spread;
        self
    }

    /// Later retries wait a random time up to a bound that doubles up to this cap. Default 1.5 s:
    /// changes are missed for as long as nobody connects, and clients of a server that comes back come
    /// over that time. A longer one spares servers that are down for hours.
    #[must_use]
    pub const fn retry_cap(mut self, cap: Duration) -> Self {
        self.retry_cap = cap;
        self
    }

    /// Each subscribed service is read so often (± 20 %) if no push came meanwhile; what that
    /// corrects is logged and counted. Default 60 s; `None` for never. It finds pushes that a server
    /// lost, and costs one small request a service and minute.
    #[must_use]
    pub fn safety_read(mut self, every: impl Into<Option<Duration>>) -> Self {
        self.safety_read = every.into();
        self
    }

    /// How often [lists of services](crate::Client::services) are read (± 20 %) from servers that do not
    /// tell of them: those before 3.0. Default 10 s; a service that went is noticed after up to
    /// two readings. A shorter one costs the server a walk over all services of the namespace for
    /// each page of 1,000, and each client.
    #[must_use]
    pub const fn services_interval(mut self, every: Duration) -> Self {
        self.services_interval = every;
        self
    }

    /// After so long (± 20 %) a connection is left for another server, or made anew if there is only
    /// one: the new one is complete before the old one closes. Default never. It spreads clients
    /// over servers that were added, and costs one subscription of everything each time.
    #[must_use]
    pub fn max_connection_age(mut self, age: impl Into<Option<Duration>>) -> Self {
        self.max_connection_age = age.into();
        self
    }
}
