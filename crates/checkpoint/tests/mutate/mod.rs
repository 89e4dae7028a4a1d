//! Mutations of valid files, from seeds; shared by the brief fuzz tests of several crates.

/// xorshift64.
fn next(state: &mut u64) -> usize {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    (*state >> 16) as usize
}

/// Makes one to four edits: a byte flipped, replaced by a telling one, removed, doubled, or the end cut off.
pub(crate) fn mutate(valid: &[u8], seed: u64) -> Vec<u8> {
    const TELLING: &[u8] = b"0919-.eE\"{}[],:\0\xff";
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = valid.to_vec();
    for _ in 0..1 + next(&mut state) % 4 {
        if bytes.is_empty() {
            break;
        }
        let at = next(&mut state) % bytes.len();
        match next(&mut state) % 8 {
            0 | 1 => bytes[at] ^= 1 << (next(&mut state) % 8),
            2..=4 => bytes[at] = TELLING[next(&mut state) % TELLING.len()],
            5 => drop(bytes.remove(at)),
            6 => bytes.insert(at, bytes[at]),
            _ => bytes.truncate(at),
        }
    }
    bytes
}
