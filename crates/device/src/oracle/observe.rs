use super::broken;
use crate::Result;

/// Bit of a history's entry that marks a token of the prompt.
pub const PROMPT: u32 = 1 << 31;

/// [`crate::ops::Observe`] on slices: rewrites one row of a history from a sequence's tokens, of which the first `prompt` are
/// the prompt's. Fails on a token outside of the vocabulary.
pub fn observe(row: &mut [u32], tokens: &[u32], prompt: usize) -> Result<()> {
    row.fill(0);
    let vocab = row.len();
    for (i, &token) in tokens.iter().enumerate() {
        let entry = row.get_mut(token as usize);
        let entry = entry.ok_or_else(|| broken(format!("observe: token {token} in a vocabulary of {vocab}")))?;
        if i < prompt { *entry |= PROMPT } else { *entry += 1 }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_are_marked_and_answers_counted() {
        let mut row = [7; 4];
        observe(&mut row, &[1, 2, 1, 2, 2, 3], 3).unwrap();
        assert_eq!(row, [0, PROMPT, PROMPT | 2, 1]);
        assert!(observe(&mut row, &[4], 0).is_err());
    }
}
