//! The choice of Vulkan devices, as users meet it.

use crate::common::binary;
use mlx_serving_vulkan::VulkanDevice;
use serde_json::Value;
use std::process::Output;

const GENERATE: [&str; 9] =
    ["generate", "--prompt", "What Is Ownership?", "--temperature", "0", "--max-tokens", "12", "--arithmetic", "exact"];

/// Runs with other drivers than the system's.
fn run(drivers: Option<&str>, args: &[&str]) -> Output {
    let mut command = binary();
    if let Some(drivers) = drivers {
        // The loader's variables, the newer name and the older.
        command.env("VK_DRIVER_FILES", drivers).env("VK_ICD_FILENAMES", drivers);
    }
    command.args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn without_a_driver_vulkan_fails_with_advice_and_auto_goes_on() {
    let none = Some("/nonexistent/driver.json");
    let output = run(none, &[&GENERATE[..], &["--device", "vulkan"]].concat());
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(output.stdout.is_empty() && said.contains("no Vulkan device") && said.contains("driver"), "{said}");
    let output = run(none, &[&GENERATE[..], &["--device", "auto"]].concat());
    assert!(output.status.success() && !output.stdout.is_empty(), "{}", text(&output.stderr));
    let report = run(none, &["doctor", "--json"]);
    let report: Value = serde_json::from_slice(&report.stdout).unwrap();
    let missing = report["missing"].as_array().unwrap();
    assert!(missing.iter().any(|m| m["backend"] == "vulkan" && !m["reason"].as_str().unwrap().is_empty()), "{report}");
}

#[test]
fn a_device_that_is_not_there_fails() {
    let output = run(None, &[&GENERATE[..], &["--device", "vulkan:99"]].concat());
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(output.stdout.is_empty() && said.contains("no Vulkan device"), "{said}");
}

#[test]
fn auto_prefers_the_cpu_to_a_software_driver() {
    let Ok(found) = VulkanDevice::available() else { return skip() };
    if found.iter().any(|gpu| gpu.kind != mlx_serving_vulkan::DeviceKind::Software) {
        return eprintln!("skipped: this machine has a GPU");
    }
    let report: Value = serde_json::from_slice(&run(None, &["doctor", "--json"]).stdout).unwrap();
    assert_eq!(report["devices"][0]["backend"], "cpu");
    assert_eq!(report["vulkan"].as_array().unwrap().len(), found.len());
    assert_eq!(report["vulkan"][0]["device"], "vulkan:0");
}

#[test]
fn answers_are_the_cpus() {
    if VulkanDevice::available().is_err() {
        return skip();
    }
    let on = |device| {
        let output = run(None, &[&GENERATE[..], &["--device", device]].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    assert_eq!(on("vulkan"), on("cpu"));
}

#[test]
fn kernels_are_measured_by_the_device() {
    if VulkanDevice::available().is_err() {
        return skip();
    }
    let args = ["--shape", "tiny-qwen3", "--rows", "2", "--context", "20", "--device", "vulkan", "--json"];
    let output = run(None, &[&["bench", "kernels"], &args[..]].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    let record: Value = serde_json::from_slice(&output.stdout).unwrap();
    let kernels = record["kernels"].as_array().unwrap();
    assert_eq!((kernels.len(), &record["device"]["backend"]), (9, &"vulkan".into()));
    assert!(kernels.iter().all(|k| k["timed_by"] == "device" && k["gb_s"].as_f64().unwrap() > 0.0), "{record}");
    assert!(record["copy"]["gb_s"].as_f64().unwrap() > 0.0, "{record}");
}

fn skip() {
    assert!(std::env::var_os("MLX_SERVING_REQUIRE_VULKAN").is_none_or(|v| v != "1"), "Vulkan is required");
    eprintln!("skipped: this machine has no Vulkan driver");
}
