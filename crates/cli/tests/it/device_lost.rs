//! A device that is lost while it serves: clients, `/ready` and `/health` are told why, and a revived server goes on.

use mlx_serving_checkpoint::Checkpoint;
use mlx_serving_device::Device;
use mlx_serving_device::fake::{FakeDevice, FakeOptions, Fault, Latency, QueueKind};
use mlx_serving_engine::{Engine, Options, Parts, Sampling};
use mlx_serving_metal_layer::MetalLayer;
use mlx_serving_metal_layer::config::MetalOptimizations;
use mlx_serving_model::{LoadInputs, Model};
use mlx_serving_runtime::{Generate, Model as OpenModel};
use mlx_serving_server::{AppState, Settings};
use mlx_serving_text::Tokenizer;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

fn served(device: Arc<dyn Device>) -> Arc<dyn Generate> {
    served_with("command_buffer_ring", device)
}

fn served_with(optimizations: &str, device: Arc<dyn Device>) -> Arc<dyn Generate> {
    served_as(optimizations, device, &Options::default())
}

fn served_as(optimizations: &str, device: Arc<dyn Device>, options: &Options) -> Arc<dyn Generate> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/rustbook-5m-4bit");
    let mut config = MetalOptimizations::default();
    config.select(optimizations).unwrap();
    let layer = MetalLayer::new(device.clone(), &config).unwrap();
    let source = LoadInputs {
        checkpoint: Arc::new(Checkpoint::open(&folder).unwrap()),
        device: &device,
        allocate: layer.allocate.as_ref(),
        transfer: layer.transfer.as_ref(),
        progress: &mut |_| {},
    };
    let model = Model::load(source).unwrap();
    let tokenizer = Tokenizer::from_dir(&folder).unwrap();
    let parts = Parts { device, layer, model, tokenizer: tokenizer.clone(), eos: vec![2] };
    let engine = Engine::start(parts, options).unwrap();
    let defaults = Sampling::default();
    Arc::new(OpenModel::new("m".into(), engine, tokenizer, None, defaults))
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(60)))
        .build()
        .into()
}

fn get(url: &str) -> (u16, Value) {
    let mut response = agent().get(url).call().unwrap();
    (response.status().as_u16(), serde_json::from_str(&response.body_mut().read_to_string().unwrap()).unwrap())
}

fn post(url: &str, body: &Value) -> (u16, Value) {
    let mut response = agent().post(url).send(body.to_string()).unwrap();
    (response.status().as_u16(), serde_json::from_str(&response.body_mut().read_to_string().unwrap()).unwrap())
}

fn slow_device() -> Arc<FakeDevice> {
    device_with_steps_of(Duration::from_millis(5))
}

fn device_with_steps_of(execute: Duration) -> Arc<FakeDevice> {
    let latency = Latency { execute, ..Latency::default() };
    FakeDevice::new(FakeOptions { compute: false, latency, ..FakeOptions::default() }).unwrap()
}

/// A server in this process, with one model.
struct Serving {
    state: Arc<AppState>,
    runtime: Runtime,
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    server: JoinHandle<std::io::Result<()>>,
}

impl Serving {
    fn start(model: Arc<dyn Generate>) -> Self {
        let state = AppState::new(Settings::default());
        state.add(model);
        state.loaded();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind(("127.0.0.1", 0))).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async {
            drop(stopped.await);
            Duration::from_secs(1)
        };
        let server = runtime.spawn(mlx_serving_server::serve(listener, state.clone(), shutdown));
        Self { state, runtime, address, stop, server }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Waits until `/ready` says so; its status and answer.
    fn until(&self, wanted: &str) -> (u16, Value) {
        let found = (0..600).find_map(|_| {
            std::thread::sleep(Duration::from_millis(50));
            let (status, answer) = get(&self.url("/ready"));
            (answer["status"] == wanted).then_some((status, answer))
        });
        found.unwrap_or_else(|| panic!("/ready never said {wanted}"))
    }

    fn end(self) {
        drop(self.stop);
        self.runtime.block_on(self.server).unwrap().unwrap();
    }
}

#[test]
fn a_dead_engine_is_loaded_again_and_serves_new_requests() {
    let device = slow_device();
    let control = device.control();
    let server = Serving::start(served(device));
    // The first attempt fails, the second is let through when the test has seen the state between.
    let (go, gate) = std::sync::mpsc::channel::<()>();
    let gate = std::sync::Mutex::new((gate, false));
    server.runtime.spawn(mlx_serving_runtime::revive(server.state.registry().clone(), move |id: &str| {
        assert_eq!(id, "m");
        let mut gate = gate.lock().unwrap();
        if !std::mem::replace(&mut gate.1, true) {
            return Err("no device yet");
        }
        gate.0.recv().unwrap();
        Ok(served(slow_device()))
    }));

    let url = server.url("/v1/completions");
    let body = json!({ "prompt": "Ownership", "max_tokens": 4, "ignore_eos": true });
    assert_eq!(post(&url, &body).0, 200);
    control.lose("unplugged");
    // An idle engine learns of it with its next step.
    assert!(post(&url, &body).0 >= 500);
    let (status, answer) = server.until("reloading");
    assert_eq!(status, 503);
    assert!(answer["reason"].as_str().unwrap().contains("unplugged"), "{answer}");
    assert_eq!(get(&server.url("/health")).0, 200, "the process itself is well");
    let (status, refused) = post(&url, &body);
    assert_eq!((status, &refused["error"]["code"]), (503, &json!("unavailable")), "{refused}");
    go.send(()).unwrap();
    assert_eq!(server.until("ready").0, 200);
    assert_eq!(post(&url, &body).0, 200);
    server.end();
}

