//! One request over HTTP/1.1 and its answer, over a connection of its own.

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::link::chain;

/// More of an answer is not read.
const LONGEST: usize = 64 << 10;

pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: String,
}

/// At most so many characters of what a server said stand in an error.
pub(super) const LONGEST_QUOTE: usize = 200;

/// What a server said, fit for an error: short, in one line, and moving no cursor.
pub(super) fn quote(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let line = line.replace(char::is_control, "?");
    match line.char_indices().nth(LONGEST_QUOTE) {
        None => line,
        Some((end, _)) => format!("{}…", &line[..end]),
    }
}

/// Sends `request` and reads the answer. Without limit of time; dropping the future closes the socket.
pub(super) async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Request<Full<Bytes>>,
) -> Result<Answer, String> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let exchange = async move {
        let answer = sender.send_request(request).await.map_err(|e| chain(&e))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), LONGEST).collect().await;
        let body = body.map_err(|error| error.to_string())?.to_bytes();
        let body = String::from_utf8_lossy(&body).into_owned();
        Ok(Answer { status, body })
    };
    tokio::pin!(exchange, connection);
    let mut open = true;
    loop {
        tokio::select! {
            biased;
            answer = &mut exchange => return answer,
            // What it ended with reaches the exchange as well.
            _ = &mut connection, if open => open = false,
        }
    }
}
