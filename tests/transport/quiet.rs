//! A kept connection that its server ended while our runtime was busy: the runtime does not know yet, the
//! system does, and no request is written to it.

use std::{sync::mpsc, thread, time::Duration};

use http_body_util::BodyExt;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;
use tower_nacos::transport::{Protocol, Tls, TransportBuilder};

use crate::transport::{support::*, tls};

/// How a server ends a connection.
#[derive(Clone, Copy, Debug)]
enum End {
    Fin,
    Rst,
    /// It closes its own side, and reads on.
    Half,
}

trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<I: AsyncRead + AsyncWrite + Unpin + Send> Io for I {}

/// The stream on a socket, under TLS or plain, and the socket itself.
async fn accept(
    socket: TcpStream,
    tls: Option<&TlsAcceptor>,
) -> (Box<dyn Io>, std::net::TcpStream) {
    let socket = socket.into_std().unwrap();
    let control = socket.try_clone().unwrap();
    let socket = TcpStream::from_std(socket).unwrap();
    match tls {
        None => (Box::new(socket), control),
        Some(tls) => (Box::new(tls.accept(socket).await.unwrap()), control),
    }
}

/// A server on a thread of its own, so that it works while the test's runtime does not.
struct Apart {
    address: std::net::SocketAddr,
    /// Its first connection is to end.
    end: tokio::sync::mpsc::UnboundedSender<End>,
    /// It has.
    ended: mpsc::Receiver<()>,
    /// How many bytes of requests came on that connection after its end.
    late: mpsc::Receiver<usize>,
}

impl Apart {
    fn start(tls: Option<TlsAcceptor>) -> Self {
        let (end, mut ends) = tokio::sync::mpsc::unbounded_channel();
        let (has_ended, ended) = mpsc::channel();
        let (came_late, late) = mpsc::channel();
        let (bound, address) = mpsc::channel();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.unwrap().block_on(async move {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                bound.send(listener.local_addr().unwrap()).unwrap();
                let (socket, _) = listener.accept().await.unwrap();
                let (mut first, control) = accept(socket, tls.as_ref()).await;
                answer(&mut first).await;
                let Some(end) = ends.recv().await else {
                    return;
                };
                let late = match end {
                    End::Fin => {
                        drop(first);
                        None
                    }
                    End::Rst => {
                        let linger = Some(Duration::ZERO);
                        socket2::SockRef::from(&control).set_linger(linger).unwrap();
                        drop(first);
                        None
                    }
                    End::Half => {
                        control.shutdown(std::net::Shutdown::Write).unwrap();
                        Some(first)
                    }
                };
                drop(control);
                has_ended.send(()).unwrap();
                let (socket, _) = listener.accept().await.unwrap();
                let (mut second, _) = accept(socket, tls.as_ref()).await;
                answer(&mut second).await;
                let mut read = Vec::new();
                if let Some(mut first) = late {
                    let _ = first.read_to_end(&mut read).await;
                }
                let _ = came_late.send(read.len());
                let _ = ends.recv().await;
            });
        });
        Self {
            address: address.recv().unwrap(),
            end,
            ended,
            late,
        }
    }
}

/// Answers one request, of HTTP/1 or HTTP/2.
async fn answer<I: AsyncRead + AsyncWrite + Unpin>(stream: &mut I) {
    let mut read = Vec::new();
    stream.read_buf(&mut read).await.unwrap();
    while !read.starts_with(b"PRI") {
        if read.ends_with(b"\r\n\r\n") {
            stream.write_all(OK).await.unwrap();
            return stream.flush().await.unwrap();
        }
        assert!(stream.read_buf(&mut read).await.unwrap() > 0);
    }
    stream
        .write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0])
        .await
        .unwrap(); // SETTINGS
    stream.flush().await.unwrap();
    read.drain(..24);
    loop {
        while read.len() < 9 || read.len() < 9 + usize::from(read[2]) + 256 * usize::from(read[1]) {
            assert!(stream.read_buf(&mut read).await.unwrap() > 0);
        }
        let length = 9 + usize::from(read[2]) + 256 * usize::from(read[1]);
        let frame: Vec<_> = read.drain(..length).collect();
        match (frame[3], frame[4] & 1) {
            (SETTINGS, 0) => stream
                .write_all(&[0, 0, 0, 4, 1, 0, 0, 0, 0])
                .await
                .unwrap(),
            (HEADERS, _) => {
                let head = [0, 0, 1, HEADERS, 4 | END_STREAM, 0, 0, 0, frame[8], 0x88];
                stream.write_all(&head).await.unwrap();
                return stream.flush().await.unwrap();
            }
            _ => {}
        }
    }
}

/// No POST is lost to a connection that ended before it was made, and none is made twice.
async fn no_post_is_lost(tls: Option<&TlsAcceptor>, options: &TransportBuilder, what: &str) {
    for end in [End::Fin, End::Rst, End::Half] {
        let server = Apart::start(tls.cloned());
        let transport = alone(server.address, options.clone());
        let first = soon("the first", transport.clone().oneshot(post(1, ""))).await;
        let body = first.unwrap().into_body();
        soon("its body", body.collect()).await.unwrap();
        // The runtime looks at no socket until this is over, and a moment besides.
        server.end.send(end).unwrap();
        server.ended.recv().unwrap();
        #[expect(
            clippy::disallowed_methods,
            reason = "the runtime is to look at nothing meanwhile"
        )]
        thread::sleep(Duration::from_millis(5));
        let second = soon("the second", transport.clone().oneshot(post(2, ""))).await;
        let second = second.unwrap_or_else(|error| panic!("{what}, {end:?}: {error}"));
        assert_eq!(second.status(), 200);
        drop((second, transport));
        let late = tokio::task::spawn_blocking(move || (server.late.recv().unwrap(), server));
        let (late, _server) = soon("the count", late).await.unwrap();
        assert_eq!(
            late, 0,
            "{what}, {end:?}: bytes of a request came after its end"
        );
    }
}

#[tokio::test]
async fn what_is_made_after_a_kept_connection_s_end_goes_over_another() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        no_post_is_lost(None, &builder(protocol), &format!("{protocol:?}")).await;
    }
}

/// A server that ends TLS without a word, as one that is killed does.
#[tokio::test]
async fn under_tls_too() {
    let ca = tls::ca();
    for (protocol, alpn) in [(Protocol::Http1, "http/1.1"), (Protocol::Http2, "h2")] {
        let acceptor = tls::acceptor(&ca, "127.0.0.1", &[alpn], false);
        let options = builder(protocol).tls(Tls::new().ca(ca.pem()));
        let what = format!("{protocol:?} under TLS");
        no_post_is_lost(Some(&acceptor), &options, &what).await;
    }
}
