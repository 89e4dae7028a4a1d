//! A leak fails the process where that was asked for: this one runs itself again as a child.
mod common;

use common::*;
use std::process::Command;

fn child(test: &str) -> std::process::Output {
    let this = std::env::current_exe().expect("the test's own program");
    Command::new(this).args(["--exact", test, "--ignored", "--nocapture"]).output().expect("a child process")
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
#[ignore = "leaks on purpose, for the test above"]
fn leak() {
    metal_sim::forbid_leaks();
    std::mem::forget(device());
}

#[test]
#[ignore = "breaks a rule on purpose, for the test above"]
fn violation() {
    use objc2_metal::MTLDevice;
    let _ = std::panic::catch_unwind(|| device().newBufferWithLength_options(0, SHARED));
}
