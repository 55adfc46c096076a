//! The transport against a server that is not hyper: nginx, if there is one in `PATH`. Without it
//! one line says that this was skipped; `NGINX_REQUIRED=1` makes that a failure.

use std::{
    env, fs,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{Request, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::time::timeout;
use tower::ServiceExt;
use tower_nacos::{
    Balance, Instance, Subscription,
    endpoint::CallError,
    http::{BuildHttp, HttpBalance},
    transport::{Body, Error, Protocol, Tls, Transport, TransportBuilder},
};

/// An nginx of our own, in a folder and on a port of its own.
struct Nginx {
    master: Child,
    home: PathBuf,
    address: SocketAddr,
}

impl Nginx {
    /// With these lines in its `http` block and `listen` parameters; `None` if there is none.
    fn start(listen: &str, lines: &str) -> Option<Self> {
        static HOMES: AtomicU32 = AtomicU32::new(0);
        let number = HOMES.fetch_add(1, Ordering::Relaxed);
        let home = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("nginx-{}-{number}", std::process::id()));
        fs::create_dir_all(&home).unwrap();
        let free = |listener: TcpListener| listener.local_addr().unwrap();
        let address = free(TcpListener::bind("127.0.0.1:0").unwrap());
        let at = home.display();
        let config = format!(
            "daemon off; worker_processes 1; pid {at}/pid; error_log {at}/error.log warn;\n\
             events {{ worker_connections 512; }}\n\
             http {{\n\
               access_log off; client_body_temp_path {at}/body; proxy_temp_path {at}/proxy;\n\
               fastcgi_temp_path {at}/fcgi; uwsgi_temp_path {at}/uwsgi; scgi_temp_path {at}/scgi;\n\
               {lines}\n\
               server {{ listen {address} {listen}; location / {{ return 200 \"hello\\n\"; }}\n\
                 location /large {{ root {at}; limit_rate 200k; }} }}\n\
             }}\n"
        );
        fs::write(home.join("large"), vec![b'x'; 30_000]).unwrap();
        fs::write(home.join("conf"), config).unwrap();
        let started = Command::new("nginx")
            .args(["-p", "."])
            .args(["-e", "error.log", "-c"])
            .arg(home.join("conf"))
            .current_dir(&home)
            .stdin(Stdio::null())
            .spawn();
        let Ok(master) = started else {
            assert!(
                env::var_os("NGINX_REQUIRED").is_none(),
                "NGINX_REQUIRED is set, and there is no nginx in PATH"
            );
            println!("skipped: there is no nginx in PATH");
            return None;
        };
        let nginx = Self {
            master,
            home,
            address,
        };
        #[expect(
            clippy::disallowed_methods,
            reason = "the limit of a wait for a process"
        )]
        let begun = Instant::now();
        // Written once it listens.
        while fs::read_to_string(nginx.home.join("pid")).map_or(true, |pid| pid.is_empty()) {
            assert!(begun.elapsed() < HANG, "nginx does not start");
            std::thread::yield_now();
        }
        Some(nginx)
    }

    /// New workers take over; the old ones finish what they have and say goodbye.
    fn reload(&self) {
        let told = Command::new("kill")
            .arg("-HUP")
            .arg(self.master.id().to_string())
            .status();
        assert!(told.unwrap().success());
    }

    fn balance(&self, transport: TransportBuilder) -> HttpBalance {
        let listed = Subscription::fixed([Instance::from(self.address)]);
        Balance::builder(&listed).build_http(transport.build())
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = Command::new("kill")
            .arg(self.master.id().to_string())
            .status();
        let _ = self.master.wait();
        let _ = fs::remove_dir_all(&self.home);
    }
}

fn http1() -> TransportBuilder {
    Transport::builder().protocol(Protocol::Http1)
}

fn http2() -> TransportBuilder {
    Transport::builder().protocol(Protocol::Http2)
}

/// A POST whose body comes in pieces.
fn post() -> Request<Body> {
    let pieces =
        ["a", "b", "c"].map(|piece| Ok::<_, std::io::Error>(Frame::data(Bytes::from(piece))));
    let body = Body::new(StreamBody::new(stream::iter(pieces)));
    Request::post("/orders").body(body).unwrap()
}

fn get(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).unwrap()
}

