//! A small HTTP server that registers itself and counts who calls it when.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use http_body_util::Full;
use hyper::{Request, Response, body::Bytes, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, runtime::Runtime, sync::watch};
use tower_nacos::{
    client::Client,
    model::{Address, Instance},
};

use crate::Error;

/// The header that carries a request's sequence number.
pub(crate) const SEQUENCE: &str = "x-sequence";
/// The header that says which balancer it came through, by its place among them.
pub(crate) const BALANCER: &str = "x-balancer";

pub(crate) struct Provider {
    name: &'static str,
    address: Address,
    service: String,
    tally: Arc<Tally>,
    /// `None` once killed. In a runtime of its own, so that dropping that is like `kill -9`.
    life: Option<(Runtime, Client)>,
}

struct Tally {
    /// Calls stamped later than this came after the eviction was applied.
    evicted_at: AtomicU64,
    /// By the balancer that they came through.
    after_eviction: [AtomicU64; 2],
    connections: watch::Sender<usize>,
    served: AtomicUsize,
}

/// Counts a connection for as long as it is served.
struct Connected(Arc<Tally>);

impl Provider {
    pub(crate) async fn start(
        name: &'static str,
        server: &str,
        service: &str,
    ) -> Result<Self, Error> {
        let tally = Arc::new(Tally {
            evicted_at: AtomicU64::new(u64::MAX),
            after_eviction: Default::default(),
            connections: watch::channel(0).0,
            served: AtomicUsize::new(0),
        });
        Self::start_at(
            name,
            SocketAddr::from(([127, 0, 0, 1], 0)),
            server,
            service,
            tally,
        )
        .await
    }

    /// Starts a killed provider again, where it was.
    pub(crate) async fn restart(dead: Self, server: &str, service: &str) -> Result<Self, Error> {
        let at = dead
            .address
            .socket_addr()
            .expect("it listened on an IP address");
        Self::start_at(dead.name, at, server, service, dead.tally.clone()).await
    }

    async fn start_at(
        name: &'static str,
        at: SocketAddr,
        server: &str,
        service: &str,
        tally: Arc<Tally>,
    ) -> Result<Self, Error> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name(name)
            .enable_all()
            .build()?;
        let (server, counted) = (server.to_owned(), tally.clone());
        let started = runtime.spawn(async move {
            let socket = tokio::net::TcpSocket::new_v4()?;
            socket.set_reuseaddr(true)?;
            socket.bind(at)?;
            let listener = socket.listen(1024)?;
            let address = Address::from(listener.local_addr()?);
            tokio::spawn(serve(listener, counted));
            let client = Client::connect(&*server).await?;
            Ok::<_, Error>((address, client))
        });
        let (address, client) = started.await??;
        let this = Self {
            name,
            address,
            service: service.to_owned(),
            tally,
            life: Some((runtime, client)),
        };
        this.register().await?;
        Ok(this)
    }

    pub(crate) async fn register(&self) -> Result<(), Error> {
        self.tally.served.store(0, SeqCst);
        // From here on calls may come again, as soon as the callers hear of it.
        self.tally.evicted_at.store(u64::MAX, SeqCst);
        let instance = Instance::new(self.address.clone());
        self.client()?.register(&*self.service, instance).await?;
        Ok(())
    }

    /// Goes offline in the registry and keeps answering.
    pub(crate) async fn deregister(&self) -> Result<(), Error> {
        self.client()?.deregister(&*self.service).await?;
        Ok(())
    }

    /// Ends everything of this provider at once, without a word to anybody.
    pub(crate) fn kill(&mut self) {
        if let Some((runtime, client)) = self.life.take() {
            runtime.shutdown_background();
            drop(client);
        }
    }

    pub(crate) fn mark_evicted(&self, sequence: u64) {
        self.tally.evicted_at.store(sequence, SeqCst);
    }

    /// Calls after an eviction, by the balancer that they came through.
    pub(crate) fn after_eviction(&self) -> [u64; 2] {
        [0, 1].map(|balancer: usize| self.tally.after_eviction[balancer].load(SeqCst))
    }

    pub(crate) fn must_have_calls(&self) -> Result<(), Error> {
        match self.tally.served.load(SeqCst) {
            0 => Err(format!("{} is back and gets no calls", self.name).into()),
            _ => Ok(()),
        }
    }

    pub(crate) fn must_be_connected(&self) -> Result<(), Error> {
        match *self.tally.connections.borrow() {
            0 => Err(format!("{} has no connection that could close", self.name).into()),
            _ => Ok(()),
        }
    }

    /// Waits until no connection is open.
    pub(crate) async fn disconnected(&self) {
        let mut connections = self.tally.connections.subscribe();
        let _ = connections.wait_for(|open| *open == 0).await;
    }

    pub(crate) fn name(&self) -> &str {
        self.name
    }

    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    fn client(&self) -> Result<&Client, Error> {
        let (_, client) = self.life.as_ref().ok_or("this provider is dead")?;
        Ok(client)
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.connections.send_modify(|open| *open -= 1);
    }
}

async fn serve(listener: TcpListener, tally: Arc<Tally>) {
    loop {
        let Ok((socket, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(10)).await; // out of descriptors, say
            continue;
        };
        let _ = socket.set_nodelay(true);
        tally.connections.send_modify(|open| *open += 1);
        let connected = Connected(tally.clone());
        tokio::spawn(async move {
            let answer = service_fn(|request| answer(&connected.0, request));
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(socket), answer);
            let _ = connection.await;
        });
    }
}

async fn answer(
    tally: &Tally,
    request: Request<hyper::body::Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let number = |header| -> Option<u64> {
        let value = request.headers().get(header)?;
        value.to_str().ok()?.parse().ok()
    };
    tally.served.fetch_add(1, SeqCst);
    if number(SEQUENCE).is_none_or(|stamp| stamp > tally.evicted_at.load(SeqCst)) {
        let balancer = usize::from(number(BALANCER) == Some(1));
        tally.after_eviction[balancer].fetch_add(1, SeqCst);
    }
    Ok(Response::new(Full::default()))
}
