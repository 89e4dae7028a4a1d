//! Models that are open at the same time: one device, one budget of memory.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use mlx_serving_device::fake::{FakeControl, FakeDevice, FakeOptions};
use mlx_serving_runtime::{Config, Generate, Input, OpenOptions, Parameters, Registry, Runtime, RuntimeError, Source};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

fn config() -> Config {
    let mut config = Config::default();
    config.engine.device = "cpu".into();
    config.engine.threads = 2;
    config.engine.step_limit_s = 20;
    config
}

/// A copy of the bundled model of another name.
fn copy(dir: &Path, name: &str) -> PathBuf {
    let bundled = Source::Bundled.here().unwrap().unwrap();
    let copy = dir.join(name);
    std::fs::create_dir(&copy).unwrap();
    for entry in std::fs::read_dir(bundled).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, copy.join(path.file_name().unwrap())).unwrap();
    }
    copy
}

fn answer(model: &mlx_serving_runtime::Model, prompt: &str) -> String {
    let parameters = Parameters { max_tokens: Some(24), ..Parameters::default() };
    let input = Input::Text { text: prompt.into(), special: true };
    model.complete(input, &parameters).unwrap().text().unwrap()
}

#[test]
fn two_engines_on_one_device_answer_as_each_alone() {
    let dir = tempfile::tempdir().unwrap();
    let other = Source::from(copy(dir.path(), "other").to_str());
    let prompts = ["Ownership is", "A trait", "The borrow checker", "Vec::new"];
    let alone: Vec<String> = {
        let runtime = Runtime::new(config());
        let model = runtime.open(&Source::Bundled, OpenOptions::default()).unwrap();
        prompts.iter().map(|prompt| answer(&model, prompt)).collect()
    };
    let runtime = Runtime::new(config());
    let one = runtime.open(&Source::Bundled, OpenOptions::default()).unwrap();
    let two = runtime.open(&other, OpenOptions::default()).unwrap();
    assert!(Arc::ptr_eq(one.engine().device(), two.engine().device()));
    std::thread::scope(|scope| {
        for (prompt, expected) in prompts.iter().zip(&alone) {
            for model in [&one, &two] {
                scope.spawn(move || assert_eq!(&answer(model, prompt), expected));
            }
        }
    });
}

#[test]
fn with_the_blit_queue_each_model_has_a_device_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config();
    config.metal_optimizations.select("blit_queue").unwrap();
    let runtime = Runtime::new(config);
    let one = runtime.open(&Source::Bundled, OpenOptions::default()).unwrap();
    let two = runtime.open(&Source::from(copy(dir.path(), "other").to_str()), OpenOptions::default()).unwrap();
    assert!(!Arc::ptr_eq(one.engine().device(), two.engine().device()));
}

/// A runtime on fake devices with memory of their own, and what steers each that was opened.
fn on_fakes(config: Config, memory_budget: u64) -> (Runtime, Arc<Mutex<Vec<FakeControl>>>) {
    let controls = Arc::new(Mutex::new(Vec::new()));
    let opened = controls.clone();
    let runtime = Runtime::with_devices(config, move |_| {
        let options = FakeOptions { compute: false, unified_memory: false, memory_budget, ..FakeOptions::default() };
        let device = FakeDevice::new(options)?;
        opened.lock().unwrap().push(device.control());
        Ok(device)
    });
    (runtime, controls)
}

#[test]
fn what_does_not_fit_beside_the_others_is_refused_until_they_are_closed() {
    let dir = tempfile::tempdir().unwrap();
    let other = Source::from(copy(dir.path(), "other").to_str());
    let (runtime, _) = on_fakes(config(), 1 << 20);
    let said = runtime.open(&Source::Bundled, OpenOptions::default()).unwrap_err().to_string();
    let need = said.split(" MiB together").next().and_then(|told| told.rsplit(' ').next()?.parse::<u64>().ok());
    // Room for one and a half.
    let (runtime, controls) = on_fakes(config(), (need.expect(&said) * 3 / 2) << 20);
    let one = runtime.open(&Source::Bundled, OpenOptions::default()).unwrap();
    let error = runtime.open(&other, OpenOptions::default()).unwrap_err();
    let said = error.to_string();
    assert!(matches!(error, RuntimeError::DoesNotFit { model, .. } if model == "other"), "{said}");
    assert!(said.starts_with("other does not fit: ") && said.contains("other models"), "{said}");
    assert_eq!(controls.lock().unwrap().len(), 1, "on the same device");
    one.close();
    runtime.open(&other, OpenOptions::default()).unwrap();
}

#[test]
fn a_lost_device_takes_all_its_models_and_they_come_back_on_a_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let other = copy(dir.path(), "other");
    let sources = [("rustbook-5m-4bit", Source::Bundled), ("other", Source::from(other.to_str()))];
    let (runtime, controls) = on_fakes(config(), 4 << 30);
    let runtime = Arc::new(runtime);
    let registry = Arc::new(Registry::new(sources.iter().map(|(id, _)| (*id).to_owned())));
    let open = {
        let runtime = runtime.clone();
        move |id: &str| {
            let (_, source) = sources.iter().find(|(name, _)| *name == id).unwrap();
            Ok::<_, RuntimeError>(Arc::new(runtime.open(source, OpenOptions::default())?) as Arc<dyn Generate>)
        }
    };
    for id in registry.ids() {
        registry.load(&id, || open(&id)).unwrap();
    }
    assert_eq!(controls.lock().unwrap().len(), 1);
    let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    tokio.spawn(mlx_serving_runtime::revive(registry.clone(), open));
    controls.lock().unwrap()[0].lose("unplugged");
    // One of them computes and so learns of it; the other is idle.
    let busy = registry.get(Some("other")).unwrap();
    let request = mlx_serving_engine::Request { prompt: vec![5], max_tokens: Some(4), ..Default::default() };
    let _answer = busy.submit(vec![request]).unwrap();
    drop(busy);
    let back = (0..600).find(|_| {
        std::thread::sleep(Duration::from_millis(50));
        let again = controls.lock().unwrap().len() > 1;
        again && registry.models().len() == 2 && registry.models().iter().all(|model| model.health().alive)
    });
    assert!(back.is_some(), "{:?}", registry.states());
    assert_eq!(controls.lock().unwrap().len(), 2, "one new device for both");
    drop(tokio);
}
