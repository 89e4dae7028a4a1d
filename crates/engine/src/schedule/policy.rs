use crate::sequence::Sequence;

/// Order in which running sequences get rows of a step, pass by pass: those that decode, then prompts in order of arrival, chunked
/// to what the others leave.
pub(crate) const PASSES: [fn(&Sequence) -> bool; 2] = [Sequence::decodes, Sequence::prefills];

/// Tokens that grammars force come one a step, and not as chunks: a chunk makes the step longer, at the cost of those that decode freely, who
/// have a token of it each.
pub(crate) fn paces_forced(running: &[Sequence]) -> bool {
    running.iter().any(Sequence::decodes_freely)
}

/// Takes the sequence that gives its blocks back where they run out: the youngest, for which least was computed.
pub(crate) fn victim(running: &mut Vec<Sequence>) -> Option<Sequence> {
    running.pop()
}

/// Takes the youngest sequence that only waits for its reader, so that it holds up nobody else.
pub(crate) fn resting(running: &mut Vec<Sequence>) -> Option<Sequence> {
    let youngest = running.iter().rposition(Sequence::rests)?;
    Some(running.remove(youngest))
}

/// Steps that may be in flight beyond the oldest: as many as suit every sequence, because all share a step's logits.
pub(crate) fn lookahead<'a>(sequences: impl Iterator<Item = &'a Sequence>) -> usize {
    let mut least = usize::MAX;
    for sequence in sequences {
        least = least.min(sequence.lookahead());
        if least == 0 {
            break;
        }
    }
    least
}
