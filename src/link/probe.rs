//! Whether a peer that hangs up on us speaks TLS. Many such servers say nothing to who speaks plainly
//! (Nacos with TLS on, for one: netty closes the connection without an alert).

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// It only improves an error's text, so it may not take long.
const PATIENCE: Duration = Duration::from_secs(1);

/// Begins a handshake on a connection of its own and looks at the first bytes of the answer: a
/// `ServerHello` or an alert.
///
/// Cancel-safe: dropping the future closes the socket.
pub(crate) async fn speaks_tls(addr: SocketAddr) -> bool {
    let answer = async {
        let mut socket = TcpStream::connect(addr).await?;
        socket.write_all(&client_hello()).await?;
        let mut head = [0; 2];
        socket.read_exact(&mut head).await?;
        std::io::Result::Ok(head)
    };
    matches!(timeout(PATIENCE, answer).await, Ok(Ok([0x15 | 0x16, 0x03])))
}

/// A `ClientHello` of TLS 1.2 (RFC 5246, 7.4.1.2) without extensions: whoever speaks TLS answers it,
/// if only that it will not do.
fn client_hello() -> Vec<u8> {
    const SUITES: [u8; 8] = [0xc0, 0x2f, 0xc0, 0x2b, 0x00, 0x9c, 0x00, 0x2f];
    let mut hello = vec![0x03, 0x03];
    hello.extend([0x5a; 32]); // the random: nothing is kept secret here
    hello.push(0); // no session to resume
    hello.extend([0, SUITES.len() as u8]);
    hello.extend(SUITES);
    hello.extend([1, 0]); // no compression
    let length = hello.len() as u8; // 46
    let mut record = vec![0x16, 0x03, 0x01, 0, length + 4, 0x01, 0, 0, length];
    record.extend(hello);
    record
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lengths_in_a_hello_are_right() {
        let record = client_hello();
        assert_eq!(usize::from(record[4]), record.len() - 5);
        assert_eq!(usize::from(record[8]), record.len() - 9);
    }
}
