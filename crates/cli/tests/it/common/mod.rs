//! Runs the real binary and talks to it over real sockets.
#![allow(unreachable_pub, reason = "modules of one program of tests")]

pub mod raw;
pub mod script;
#[cfg(unix)]
pub mod terminal;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The workspace's root.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The binary, free of this environment's own settings.
pub fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mlx-serving"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("MLX_SERVING_") || name.starts_with("HF_")) {
        command.env_remove(name);
    }
    command.current_dir(root()).stdin(Stdio::null());
    command
}

/// Runs a command line to its end.
pub fn run(args: &[&str]) -> Output {
    binary().args(args).output().expect("the binary runs")
}

/// Standard output of a command that must succeed.
pub fn stdout(args: &[&str]) -> String {
    let output = run(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// A copy of the bundled model, `name` in `dir`.
pub fn copy_model(dir: &Path, name: &str) -> PathBuf {
    let copy = dir.join(name);
    std::fs::create_dir(&copy).expect("a folder");
    for entry in std::fs::read_dir(root().join("models/rustbook-5m-4bit")).expect("the bundled model") {
        let path = entry.expect("an entry").path();
        std::fs::copy(&path, copy.join(path.file_name().expect("a name"))).expect("copied");
    }
    copy
}

/// A running server; stopped when dropped.
pub struct Server {
    child: Child,
    /// host:port
    pub address: String,
    log: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
}

impl Server {
    /// A server that has loaded its models.
    pub fn start(args: &[&str]) -> Server {
        let mut command = binary();
        command.args(["serve", "--port", "0"]).args(args);
        Server::launch(command).ready()
    }

    /// Starts one, and runs `meanwhile` with its process id while it loads.
    pub fn start_while(args: &[&str], meanwhile: impl FnOnce(u32)) -> Server {
        let mut command = binary();
        command.args(["serve", "--port", "0"]).args(args);
        let server = Server::launch(command);
        meanwhile(server.pid());
        server.ready()
    }

    /// One on the CPU with a configuration file of this text.
    pub fn configured(yaml: &str) -> Server {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("test.yaml");
        std::fs::write(&path, yaml).expect("written");
        Server::start(&["--device", "cpu", "--config", path.to_str().expect("UTF-8")])
    }

    /// A server that has only been started; it has no address.
    pub fn launch(mut command: Command) -> Server {
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().expect("the binary starts");
        let lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        let log = Arc::new(Mutex::new(Vec::new()));
        let kept = log.clone();
        // Keeps the pipe empty, and the lines for whoever looks at the test's output.
        let reader = std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                eprintln!("server: {line}");
                kept.lock().expect("no panic").push(line);
            }
        });
        Server { child, address: String::new(), log, reader: Some(reader) }
    }

    /// The same when its models are loaded, with its address.
    pub fn ready(mut self) -> Server {
        let serves = |line: &String| line.contains(" on http://");
        loop {
            if let Some(line) = self.lines().iter().find(|line| serves(line)) {
                let (_, rest) = line.split_once(" on http://").expect("just seen");
                self.address = rest.split_whitespace().next().expect("an address").to_owned();
                return self;
            }
            let ended = self.child.try_wait().expect("a child");
            assert!(ended.is_none(), "the server ended: {:#?}", self.lines());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Lines that it has logged so far.
    pub fn lines(&self) -> Vec<String> {
        self.log.lock().expect("no panic").clone()
    }

    /// A line with this text has been logged.
    pub fn logged(&self, text: &str) -> bool {
        self.lines().iter().any(|line| line.contains(text))
    }

    /// Sends a signal, such as TERM.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.pid().to_string()]).status().expect("kill runs");
        assert!(sent.success());
    }

    /// Waits for its end, and for the last line of its log.
    pub fn wait(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                self.reader.take().into_iter().for_each(|reader| reader.join().expect("no panic"));
                return status;
            }
            assert!(start.elapsed() < Duration::from_secs(60), "it does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// A line of /proc/PID/status, kB.
    pub fn memory(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a line");
        line.trim_matches(|c: char| !c.is_ascii_digit()).parse().expect("kB")
    }

    /// Forgets the peak of its resident memory, and says how much is resident now, kB: `memory("VmHWM:")` is the peak from here on.
    pub fn reset_peak(&self) -> u64 {
        std::fs::write(format!("/proc/{}/clear_refs", self.pid()), "5").expect("a process of this user");
        self.memory("VmRSS:")
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn agent() -> ureq::Agent {
        ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(120)))
            .build()
            .into()
    }

    /// Status and body.
    pub fn get(&self, path: &str) -> (u16, String) {
        let mut response = Self::agent().get(self.url(path)).call().expect(path);
        (response.status().as_u16(), response.body_mut().read_to_string().expect("a body"))
    }

    /// Status and JSON body.
    pub fn post(&self, path: &str, body: &serde_json::Value) -> (u16, serde_json::Value) {
        self.post_text(path, &body.to_string())
    }

    pub fn post_text(&self, path: &str, body: &str) -> (u16, serde_json::Value) {
        let mut response =
            Self::agent().post(self.url(path)).header("content-type", "application/json").send(body).expect(path);
        let text = response.body_mut().read_to_string().expect("a body");
        let json = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
        (response.status().as_u16(), json)
    }

    /// The data of every server-sent event.
    pub fn stream(&self, path: &str, body: &serde_json::Value) -> Vec<String> {
        let mut response = Self::agent().post(self.url(path)).send(body.to_string()).expect(path);
        assert_eq!(response.status().as_u16(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let text = response.body_mut().read_to_string().expect("a body");
        text.lines().filter_map(|l| l.strip_prefix("data: ")).map(str::to_owned).collect()
    }

    /// Sends a request and returns the open connection after the first `bytes` of the answer.
    pub fn open(&self, path: &str, body: &serde_json::Value, bytes: usize) -> TcpStream {
        let mut socket = TcpStream::connect(&self.address).expect("connect");
        let body = body.to_string();
        write!(
            socket,
            "POST {path} HTTP/1.1\r\nhost: {}\r\ncontent-length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        )
        .expect("send");
        socket.read_exact(&mut vec![0; bytes]).expect("the answer's beginning");
        socket
    }

    /// A metric's value, summed over its labels.
    pub fn metric(&self, name: &str) -> f64 {
        let (status, text) = self.get("/metrics");
        assert_eq!(status, 200);
        let values: Vec<f64> = text
            .lines()
            .filter(|l| l.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])))
            .map(|l| l.rsplit(' ').next().and_then(|v| v.parse().ok()).expect("a value"))
            .collect();
        assert!(!values.is_empty(), "{name} is not in\n{text}");
        values.iter().sum()
    }

    /// Waits until `condition` holds; fails after a generous while.
    pub fn until(&self, what: &str, condition: impl Fn(&Server) -> bool) {
        let start = Instant::now();
        while !condition(self) {
            assert!(start.elapsed() < Duration::from_secs(60), "{what} did not happen");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
