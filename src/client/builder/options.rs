use std::{path::PathBuf, time::Duration};

use crate::{
    client::{
        builder::{ClientBuilder, IntoServers},
        start_from::StartFrom,
    },
    directory::Options,
};

/// # Which servers and services, and where it runs
impl ClientBuilder {
    /// Adds servers of one registry; a random one of them is connected to. At least one is needed,
    /// unless an [address server](Self::address_server) tells.
    #[must_use]
    pub fn servers(mut self, servers: impl IntoServers) -> Self {
        self.servers = match (self.servers, servers.into_servers()) {
            (Ok(mut known), Ok(new)) => {
                known.extend(new);
                Ok(known)
            }
            (Err(error), _) | (_, Err(error)) => Err(error),
        };
        self
    }

    /// Asks an address server which servers the registry has:
    /// `http://endpoint:8080/nacos/serverlist`. Default: none. What is left out of the URL is what
    /// Nacos's clients take: port 8080, path `/nacos/serverlist`; `namespace=<id>` is added to its query
    /// unless the namespace is `public` or named there.
    ///
    /// It is asked at the start, and with growing pauses until it answers, then every
    /// [30 s](Self::address_server_interval) ± 20 %. Its answer is one `host[:port]` a line (a name without a dot needs its port) and takes the
    /// place of all [`servers`](Self::servers): those given here are what is begun with, and none are
    /// needed. An answer that is empty, an error, or no list (an HTML page) changes nothing, and is a
    /// warning at most once a minute. A connection whose server is no longer listed is left once the
    /// next one is complete; any other stays. Plain HTTP, without a password: whoever can answer in its
    /// place says which registry is believed.
    #[must_use]
    pub fn address_server(mut self, url: impl Into<String>) -> Self {
        self.address_server = Some(url.into());
        self
    }

    /// How often the [address server](Self::address_server) is asked, ± 20 %. Default 30 s, as in
    /// Nacos's Java client: servers that are added are known after that. A shorter one costs it a
    /// request each; at least 100 ms.
    #[must_use]
    pub const fn address_server_interval(mut self, every: Duration) -> Self {
        self.address_server_interval = every;
        self
    }

    /// The namespace's id (not its display name) that all services of this client lie in. Default
    /// `public`.
    #[must_use]
    pub fn namespace(mut self, id: impl Into<String>) -> Self {
        self.namespace = id.into();
        self
    }

    /// The application's name, shown to operators beside its connection. Default `unknown`, as in
    /// Nacos's Java client.
    #[must_use]
    pub fn app_name(mut self, name: impl Into<String>) -> Self {
        self.app_name = name.into();
        self
    }

    /// What this client is called in the log: the field `client` of its lines. Default a number, which
    /// tells the clients of one process apart. Only the log shows it.
    #[must_use]
    pub fn client_name(mut self, name: impl Into<String>) -> Self {
        self.client_name = Some(name.into());
        self
    }

    /// The largest message accepted from a server, in bytes. Default 64 MiB: 10,000 instances with
    /// two metadata entries each are 3.8 MB, and a larger list would end the connection again and
    /// again. It costs memory only when a server sends that much.
    #[must_use]
    pub const fn max_message_size(mut self, bytes: usize) -> Self {
        self.max_message_size = bytes;
        self
    }

    /// The gRPC port of every server, where it is not the main port + 1000. Default: main port +
    /// 1000, which is what servers do; a port mapping may not keep the distance. For ports that
    /// differ from server to server write `host:8848/9848`.
    #[must_use]
    pub const fn grpc_port(mut self, port: u16) -> Self {
        self.grpc_port = Some(port);
        self
    }

