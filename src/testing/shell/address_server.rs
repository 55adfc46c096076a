use std::{
    convert::Infallible,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpListener,
    runtime::Handle,
    sync::watch,
    task::{JoinHandle, JoinSet},
};

/// An address server on `127.0.0.1`: tells clients over HTTP which servers a registry has, one a line.
///
/// It answers every path alike, and whatever it was told to: a list, an error, or nothing at all. It ends
/// with its drop.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use tower_nacos::{Client, testing::{AddressServer, Registry}};
///
/// let registry = Registry::start().await?;
/// let addresses = AddressServer::start([registry.addr()]).await?;
/// let client = Client::builder().address_server(addresses.url()).connect().await?;
/// assert_eq!(registry.connections().len(), 1);
///
/// addresses.answer(502, "<html>Bad Gateway</html>"); // changes nothing
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct AddressServer {
    shared: Arc<Shared>,
    addr: SocketAddr,
    accepting: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    /// Status and body, or silence.
    answer: Mutex<Option<(u16, String)>>,
    /// How often it was asked, and with which path and query last.
    asked: watch::Sender<(u64, String)>,
}

impl AddressServer {
    /// Starts one on the current tokio runtime that lists `servers` (`127.0.0.1:8848`).
    ///
    /// # Errors
    ///
    /// If no port is free.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with I/O and time enabled.
    pub async fn start<S: ToString>(servers: impl IntoIterator<Item = S>) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let shared = Arc::new(Shared {
            answer: Mutex::new(Some((200, list(servers)))),
            asked: watch::Sender::default(),
        });
        Ok(Self {
            addr: listener.local_addr()?,
            accepting: Handle::current().spawn(accept(listener, Arc::clone(&shared))),
            shared,
        })
    }

    /// What to give to clients: `http://127.0.0.1:<port>/nacos/serverlist`.
    pub fn url(&self) -> String {
        format!("http://{}/nacos/serverlist", self.addr)
    }

    /// Where it listens.
    pub const fn socket_addr(&self) -> SocketAddr {
        self.addr
    }

    /// Lists other servers from now on.
    pub fn set_servers<S: ToString>(&self, servers: impl IntoIterator<Item = S>) {
        self.answer(200, list(servers));
    }

    /// Answers with any status and body from now on.
    pub fn answer(&self, status: u16, body: impl Into<String>) {
        *self.shared.lock() = Some((status, body.into()));
    }

    /// Takes questions and does not answer them from now on.
    pub fn fall_silent(&self) {
        *self.shared.lock() = None;
    }

    /// How often it was asked.
    pub fn asked(&self) -> u64 {
        self.shared.asked.borrow().0
    }

    /// Path and query of the last question.
    pub fn last_question(&self) -> String {
        self.shared.asked.borrow().1.clone()
    }

    /// Waits until it was asked so often more.
    pub async fn asked_again(&self, times: u64) {
        let wanted = self.asked() + times;
        let mut asked = self.shared.asked.subscribe();
        // The sender lives as long as this.
        let _ = asked.wait_for(|(asked, _)| *asked >= wanted).await;
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<(u16, String)>> {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn serve(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let answer = self.lock().clone();
        let target = request.uri().path_and_query().map_or("", |it| it.as_str());
        self.asked.send_modify(|(asked, last)| {
            *asked += 1;
            target.clone_into(last);
        });
        let Some((status, body)) = answer else {
            return std::future::pending().await;
        };
        let mut response = Response::new(Full::new(Bytes::from(body)));
        let status = StatusCode::from_u16(status);
        *response.status_mut() = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Ok(response)
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new(); // that end with this
    loop {
        while connections.try_join_next().is_some() {}
        let Ok((socket, _)) = listener.accept().await else {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            continue;
        };
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            let service = service_fn(|request| shared.serve(request));
            let _ = http1::Builder::new()
                .serve_connection(TokioIo::new(socket), service)
                .await;
        });
    }
}

fn list<S: ToString>(servers: impl IntoIterator<Item = S>) -> String {
    let lines = servers.into_iter();
    lines.map(|server| server.to_string() + "\n").collect()
}

impl Drop for AddressServer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}
