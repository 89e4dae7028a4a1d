// Packed weights (layout.rs): blocks of four rows. A block holds, chunk after chunk of 32 columns, the {{ BITS }} words of each of its
// rows, then, group after group, the four rows' scales and biases, or, of small floats, scales of two groups.
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
{% if MICRO %}

// Value of a small float of {{ BITS }} bits{{ ", doubled" if BITS == 4 }}. From integers and normal numbers, because a GPU may take others for 0.
fn small_float(code: u32) -> f32 {
{% if BITS == 4 %}
    let magnitude = f32((0xc8643210u >> ((code & 7u) * 4u)) & 15u);
{% else %}
    let raised = bitcast<f32>(((code & 0x7fu) << 20u) + 0x3c000000u);
    let magnitude = select(raised, f32(code & 7u) * 0.001953125, (code & 0x78u) == 0u);
{% endif %}
    return select(magnitude, -magnitude, (code & {{ 2 ** (BITS - 1) }}u) != 0u);
}
{% endif %}
