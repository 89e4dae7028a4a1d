//! `health`: asks a server whether it can do its work, for supervisors that run a program instead of sending a request.

use super::serve::bare;
use crate::args::Health;
use crate::context::Context;
use crate::failure::Failure;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

/// Time for each of connecting, sending and receiving.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest answer that is read; the server's are far shorter.
const LONGEST: u64 = 64 << 10;

pub(crate) fn run(context: &Context, args: &Health) -> Result<(), Failure> {
    let server = &context.config.server;
    let host = bare(args.host.as_deref().unwrap_or(&server.host));
    let port = args.port.unwrap_or(server.port);
    let failed = |error: io::Error| Failure::failed(format!("{host}:{port} does not answer: {error}"));
    let answer = ask(host, port).map_err(failed)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).unwrap_or_default();
    match status {
        "200" => writeln!(anstream::stdout(), "{body}").map_err(Failure::output),
        _ => Err(Failure::failed(format!("{host}:{port} answers /health with {status}: {body}"))),
    }
}

/// The answer to `GET /health`, head and body.
fn ask(host: &str, port: u16) -> io::Result<String> {
    let mut tried = io::Error::from(io::ErrorKind::NotFound);
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&reached_at(address), PATIENCE) {
            Ok(stream) => return exchange(stream),
            Err(error) => tried = error,
        }
    }
    Err(tried)
}

fn exchange(mut stream: TcpStream) -> io::Result<String> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(LONGEST).read_to_string(&mut answer)?;
    Ok(answer)
}

/// An address of this machine, where a server listens on all of them.
fn reached_at(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}
