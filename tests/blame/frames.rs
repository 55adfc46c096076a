//! An HTTP/2 server by the frame, for what no library sends: a request with a body (bad) is answered
//! with a head that is malformed and yet decodes, one without with `200`.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};

use super::provider::spawn;

pub(crate) struct NulServer {
    pub(crate) address: SocketAddr,
    task: JoinHandle<()>,
}

impl NulServer {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                if let Ok((socket, _)) = listener.accept().await {
                    connections.spawn(serve(socket));
                }
            }
        });
        Self { address, task }
    }
}

impl Drop for NulServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Until the client goes.
async fn serve(mut socket: TcpStream) -> Option<()> {
    const SETTINGS: u8 = 4;
    const HEADERS: u8 = 1;
    const PING: u8 = 6;
    let mut preface = [0; 24];
    socket.read_exact(&mut preface).await.ok()?;
    send(&mut socket, SETTINGS, 0, 0, &[]).await?;
    loop {
        let mut head = [0; 9];
        socket.read_exact(&mut head).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let mut payload = vec![0; length as usize];
        socket.read_exact(&mut payload).await.ok()?;
        let (kind, flags) = (head[3], head[4]);
        let flag_1 = flags & 1 == 1; // ACK, or END_STREAM
        match kind {
            SETTINGS if !flag_1 => send(&mut socket, SETTINGS, 1, 0, &[]).await?,
            PING if !flag_1 => send(&mut socket, PING, 1, 0, &payload).await?,
            HEADERS if flag_1 => send(&mut socket, HEADERS, 5, stream, &[0x88]).await?,
            HEADERS => {
                // `:status: 200`, and a literal `x` with a NUL in its value.
                let head = [0x88, 0x00, 1, b'x', 3, b'a', 0, b'b'];
                send(&mut socket, HEADERS, 5, stream, &head).await?;
            }
            _ => {}
        }
    }
}

async fn send(
    socket: &mut TcpStream,
    kind: u8,
    flags: u8,
    stream: u32,
    payload: &[u8],
) -> Option<()> {
    let length = (payload.len() as u32).to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    socket.write_all(&frame).await.ok()
}
