//! Choosing and opening devices, their memory and their pipeline cache.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::Watched;
use mlx_serving_device::ops::Copy;
use mlx_serving_device::{Arithmetic, Device, DeviceError, Op, Storage};
use mlx_serving_vulkan::{DeviceKind, VulkanDevice, VulkanOptions};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

#[test]
fn devices_are_described_and_opened_by_number() {
    let Some(first) = Watched::open(VulkanOptions::default()) else { return };
    let found = VulkanDevice::available().unwrap();
    assert!(found.windows(2).all(|pair| pair[0].kind <= pair[1].kind && pair[0].index + 1 == pair[1].index));
    let usable = found.iter().find(|found| found.missing.is_empty()).unwrap();
    assert_eq!(usable.name, first.info().name);
    assert!(usable.memory > 0 && !usable.driver.is_empty() && usable.api.starts_with("1."), "{usable:?}");
    assert!(usable.used.iter().any(|used| used.contains("queue")), "{usable:?}");
    let same = Watched::open(VulkanOptions { index: Some(usable.index), ..VulkanOptions::default() }).unwrap();
    assert_eq!(same.info().name, first.info().name);
    let error = VulkanDevice::open(&VulkanOptions { index: Some(99), ..VulkanOptions::default() }).unwrap_err();
    assert!(matches!(&error, DeviceError::Unsupported(why) if why.contains("no Vulkan device 99")), "{error}");
}

/// Opens devices with and without matrix units. Opening tries the units out: a device found not to add exactly goes without.
#[test]
fn matrix_units_are_used_in_fast_arithmetic() {
    let uses = |arithmetic, matrix_units| {
        let device = Watched::open(VulkanOptions { arithmetic, matrix_units, ..VulkanOptions::default() })?;
        let counters = device.counters();
        assert_eq!((counters.submissions, counters.allocations), (0, 0), "the trial does not count");
        Some(device.info().features.iter().any(|feature| feature.ends_with("matrix units")))
    };
    let Some(used) = uses(Arithmetic::Fast, None) else { return };
    let found = VulkanDevice::available().unwrap();
    let usable = found.iter().find(|found| found.missing.is_empty()).unwrap();
    assert_eq!(used, usable.used.iter().any(|used| used.ends_with("matrix units")), "{usable:?}");
    assert!(!used || usable.kind != DeviceKind::Software);
    assert_eq!(uses(Arithmetic::Exact, Some(true)), Some(false));
    assert_eq!(uses(Arithmetic::Fast, Some(false)), Some(false));
    Watched::with_matrix_units();
}

#[test]
fn memory_ends_at_the_limit_and_what_is_given_back_is_free() {
    let limit = VulkanOptions { memory_limit: Some(1 << 20), ..VulkanOptions::default() };
    let Some(device) = Watched::open(limit) else { return };
    let first = device.new_buffer(1 << 19, Storage::Shared).unwrap();
    let refused = device.new_heap((1 << 19) + 1, Storage::Private).unwrap_err();
    assert!(matches!(refused, DeviceError::OutOfMemory { requested: 524_289, what: "a heap", .. }), "{refused}");
    assert_eq!((device.counters().allocations, device.counters().bytes_allocated), (1, 1 << 19));
    drop(first);
    device.new_heap(1 << 20, Storage::Private).unwrap();
}

#[test]
fn recording_without_memory_is_an_error_and_harms_nothing() {
    // Less than the fault words of a submission take.
    let Some(device) = Watched::open(VulkanOptions { memory_limit: Some(1000), ..VulkanOptions::default() }) else {
        return;
    };
    let refused = device.compute_queue().encoder().err().unwrap();
    assert!(matches!(refused, DeviceError::OutOfMemory { what: "fault words", .. }), "{refused}");
    assert_eq!(device.counters().submissions, 0);
}

#[test]
fn pipelines_are_saved_and_a_damaged_file_is_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let run = || {
        let options = VulkanOptions { pipeline_cache: Some(folder.path().into()), ..VulkanOptions::default() };
        let Some(device) = Watched::open(options) else { return false };
        let [from, to] = [1u8, 2].map(|byte| {
            let buffer = device.new_buffer(8, Storage::Shared).unwrap();
            buffer.write(0, &[byte; 8]).unwrap();
            buffer
        });
        let queue = device.compute_queue();
        let mut encoder = queue.encoder().unwrap();
        encoder.record(Op::Copy(Copy { from, to: to.clone() })).unwrap();
        queue.submit(encoder.finish().unwrap(), &[], None).unwrap().wait(Duration::from_secs(60)).unwrap();
        assert_eq!(to.to_vec::<u8>().unwrap(), [1; 8]);
        true
    };
    if !run() {
        return;
    }
    let files = || fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    assert_eq!(files().len(), 1, "{:?}", files());
    let good = fs::read(&files()[0]).unwrap();
    assert!(good.len() >= 36, "{} bytes", good.len());
    for damaged in [&good[..20], &[&good[..36], &[0xff; 100][..]].concat(), b""] {
        fs::write(&files()[0], damaged).unwrap();
        assert!(run());
        assert!(fs::read(&files()[0]).unwrap() != damaged, "replaced by a good one");
    }
    run();
    assert_eq!(files().len(), 1, "{:?}", files());
}

#[test]
fn warming_ends_with_the_device() {
    let Some(device) = Watched::open(VulkanOptions::default()) else { return };
    device.get().warm();
    device.get().warm();
    drop(device);
}

/// Set in a process that says what opening a device comes to, and does nothing else.
const ASKED: &str = "TEST_ASKS_FOR_A_DEVICE";

/// Result of opening a device in a process of its own, with a variable set.
fn opened_with(test: &str, variable: &str, value: &Path) -> String {
    let program = std::env::current_exe().unwrap();
    let output = Command::new(program)
        .args(["--exact", test, "--nocapture"])
        .env(ASKED, "1")
        // It would outrank VK_ICD_FILENAMES.
        .env_remove("VK_DRIVER_FILES")
        .env(variable, value)
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// True in the process that was asked.
fn answered() -> bool {
    let asked = std::env::var_os(ASKED).is_some();
    if asked {
        eprintln!("{:?}", VulkanDevice::open(&VulkanOptions::default()).map_err(|error| error.to_string()));
    }
    asked
}

#[test]
fn without_a_driver_the_error_says_what_to_install() {
    if answered() {
        return;
    }
    let nowhere = Path::new("/nowhere/icd.json");
    let answer = opened_with("without_a_driver_the_error_says_what_to_install", "VK_ICD_FILENAMES", nowhere);
    let expected = ["no Vulkan driver; install", "no Vulkan loader"];
    assert!(expected.iter().any(|expected| answer.contains(expected)), "{answer}");
}

#[cfg(target_os = "linux")]
#[test]
fn without_a_loader_the_error_says_what_to_install() {
    if answered() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for name in ["libvulkan.so.1", "libvulkan.so"] {
        fs::write(folder.path().join(name), "no library").unwrap();
    }
    let test = "without_a_loader_the_error_says_what_to_install";
    let answer = opened_with(test, "LD_LIBRARY_PATH", folder.path());
    assert!(answer.contains("no Vulkan loader") && answer.contains("install it"), "{answer}");
}
