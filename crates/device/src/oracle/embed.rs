use super::{Matrix, broken};
use crate::Result;
use crate::ops::SAMPLED;

/// [`crate::ops::Embed`] on slices: the table's row of each token times `scale`, `[rows][width]`. A sampled token of `u32::MAX` (a sequence
/// whose logits were not finite) stands for token 0, so that it does not fail its neighbors.
///
/// Fails on a token outside of the table, and on a reference to a sampled token that is not there.
pub fn embed(table: &[Matrix], tokens: &[u32], sampled: Option<&[u32]>, scale: f32) -> Result<Vec<f32>> {
    let mut out = Vec::with_capacity(tokens.len() * table[0].cols);
    for (row, &word) in tokens.iter().enumerate() {
        let token = token(row, word, sampled)?;
        out.extend(look_up(table, token)?.iter().map(|x| x * scale));
    }
    Ok(out)
}

fn token(row: usize, word: u32, sampled: Option<&[u32]>) -> Result<usize> {
    if word & SAMPLED == 0 {
        return Ok(word as usize);
    }
    let at = (word & !SAMPLED) as usize;
    let found = sampled.and_then(|sampled| sampled.get(at));
    match found {
        Some(&u32::MAX) => Ok(0),
        Some(&token) => Ok(token as usize),
        None => Err(broken(format!("embed: row {row} takes sampled token {at}, which is not there"))),
    }
}

fn look_up(table: &[Matrix], token: usize) -> Result<&[f32]> {
    let mut row = token;
    for part in table {
        if row < part.rows {
            return Ok(part.row(row));
        }
        row -= part.rows;
    }
    let vocabulary: usize = table.iter().map(|part| part.rows).sum();
    Err(broken(format!("embed: token {token} in a vocabulary of {vocabulary}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_from_the_step_or_from_the_one_before() {
        let part = |values: &[f32]| Matrix { rows: values.len(), cols: 1, values: values.to_vec() };
        let table = [part(&[0.0, 1.0]), part(&[2.0, 3.0, 4.0])];
        let sampled = [4, u32::MAX];
        let out = embed(&table, &[3, SAMPLED, 1, SAMPLED | 1], Some(&sampled), 2.0).unwrap();
        assert_eq!(out, [6.0, 8.0, 2.0, 0.0]);
        assert!(embed(&table, &[5], None, 1.0).is_err());
        assert!(embed(&table, &[SAMPLED], None, 1.0).is_err());
        assert!(embed(&table, &[SAMPLED | 2], Some(&sampled), 1.0).is_err());
    }
}
