use crate::error::ConvertError;
use crate::format::Format;
use serde_json::{Map, Value};

/// Format of each module.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Of those that no rule names, if it divides their rows into groups; else they stay as they are.
    pub format: Format,
    /// Patterns of modules with their formats; the last that matches holds.
    pub rules: Vec<(Pattern, Format)>,
}

/// A module's name, in which `*` stands for any text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(pub String);

impl Pattern {
    pub(crate) fn matches(&self, name: &str) -> bool {
        let Some((first, others)) = self.0.split_once('*') else { return self.0 == name };
        let Some(mut rest) = name.strip_prefix(first) else { return false };
        // Each part is taken where it comes first, so that most is left for those behind it; the last one must end the name.
        let (between, last) = others.rsplit_once('*').unwrap_or(("", others));
        for part in between.split('*') {
            match rest.find(part) {
                Some(at) => rest = &rest[at + part.len()..],
                None => return false,
            }
        }
        rest.ends_with(last)
    }
}

impl Plan {
    /// The same format for all modules.
    pub fn uniform(format: Format) -> Self {
        Self { format, rules: Vec::new() }
    }

    /// The format of a module with rows of so many values.
    ///
    /// # Errors
    /// A rule names a format that does not divide them.
    pub(crate) fn of(&self, module: &str, cols: usize) -> Result<Format, ConvertError> {
        let fits = |format: Format| format.codes().is_none_or(|(_, group)| cols.is_multiple_of(group));
        match self.rules.iter().rev().find(|(pattern, _)| pattern.matches(module)) {
            Some((_, format)) if fits(*format) => Ok(*format),
            Some((pattern, format)) => Err(ConvertError::Plan(format!(
                "{}={format}: the {cols} values of a row of {module} are no whole groups; name a smaller group, or dense",
                pattern.0
            ))),
            None if fits(self.format) => Ok(self.format),
            None => Ok(Format::Dense),
        }
    }

    /// Refuses a rule that concerns none of the modules.
    pub(crate) fn check<'a>(&self, modules: impl Iterator<Item = &'a str> + Clone) -> Result<(), ConvertError> {
        match self.rules.iter().find(|(pattern, _)| !modules.clone().any(|module| pattern.matches(module))) {
            None => Ok(()),
            Some((pattern, _)) => {
                let some: Vec<&str> = modules.take(3).collect();
                let message = format!("no module is called {}; there are {}, …", pattern.0, some.join(", "));
                Err(ConvertError::Plan(message))
            }
        }
    }

    /// The key `quantization` of `config.json` for modules of these formats, `None` where none is quantized.
    pub(crate) fn entry<'a>(&self, modules: impl Iterator<Item = (&'a str, Format)> + Clone) -> Option<Value> {
        // One that is quantized is what the others are compared with.
        let general = match self.format {
            Format::Dense => modules.clone().map(|(_, format)| format).find(|format| *format != Format::Dense)?,
            format => format,
        };
        let Value::Object(mut entry) = general.entry() else { return None };
        let others: Map<String, Value> = modules
            .filter(|(_, format)| *format != general)
            .map(|(module, format)| (module.to_owned(), format.entry()))
            .collect();
        entry.extend(others);
        Some(Value::Object(entry))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rule(pattern: &str, format: Format) -> (Pattern, Format) {
        (Pattern(pattern.into()), format)
    }

    #[test]
    fn a_star_stands_for_any_text() {
        let all = ["lm_head", "model.layers.0.mlp.gate", "model.layers.10.mlp.gate_proj"];
        for (pattern, expected) in [
            ("lm_head", &[0][..]),
            ("*.mlp.gate", &[1]),
            ("*.mlp.gate*", &[1, 2]),
            ("*", &[0, 1, 2]),
            ("model.*.1*.*gate*", &[2]),
            ("model.layers.0.*gate*gate", &[]),
            ("lm", &[]),
            ("", &[]),
        ] {
            let pattern = Pattern(pattern.into());
            let found: Vec<usize> = (0..all.len()).filter(|&i| pattern.matches(all[i])).collect();
            assert_eq!(found, expected, "{pattern:?}");
        }
    }

    #[test]
    fn the_last_rule_holds_and_rows_that_are_no_whole_groups_stay_as_they_are() {
        let (four, eight) = (Format::Affine { bits: 4, group: 64 }, Format::Affine { bits: 8, group: 32 });
        let plan = Plan { format: four, rules: vec![rule("*head", Format::Dense), rule("lm_head", eight)] };
        assert_eq!(plan.of("lm_head", 96).unwrap(), eight);
        assert_eq!(plan.of("head", 64).unwrap(), Format::Dense);
        assert_eq!((plan.of("up", 64).unwrap(), plan.of("up", 96).unwrap()), (four, Format::Dense));
        let message = plan.of("lm_head", 80).unwrap_err().to_string();
        assert!(message.contains("lm_head=8 bits in groups of 32") && message.contains("80 values"), "{message}");
        assert!(plan.check(["lm_head", "up"].into_iter()).is_ok());
        assert!(plan.check(["up", "down"].into_iter()).unwrap_err().to_string().contains("*head"));
    }

    #[test]
    fn modules_that_differ_are_named_in_the_configuration() {
        let (four, eight) = (Format::Affine { bits: 4, group: 64 }, Format::Affine { bits: 8, group: 32 });
        let modules = [("a", four), ("b", eight), ("c", Format::Dense), ("d", Format::Nvfp4)];
        let expected = json!({
            "group_size": 64, "bits": 4, "mode": "affine", "b": { "group_size": 32, "bits": 8, "mode": "affine" },
            "c": false, "d": { "group_size": 16, "bits": 4, "mode": "nvfp4" },
        });
        assert_eq!(Plan::uniform(four).entry(modules.into_iter()), Some(expected));
        assert_eq!(Plan::uniform(Format::Dense).entry(modules[2..3].iter().copied()), None);
        let dense = Plan::uniform(Format::Dense).entry(modules[1..3].iter().copied()).unwrap();
        assert_eq!((&dense["bits"], &dense["c"]), (&json!(8), &json!(false)));
    }
}
