//! Regular expressions: what llguidance reads of them.

use crate::error::plain;
use llguidance::derivre::RegexBuilder;
use llguidance::regex_to_lark;

/// Says why an expression cannot be used. One of JSON Schema is found anywhere in a text, unless it has anchors, and its `\d` and `\w` are
/// ASCII; any other matches the whole text.
pub(crate) fn check(source: &str, schema: bool) -> Result<(), String> {
    if ["(?P<stop>", "(?<stop>"].iter().any(|group| source.contains(group)) {
        return Err("a group that is called `stop` is not supported".to_owned());
    }
    let mut builder = RegexBuilder::new();
    let read = match schema {
        true => builder.mk_regex_for_serach(&regex_to_lark(source, "dw")),
        false => builder.mk_regex(&regex_to_lark(source, "")),
    };
    // The reason is in the last line: those before it show the place.
    read.map(drop).map_err(|error| {
        let text = error.to_string();
        let line = text.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or("it cannot be read");
        plain(line.strip_prefix("error: ").unwrap_or(line))
    })
}
