//! A server for tests that answers as it is told to.

use std::sync::{Arc, Mutex};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::{client::login::Target, model::Host};

/// A server that reads from each connection up to `end`, answers it with the next of these texts, and keeps what
/// it read. A text that does not end the answer leaves the connection open.
pub(super) async fn server(
    answers: Vec<String>,
    end: &'static str,
) -> (Target, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let requests = Arc::new(Mutex::new(Vec::new()));
    let seen = requests.clone();
    #[expect(clippy::disallowed_methods, reason = "the scripted peer of a test")]
    tokio::spawn(async move {
        let mut open = Vec::new();
        for answer in answers {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut text = Vec::new();
            while !text.ends_with(end.as_bytes()) {
                let mut buf = [0; 1024];
                let n = socket.read(&mut buf).await.unwrap();
                if n == 0 {
                    break;
                }
                text.extend_from_slice(&buf[..n]);
            }
            seen.lock().unwrap().push(String::from_utf8(text).unwrap());
            let _ = socket.write_all(answer.as_bytes()).await;
            open.push(socket);
        }
        std::future::pending::<()>().await;
    });
    let target = Target {
        addr,
        host: Host::Ip(addr.ip()),
        authority: addr.to_string(),
    };
    (target, requests)
}
