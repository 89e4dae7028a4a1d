//! A strict reader of `/metrics`: what OpenMetrics and Prometheus' older text format demand, and what this program promises.

use std::collections::{BTreeMap, HashSet};

/// A family of samples.
pub(crate) struct Family {
    kind: String,
    /// Name, labels and value, in order.
    pub(crate) samples: Vec<Sample>,
}

/// One line.
pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) value: f64,
}

/// Reads a text, or says what is wrong with it. `open`: it claims to be OpenMetrics.
pub(crate) fn read(text: &str, open: bool) -> Result<BTreeMap<String, Family>, String> {
    let text = text.strip_suffix('\n').ok_or("the last line does not end")?;
    let body = match (text.strip_suffix("# EOF"), open) {
        (Some(body), true) => body,
        (None, false) => text,
        _ => return Err("# EOF where it must not be, or none".into()),
    };
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    // The family whose samples may come now, and that of a help text whose type comes next.
    let (mut current, mut helped) = (None::<String>, None::<String>);
    for line in body.lines() {
        let wrong = |why: &str| Err(format!("{why}: {line}"));
        let words = |rest: &str| rest.split_once(' ').map(|(name, text)| (name.to_owned(), text.to_owned()));
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(words) {
            if families.contains_key(&name) {
                return wrong("a family comes twice");
            }
            if !help.ends_with('.') || help.ends_with("..") {
                return wrong("a help text ends with no full stop, or with two");
            }
            (helped, current) = (Some(name), None);
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(words) {
            if helped.take().as_ref() != Some(&name) {
                return wrong("a type without its help text");
            }
            if !["counter", "gauge", "histogram"].contains(&kind.as_str()) {
                return wrong("an unknown type");
            }
            if kind == "counter" && name.ends_with("_total") == open {
                return wrong("a counter's name");
            }
            families.insert(name.clone(), Family { kind, samples: Vec::new() });
            current = Some(name);
        } else if line.starts_with('#') {
            return wrong("neither help nor type");
        } else {
            let sample = sample(line).ok_or_else(|| format!("no sample: {line}"))?;
            let Some(name) = &current else { return wrong("a sample of no family") };
            let family = families.get_mut(name).ok_or("no such family")?;
            let suffixes: &[&str] = match (family.kind.as_str(), open) {
                ("counter", true) => &["_total"],
                ("histogram", _) => &["_sum", "_count", "_bucket"],
                _ => &[""],
            };
            if !suffixes.iter().any(|suffix| sample.name == format!("{name}{suffix}")) {
                return wrong("a sample of another family");
            }
            if family.kind != "gauge" && (sample.value.is_nan() || sample.value < 0.0) {
                return wrong("a count below 0");
            }
            family.samples.push(sample);
        }
    }
    for (name, family) in &families {
        family.check().map_err(|why| format!("{name}: {why}"))?;
    }
    Ok(families)
}

/// `name{label="value",…} value`
fn sample(line: &str) -> Option<Sample> {
    let (head, value) = line.rsplit_once(' ')?;
    let (name, mut rest) = match head.split_once('{') {
        Some((name, labels)) => (name, labels.strip_suffix('}')?),
        None => (head, ""),
    };
    let letter = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    if name.is_empty() || !name.chars().all(letter) || (head.contains('{') && rest.is_empty()) {
        return None;
    }
    let mut labels = BTreeMap::new();
    while !rest.is_empty() {
        let (label, after) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut characters = after.char_indices();
        let end = loop {
            match characters.next()? {
                (i, '"') => break i,
                (_, '\\') => value.push(match characters.next()?.1 {
                    'n' => '\n',
                    c @ ('"' | '\\') => c,
                    _ => return None,
                }),
                (_, c) => value.push(c),
            }
        };
        if !label.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') || labels.insert(label.into(), value).is_some()
        {
            return None;
        }
        rest = &after[end + 1..];
        rest = if rest.is_empty() { rest } else { rest.strip_prefix(',').filter(|rest| !rest.is_empty())? };
    }
    let value = match value {
        "+Inf" => f64::INFINITY,
        value if value.starts_with(|c: char| c.is_ascii_digit() || c == '-') => value.parse().ok()?,
        _ => return None,
    };
    Some(Sample { name: name.into(), labels, value })
}

impl Family {
    fn check(&self) -> Result<(), String> {
        if self.samples.is_empty() {
            return Err("no samples".into());
        }
        let mut seen = HashSet::new();
        for s in &self.samples {
            if !seen.insert((&s.name, &s.labels)) {
                return Err(format!("{} {:?} comes twice", s.name, s.labels));
            }
        }
        if self.kind == "histogram" { self.check_buckets() } else { Ok(()) }
    }

    /// Buckets of each label set rise to the count.
    fn check_buckets(&self) -> Result<(), String> {
        let part = |suffix: &'static str| self.samples.iter().filter(move |s| s.name.ends_with(suffix));
        for count in part("_count") {
            let same = |s: &&Sample| s.labels.iter().filter(|(name, _)| *name != "le").eq(count.labels.iter());
            let bound = |s: &Sample| match s.labels["le"].as_str() {
                "+Inf" => f64::INFINITY,
                bound => bound.parse().unwrap_or(f64::NAN),
            };
            let buckets: Vec<(f64, f64)> = part("_bucket").filter(same).map(|s| (bound(s), s.value)).collect();
            let rising = buckets.windows(2).all(|w| w[0].0 < w[1].0 && w[0].1 <= w[1].1);
            if !rising
                || buckets.last() != Some(&(f64::INFINITY, count.value))
                || part("_sum").filter(same).count() != 1
            {
                return Err(format!("buckets of {:?}: {buckets:?}, count {}", count.labels, count.value));
            }
        }
        Ok(())
    }

    /// The value of the one sample with these labels among its own.
    pub(crate) fn value(&self, suffix: &str, labels: &[(&str, &str)]) -> f64 {
        let has = |s: &&Sample| {
            s.name.ends_with(suffix)
                && labels.iter().all(|(name, value)| s.labels.get(*name).is_some_and(|v| v == value))
        };
        let found: Vec<&Sample> = self.samples.iter().filter(has).collect();
        assert_eq!(found.len(), 1, "samples {suffix} {labels:?}");
        found[0].value
    }
}

#[test]
fn the_reader_is_strict() {
    let good = "# HELP a A.\n# TYPE a counter\na_total{x=\"1\"} 2\na_total{x=\"\\\"\\\\\\n\"} 2.5\n# HELP b B.\n# TYPE b gauge\nb -1\n";
    let families = read(&format!("{good}# EOF\n"), true).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!((families.len(), families["a"].value("", &[("x", "\"\\\n")])), (2, 2.5));
    read(&good.replace(" a ", " a_total "), false).unwrap_or_else(|e| panic!("{e}"));
    let more = "# HELP a A.\n# TYPE a counter\na_total{x=\"2\"} 2\n";
    let histogram =
        "# HELP h H.\n# TYPE h histogram\nh_sum 1\nh_count 2\nh_bucket{le=\"1\"} 2\nh_bucket{le=\"+Inf\"} 2\n";
    read(&format!("{histogram}# EOF\n"), true).unwrap_or_else(|e| panic!("{e}"));
    for bad in [
        good.to_owned(),
        format!("{good}{more}# EOF\n"),
        format!("{good}a_total{{x=\"2\"}} 2\n# EOF\n"),
        format!("{good}b -1\n# EOF\n"),
        format!("{good}# EOF"),
        format!("{good}\n# EOF\n"),
        format!("# EOF\n{good}"),
        good.replace("A.", "A") + "# EOF\n",
        good.replace("a_total", "a") + "# EOF\n",
        good.replace("# TYPE a counter\n", "") + "# EOF\n",
        good.replace("2.5", "x") + "# EOF\n",
        good.replace("2.5", "-1") + "# EOF\n",
        good.replace("x=\"1\"", "x=\"1") + "# EOF\n",
        good.replace("{x=\"1\"}", "{}") + "# EOF\n",
        histogram.replace("h_count 2", "h_count 3") + "# EOF\n",
        histogram.replace("h_sum 1\n", "") + "# EOF\n",
    ] {
        assert!(read(&bad, true).is_err(), "{bad}");
    }
}