#[test]
fn a_model_is_loaded_again_only_when_its_dead_engine_is_released() {
    let device = slow_device();
    let control = device.control();
    let server = Serving::start(served(device));
    let loads = Arc::new(AtomicUsize::new(0));
    let counted = loads.clone();
    server.runtime.spawn(mlx_serving_runtime::revive(server.state.registry().clone(), move |_: &str| {
        counted.fetch_add(1, Ordering::AcqRel);
        Ok::<_, String>(served(slow_device()))
    }));
    // As a request does.
    let held = server.state.models();
    control.lose("unplugged");
    let body = json!({ "prompt": "Ownership", "max_tokens": 4, "ignore_eos": true });
    assert!(post(&server.url("/v1/completions"), &body).0 >= 500);
    server.until("reloading");
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(loads.load(Ordering::Acquire), 0, "two copies of the weights");
    drop(held);
    server.until("ready");
    assert_eq!(loads.load(Ordering::Acquire), 1);
    server.end();
}

#[test]
fn clients_and_probes_learn_that_the_device_is_lost() {
    let device = slow_device();
    let control = device.control();
    let server = Serving::start(served(device));

    assert_eq!(get(&server.url("/ready")).0, 200);
    let body = json!({ "prompt": "Ownership", "max_tokens": 1900, "ignore_eos": true });
    let url = server.url("/v1/completions");
    std::thread::scope(|scope| {
        let answer = scope.spawn(|| post(&url, &body));
        std::thread::sleep(Duration::from_millis(100));
        control.lose("unplugged");
        let (status, error) = answer.join().unwrap();
        assert!(status >= 500, "{status}: {error}");
        assert!(error["error"]["message"].as_str().unwrap().contains("device lost: unplugged"), "{error}");
    });
    for probe in ["/ready", "/health"] {
        let (status, answer) = get(&server.url(probe));
        assert_eq!((status, &answer["status"]), (503, &json!("dead")), "{probe}");
        assert!(answer["reason"].as_str().unwrap().contains("unplugged"), "{answer}");
    }
    let (status, refused) = post(&url, &body);
    assert!(status >= 500 && refused["error"]["message"].as_str().unwrap().contains("unplugged"), "{refused}");
    server.end();
}

#[test]
fn probes_wait_for_weights_that_are_being_transferred() {
    let device =
        FakeDevice::new(FakeOptions { compute: false, unified_memory: false, ..FakeOptions::default() }).unwrap();
    let control = device.control();
    control.hang_submissions(QueueKind::Transfer, Fault::nth(3));
    let server = Serving::start(served_with("blit_queue", device));

    let (status, answer) = get(&server.url("/ready"));
    assert_eq!((status, &answer["status"]), (503, &json!("loading")));
    assert_eq!(answer["reason"], "weights of m are still being transferred");
    assert_eq!(get(&server.url("/health")).0, 200);
    control.release();
    assert_eq!(server.until("ready").0, 200);
    server.end();
}

#[test]
fn a_client_that_goes_away_during_a_long_prefill_is_noticed() {
    // 190 steps of 50 ms before the first token.
    let options = Options { max_batch_rows: 10, max_sequences: 10, ..Options::default() };
    let device = device_with_steps_of(Duration::from_millis(50));
    let server = Serving::start(served_as("none", device, &options));

    let body = json!({ "prompt": vec![70; 1900], "max_tokens": 4, "ignore_eos": true, "stream": true }).to_string();
    let (state, address) = (&server.state, server.address);
    let mut client = TcpStream::connect(address).unwrap();
    let head = format!("POST /v1/completions HTTP/1.1\r\nhost: {address}\r\ncontent-length: {}\r\n\r\n", body.len());
    client.write_all((head + &body).as_bytes()).unwrap();
    // All of the head: bytes that are left unread would reset the connection, which is noticed at once.
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte).unwrap();
        answer.push(byte[0]);
    }
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    assert_eq!(state.live(), 1);
    drop(client);
    let ended = (0..600).find(|_| {
        std::thread::sleep(Duration::from_millis(50));
        state.live() == 0
    });
    assert!(ended.is_some(), "the request goes on");
    let mut metrics = agent().get(server.url("/metrics")).call().unwrap();
    let metrics = metrics.body_mut().read_to_string().unwrap();
    let generated = metrics.lines().find(|line| line.starts_with("vllm:generation_tokens_total{")).unwrap();
    assert!(generated.ends_with(" 0"), "it was computed to its first token: {generated}");
    server.end();
}