/// One call with all of its response.
async fn call(balance: &HttpBalance, request: Request<Body>) -> Result<Bytes, String> {
    let response = timeout(HANG, balance.clone().oneshot(request));
    let response = response
        .await
        .expect("it hangs")
        .map_err(|error: CallError| {
            let evidence = error.inner::<Error>().map(Error::evidence);
            format!("{evidence:?}: {error:?}")
        })?;
    assert_eq!(response.status(), StatusCode::OK);
    let body = timeout(HANG, response.into_body().collect())
        .await
        .expect("it hangs");
    body.map(|body| body.to_bytes())
        .map_err(|error| error.to_string())
}

/// Many POSTs, sixteen at a time; those that failed, and how. `at` runs once half have begun.
async fn load(balance: &HttpBalance, calls: u32, at: impl Fn()) -> Vec<String> {
    let half = calls / 2;
    let calls = stream::iter(0..calls).map(|n| {
        if n == half {
            at();
        }
        call(balance, post())
    });
    let failed = calls
        .buffer_unordered(16)
        .filter_map(async |call| call.err());
    failed.collect().await
}

#[tokio::test]
async fn connections_that_nginx_ends_after_a_few_requests_cost_no_call() {
    for (transport, listen) in [(http1(), ""), (http2(), "http2")] {
        let Some(nginx) = Nginx::start(listen, "keepalive_requests 60;") else {
            return;
        };
        let balance = nginx.balance(transport);
        let failed = load(&balance, 1_000, || {}).await;
        assert!(
            failed.is_empty(),
            "{listen}: {} failed: {}",
            failed.len(),
            failed[0]
        );
        assert_eq!(balance.counts(), [0, 0, 0]);
    }
}

#[tokio::test]
async fn a_reload_under_load_costs_no_call_over_http2() {
    let Some(nginx) = Nginx::start("http2", "keepalive_requests 100000;") else {
        return;
    };
    let balance = nginx.balance(http2());
    for _ in 0..5 {
        let failed = load(&balance, 400, || nginx.reload()).await;
        assert!(failed.is_empty(), "{} failed: {}", failed.len(), failed[0]);
    }
}

#[tokio::test]
async fn a_reload_under_load_costs_over_http1_only_what_a_connection_had_taken() {
    // One instance: a connection that nginx closes as we write leaves nobody to turn to, until the
    // probe has told, at once, that another connection does.
    let Some(nginx) = Nginx::start("", "keepalive_requests 100000;") else {
        return;
    };
    let balance = nginx.balance(http1());
    let failed = load(&balance, 400, || nginx.reload()).await;
    assert!(
        failed
            .iter()
            .all(|error| error.starts_with("Some(Unknown)")),
        "{failed:?}"
    );
}

#[tokio::test]
async fn a_stream_limit_makes_calls_wait_and_none_fail() {
    let lines = "http2_max_concurrent_streams 2;";
    let Some(nginx) = Nginx::start("http2", lines) else {
        return;
    };
    let balance = nginx.balance(http2().max_connections(3));
    let calls = (0..40).map(|_| call(&balance, get("/large")));
    for answered in futures_util::future::join_all(calls).await {
        assert_eq!(answered.unwrap().len(), 30_000);
    }
}

#[tokio::test]
async fn over_tls_alpn_says_which_protocol_is_spoken() {
    let key = rcgen::KeyPair::generate().unwrap();
    let names = vec!["orders.shop".to_owned()];
    let certificate = rcgen::CertificateParams::new(names)
        .unwrap()
        .self_signed(&key)
        .unwrap();
    let files =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("nginx-tls-{}", std::process::id()));
    fs::create_dir_all(&files).unwrap();
    fs::write(files.join("cert.pem"), certificate.pem()).unwrap();
    fs::write(files.join("key.pem"), key.serialize_pem()).unwrap();
    let at = files.display();
    let lines = format!("ssl_certificate {at}/cert.pem; ssl_certificate_key {at}/key.pem;");
    for listen in ["ssl", "ssl http2"] {
        let Some(nginx) = Nginx::start(listen, &lines) else {
            return;
        };
        let tls = Tls::new().ca(certificate.pem()).server_name("orders.shop");
        let balance = nginx.balance(Transport::builder().tls(tls));
        let response = timeout(HANG, balance.clone().oneshot(get("/"))).await;
        let response = response.expect("it hangs").unwrap();
        let version = if listen == "ssl" {
            http::Version::HTTP_11
        } else {
            http::Version::HTTP_2
        };
        assert_eq!(response.version(), version);
        drop(response);
        let failed = load(&balance, 100, || {}).await;
        assert!(failed.is_empty(), "{listen}: {failed:?}");
    }
    fs::remove_dir_all(&files).unwrap();
}

const HANG: Duration = Duration::from_secs(20);
