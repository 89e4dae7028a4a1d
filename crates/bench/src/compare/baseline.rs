//! Earlier results to compare with: read, and refused unless they were measured like this one.

use super::setup::{Missing, Setup, missing, number, text};
use super::statistics::{COVERAGE, Median};
use crate::error::BenchError;
use serde_json::Value;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Bytes of a result, at most: one of many runs has a few MiB.
const MAX_BYTES: u64 = 64 << 20;

/// An earlier result.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Baseline {
    /// The file, as it was named.
    pub file: String,
    /// Plain's throughput; of one run, its only value, without an interval.
    pub throughput: Median,
    /// Its version, with its commit if it tells it.
    pub build: String,
    /// Optimizations that were on.
    pub optimizations: String,
    setup: Setup,
}

impl Baseline {
    /// Reads a result of `bench throughput` or `bench compare`.
    pub(super) fn read(path: &Path) -> Result<Self, BenchError> {
        let file = path.display().to_string();
        let failed = |why: String| BenchError::setting("baseline", format!("{file}: {why}"));
        let about = std::fs::metadata(path).map_err(|e| failed(e.to_string()))?;
        // A pipe would be waited for, and a device may have no end.
        if !about.is_file() {
            return Err(failed(
                "it is not a regular file; name one that bench throughput or bench compare wrote".into(),
            ));
        }
        let mut text = Vec::new();
        // Some files are longer than they say.
        let read = File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut text));
        read.map_err(|e| failed(e.to_string()))?;
        if text.len() as u64 > MAX_BYTES {
            return Err(failed(format!("it has more than {} MiB, as no result has", MAX_BYTES >> 20)));
        }
        let value: Value = serde_json::from_slice(&text).map_err(|e| failed(format!("not JSON: {e}")))?;
        Self::parse(&file, &value).map_err(|missing| {
            failed(format!("{missing}; measure it again with this version of bench throughput or bench compare"))
        })
    }

    fn parse(file: &str, value: &Value) -> Result<Self, Missing> {
        let benchmark = text(value, "/benchmark")?;
        let (throughput, optimizations, setup) = match benchmark.as_str() {
            "throughput" => {
                (one_value(number(value, "/throughput_tok_s")?), optimizations(value)?, Setup::of_throughput(value)?)
            }
            "compare" => (plain(value)?, "none".to_owned(), Setup::of_compare(value)?),
            other => return Err(format!("it is a result of bench {other}, which has no such load")),
        };
        if !(throughput.median > 0.0 && throughput.median.is_finite()) {
            return Err(format!("its throughput is {}, which is none", throughput.median));
        }
        let version = text(value, "/version")?;
        let build = match value.get("commit").and_then(Value::as_str) {
            Some(commit) => format!("{version} ({commit})"),
            None => version,
        };
        Ok(Self { file: file.to_owned(), throughput, build, optimizations, setup })
    }

    /// Refuses a result that was not measured as `here` says; says all that differs.
    pub(super) fn check(&self, here: &Setup) -> Result<(), BenchError> {
        let unlike = self.setup.unlike(here);
        if unlike.is_empty() {
            return Ok(());
        }
        Err(BenchError::setting(
            "baseline",
            format!("{} was not measured like this comparison: {}", self.file, unlike.join("; ")),
        ))
    }

    /// Change of plain's throughput against this, percent. Its interval has no smaller change and no larger one than the two together allow.
    pub(super) fn change(&self, plain: Median) -> Median {
        let change = |now: f64, before: f64| 100.0 * (now / before - 1.0);
        let before = self.throughput;
        Median {
            median: change(plain.median, before.median),
            low: change(plain.low, before.high),
            high: change(plain.high, before.low),
            coverage: if before.coverage < COVERAGE { 0.0 } else { plain.coverage },
        }
    }
}

/// The plain arm's throughput in a result of `bench compare`.
fn plain(value: &Value) -> Result<Median, Missing> {
    let arms = value.get("arms").and_then(Value::as_array).ok_or_else(|| missing("/arms"))?;
    let plain = arms.iter().find(|arm| arm["arm"] == "plain").ok_or("it has no arm plain")?;
    let median = |key| number(plain, &format!("/figures/throughput, tok~1s/{key}"));
    Ok(Median { median: median("median")?, low: median("low")?, high: median("high")?, coverage: median("coverage")? })
}

/// A single value, which is taken as exact.
fn one_value(value: f64) -> Median {
    Median { median: value, low: value, high: value, coverage: 1.0 }
}

/// The optimizations that were on, as `--metal-opts` takes them.
fn optimizations(value: &Value) -> Result<String, Missing> {
    let path = "/settings/metal_optimizations";
    let all = value.pointer(path).and_then(Value::as_object).ok_or_else(|| missing(path))?;
    if all.get("enabled").and_then(Value::as_bool) == Some(false) {
        return Ok("none".into());
    }
    let on = all.iter().filter(|(_, of)| of.get("enabled").and_then(Value::as_bool) == Some(true));
    let on: Vec<&str> = on.map(|(name, _)| name.as_str()).collect();
    Ok(if on.is_empty() { "none".into() } else { on.join(",") })
}

