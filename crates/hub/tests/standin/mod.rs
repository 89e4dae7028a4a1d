//! A hub on loopback: one model, its files, and faults on demand.
#![allow(dead_code, unreachable_pub, reason = "each test program uses a part")]

use serde_json::json;
use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

pub const ID: &str = "someone/tiny-4bit";
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
/// An earlier commit, which the tag `v1` and the pull request 1 stand for; its configuration is longer by a blank.
pub const EARLIER: &str = "0123456fedcba9876543210fedcba9876543210f";

/// Faults of the next answers.
#[derive(Debug, Default, Clone)]
pub struct Faults {
    /// Status and `x-error-code` of every answer.
    pub refuse: Option<(u16, &'static str)>,
    /// Number of bodies that end early, and the bytes after which they do.
    pub cut: Option<(usize, usize)>,
    /// True if contents are not what the listing says: same length, one byte changed.
    pub damaged: bool,
    /// The answer of the listing, if not the true one.
    pub listing: Option<String>,
    /// True if ranges are not honored.
    pub whole_only: bool,
    /// True if large files never end: a byte comes now and then.
    pub trickle: bool,
}

#[derive(Default)]
struct State {
    files: Vec<(String, Vec<u8>)>,
    faults: Faults,
    requests: Vec<Request>,
}

/// A client's request, as far as tests look at it.
#[derive(Debug, Clone, Default)]
pub struct Request {
    pub path: String,
    pub range: Option<String>,
    pub authorization: Option<String>,
}

/// Runs until the process ends.
#[derive(Clone)]
pub struct StandIn {
    pub url: String,
    state: Arc<Mutex<State>>,
}

impl StandIn {
    pub fn start(files: &[(&str, &[u8])]) -> Self {
        let files = files.iter().map(|(name, content)| ((*name).to_owned(), content.to_vec())).collect();
        let state = Arc::new(Mutex::new(State { files, ..State::default() }));
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let this = Self { url, state };
        let shared = this.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let shared = shared.clone();
                // A client that goes away is part of the tests.
                std::thread::spawn(move || drop(shared.answer(stream)));
            }
        });
        this
    }

    pub fn faults(&self, faults: Faults) {
        self.state.lock().expect("no panic").faults = faults;
    }

    pub fn set_file(&self, name: &str, content: &[u8]) {
        let mut state = self.state.lock().expect("no panic");
        state.files.retain(|(other, _)| other != name);
        state.files.push((name.to_owned(), content.to_vec()));
    }

    /// The requests since the last call.
    pub fn requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.state.lock().expect("no panic").requests)
    }

    fn answer(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        let line = lines.next().ok_or(std::io::ErrorKind::UnexpectedEof)??;
        let mut request = Request { path: line.split(' ').nth(1).unwrap_or_default().to_owned(), ..Request::default() };
        for line in lines.map_while(Result::ok).take_while(|line| !line.is_empty()) {
            match line.split_once(": ") {
                Some((name, value)) if name.eq_ignore_ascii_case("range") => request.range = Some(value.to_owned()),
                Some((name, value)) if name.eq_ignore_ascii_case("authorization") => {
                    request.authorization = Some(value.to_owned());
                }
                _ => {}
            }
        }
        let mut state = self.state.lock().expect("no panic");
        state.requests.push(request.clone());
        let faults = state.faults.clone();
        if let Some((status, code)) = faults.refuse {
            let head = format!(
                "HTTP/1.1 {status} No\r\nx-error-code: {code}\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno"
            );
            return stream.write_all(head.as_bytes());
        }
        let path = request.path.clone();
        let listed =
            path.strip_prefix(&format!("/api/models/{ID}/revision/")).map(|rest| rest.trim_end_matches("?blobs=true"));
        if let Some(revision) = listed {
            let commit = match revision {
                "main" | COMMIT => COMMIT,
                "v1" | "refs%2Fpr%2F1" | EARLIER => EARLIER,
                _ => {
                    let head = "HTTP/1.1 404 No\r\nx-error-code: RevisionNotFound\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
                    return stream.write_all(head.as_bytes());
                }
            };
            let body = faults.listing.unwrap_or_else(|| listing(commit, &at(commit, &state.files)));
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            return stream.write_all((head + &body).as_bytes());
        }
        // Large files are elsewhere, as on the real hub.
        let commit = if path.contains(EARLIER) { EARLIER } else { COMMIT };
        let resolve = format!("/{ID}/resolve/{commit}/");
        if path.starts_with(&resolve) && path.ends_with(".safetensors") {
            let to = path.replace(&resolve, "/cdn/");
            let head = format!(
                "HTTP/1.1 302 Found\r\nlocation: {}{to}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
                self.url
            );
            return stream.write_all(head.as_bytes());
        }
        let name = path.strip_prefix(&resolve).or(path.strip_prefix("/cdn/")).unwrap_or_default();
        let Some(mut content) = at(commit, &state.files).into_iter().find(|(file, _)| file == name).map(|(_, c)| c)
        else {
            return stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        };
        if faults.damaged
            && let Some(byte) = content.first_mut()
        {
            *byte ^= 1;
        }
        let from = request.range.as_deref().and_then(|r| r.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
        let from: usize = from.filter(|_| !faults.whole_only).unwrap_or(0);
        let body = &content[from.min(content.len())..];
        let status = if from > 0 { "206 Partial Content" } else { "200 OK" };
        let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
        stream.write_all(head.as_bytes())?;
        if faults.trickle && name.ends_with(".safetensors") {
            drop(state);
            loop {
                stream.write_all(b"x")?;
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
        }
        match state.faults.cut {
            Some((times, bytes)) if times > 0 && body.len() > bytes => {
                state.faults.cut = Some((times - 1, bytes));
                stream.write_all(&body[..bytes])
            }
            _ => stream.write_all(body),
        }
    }
}

/// The files as they were at a commit.
fn at(commit: &str, files: &[(String, Vec<u8>)]) -> Vec<(String, Vec<u8>)> {
    let mut files = files.to_vec();
    if commit == EARLIER {
        files.iter_mut().filter(|(name, _)| name == "config.json").for_each(|(_, content)| content.push(b' '));
    }
    files
}

/// The listing as the hub writes it.
pub fn listing(commit: &str, files: &[(String, Vec<u8>)]) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let siblings: Vec<_> = files
        .iter()
        .map(|(name, content)| {
            let git =
                hex(&Sha1::new().chain_update(format!("blob {}\0", content.len())).chain_update(content).finalize());
            let mut entry = json!({ "rfilename": name, "size": content.len(), "blobId": git });
            if name.ends_with(".safetensors") {
                entry["lfs"] =
                    json!({ "sha256": hex(&Sha256::digest(content)), "size": content.len(), "pointerSize": 130 });
            }
            entry
        })
        .collect();
    json!({ "id": ID, "sha": commit, "gated": false, "siblings": siblings }).to_string()
}
