// Packed weights (layout.rs): blocks of four rows. A block holds, chunk after chunk of 32 columns, the {{ BITS }} words of each of its
// rows, then, group after group, the four rows' scales and biases.
const F32: u32 = 0u;
const F16: u32 = 1u;
const BF16: u32 = 2u;

// A scale and a bias from the two halves of a word.
fn halves(kind: u32, word: u32) -> vec2<f32> {
    if (kind == F16) {
        return unpack2x16float(word);
    }
    return vec2<f32>(bitcast<f32>(word << 16u), bitcast<f32>(word & 0xffff0000u));
}
