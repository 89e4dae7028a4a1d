//! `soak`: a whole run, one that is stopped and gone on with, and what is refused.

use crate::common::{binary, run};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

fn record(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn counted(record: &Value, name: &str) -> u64 {
    let windows = record["windows"].as_array().unwrap();
    windows.iter().filter_map(|window| window["counts"][name].as_u64()).sum()
}

#[test]
fn a_run_toggles_every_optimization_and_checks_what_it_gets() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("s.json");
    let path = file.to_str().unwrap();
    let args =
        ["soak", "--duration", "3s", "--concurrency", "6", "--metal-opts", "all", "--seed", "7", "--device", "cpu"];
    let output = run(&[&args[..], &["-o", path]].concat());
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    let record = record(&file);
    assert_eq!((record["benchmark"].as_str(), record["settings"]["seed"].as_u64()), (Some("soak"), Some(7)));
    let windows = record["windows"].as_array().unwrap();
    for set in
        ["none", "memory_pool", "blit_queue", "command_buffer_ring", "memory_pool,blit_queue,command_buffer_ring"]
    {
        assert!(windows.iter().any(|window| window["optimizations"] == set), "{set}");
    }
    for verdict in record["verdicts"].as_array().unwrap() {
        assert!(["pass", "not_judged"].contains(&verdict["outcome"].as_str().unwrap()), "{verdict}");
    }
    for name in ["checked greedy", "refused while not loaded", "looks at balances"] {
        assert!(counted(&record, name) > 0, "{name}");
    }
    let page = std::fs::read_to_string(file.with_extension("html")).unwrap();
    assert!(page.starts_with("<!doctype html>") && page.ends_with("</body></html>\n"));
    assert!(page.matches("<svg").count() > 5 && !page.contains("NaN"));
    assert!(!dir.path().join("s.json.part").exists());

    let again = run(&["soak", "--resume", path, "--device", "cpu"]);
    assert_eq!(again.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&again.stderr).contains("complete"), "{}", String::from_utf8_lossy(&again.stderr));
}

#[cfg(unix)]
#[test]
fn a_run_that_was_interrupted_is_gone_on_with() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("s.json");
    let path = file.to_str().unwrap();
    let args = ["soak", "--duration", "60s", "--concurrency", "4", "--device", "cpu", "-o", path];
    let mut child = binary().args(args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("traffic has begun")));
    // A process that is killed from here on leaves a part without an end.
    let begun = record(&file);
    assert_eq!((begun["parts"].as_array().map(Vec::len), &begun["parts"][0]["ended"]), (Some(1), &Value::Null));
    assert!(Command::new("kill").args(["-s", "INT", &child.id().to_string()]).status().unwrap().success());
    lines.for_each(drop);
    let ended = child.wait().unwrap();
    let mut first = record(&file);
    assert_eq!(ended.code(), Some(130), "{first:#}");
    assert_eq!(first["parts"][0]["ended"], "stopped");
    assert!(file.with_extension("html").exists());
    let windows = first["windows"].as_array().unwrap().clone();
    assert!(first["elapsed_s"].as_f64().unwrap() < 60.0 && !windows.is_empty());
    // As if it had been stopped shortly before its end.
    first["elapsed_s"] = 58.0.into();
    std::fs::write(&file, first.to_string()).unwrap();
    a_damaged_record_is_refused(&first, dir.path());
    let killed = dir.path().join("killed.json");
    first["parts"][0]["ended"] = Value::Null;
    std::fs::write(&killed, first.to_string()).unwrap();

    let other = run(&["soak", "--resume", path, "--concurrency", "5", "--seed", "1"]);
    let said = String::from_utf8_lossy(&other.stderr).into_owned();
    assert_eq!(other.status.code(), Some(2), "{said}");
    assert!(said.contains("settings.concurrency was 4 and is 5") && said.contains("settings.seed"), "{said}");

    let rest = run(&["soak", "--resume", path, "--device", "cpu"]);
    assert!(rest.status.success(), "{}", String::from_utf8_lossy(&rest.stderr));
    let whole = record(&file);
    assert_eq!(whole["windows"].as_array().unwrap()[..windows.len()], windows);
    assert!(whole["windows"].as_array().unwrap().len() > windows.len());
    assert_eq!(whole["parts"][1]["ended"], "complete");
    assert!(whole["elapsed_s"].as_f64().unwrap() >= 60.0);
    assert!(std::fs::read_to_string(file.with_extension("html")).unwrap().contains("class=\"gap\""));

    let rest = run(&["soak", "--resume", killed.to_str().unwrap(), "--device", "cpu"]);
    let said = String::from_utf8_lossy(&rest.stderr).into_owned();
    assert_eq!(rest.status.code(), Some(1), "{said}");
    assert!(said.contains("CANNOT TELL: processes: 1 of 2 processes ended without saying why"), "{said}");
}

