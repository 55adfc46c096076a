//! What lies below the registry's client: names, ports, and what answers there.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::{Duration, SystemTime},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, lookup_host},
    time::timeout,
};

use tower_nacos::client::ServerAddress;

use super::Findings;
use crate::{connection::Connection, failure::Failure};

const PATIENCE: Duration = Duration::from_secs(3);
/// Clocks that differ by less harm nobody: signatures and tokens last for minutes.
const SKEW: Duration = Duration::from_secs(30);
/// How a client of HTTP/2 begins, with an empty SETTINGS frame.
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// The type of a SETTINGS frame, which is the first of a server.
const SETTINGS: u8 = 4;

/// What the first bytes of an answer are.
enum Spoken {
    Http1,
    Http2,
    Tls,
    Else(String),
}

pub(super) async fn look(
    server: &ServerAddress,
    connection: &Connection,
    findings: &mut Findings<'_>,
) -> Result<(), Failure> {
    let host = server.host().to_string();
    let Some(ip) = resolve(&host, findings).await? else {
        return Ok(());
    };
    main_port(SocketAddr::new(ip, server.main_port()), &host, findings).await?;
    let grpc = SocketAddr::new(ip, server.grpc_port());
    grpc_port(grpc, connection.tls, findings).await
}

async fn resolve(host: &str, findings: &mut Findings<'_>) -> Result<Option<IpAddr>, Failure> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let found = match timeout(PATIENCE, lookup_host((bare, 0))).await {
        Ok(found) => found.map(|mut found| found.next()),
        Err(_) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "no answer within 3 s",
        )),
    };
    match found {
        Ok(Some(at)) => {
            findings.good("name", format!("{host} is {}", at.ip()))?;
            Ok(Some(at.ip()))
        }
        Ok(None) | Err(_) => {
            let why = found
                .err()
                .map_or_else(|| "no address".to_owned(), |error| error.to_string());
            let remedy = "look at its spelling, and at this machine's name servers (/etc/resolv.conf, /etc/hosts)";
            findings.bad("name", format!("{host} does not resolve: {why}"), remedy)?;
            Ok(None)
        }
    }
}

/// Logins go there.
async fn main_port(at: SocketAddr, host: &str, findings: &mut Findings<'_>) -> Result<(), Failure> {
    let what = "HTTP port";
    let question = format!("GET /nacos/ HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    let answer = match ask(at, question.as_bytes(), 4096).await {
        Ok(answer) => answer,
        Err(error) => {
            let remedy = "nothing but a login needs it, but where it is closed the gRPC port, 1000 above, is as a rule, too: is the server up, is this its main port, does a firewall stand between?";
            return findings.bad(what, format!("{at}: {error}"), remedy);
        }
    };
    match spoken(&answer) {
        Spoken::Http1 => findings.good(what, format!("{at} speaks HTTP"))?,
        Spoken::Tls => {
            let remedy =
                "log in over TLS (`tls_plain_login=false`), or use the port that speaks HTTP";
            return findings.doubtful(what, format!("{at} wants TLS"), remedy);
        }
        Spoken::Http2 => {
            return findings.bad(
                what,
                format!("{at} speaks HTTP/2 alone"),
                "it looks like the gRPC port: give the main port, which is 1000 below",
            );
        }
        Spoken::Else(said) => {
            return findings.bad(what, format!("{at} says {said}"), "is that a Nacos server?");
        }
    }
    clock(&answer, findings)
}

fn clock(answer: &[u8], findings: &mut Findings<'_>) -> Result<(), Failure> {
    let text = String::from_utf8_lossy(answer);
    let mut headers = text.lines().filter_map(|line| line.split_once(':'));
    let date = headers.find(|(name, _)| name.eq_ignore_ascii_case("date"));
    let Some(theirs) = date.and_then(|(_, date)| httpdate::parse_http_date(date.trim()).ok())
    else {
        return Ok(()); // it does not say
    };
    let ours = SystemTime::now();
    let (apart, order) = match ours.duration_since(theirs) {
        Ok(apart) => (apart, "ahead of"),
        Err(error) => (error.duration(), "behind"),
    };
    if apart <= SKEW {
        return findings.good("clock", "within 30 s of the registry's");
    }
    let said = format!(
        "this machine's is {} s {order} the registry's",
        apart.as_secs()
    );
    findings.bad(
        "clock",
        said,
        "set both by NTP: signed requests and tokens are refused otherwise",
    )
}

async fn grpc_port(at: SocketAddr, tls: bool, findings: &mut Findings<'_>) -> Result<(), Failure> {
    let what = "gRPC port";
    let answer = match ask(at, HTTP2, 64).await {
        Ok(answer) => answer,
        Err(error) => {
            let remedy = "it is the main port + 1000, and has to be open to clients, too: a firewall's rule, a container's `-p 9848:9848`, a Service's second port; another one is `grpc_port`";
            return findings.bad(what, format!("{at}: {error}"), remedy);
        }
    };
    match (spoken(&answer), tls) {
        (Spoken::Http2, false) => findings.good(what, format!("{at} speaks HTTP/2")),
        (Spoken::Tls, true) => findings.good(what, format!("{at} wants TLS, and gets it")),
        (Spoken::Http2, true) => findings.bad(what, format!("{at} speaks HTTP/2 in clear"), "leave --tls out, or switch TLS on at the server (nacos.remote.server.rpc.tls.enableTls)"),
        (Spoken::Tls, false) => findings.bad(what, format!("{at} wants TLS"), "give --tls, and --ca FILE for an authority of your own"),
        (Spoken::Http1, _) => findings.bad(what, format!("{at} speaks HTTP/1"), "a proxy stands between that is none for gRPC: pass that port on as TCP, since a registry knows its clients by their connections"),
        (Spoken::Else(said), true) if said == NOTHING => findings.good(what, format!("{at} closes what is not TLS")),
        (Spoken::Else(said), _) => findings.bad(what, format!("{at} says {said}"), "is that a Nacos server of 2.0 or later? Older ones have no gRPC; a server that wants TLS alone needs --tls"),
    }
}

const NOTHING: &str = "nothing, and closes";

/// What comes back first.
async fn ask(at: SocketAddr, question: &[u8], most: usize) -> io::Result<Vec<u8>> {
    let late = |what: &str| io::Error::new(io::ErrorKind::TimedOut, what.to_owned());
    let dial = timeout(PATIENCE, TcpStream::connect(at)).await;
    let mut socket = dial.map_err(|_| late("no connection within 3 s"))??;
    let exchange = async {
        socket.write_all(question).await?;
        let mut answer = vec![0; most];
        let read = socket.read(&mut answer).await.unwrap_or(0);
        answer.truncate(read);
        Ok(answer)
    };
    let answer = timeout(PATIENCE, exchange).await;
    answer.map_err(|_| late("it takes connections and says nothing for 3 s"))?
}

fn spoken(answer: &[u8]) -> Spoken {
    match answer {
        [] => Spoken::Else(NOTHING.to_owned()),
        [b'H', b'T', b'T', b'P', ..] => Spoken::Http1,
        // An alert, or a handshake, of TLS 1.0 to 1.3.
        [0x15 | 0x16, 3, ..] => Spoken::Tls,
        [_, _, _, SETTINGS, ..] => Spoken::Http2,
        other => {
            let shown = String::from_utf8_lossy(&other[..other.len().min(40)]).into_owned();
            Spoken::Else(format!("{shown:?}"))
        }
    }
}
