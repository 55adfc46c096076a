//! Proxies, by the connectors of hyper-util.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
};

use hyper_util::client::legacy::connect::{
    HttpConnector,
    proxy::{SocksV5, Tunnel},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::TcpStream,
};
use tower::BoxError;
use tower_nacos::transport::{ByUri, Destination, Dial, Transport};

use super::{connector::nowhere, support::*};

/// A proxy by CONNECT or SOCKS5 that leads everybody to one server and notes whom they asked for.
async fn proxy(socks: bool, to: SocketAddr) -> (Peer, Arc<Mutex<Vec<String>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&asked);
    let peer = Peer::start(move |mut socket, _| {
        let noted = Arc::clone(&noted);
        async move {
            let whom = if socks {
                socks_asked(&mut socket).await
            } else {
                let head = read_request(&mut socket, 0).await;
                head.split(' ').nth(1).unwrap().to_owned()
            };
            noted.lock().unwrap().push(whom);
            let Ok(mut server) = TcpStream::connect(to).await else {
                let no: &[u8] = if socks {
                    &[5, 5, 0, 1, 0, 0, 0, 0, 0, 0]
                } else {
                    b"HTTP/1.1 502 Bad Gateway\r\n\r\n"
                };
                let _ = socket.write_all(no).await;
                return;
            };
            let yes: &[u8] = if socks {
                &[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]
            } else {
                b"HTTP/1.1 200 OK\r\n\r\n"
            };
            socket.write_all(yes).await.unwrap();
            let _ = copy_bidirectional(&mut socket, &mut server).await;
        }
    })
    .await;
    (peer, asked)
}

/// Whom a client of SOCKS5 (RFC 1928) asks for, without authentication and by an IPv4 address.
async fn socks_asked(socket: &mut TcpStream) -> String {
    let mut hello = [0; 3];
    socket.read_exact(&mut hello).await.unwrap();
    assert_eq!(hello, [5, 1, 0]);
    socket.write_all(&[5, 0]).await.unwrap();
    let mut request = [0; 10];
    socket.read_exact(&mut request).await.unwrap();
    assert_eq!(request[..4], [5, 1, 0, 1]);
    let ip = Ipv4Addr::new(request[4], request[5], request[6], request[7]);
    format!("{ip}:{}", u16::from_be_bytes([request[8], request[9]]))
}

#[tokio::test]
async fn proxies_by_connect_and_socks_of_a_kept_crate() {
    for socks in [false, true] {
        let server = Server::start().await;
        let (proxy, asked) = proxy(socks, server.address).await;
        let at: http::Uri = format!("http://{}", proxy.address).parse().unwrap();
        let builder = Transport::builder();
        let builder = if socks {
            builder.connector(ByUri::new(SocksV5::new(at, HttpConnector::new())))
        } else {
            builder.connector(ByUri::new(Tunnel::new(at, HttpConnector::new())))
        };
        let balance = rotating(&[nowhere()], builder);
        for id in 0..2 {
            assert_eq!(text(&balance, post(id, "x")).await.unwrap(), "x");
        }
        assert_eq!(
            *asked.lock().unwrap(),
            ["192.0.2.7:8080"],
            "one connection, kept"
        );
    }
}

#[tokio::test]
async fn a_proxy_that_reaches_nobody_is_an_instance_that_nobody_reaches() {
    for socks in [false, true] {
        let (proxy, _) = proxy(socks, nobody().await).await;
        let at: http::Uri = format!("http://{}", proxy.address).parse().unwrap();
        let server = Server::start().await;
        let direct = server.address;
        let connector = HttpConnector::new();
        let (tunnel, socks5) = (
            ByUri::new(Tunnel::new(at.clone(), connector.clone())),
            ByUri::new(SocksV5::new(at, connector)),
        );
        let builder = Transport::builder().connector(move |to: Destination| {
            let (tunnel, socks5) = (tunnel.clone(), socks5.clone());
            async move {
                Ok::<_, BoxError>(match to.address().socket_addr() == Some(direct) {
                    true => to.connect().await?,
                    false if socks => socks5.dial(to).await?.into_inner().into_inner(),
                    false => tunnel.dial(to).await?.into_inner().into_inner(),
                })
            }
        });
        let error = failure(&alone(nowhere(), builder.clone()), post(0, "x")).await;
        let says = error.to_string();
        assert!(
            error.is_connect() && says.contains("no connection by its connector"),
            "{says}"
        );
        let balance = rotating(&[nowhere(), direct], builder);
        for id in 0..4 {
            assert_eq!(text(&balance, post(id, "x")).await.unwrap(), "x");
        }
        let says = balance.explain(&nowhere().into()).to_string();
        assert!(says.contains("could not be reached"), "{says}");
    }
}