    /// The group of services that are named without one (`"orders"`, not `"billing@orders"`). Default
    /// `DEFAULT_GROUP`, as in Nacos.
    #[must_use]
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.group = Some(group.into());
        self
    }

    /// How lists become snapshots: health, restarts, the [collapse guard](crate::guide::glossary).
    #[must_use]
    pub fn directory(mut self, options: Options) -> Self {
        self.directory = options;
        self
    }

    /// Gives the client's background task a thread of its own, named `tower-nacos`, with a small
    /// runtime that nothing else runs on. Default: no, it is a task of the current runtime.
    ///
    /// The task never runs your code and never waits for it. But tasks of yours that block a worker
    /// (a lock, a file, a long computation) take time from every task of their runtime, and a
    /// current-thread runtime, or one whose workers are all blocked, has none left: then pushes are
    /// not applied, and servers drop a client that does not answer them. With a thread of its own
    /// both go on. Costs a thread. It ends with [`Client::close`](crate::Client::close) or the last handle, and outlives
    /// the runtime that it was started from; no runtime is needed to start it.
    #[must_use]
    pub const fn own_thread(mut self, own: bool) -> Self {
        self.own_thread = own;
        self
    }

    /// Keeps the last set of each subscribed service in this folder, so that a process can
    /// [start](Self::start_from) while the registry is away. Default: nothing is kept.
    ///
    /// One file a service, readable by this user alone (0600), replaced whole or not at all, at most
    /// once in 5 s, when the last handle on a service goes, and at [`Client::close`](crate::Client::close) as far as its
    /// deadline goes. A thread of its own does it; no call and no push waits for a disk. The folder is made
    /// when it is needed, and costs what the lists are long: about 300 bytes an instance. Whatever is wrong with it (full,
    /// read-only, not a folder, a damaged file, or one of a newer version) is a warning, at most one a
    /// minute, and no more.
    ///
    /// What a service has had no file written of for twice [`cache_max_age`](Self::cache_max_age), and for
    /// 30 days at least, is taken away when a process has started: after what it reads first.
    ///
    /// Several processes may share a folder; the last to write a service counts. Give each *registry*
    /// a folder of its own: files are told apart by namespace, group and name, and whoever can write
    /// to it can say where calls go.
    #[must_use]
    pub fn cache_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.cache_dir = Some(folder.into());
        self
    }

    /// Whether a subscription may begin with what [`cache_dir`](Self::cache_dir) has of it. Default
    /// [`StartFrom::Registry`]: no.
    ///
    /// With [`CacheThenRegistry`](StartFrom::CacheThenRegistry) [`connect`](Self::connect) does not wait
    /// for a connection (so it does not tell of a wrong address or password either: watch
    /// [`Client::state`](crate::Client::state)), and [`subscribe`](crate::Client::subscribe) returns as soon as the file is read.
    /// The set is [`Stale`](crate::directory::Status::Stale), with the time when it was last known to be
    /// so, and [`Origin::Disk`](crate::directory::Origin::Disk); the registry's first list takes over by
    /// the rules of a reconnect, which hold what is missing for a while. Who cannot be connected to is
    /// out at once, as ever. A service that the cache does not have is waited for as without one.
    ///
    /// While there is a connection the registry's first list is waited for, for 0.5 s, and it is judged
    /// by what the file has: a registry that has just come back lists some of its instances, and the
    /// others are [held](crate::guide::glossary#of-a-list). The other way round a list waits so long for a disk.
    ///
    /// It costs calls to addresses that were right once: where others take them over within
    /// [`cache_max_age`](Self::cache_max_age), have them check whom they are called as (TLS, a Host).
    #[must_use]
    pub const fn start_from(mut self, start: StartFrom) -> Self {
        self.start_from = start;
        self
    }

    /// How old what is on disk may be to be used. Default 7 days: longer than any outage, shorter than
    /// the time after which addresses are somebody else's. Counted by this machine's clock from when
    /// the registry said so last (an hour earlier at most, as a set that does not change is written
    /// once an hour); a clock that was wrong makes it older or younger.
    #[must_use]
    pub const fn cache_max_age(mut self, age: Duration) -> Self {
        self.cache_max_age = age;
        self
    }
}
