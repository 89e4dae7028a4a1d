//! Requests as bytes, for what no proper client sends.

use super::Server;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// A connection whose reads end after a generous while.
pub fn connect(server: &Server) -> TcpStream {
    let socket = TcpStream::connect(&server.address).expect("connect");
    socket.set_read_timeout(Some(Duration::from_secs(300))).expect("a socket");
    socket
}

/// Sends bytes on a new connection.
pub fn send(server: &Server, bytes: &[u8]) -> TcpStream {
    let mut socket = connect(server);
    socket.write_all(bytes).expect("send");
    socket
}

/// A POST's bytes; `headers` end in line breaks.
pub fn post(server: &Server, path: &str, headers: &str, body: &str) -> Vec<u8> {
    let (host, length) = (&server.address, body.len());
    let host = if headers.to_ascii_lowercase().contains("host:") { String::new() } else { format!("host: {host}\r\n") };
    format!("POST {path} HTTP/1.1\r\n{host}content-length: {length}\r\n{headers}\r\n{body}").into_bytes()
}

/// Everything until the server closes; what came so far if it resets the connection.
pub fn read_all(socket: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    match socket.read_to_end(&mut bytes) {
        Ok(_) => {}
        Err(e) if e.kind() == ErrorKind::ConnectionReset => {}
        Err(e) => panic!("{e}: {}", String::from_utf8_lossy(&bytes)),
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Sends bytes and reads what comes until the server closes.
pub fn exchange(server: &Server, bytes: &[u8]) -> String {
    read_all(&mut send(server, bytes))
}

/// The status of an answer.
pub fn status(answer: &str) -> u16 {
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    status.unwrap_or_else(|| panic!("no answer: {answer:?}"))
}

/// Time for which the server leaves a connection open.
pub fn open_for(socket: &mut TcpStream) -> Duration {
    let start = Instant::now();
    read_all(socket);
    start.elapsed()
}

/// Status of a probe, and how long it took.
pub fn probe(server: &Server, path: &str) -> (u16, Duration) {
    let start = Instant::now();
    let request = format!("GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", server.address);
    let answer = exchange(server, request.as_bytes());
    (status(&answer), start.elapsed())
}
