//! `health`: asks a server whether it can do its work, for supervisors that run a program instead of sending a request.

use super::serve::bare;
use crate::args::Health;
use crate::context::Context;
use crate::failure::Failure;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

/// Time for all of it: connecting to any of the addresses, sending and receiving.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest answer that is read; the server's are far shorter.
const LONGEST: usize = 64 << 10;

pub(crate) fn run(context: &Context, args: &Health) -> Result<(), Failure> {
    let server = &context.config.server;
    let host = bare(args.host.as_deref().unwrap_or(&server.host));
    let port = args.port.unwrap_or(server.port);
    let failed = |error: io::Error| Failure::failed(format!("{host}:{port} does not answer: {error}"));
    let answer = ask(host, port, Instant::now() + PATIENCE).map_err(failed)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let version_and_rest = head.strip_prefix("HTTP/1.").and_then(|rest| rest.split_once(' '));
    let Some((_, rest)) = version_and_rest else {
        return Err(Failure::failed(format!("{host}:{port} is not an HTTP server")));
    };
    match rest.split([' ', '\r']).next().unwrap_or_default() {
        "200" => writeln!(anstream::stdout(), "{body}").map_err(Failure::output),
        status => Err(Failure::failed(format!("{host}:{port} answers /health with {status}: {body}"))),
    }
}

/// The answer to `GET /health`, head and body.
fn ask(host: &str, port: u16, deadline: Instant) -> io::Result<String> {
    let mut tried = io::Error::from(io::ErrorKind::NotFound);
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&reached_at(address), left(deadline)?) {
            Ok(stream) => return exchange(stream, deadline).map_err(plain),
            Err(error) => tried = plain(error),
        }
    }
    Err(tried)
}

fn exchange(mut stream: TcpStream, deadline: Instant) -> io::Result<String> {
    stream.set_write_timeout(Some(left(deadline)?))?;
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let (mut answer, mut part) = (Vec::new(), [0; 4096]);
    while answer.len() < LONGEST {
        // One that sends a byte now and then must not hold this up.
        stream.set_read_timeout(Some(left(deadline)?))?;
        match stream.read(&mut part) {
            Ok(0) => break,
            Ok(read) => answer.extend_from_slice(&part[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Time until the deadline.
fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(late()) } else { Ok(left) }
}

fn late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} s", PATIENCE.as_secs()))
}

/// A timeout in words: systems have several errors for it, some of which say nothing.
fn plain(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => late(),
        _ => error,
    }
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
