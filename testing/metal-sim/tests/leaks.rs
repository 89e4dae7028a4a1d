//! A leak fails the process where that was asked for: this one runs itself again as a child.
mod common;

use common::*;
use objc2_metal::MTLDevice;
use std::process::Command;

/// Set for the child, which does what its test is named after; otherwise those tests do nothing.
const CHILD: &str = "METAL_SIM_CHILD";

fn child(test: &str) -> std::process::Output {
    let this = std::env::current_exe().expect("the test's own program");
    Command::new(this).args(["--exact", test, "--nocapture"]).env(CHILD, "1").output().expect("a child process")
}

fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

#[test]
fn a_leak_fails_the_process() {
    let output = child("leak");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(101), "{text}");
    assert!(text.contains("exit: 1 objects are alive: [\"SimDevice #"), "{text}");
}

#[test]
fn a_violation_that_nobody_took_fails_the_process() {
    let output = child("violation");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(101), "{text}");
    assert!(text.contains("1 rules were broken") && text.contains("length 0"), "{text}");
}

#[test]
fn leak() {
    if is_child() {
        metal_sim::forbid_leaks();
        std::mem::forget(device());
    }
}

#[test]
fn violation() {
    if is_child() {
        let _ = std::panic::catch_unwind(|| device().newBufferWithLength_options(0, SHARED));
    }
}
