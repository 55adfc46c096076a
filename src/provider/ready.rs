//! Whether a provider can serve, and whether its address answers.

use std::{fmt, future::Future, io, panic::AssertUnwindSafe, pin::Pin, sync::Arc, time::Duration};

use ::http::{Request, header::HOST};
use bytes::Bytes;
use futures_util::FutureExt;
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};

use super::error::OnlineError;
use crate::model::Address;

/// One question, one answer: a closure that hangs is asked again.
const PATIENCE: Duration = Duration::from_secs(5);
/// To connect to oneself.
const DIAL: Duration = Duration::from_secs(3);

type Answer = Pin<Box<dyn Future<Output = bool> + Send>>;

/// Whom to ask.
#[derive(Clone)]
pub(super) enum Probe {
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
        Self::Closure(Arc::new(move || Box::pin(ready())))
    }

    pub(super) fn path(&self) -> Option<&str> {
        match self {
            Self::Closure(_) => None,
            Self::Path(path) => Some(path),
        }
    }

    /// Asks once. What panics or does not answer within 5 s is not ready; so is an error.
    pub(super) async fn ask(self, addresses: Vec<Address>) -> Result<(), String> {
        let asked = AssertUnwindSafe(async {
            match self {
                Self::Closure(ready) => match ready().await {
                    true => Ok(()),
                    false => Err("`ready` says no".to_owned()),
                },
                Self::Path(path) => {
                    for address in &addresses {
                        let answer = get(address, &path).await;
                        answer.map_err(|error| format!("http://{address}{path}: {error}"))?;
                    }
                    Ok(())
                }
            }
        });
        match timeout(PATIENCE, asked.catch_unwind()).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err("`ready` panicked".to_owned()),
            Err(_) => Err(format!("no answer within {PATIENCE:?}")),
        }
    }
}

impl fmt::Debug for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closure(_) => f.write_str("Closure"),
            Self::Path(path) => write!(f, "Path({path})"),
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
