use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use rand::rngs::StdRng;
use tokio::sync::{mpsc, watch};

use super::{Driver, now, questions::Questions};
use crate::{
    client::{
        address_server::AddressServer,
        auth::Auth,
        cached::Cached,
        core::Core,
        counters::Teller,
        error::ConnectError,
        handle::Handle,
        hints::Hints,
        home::Home,
        lease::Subscriptions,
        links::{Links, Network},
        list_leases::Lists,
        outage::Outage,
        start_from::OFFLINE,
        state::ConnectionState,
    },
    directory::{Options, Owner},
    session::Config,
};

/// What a driver starts with.
pub(in crate::client) struct Setup {
    pub(in crate::client) config: Config,
    pub(in crate::client) network: Network,
    pub(in crate::client) auth: Option<Auth>,
    pub(in crate::client) rng: StdRng,
    pub(in crate::client) directory: Options,
    pub(in crate::client) owner: Arc<Owner>,
    pub(in crate::client) namespace: Arc<str>,
    pub(in crate::client) group: Option<Arc<str>>,
    pub(in crate::client) patience: Duration,
    pub(in crate::client) cached: Option<Cached>,
    pub(in crate::client) addresses: Option<AddressServer>,
}

impl Driver {
    /// Starts the task and returns the handle that it serves.
    pub(in crate::client) fn start(home: Home, setup: Setup) -> Result<Handle, ConnectError> {
        let Setup {
            config,
            network,
            auth,
            rng,
            mut directory,
            owner,
            namespace,
            group,
            patience,
            cached,
            addresses,
        } = setup;
        let (sender, operations) = mpsc::unbounded_channel();
        let offline = cached.as_ref().is_some_and(|c| !c.start_from.asks());
        let first = ConnectionState::Connecting {
            attempt: 1,
            last_error: offline.then(|| OFFLINE.into()),
        };
        if offline {
            owner.set_outage(Some(OFFLINE.into()));
        }
        let (state, watch) = watch::channel(first);
        let (servers, servers_known) = watch::channel(network.servers.clone());
        directory.owner = Some(Arc::clone(&owner));
        let lists = Arc::new(Lists::new(directory.clone()));
        let subscriptions = Arc::new(Subscriptions::new(directory));
        let teller = Teller::new(&namespace);
        let tally = teller.tally().clone();
        let mut driver = Self {
            core: Core::new(config, rng, now()),
            links: Links::new(network),
            auth,
            operations,
            subscriptions: subscriptions.clone(),
            state,
            servers,
            namespace: namespace.clone(),
            owner: Arc::clone(&owner),
            outage: Outage::new(now()),
            services: HashMap::new(),
            lists: lists.clone(),
            awaited: HashMap::new(),
            replies: HashMap::new(),
            awaiting_login: Vec::new(),
            login_refused: None,
            without_login: None,
            registered: HashSet::new(),
            spare_ticket: u64::MAX,
            closing: None,
            warned: HashMap::new(),
            received: None,
            needs_interfaces: false,
            placing: Vec::new(),
            hints: Hints::default(),
            questions: Questions::default(),
            teller,
            #[cfg(feature = "metrics")]
            applied: Default::default(),
            cached,
            addresses,
        };
        if offline {
            driver.outage.close(); // there is none to be told of
        }
        home.run(driver.run())?;
        Ok(Handle {
            operations: sender,
            subscriptions,
            lists,
            state: watch,
            servers: servers_known,
            namespace,
            owner,
            group,
            offline,
            tickets: AtomicU64::new(0),
            tally,
            patience,
        })
    }
}
