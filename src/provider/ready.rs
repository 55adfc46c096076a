//! Whether a provider can serve, and whether its address answers.

use std::{fmt, future::Future, io, pin::Pin, sync::Arc, time::Duration};

use ::http::{Request, header::HOST};
use bytes::Bytes;
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, sync::Semaphore, task::JoinSet, time::timeout};

use super::error::OnlineError;
use crate::model::Address;

/// One question, one answer: a closure that hangs is asked again.
const PATIENCE: Duration = Duration::from_secs(5);
/// To connect to oneself.
const DIAL: Duration = Duration::from_secs(3);

type Answer = Pin<Box<dyn Future<Output = bool> + Send>>;

/// Whom to ask, one question at a time.
#[derive(Clone)]
pub(super) struct Probe {
    whom: Whom,
    /// Held by the question that is under way, which may go on when nobody waits for it any more.
    one: Arc<Semaphore>,
}

#[derive(Clone)]
enum Whom {
    Closure(Arc<dyn Fn() -> Answer + Send + Sync>),
    /// A path, asked over the listener itself.
    Path(Box<str>),
}

impl Probe {
    pub(super) fn closure<F, R>(ready: F) -> Self
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = bool> + Send + 'static,
    {
        Self::of(Whom::Closure(Arc::new(move || Box::pin(ready()))))
    }

    pub(super) fn of_path(path: Box<str>) -> Self {
        Self::of(Whom::Path(path))
    }

    fn of(whom: Whom) -> Self {
        let one = Arc::new(Semaphore::new(1));
        Self { whom, one }
    }

    pub(super) const fn path(&self) -> Option<&str> {
        match &self.whom {
            Whom::Closure(_) => None,
            Whom::Path(path) => Some(path),
        }
    }

    /// Asks once. What panics or does not answer within 5 s is not ready; so is an error.
    ///
    /// In a task of its own, since what is asked is somebody else's: one that blocks its thread holds
    /// up neither who waits nor, until it is done, a second question.
    pub(super) async fn ask(self, addresses: Vec<Address>) -> Result<(), String> {
        let answered = async {
            let Ok(permit) = self.one.acquire_owned().await else {
                return None; // never closed
            };
            let mut asked = JoinSet::new(); // ends it when nobody waits any more
            asked.spawn(async move {
                let _permit = permit;
                self.whom.answer(&addresses).await
            });
            asked.join_next().await
        };
        match timeout(PATIENCE, answered).await {
            Ok(Some(Ok(answer))) => answer,
            Ok(Some(Err(ended))) if ended.is_panic() => Err("`ready` panicked".to_owned()),
            Ok(_) => Err("`ready` was ended".to_owned()),
            Err(_) => Err(format!("no answer within {PATIENCE:?}")),
        }
    }
}

impl Whom {
    async fn answer(self, addresses: &[Address]) -> Result<(), String> {
        match self {
            Self::Closure(ready) => match ready().await {
                true => Ok(()),
                false => Err("`ready` says no".to_owned()),
            },
            Self::Path(path) => {
                for address in addresses {
                    let answer = get(address, &path).await;
                    answer.map_err(|error| format!("http://{address}{path}: {error}"))?;
                }
                Ok(())
            }
        }
    }
}

impl fmt::Debug for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.whom {
            Whom::Closure(_) => f.write_str("Closure"),
            Whom::Path(path) => write!(f, "Path({path})"),
        }
    }
}

/// Asks a path over HTTP/1.1; any status from 200 to 399 is yes, as for Kubernetes.
async fn get(
    address: &Address,
    path: &str,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let socket = connect(address).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(socket)).await?;
    let request = Request::get(path)
        .header(HOST, address.to_string())
        .body(Empty::<Bytes>::new())?;
    let answer = sender.send_request(request);
    let response = tokio::select! {
        response = answer => response?,
        ended = connection => return Err(ended.err().map_or_else(|| "the connection ended".into(), Into::into)),
    };
    match response.status().as_u16() {
        200..400 => Ok(()),
        status => Err(format!("status {status}").into()),
    }
}

async fn connect(address: &Address) -> io::Result<TcpStream> {
    let host = address.host().to_string();
    let dialled = TcpStream::connect((&*host, address.port()));
    match timeout(DIAL, dialled).await {
        Ok(socket) => socket,
        Err(_) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("no connection within {DIAL:?}"),
        )),
    }
}

/// Whether somebody accepts connections at each address.
pub(super) async fn check(addresses: Vec<Address>) -> Result<(), OnlineError> {
    for address in addresses {
        if let Err(error) = connect(&address).await {
            let error = Arc::new(error);
            return Err(OnlineError::Unreachable { address, error });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_hangs_panics_or_says_no_is_not_ready() {
        let ask = async |probe: Probe| probe.ask(Vec::new()).await;
        assert_eq!(ask(Probe::closure(async || true)).await, Ok(()));
        let no = ask(Probe::closure(async || false)).await;
        assert_eq!(no.unwrap_err(), "`ready` says no");
        let hangs = ask(Probe::closure(std::future::pending)).await;
        assert_eq!(hangs.unwrap_err(), "no answer within 5s");
        let panics = Probe::closure(async || panic!("on purpose"));
        assert_eq!(ask(panics).await.unwrap_err(), "`ready` panicked");
    }
}
