//! Checks the packages that `cargo metadata` lists, read from standard input: each comes from crates.io or this repository, under a license
//! that deny.toml allows, and ours name versions of what they take. `cargo deny check licenses bans sources` says the same, but takes
//! minutes to compile.
//!
//! `cargo metadata --locked --format-version 1 | cargo run -p licenses`

use serde_json::Value;
use spdx::{Expression, LicenseReq, Licensee, ParseMode};
use std::error::Error;
use std::io::Write;

const DENY: &str = include_str!("../../../deny.toml");
const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

fn main() -> Result<(), Box<dyn Error>> {
    let metadata: Value = serde_json::from_reader(std::io::stdin().lock())?;
    let packages = metadata["packages"].as_array().ok_or("standard input is not what cargo metadata prints")?;
    let allowed = allowed(DENY)?;
    let faults: Vec<String> = packages.iter().filter_map(|package| fault(package, &allowed)).collect();
    let mut out = std::io::stdout().lock();
    for fault in &faults {
        writeln!(out, "{fault}")?;
    }
    writeln!(out, "{} packages, {} faults", packages.len(), faults.len())?;
    if faults.is_empty() { Ok(()) } else { Err("see above; deny.toml lists the licenses that are allowed".into()) }
}

/// Licenses that `deny` allows.
fn allowed(deny: &str) -> Result<Vec<Licensee>, Box<dyn Error>> {
    let deny: toml::Table = deny.parse()?;
    let list = deny["licenses"]["allow"].as_array().ok_or("deny.toml: licenses.allow is no list")?;
    list.iter().map(|name| Ok(Licensee::parse(name.as_str().unwrap_or_default())?)).collect()
}

/// Reason for which a package may not be used, if there is one.
fn fault(package: &Value, allowed: &[Licensee]) -> Option<String> {
    let name = format!("{} {}", package["name"].as_str()?, package["version"].as_str()?);
    if let Some(source) = package["source"].as_str().filter(|source| *source != CRATES_IO) {
        return Some(format!("{name} comes from {source}, not from crates.io"));
    }
    let ours = package["source"].is_null();
    let any_version = |wanted: &&Value| ours && wanted["req"] == "*" && wanted["path"].is_null();
    if let Some(wanted) = package["dependencies"].as_array().into_iter().flatten().find(any_version) {
        return Some(format!("{name} takes any version of {}", wanted["name"]));
    }
    let Some(license) = package["license"].as_str() else {
        return Some(format!("{name} names no license"));
    };
    let expression = match Expression::parse_mode(license, ParseMode::LAX) {
        Ok(expression) => expression,
        Err(error) => return Some(format!("{name}: its license {license:?} cannot be read: {error}")),
    };
    let permitted = |wanted: &LicenseReq| allowed.iter().any(|licensee| licensee.satisfies(wanted));
    (!expression.evaluate(permitted)).then(|| format!("{name}: its license {license} is not allowed"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn fault_of(license: Value, source: Value) -> Option<String> {
        let package = json!({"name": "some", "version": "1.0.0", "license": license, "source": source});
        fault(&package, &allowed(DENY).unwrap())
    }

    #[test]
    fn one_of_several_licenses_is_enough() {
        assert_eq!(fault_of(json!("MIT OR GPL-3.0"), json!(CRATES_IO)), None);
        assert_eq!(fault_of(json!("MIT/Apache-2.0"), Value::Null), None);
        assert_eq!(fault_of(json!("Apache-2.0 WITH LLVM-exception"), Value::Null), None);
    }

    #[test]
    fn what_is_not_allowed_is_named() {
        let refused = |license, source| fault_of(license, source).expect("a fault");
        assert!(refused(json!("MIT AND GPL-3.0"), Value::Null).contains("MIT AND GPL-3.0 is not allowed"));
        assert!(refused(Value::Null, Value::Null).contains("names no license"));
        assert!(refused(json!("Beerware or so"), Value::Null).contains("cannot be read"));
        let package = json!({"name": "some", "version": "1.0.0", "license": "MIT", "source": null,
            "dependencies": [{"name": "other", "req": "*", "path": null}]});
        assert!(fault(&package, &[]).expect("a fault").contains("any version of \"other\""));
        assert!(refused(json!("MIT"), json!("git+https://example.com/some")).contains("not from crates.io"));
    }
}
