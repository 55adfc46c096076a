//! A server in a process of its own: HTTP/1, HTTP/2 and gRPC on one address, each answer a few bytes.

use std::{
    convert::Infallible,
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    pin::Pin,
    process::{Child, Command, ExitCode, Stdio},
    sync::Arc,
};

use futures_util::Stream;
use http::{Request, Response};
use http_body_util::Full;
use hyper::{
    body::{Bytes, Incoming},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use rcgen::CertifiedKey;
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivatePkcs8KeyDer, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;
use tonic::{Status, Streaming, body::Body};
use tower::Service;

use crate::{
    Error,
    greeter::{
        HelloReply, HelloRequest,
        greeter_server::{Greeter, GreeterServer},
    },
};

/// The first argument of the program when it is a server.
pub(crate) const AS_SERVER: &str = "as-server";

/// The second argument of one that speaks TLS.
const OVER_TLS: &str = "over-tls";

/// Killed when dropped; ends by itself when this process does, as its standard input closes.
pub(crate) struct Server {
    process: Child,
    pub(crate) address: SocketAddr,
    /// In PEM, of one that speaks TLS.
    pub(crate) certificate: String,
}

impl Server {
    pub(crate) fn start(tls: bool) -> Result<Self, Error> {
        let mut process = Command::new(std::env::current_exe()?)
            .arg(AS_SERVER)
            .args(tls.then_some(OVER_TLS))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        let stdout = process.stdout.take().ok_or("a server without an output")?;
        let mut stdout = BufReader::new(stdout);
        stdout.read_line(&mut line)?;
        let mut certificate = String::new();
        if tls {
            while !certificate.trim_end().ends_with(LAST_OF_PEM) {
                if stdout.read_line(&mut certificate)? == 0 {
                    return Err("a server without a certificate".into());
                }
            }
        }
        Ok(Self {
            process,
            address: line.trim().parse()?,
            certificate,
        })
    }

    /// Returns when it is gone.
    pub(crate) fn kill(mut self) -> Result<(), Error> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Serves until its standard input ends.
pub(crate) fn run() -> ExitCode {
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let served = runtime
        .map_err(Error::from)
        .and_then(|runtime| runtime.block_on(serve()));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("server: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve() -> Result<(), Error> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    let tls = std::env::args().any(|arg| arg == OVER_TLS);
    let acceptor = tls.then(acceptor).transpose()?;
    let greeter = GreeterServer::new(Hello);
    loop {
        let (socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        tokio::spawn(serve_socket(socket, acceptor.clone(), greeter.clone()));
    }
}

/// Prints the certificate that it shows.
fn acceptor() -> Result<TlsAcceptor, Error> {
    let CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?;
    println!("{}", cert.pem().trim_end());
    let key = PrivatePkcs8KeyDer::from_pem_slice(signing_key.serialize_pem().as_bytes())?;
    let chain = vec![CertificateDer::from_pem_slice(cert.pem().as_bytes())?];
    let mut config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, key.into())?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn serve_socket(socket: TcpStream, tls: Option<TlsAcceptor>, greeter: GreeterServer<Hello>) {
    match tls {
        None => serve_connection(socket, greeter).await,
        Some(tls) => {
            if let Ok(socket) = tls.accept(socket).await {
                serve_connection(socket, greeter).await;
            }
        }
    }
}

async fn serve_connection<S>(socket: S, greeter: GreeterServer<Hello>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let answer = service_fn(move |request| answer(greeter.clone(), request));
    let builder = auto::Builder::new(TokioExecutor::new());
    let _ = builder.serve_connection(TokioIo::new(socket), answer).await;
}

async fn answer(
    mut greeter: GreeterServer<Hello>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    if request.uri().path().starts_with("/greeter.") {
        return greeter.call(request).await;
    }
    Ok(Response::new(Body::new(Full::new(Bytes::from_static(
        b"hello",
    )))))
}

struct Hello;

type Replies = Pin<Box<dyn Stream<Item = Result<HelloReply, Status>> + Send>>;

#[tonic::async_trait]
impl Greeter for Hello {
    type SayManyStream = Replies;
    type ChatStream = Replies;

    async fn say_hello(
        &self,
        request: tonic::Request<HelloRequest>,
    ) -> Result<tonic::Response<HelloReply>, Status> {
        Ok(tonic::Response::new(HelloReply {
            message: request.into_inner().name,
            instance: String::new(),
        }))
    }

    async fn say_many(
        &self,
        _: tonic::Request<HelloRequest>,
    ) -> Result<tonic::Response<Replies>, Status> {
        Err(Status::unimplemented("not measured"))
    }

    async fn say_to_all(
        &self,
        _: tonic::Request<Streaming<HelloRequest>>,
    ) -> Result<tonic::Response<HelloReply>, Status> {
        Err(Status::unimplemented("not measured"))
    }

    async fn chat(
        &self,
        _: tonic::Request<Streaming<HelloRequest>>,
    ) -> Result<tonic::Response<Replies>, Status> {
        Err(Status::unimplemented("not measured"))
    }
}

const LAST_OF_PEM: &str = "-----END CERTIFICATE-----";
