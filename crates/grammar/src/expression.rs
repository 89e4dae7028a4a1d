//! Regular expressions: what llguidance reads of them.

use crate::error::plain;
use llguidance::derivre::RegexBuilder;
use llguidance::regex_to_lark;
use regex_syntax::ast::parse::Parser;
use regex_syntax::ast::{Ast, RepetitionKind, RepetitionRange, Visitor, visit};

/// Repetitions at most that repeats within each other ask for, one count times the other.
const MAX_REPETITIONS: u64 = 50_000;

/// Says why an expression cannot be used. One of JSON Schema is found anywhere in a text, unless it has anchors, and its `\d` and `\w` are
/// ASCII; any other matches the whole text.
pub(crate) fn check(source: &str, schema: bool) -> Result<(), String> {
    if ["(?P<stop>", "(?<stop>"].iter().any(|group| source.contains(group)) {
        return Err("a group that is called `stop` is not supported".to_owned());
    }
    // What cannot be read is llguidance's to say.
    if let Ok(ast) = Parser::new().parse(source) {
        visit(&ast, Repeats { source, counts: Vec::new() })?;
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

/// Looks for repeats that ask for too many repetitions.
struct Repeats<'a> {
    source: &'a str,
    /// Repetitions that the repeats around a place ask for, the innermost last.
    counts: Vec<u64>,
}

impl Visitor for Repeats<'_> {
    type Output = ();
    type Err = String;

    fn finish(self) -> Result<(), String> {
        Ok(())
    }

    fn visit_pre(&mut self, ast: &Ast) -> Result<(), String> {
        let Ast::Repetition(repetition) = ast else { return Ok(()) };
        let count = match &repetition.op.kind {
            RepetitionKind::Range(RepetitionRange::Bounded(_, most)) => *most,
            RepetitionKind::Range(RepetitionRange::Exactly(least) | RepetitionRange::AtLeast(least)) => *least,
            RepetitionKind::ZeroOrOne | RepetitionKind::ZeroOrMore | RepetitionKind::OneOrMore => 1,
        };
        let all = self.counts.last().unwrap_or(&1).saturating_mul(u64::from(count.max(1)));
        if all > MAX_REPETITIONS {
            let span = repetition.span;
            let repeat: String = self.source[span.start.offset..span.end.offset].chars().take(40).collect();
            return Err(format!(
                "the repeat `{repeat}` asks for {all} repetitions together with those around it; at most \
                 {MAX_REPETITIONS} are supported"
            ));
        }
        self.counts.push(all);
        Ok(())
    }

    fn visit_post(&mut self, ast: &Ast) -> Result<(), String> {
        if let Ast::Repetition(_) = ast {
            self.counts.pop();
        }
        Ok(())
    }
}
