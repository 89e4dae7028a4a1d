//! The outcome in sentences: for the head of the page and of the table.

use super::finding::Finding;
use super::outcome::Outcome;

/// A sentence that sums the findings up.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Headline {
    /// One sentence, with no period at its end.
    pub title: String,
    /// Sentences about the aims that were not reached; may be empty.
    pub rest: String,
}

/// The headline of some findings; `unequal` is an arm whose outputs differ from plain's.
pub(super) fn headline(findings: &[Finding], unequal: Option<&str>) -> Headline {
    let aims: Vec<&Finding> = findings.iter().filter(|f| f.outcome.is_some()).collect();
    let list = |belongs: &dyn Fn(&Finding) -> bool| -> Vec<String> {
        let members = aims.iter().filter(|f| belongs(f));
        members.map(|f| format!("{} with {} ({})", f.short(), f.arm, f.change())).collect()
    };
    let missed = |f: &Finding| f.outcome == Some(Outcome::NotReached);
    let reached = list(&|f| f.outcome == Some(Outcome::Reached));
    let groups = [
        ("Better, but not as aimed", list(&|f| missed(f) && f.is_better())),
        ("Worse", list(&|f| missed(f) && !f.is_better())),
        ("No difference seen", list(&|f| f.outcome == Some(Outcome::NoDifference))),
        ("Cannot tell", list(&|f| f.outcome == Some(Outcome::CannotTell))),
    ];
    let groups = groups.iter().filter(|(_, members)| !members.is_empty());
    let mut rest: Vec<String> = groups.map(|(name, members)| format!("{name}: {}.", members.join(", "))).collect();
    let (of, verb) = (aims.len(), if reached.len() == 1 { "is" } else { "are" });
    let mut title = match (reached.len(), of) {
        (0, 1) => "The aim is not shown to be reached".to_owned(),
        (0, _) => format!("None of {of} aims is shown to be reached"),
        (1, 1) => format!("The aim is reached: {}", reached.join(", ")),
        (n, _) => format!("{n} of {of} aims {verb} reached: {}", reached.join(", ")),
    };
    if let Some(arm) = unequal {
        rest.insert(0, format!("{title}."));
        title = format!("The outputs differ with {arm}, which is a defect");
    }
    Headline { title, rest: rest.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::samples::finding;

    #[test]
    fn the_headline_says_what_was_reached_and_then_the_rest() {
        let findings = [
            finding("memory_pool", 10.0, &[-3.9, -8.9, 10.6, 1.0, 2.0]),
            finding("blit_queue", -15.0, &[60.9, 11.6, 65.6, 61.0, 62.0]),
            finding("command_buffer_ring", 5.0, &[11.2, 8.1, 14.4, 11.1, 11.3]),
            finding("all together", 40.0, &[16.3, 7.9, 21.3, 16.2, 16.4]),
            finding("direct allocation", f64::NAN, &[1.0, 2.0, 3.0, 4.0, 5.0]),
        ];
        let told = headline(&findings, None);
        assert_eq!(told.title, "1 of 4 aims is reached: throughput with command_buffer_ring (+11.2\u{a0}%)");
        assert_eq!(
            told.rest,
            "Better, but not as aimed: throughput with all together (+16.3\u{a0}%). Worse: throughput with blit_queue (+61.0\u{a0}%). \
             No difference seen: throughput with memory_pool (+1.0\u{a0}%)."
        );
        let told = headline(&findings, Some("memory_pool"));
        assert_eq!(told.title, "The outputs differ with memory_pool, which is a defect");
        assert!(told.rest.starts_with("1 of 4 aims is reached"), "{}", told.rest);
    }

    #[test]
    fn without_intervals_nothing_is_reached() {
        let told = headline(&[finding("memory_pool", 10.0, &[90.0])], None);
        assert_eq!(told.title, "The aim is not shown to be reached");
        assert_eq!(told.rest, "Cannot tell: throughput with memory_pool (+90.0\u{a0}%).");
    }
}
