//! `bench compare`: each load once, with a baseline that is like it, unlike it, and out of reach.

use crate::common::run;
use serde_json::Value;
use std::path::{Path, PathBuf};

const SMALL: [&str; 12] = [
    "bench",
    "compare",
    "--device",
    "cpu",
    "--threads",
    "1",
    "--optimizations",
    "blit_queue,command_buffer_ring",
    "--prompt-tokens",
    "24",
    "--max-tokens",
    "8",
];

/// Runs a small comparison; its exit code, its result if it has one, and what it said.
fn compare(output: &Path, more: &[&str]) -> (Option<i32>, Option<Value>, String) {
    let done = run(&[&SMALL[..], &["-o", output.to_str().unwrap()], more].concat());
    let said = String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned();
    let result = std::fs::read(output).ok().map(|text| serde_json::from_slice(&text).unwrap());
    (done.status.code(), result, said)
}

/// A copy of a result in which one value is another.
fn with(result: &Value, pointer: &str, value: Value, path: PathBuf) -> String {
    let mut other = result.clone();
    *other.pointer_mut(pointer).unwrap_or_else(|| panic!("no {pointer}")) = value;
    std::fs::write(&path, other.to_string()).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn conversations_have_their_prefixes_restored_or_computed_again() {
    let dir = tempfile::tempdir().unwrap();
    let load = ["--load", "conversations", "--turns", "3", "--repetitions", "1"];
    let (code, result, said) = compare(&dir.path().join("c.json"), &load);
    assert_eq!(code, Some(0), "{said}");
    let result = result.unwrap();
    assert_eq!((&result["settings"]["load"], &result["outputs_equal"]), (&"conversations".into(), &true.into()));
    let arms = result["arms"].as_array().unwrap();
    let names: Vec<&str> = arms.iter().map(|arm| arm["arm"].as_str().unwrap()).collect();
    assert_eq!(names, ["plain", "synchronous spilling", "blit_queue", "command_buffer_ring", "all together"]);
    for arm in arms {
        let reused = arm["figures"]["prompt tokens not computed again, %"]["median"].as_f64().unwrap();
        let spills = matches!(arm["arm"].as_str(), Some("synchronous spilling" | "blit_queue" | "all together"));
        assert_eq!(reused > 20.0, spills, "{}: {reused} %", arm["arm"]);
    }
    let all = result["findings"].as_array().unwrap().iter().find(|f| f["arm"] == "all together").unwrap();
    assert_eq!(all["target"], "+40 to +60 %");
    assert!(
        result["timeline"]["excerpts"].as_array().is_some_and(|excerpts| excerpts.len() == 2),
        "{}",
        result["timeline"]
    );
    let page = std::fs::read_to_string(dir.path().join("c.html")).unwrap();
    for part in ["<rect class=\"copy\"", "<rect class=\"step\"", "<rect class=\"middle\"", "conversations of 3 turns"] {
        assert!(page.contains(part), "{part}");
    }
}

#[test]
fn a_baseline_must_be_like_the_comparison_and_may_show_what_was_lost() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let load = ["-q", "2", "--prefix-tokens", "32", "--repetitions", "5"];
    let (code, result, said) = compare(&at("first.json"), &load);
    assert_eq!(code, Some(0), "{said}");
    let result = result.unwrap();
    let first = at("first.json").to_str().unwrap().to_owned();

    // What nobody can lose.
    let (code, again, said) =
        compare(&at("again.json"), &[&load[..], &["--baseline", &first, "--max-regression", "100"]].concat());
    assert_eq!(code, Some(0), "{said}");
    let again = again.unwrap();
    assert_eq!((&again["regression"]["verdict"], &again["baseline"]["file"]), (&"within_limit".into(), &first.into()));

    let plain = result["arms"].as_array().unwrap().iter().position(|arm| arm["arm"] == "plain").unwrap();
    let figure = format!("/arms/{plain}/figures/throughput, tok~1s");
    let fast = serde_json::json!({ "median": 9e9, "low": 8.9e9, "high": 9.1e9, "coverage": 0.9375 });
    let fast = with(&result, &figure, fast, at("fast.json"));
    let (code, past, said) =
        compare(&at("past.json"), &[&load[..], &["--baseline", &fast, "--max-regression", "5"]].concat());
    let past = past.unwrap();
    let (verdict, doubt) = (&past["regression"]["verdict"], &past["regression"]["checks"][0]["doubt"]);
    // Other tests run beside this one, and may take so much of the machine that nothing is shown.
    match past["quiet"] == false {
        true => {
            assert_eq!((code, verdict), (Some(0), &"cannot_tell".into()), "{said}");
            assert!(doubt.as_str().is_some_and(|doubt| doubt.contains("not quiet")), "{past}");
        }
        false => {
            assert_eq!((code, verdict), (Some(3), &"past_limit".into()), "{said}");
            assert!(doubt.is_null() && said.contains("throughput is more than 5 % lower"), "{said}");
        }
    }
    let unbroken = said.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(unbroken.contains(&format!("plain against {fast}")), "{said}");

    let other = with(&result, "/machine/cores", 4096.into(), at("other.json"));
    let (code, none, said) = compare(&at("none.json"), &[&load[..], &["--baseline", &other]].concat());
    assert_eq!((code, none), (Some(2), None), "{said}");
    assert!(said.contains("--baseline") && said.contains("cores 4096 there"), "{said}");
}

#[test]
fn a_result_of_bench_throughput_is_a_baseline() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (file, small) = (at("t.json"), ["--device", "cpu", "--threads", "1", "-q", "2", "--prompt-tokens", "24"]);
    let measured = run(&[&["bench", "throughput", "--max-tokens", "8", "-o", &file][..], &small].concat());
    assert!(measured.status.success(), "{}", String::from_utf8_lossy(&measured.stderr));
    let load = ["-q", "2", "--prefix-tokens", "32", "--repetitions", "1", "--baseline", &file];
    let (code, result, said) = compare(&dir.path().join("c.json"), &load);
    assert_eq!(code, Some(0), "{said}");
    assert!(result.unwrap()["baseline"]["plain_change_percent"].is_f64(), "{said}");
    let (code, _, said) = compare(&dir.path().join("d.json"), &["--load", "conversations", "--baseline", &file]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("load questions there, conversations here"), "{said}");
}
