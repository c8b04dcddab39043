//! Passes questions about other names to the machine's resolvers and their answers back, unread.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    sync::Semaphore,
    time::timeout,
};

/// Questions on their way at once. Further ones are refused, and the client asks again.
const QUESTIONS_AT_ONCE: usize = 256;
/// How long one resolver may take before the next one is asked, and how long the last one may.
const NEXT_RESOLVER_PATIENCE: Duration = Duration::from_secs(1);
const LAST_RESOLVER_PATIENCE: Duration = Duration::from_secs(3);
/// Resolvers asked for one question.
const RESOLVERS_ASKED: usize = 3;
const MESSAGE_MAX_BYTES: usize = 65_535;
const DNS_PORT: u16 = 53;

pub(super) struct Upstreams {
    resolvers: Vec<SocketAddr>,
    permits: Semaphore,
}

impl Upstreams {
    pub(super) fn new(resolvers: Vec<SocketAddr>) -> Self {
        Self {
            resolvers,
            permits: Semaphore::new(QUESTIONS_AT_ONCE),
        }
    }

    /// The first resolver's answer that comes, in the words of the resolver, for the client's own message id.
    pub(super) async fn ask(&self, question: &[u8], over_tcp: bool) -> io::Result<Vec<u8>> {
        let _permit = self
            .permits
            .try_acquire()
            .map_err(|_| io::Error::other("too many questions at once"))?;
        let mut result = Err(io::Error::other("no resolver is configured"));
        let asked = &self.resolvers[..self.resolvers.len().min(RESOLVERS_ASKED)];
        for (index, resolver) in asked.iter().enumerate() {
            let last = index + 1 == asked.len();
            let patience = if last {
                LAST_RESOLVER_PATIENCE
            } else {
                NEXT_RESOLVER_PATIENCE
            };
            let asking = async {
                if over_tcp {
                    ask_over_tcp(*resolver, question).await
                } else {
                    ask_over_udp(*resolver, question).await
                }
            };
            result = match timeout(patience, asking).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => Err(error),
                Err(_) => Err(io::ErrorKind::TimedOut.into()),
            };
        }
        result
    }
}

async fn ask_over_udp(resolver: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    // A port and an id of our own for each question, so that answers cannot be guessed from outside.
    let any: SocketAddr = if resolver.is_ipv4() {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (Ipv6Addr::UNSPECIFIED, 0).into()
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(resolver).await?;
    let id: [u8; 2] = rand::random();
    let mut sent = question.to_vec();
    let (client_id, _) = sent
        .split_first_chunk_mut::<2>()
        .ok_or(io::ErrorKind::InvalidInput)?;
    let client_id = std::mem::replace(client_id, id);
    socket.send(&sent).await?;
    let mut buffer = vec![0; MESSAGE_MAX_BYTES];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if length > 2 && buffer[..2] == id {
            buffer.truncate(length);
            buffer[..2].copy_from_slice(&client_id);
            return Ok(buffer);
        }
    }
}

async fn ask_over_tcp(resolver: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(resolver).await?;
    let length = u16::try_from(question.len()).map_err(io::Error::other)?;
    stream
        .write_all(&[&length.to_be_bytes()[..], question].concat())
        .await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

/// The resolvers a machine uses, from a file such as `/etc/resolv.conf`. A missing file means none.
pub(super) fn read_resolvers(path: &Path) -> Vec<SocketAddr> {
    parse_resolvers(&std::fs::read_to_string(path).unwrap_or_default())
}

fn parse_resolvers(text: &str) -> Vec<SocketAddr> {
    let addresses = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver"))
            .then(|| words.next())
            .flatten()?
            .parse()
            .ok()
    });
    addresses.map(|ip| SocketAddr::new(ip, DNS_PORT)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolvers_are_read_and_everything_else_is_passed_over() {
        let text = "# c\nsearch a b\nnameserver 192.0.2.1\nnameserver\t2001:db8::1\nnameserver x\noptions ndots:1\n";
        let expected: Vec<SocketAddr> = vec![
            "192.0.2.1:53".parse().unwrap(),
            "[2001:db8::1]:53".parse().unwrap(),
        ];
        assert_eq!(parse_resolvers(text), expected);
    }
}