#[cfg(test)]
impl Baseline {
    /// A result for tests, of 4000 tok/s.
    pub(super) fn sample() -> Self {
        let setup = Setup::default();
        let (file, build, optimizations) = ("before.json".into(), "0.8.0 (0123456)".into(), "none".into());
        Self { file, throughput: one_value(4000.0), build, optimizations, setup }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::setup::{dotted, load};
    use crate::compare::{Compare, LoadKind};
    use serde_json::json;

    fn machine() -> Value {
        json!({ "cpu": "a CPU", "cores": 2, "memory": "24634764 kB", "os": "linux", "arch": "x86_64" })
    }

    fn throughput() -> Value {
        json!({
            "benchmark": "throughput", "throughput_tok_s": 4000.0, "version": "0.9.0", "machine": machine(),
            "settings": {
                "model": "m", "device": "a CPU with AVX2", "backend": "cpu", "instructions": "avx2", "arithmetic": "fast", "threads": 2,
                "questions": 8, "prompt_tokens": 128, "max_tokens": 64, "concurrency": 1, "seed": 0, "load": "questions", "url": null,
                "metal_optimizations": { "enabled": true, "memory_pool": { "enabled": true }, "blit_queue": { "enabled": false } },
            },
        })
    }

    fn compared() -> Value {
        json!({
            "benchmark": "compare", "throughput_tok_s": 9000.0, "version": "0.9.0", "commit": "abc", "machine": machine(),
            "device": { "name": "a CPU with AVX2", "backend": "cpu", "instructions": "avx2", "arithmetic": "fast", "threads": 2 },
            "settings": {
                "model": "m", "load": "questions",
                "questions": { "questions": 8, "prompt_tokens": 128, "max_tokens": 64, "concurrency": 1, "prefix_tokens": 512 },
            },
            "arms": [{ "arm": "plain", "figures": { "throughput, tok/s": { "median": 4000.0, "low": 3900.0, "high": 4100.0, "coverage": 0.93 } } }],
        })
    }

    fn here(settings: &Compare) -> Setup {
        let subject = [
            ("model", "m"),
            ("device", "a CPU with AVX2"),
            ("backend", "cpu"),
            ("instructions", "avx2"),
            ("arithmetic", "fast"),
            ("threads", "2"),
        ];
        let of = Setup::of_machine(&machine(), "").unwrap();
        of.and(subject.map(|(name, value)| (name, value.to_owned()))).and(load(&settings.asked().unwrap()))
    }

    fn questions() -> Compare {
        Compare { questions: Some(8), ..Compare::default() }
    }

    fn refusal(value: &Value, settings: &Compare) -> String {
        Baseline::parse("b.json", value).unwrap().check(&here(settings)).unwrap_err().to_string()
    }

    #[test]
    fn a_result_that_was_measured_alike_is_taken() {
        for value in [throughput(), compared()] {
            let baseline = Baseline::parse("b.json", &value).unwrap();
            baseline.check(&here(&questions())).unwrap();
            assert_eq!(baseline.throughput.median, 4000.0, "plain's, and not that of all together");
        }
        let baseline = Baseline::parse("b.json", &throughput()).unwrap();
        assert_eq!((baseline.optimizations.as_str(), baseline.build.as_str()), ("memory_pool", "0.9.0"));
        assert_eq!(Baseline::parse("b.json", &compared()).unwrap().build, "0.9.0 (abc)");
        let mut rebooted = throughput();
        rebooted["machine"]["memory"] = "24600000 kB".into();
        Baseline::parse("b.json", &rebooted).unwrap().check(&here(&questions())).unwrap();
    }

    #[test]
    fn whatever_differs_is_refused_with_both_values() {
        for (path, value, said) in [
            ("/machine/cpu", json!("another"), "cpu another there, a CPU here"),
            ("/machine/cpu", json!(null), "cpu unknown there, a CPU here"),
            ("/machine/cores", json!(8), "cores 8 there, 2 here"),
            ("/machine/memory", json!("8000000 kB"), "memory 7.6 GiB there, 23.5 GiB here"),
            ("/machine/os", json!("macos"), "os macos there, linux here"),
            ("/machine/arch", json!("aarch64"), "arch aarch64 there, x86_64 here"),
            ("/settings/model", json!("n"), "model n there, m here"),
            ("/settings/device", json!("a GPU"), "device a GPU there, a CPU with AVX2 here"),
            ("/settings/backend", json!("vulkan"), "backend vulkan there, cpu here"),
            ("/settings/instructions", json!("baseline"), "instructions baseline there, avx2 here"),
            ("/settings/instructions", json!(null), "instructions none there, avx2 here"),
            ("/settings/arithmetic", json!("exact"), "arithmetic exact there, fast here"),
            ("/settings/threads", json!(1), "threads 1 there, 2 here"),
            ("/settings/questions", json!(16), "questions 16 there, 8 here"),
            ("/settings/prompt_tokens", json!("64..256"), "prompt_tokens 64..256 there, 128 here"),
            ("/settings/max_tokens", json!(1), "max_tokens 1 there, 64 here"),
            ("/settings/concurrency", json!(4), "concurrency 4 there, 1 here"),
            ("/settings/load", json!("chat"), "load chat there, questions here"),
            ("/settings/url", json!("localhost:8000"), "url localhost:8000 there, none here"),
        ] {
            let mut other = throughput();
            *other.pointer_mut(path).unwrap() = value;
            let said_it = refusal(&other, &questions());
            assert!(said_it.starts_with("baseline: b.json was not") && said_it.contains(said), "{said_it}");
        }
        let mut open = throughput();
        open["settings"]["rate"] = json!(3.5);
        assert!(refusal(&open, &questions()).contains("rate 3.5 there, none here"));
    }

    #[test]
    fn another_load_is_refused_and_all_differences_are_told_at_once() {
        let talk = Compare { load: LoadKind::Conversations, ..Compare::default() };
        for value in [throughput(), compared()] {
            assert!(refusal(&value, &talk).contains("load questions there, conversations here"));
        }
        let mut other = compared();
        other["device"]["instructions"] = "baseline".into();
        other["device"]["threads"] = 1.into();
        other["settings"]["questions"]["prefix_tokens"] = 64.into();
        let said = refusal(&other, &questions());
        assert!(
            said.contains(
                "instructions baseline there, avx2 here; threads 1 there, 2 here; prefix_tokens 64 there, 512 here"
            ),
            "{said}"
        );
    }

    #[test]
    fn a_record_that_lacks_a_field_names_it() {
        for (value, paths) in [
            (
                throughput(),
                [
                    "/settings/instructions",
                    "/machine/cores",
                    "/machine/memory",
                    "/version",
                    "/throughput_tok_s",
                    "/benchmark",
                ],
            ),
            (
                compared(),
                [
                    "/settings/load",
                    "/device/instructions",
                    "/device/arithmetic",
                    "/settings/questions/prompt_tokens",
                    "/arms",
                    "/machine/os",
                ],
            ),
        ] {
            for path in paths {
                let mut old = value.clone();
                let (parent, key) = path.rsplit_once('/').unwrap();
                old.pointer_mut(parent).and_then(Value::as_object_mut).unwrap().remove(key).unwrap();
                let said = Baseline::parse("b.json", &old).unwrap_err();
                assert!(said.contains(&format!("it has no {}", dotted(path))), "{path}: {said}");
            }
        }
    }

    #[test]
    fn what_is_no_result_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("b.json");
        let mut stopped = throughput();
        stopped["throughput_tok_s"] = 0.into();
        for bad in ["", "{}", "[]", r#"{"benchmark": "kernels"}"#, r#"{"benchmark": 3}"#, &stopped.to_string()] {
            std::fs::write(&file, bad).unwrap();
            assert!(matches!(Baseline::read(&file), Err(BenchError::Setting { name: "baseline", .. })), "{bad}");
        }
        assert!(Baseline::read(&dir.path().join("none.json")).is_err());
    }

