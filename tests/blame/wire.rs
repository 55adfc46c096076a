//! What a handler can do to the connection that it was called over.

use std::{
    io::Write,
    net::TcpStream,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::sync::watch;

/// The connection that a request came over, in the request's extensions.
#[derive(Clone)]
pub(crate) struct Wire(Arc<Inner>);

struct Inner {
    /// A second handle of the socket, for what no server would send.
    socket: Mutex<Option<TcpStream>>,
    state: watch::Sender<State>,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Up,
    /// The server is to drop its connection.
    Ending,
    Down,
}

impl Wire {
    pub(crate) fn of(socket: &tokio::net::TcpStream) -> Self {
        let socket = socket2::SockRef::from(socket).try_clone().unwrap();
        Self(Arc::new(Inner {
            socket: Mutex::new(Some(socket.into())),
            state: watch::Sender::new(State::Up),
        }))
    }

    /// Closes the connection, as a process does that ends.
    pub(crate) async fn close(&self) {
        self.end(b"", false).await;
    }

    /// Closes it with RST.
    pub(crate) async fn reset(&self) {
        self.end(b"", true).await;
    }

    /// Writes these bytes past the server, and closes.
    pub(crate) async fn say(&self, bytes: &[u8]) {
        self.end(bytes, false).await;
    }

    async fn end(&self, last_words: &[u8], reset: bool) {
        if let Some(mut socket) = self.0.socket.lock().unwrap().take() {
            let _ = socket.write_all(last_words);
            if reset {
                let linger = Some(Duration::ZERO);
                let _ = socket2::SockRef::from(&socket).set_linger(linger);
            }
        }
        self.0.state.send_if_modified(|state| {
            let up = *state == State::Up;
            if up {
                *state = State::Ending;
            }
            up
        });
        let mut state = self.0.state.subscribe();
        let _ = state.wait_for(|state| *state == State::Down).await;
    }

    /// Runs a server's connection until it ends or a handler ends it.
    pub(crate) async fn serve(self, connection: impl Future) {
        let mut state = self.0.state.subscribe();
        tokio::select! {
            _ = connection => {}
            _ = state.wait_for(|state| *state != State::Up) => {}
        }
        self.0.socket.lock().unwrap().take();
        self.0.state.send_replace(State::Down);
    }
}
