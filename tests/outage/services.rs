use std::{
    convert::Infallible,
    future::{Ready, ready},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
        mpsc,
    },
    task::{Context, Poll},
    thread::{self, JoinHandle},
    time::Duration,
};

use axum::{Router, http::StatusCode, routing::get};
use tokio::{net::TcpListener, runtime::Handle, sync::oneshot};
use tower::{Service, ServiceExt};
use tower_nacos::{Balance, Client, Instance, http, testing::Registry};

use crate::prometheus::HANG;

/// A provider that serves until it is dropped.
pub(crate) struct Provider {
    service: &'static str,
    instance: Instance,
    /// Whether it answers 500.
    broken: Arc<AtomicBool>,
    _stop: oneshot::Sender<()>,
}

impl Provider {
    pub(crate) async fn start(registry: &Registry, service: &'static str) -> Self {
        let broken = Arc::new(AtomicBool::new(false));
        let says = Arc::clone(&broken);
        let answer = move || {
            ready(match says.load(SeqCst) {
                true => StatusCode::INTERNAL_SERVER_ERROR,
                false => StatusCode::OK,
            })
        };
        let app = Router::new().route("/", get(answer));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async move { drop(stopped.await) };
        let serving = axum::serve(listener, app).with_graceful_shutdown(stopped);
        #[expect(clippy::disallowed_methods, reason = "ends with `stop`")]
        tokio::spawn(async move { serving.await });
        let instance = Instance::parse(&address).unwrap();
        let provider = Self {
            service,
            instance,
            broken,
            _stop: stop,
        };
        provider.register(registry);
        provider
    }

    pub(crate) fn register(&self, registry: &Registry) {
        registry.register(self.service, &self.instance);
    }

    pub(crate) fn deregister(&self, registry: &Registry) {
        let address = self.instance.address().to_string();
        assert!(registry.deregister(self.service, &address));
    }

    pub(crate) fn answers_badly(&self, broken: bool) {
        self.broken.store(broken, SeqCst);
    }
}

/// Calls that service some fifty times a second, as long as the test lasts.
pub(crate) fn keep_calling(http: &http::Client, service: &'static str) {
    let http = http.clone();
    #[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
    tokio::spawn(async move {
        loop {
            let call = http.get(format!("nacos://{service}/"));
            let _ = call.timeout(Duration::from_secs(1)).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
}

/// A service one of whose callers blocks in `Service::call`, as no service should.
pub(crate) struct Stuck {
    balance: Balance<Blocks>,
    entered: mpsc::Receiver<()>,
    let_go: mpsc::Sender<()>,
    /// None of our runtime's, which is to go on.
    caller: Option<JoinHandle<()>>,
}

#[derive(Clone)]
struct Blocks {
    entered: mpsc::Sender<()>,
    let_go: Arc<Mutex<mpsc::Receiver<()>>>,
}

impl Stuck {
    pub(crate) async fn start(registry: &Registry, nacos: &Client) -> Self {
        registry.register_as("p", "stuck", [&unreal("10.0.0.1:80")]);
        let service = nacos.subscribe("stuck").await.unwrap();
        service.wait_for(1, HANG).await.unwrap();
        let (enter, entered) = mpsc::channel();
        let (let_go, waits) = mpsc::channel();
        let blocks = Blocks {
            entered: enter,
            let_go: Arc::new(Mutex::new(waits)),
        };
        Self {
            balance: Balance::builder(&service).build(move |_: &Instance| blocks.clone()),
            entered,
            let_go,
            caller: None,
        }
    }

    /// The instance goes while a call enters it.
    pub(crate) fn block(&mut self, registry: &Registry) {
        let (balance, runtime) = (self.balance.clone(), Handle::current());
        let call = move || runtime.block_on(balance.oneshot(())).unwrap();
        self.caller = Some(thread::spawn(call));
        self.entered.recv_timeout(HANG).unwrap();
        registry.register_as("p", "stuck", [&unreal("10.0.0.2:80")]);
    }

    pub(crate) fn let_go(&mut self) {
        self.let_go.send(()).unwrap();
        self.caller.take().unwrap().join().unwrap();
    }
}

impl Service<()> for Blocks {
    type Response = ();
    type Error = Infallible;
    type Future = Ready<Result<(), Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        self.entered.send(()).unwrap();
        let _ = self.let_go.lock().unwrap().recv();
        ready(Ok(()))
    }
}

/// One that nobody dials.
pub(crate) fn unreal(address: &str) -> Instance {
    Instance::parse(address).unwrap()
}