    #[test]
    fn what_is_no_file_of_a_result_s_size_is_refused_before_it_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let refused = |path: &Path| Baseline::read(path).unwrap_err().to_string();
        assert!(refused(dir.path()).contains("not a regular file"));
        #[cfg(unix)]
        {
            // A socket cannot be opened; a pipe would hang this test, and /dev/zero fill its memory.
            let _listener = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
            for path in [dir.path().join("socket"), "/dev/zero".into()] {
                assert!(refused(&path).contains("not a regular file"), "{path:?}");
            }
        }
        let long = dir.path().join("long.json");
        File::create(&long).unwrap().set_len(MAX_BYTES + 1).unwrap();
        assert!(refused(&long).contains("more than 64 MiB"));
    }

    #[test]
    fn a_change_has_the_uncertainty_of_both() {
        let baseline = |value| Baseline::parse("b.json", &value).unwrap();
        let plain = Median { median: 3600.0, low: 3510.0, high: 3690.0, coverage: 0.93 };
        let change = baseline(throughput()).change(plain);
        assert_eq!(
            [change.median, change.low, change.high].map(|c| (c * 100.0).round() / 100.0),
            [-10.0, -12.25, -7.75]
        );
        let change = baseline(compared()).change(plain);
        assert!(change.low < -14.0 && change.high > -5.5, "{change:?}");
        let mut single = compared();
        single["arms"][0]["figures"]["throughput, tok/s"]["coverage"] = 0.0.into();
        assert_eq!(baseline(single).change(plain).coverage, 0.0);
    }
}
