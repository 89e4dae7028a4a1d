use super::*;
use mlx_serving_device::fake::{FakeDevice, FakeOptions, Fault, QueueKind};
use std::sync::atomic::{AtomicUsize, Ordering};

#[test]
fn a_name_of_no_device_is_wrong_usage() {
    let engine = Engine { device: "gpu".into(), ..Engine::default() };
    let error = open(&engine).err().unwrap();
    assert!(error.is_usage() && error.to_string().contains("engine.device (--device)"), "{error}");
}

#[test]
fn auto_ends_with_the_cpu_and_a_name_means_itself() {
    assert_eq!(Choice::Auto.candidates().last(), Some(&Choice::Cpu));
    for choice in [Choice::Cpu, Choice::Metal, Choice::Vulkan(None), Choice::Vulkan(Some(3))] {
        assert_eq!(choice.candidates(), [choice]);
    }
}

/// Fake devices, of which the last is known.
struct Fakes {
    devices: Devices,
    opened: Arc<AtomicUsize>,
    last: Arc<Mutex<Option<Arc<FakeDevice>>>>,
    engine: Engine,
}

impl Fakes {
    fn new() -> Self {
        let (opened, last) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(None)));
        let (count, newest) = (opened.clone(), last.clone());
        let devices = Devices::from_opener(move |_, _| {
            count.fetch_add(1, Ordering::Relaxed);
            let device = FakeDevice::new(FakeOptions::default())?;
            *newest.lock().unwrap() = Some(device.clone());
            Ok(device)
        });
        let engine = Engine { device: "cpu".into(), step_limit_s: 1, ..Engine::default() };
        Self { devices, opened, last, engine }
    }

    fn take(&self, share: bool) -> Lease {
        self.devices.with(&self.engine, share, |lease| Ok(lease.clone())).unwrap()
    }

    /// The device that was opened last, no longer held here.
    fn newest(&self) -> Arc<FakeDevice> {
        self.last.lock().unwrap().take().unwrap()
    }

    fn opened(&self) -> usize {
        self.opened.load(Ordering::Relaxed)
    }
}

#[test]
fn a_device_is_opened_once_for_all_its_holders() {
    let fakes = Fakes::new();
    let (one, two) = (fakes.take(true), fakes.take(true));
    assert!(Arc::ptr_eq(&one.device, &two.device));
    assert_eq!(fakes.opened(), 1);
    let own = fakes.take(false);
    assert!(!Arc::ptr_eq(&own.device, &one.device));
}

#[test]
fn a_device_that_nobody_holds_is_closed_and_opened_again() {
    let fakes = Fakes::new();
    let one = fakes.take(true);
    let closed = Arc::downgrade(&fakes.newest());
    drop(one);
    assert!(closed.upgrade().is_none());
    fakes.take(true);
    assert_eq!(fakes.opened(), 2);
}

#[test]
fn a_lost_device_is_opened_again_and_its_holders_learn_of_it() {
    let fakes = Fakes::new();
    let idle = fakes.take(true);
    fakes.newest().control().lose("unplugged");
    assert_eq!(idle.lost(), None);
    let new = fakes.take(true);
    assert!(!Arc::ptr_eq(&new.device, &idle.device));
    assert!(idle.lost().unwrap().contains("unplugged"));
    assert_eq!(new.lost(), None);
    assert!(Arc::ptr_eq(&fakes.take(true).device, &new.device), "shared from now on");
}

#[test]
fn a_device_that_hangs_is_not_shared() {
    let fakes = Fakes::new();
    let one = fakes.take(true);
    let control = fakes.newest().control();
    control.hang_submissions(QueueKind::Compute, Fault::next(1));
    let two = fakes.take(true);
    assert!(!Arc::ptr_eq(&one.device, &two.device));
    assert_eq!(one.lost(), None, "it may only be late");
    control.release();
}