#[cfg(unix)]
#[test]
fn a_run_writes_through_a_link_and_names_only_what_it_wrote() {
    let dir = tempfile::tempdir().unwrap();
    let (link, linked) = (dir.path().join("link.json"), dir.path().join("linked.json"));
    std::fs::write(&linked, "").unwrap();
    std::os::unix::fs::symlink(&linked, &link).unwrap();
    // In the way of the page, when it is written.
    std::fs::create_dir(dir.path().join("link.html.part")).unwrap();
    let output =
        run(&["soak", "--duration", "1s", "--concurrency", "2", "--device", "cpu", "-o", link.to_str().unwrap()]);
    let (said, told) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{said}{told}");
    assert!(told.contains("link.html: ") && !said.contains("link.html"), "{said}{told}");
    assert!(link.is_symlink() && !linked.is_symlink());
    assert_eq!(record(&linked)["parts"][0]["ended"], "complete");
}

fn a_damaged_record_is_refused(record: &Value, dir: &Path) {
    let file = dir.join("damaged.json");
    for (pointer, value) in [
        ("/settings/concurrency", Value::from(1_000_000_000_000_000_000_u64)),
        ("/settings/duration_s", 1e300.into()),
        ("/phases", u64::MAX.into()),
        ("/elapsed_s", (-1e300).into()),
        ("/references/stuck_after_s", (-1).into()),
        ("/events_left_out", u64::MAX.into()),
        ("/windows/0/part", 99.into()),
        ("/windows/0/tokens", u64::MAX.into()),
        ("/windows/0/seconds", (-1e300).into()),
        ("/windows/0/counts/looks at balances", u64::MAX.into()),
        ("/windows/0/open/threads", u64::MAX.into()),
        ("/parts/0/begins_s", (-1e300).into()),
    ] {
        let mut damaged = record.clone();
        let place = damaged.pointer_mut(pointer);
        *place.unwrap_or_else(|| panic!("{pointer} is not in the record")) = value;
        std::fs::write(&file, damaged.to_string()).unwrap();
        let output = run(&["soak", "--resume", file.to_str().unwrap(), "--device", "cpu"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{pointer}: {said}");
        assert!(said.contains("it is damaged: "), "{pointer}: {said}");
    }
}

#[test]
fn what_cannot_be_run_is_wrong_usage() {
    let dir = tempfile::tempdir().unwrap();
    let other = dir.path().join("other.json");
    std::fs::write(&other, "{\"benchmark\":\"throughput\"}").unwrap();
    let beside = dir.path().join("beside.json");
    std::fs::create_dir(beside.with_extension("html")).unwrap();
    for (args, code) in [
        (vec!["soak"], 2),
        (vec!["soak", "--duration", "1.5h", "-o", "x.json"], 2),
        (vec!["soak", "--duration", "0s", "-o", "x.json"], 2),
        (vec!["soak", "--concurrency", "0", "-o", "x.json"], 2),
        (vec!["soak", "--concurrency", "1000000000000000000", "-o", "x.json"], 2),
        (vec!["soak", "-o", "x.html"], 2),
        (vec!["soak", "-o", beside.to_str().unwrap()], 2),
        (vec!["soak", "--resume", other.to_str().unwrap()], 1),
        (vec!["soak", "--resume", "/nowhere/x.json"], 1),
        (vec!["soak", "--resume", dir.path().to_str().unwrap()], 1),
    ] {
        let output = run(&args);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(!output.stderr.is_empty());
    }
    #[cfg(unix)]
    {
        let pipe = dir.path().join("pipe.json");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        for file in [pipe.to_str().unwrap(), "/dev/zero"] {
            let output = run(&["soak", "--resume", file]);
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.code() == Some(1) && said.contains("not a regular file"), "{file}: {said}");
        }
        let dangling = dir.path().join("dangling.json");
        std::os::unix::fs::symlink("/nowhere/x.json", &dangling).unwrap();
        for file in [pipe.to_str().unwrap(), "/dev/null", dangling.to_str().unwrap()] {
            let output = run(&["soak", "-o", file]);
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.code() == Some(2) && said.contains("not a regular file"), "{file}: {said}");
        }
    }
}
