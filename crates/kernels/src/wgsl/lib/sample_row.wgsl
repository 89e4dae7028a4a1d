// What the two kernels of sampling share: a row's settings, the tiles of the vocabulary, the noise.
{% include "lib/math.wgsl" %}
{% include "lib/random.wgsl" %}
{% include "lib/key.wgsl" %}
{% include "lib/best.wgsl" %}
const LANES = 256u;
// Tokens of a tile; each lane takes every LANES-th. A row of keys holds whole tiles, and 0 beyond the vocabulary.
const TILE = 2048u;
const NO_HISTORY_ROW = 0xffffffffu;
const NO_MASK_ROW = 0xffffffffu;
// MIN_TEMPERATURE: below it the most likely token is taken.
const MIN_TEMPERATURE = 1e-6f;

// SampleParams.
struct Row {
    temperature: f32,
    top_k: u32,
    top_p: f32,
    min_p: f32,
    repetition: f32,
    presence: f32,
    frequency: f32,
    seed: vec2<u32>,
    position: u32,
    history_row: u32,
    bias_first: u32,
    bias_count: u32,
    mask_row: u32,
}

fn row_of(index: u32) -> Row {
    let at = base(params.head, 0u) + 14u * index;
    return Row(
        bitcast<f32>(settings[at]),
        settings[at + 1u],
        bitcast<f32>(settings[at + 2u]),
        bitcast<f32>(settings[at + 3u]),
        bitcast<f32>(settings[at + 4u]),
        bitcast<f32>(settings[at + 5u]),
        bitcast<f32>(settings[at + 6u]),
        vec2(settings[at + 7u], settings[at + 8u]),
        settings[at + 9u],
        settings[at + 10u],
        settings[at + 11u],
        settings[at + 12u],
        settings[at + 13u],
    );
}

fn is_random(row: Row) -> bool {
    return row.temperature >= MIN_TEMPERATURE;
}

fn is_filtered(row: Row) -> bool {
    return is_random(row) && (row.top_k > 0u || row.top_p < 1.0 || row.min_p > 0.0);
}

// A token's value with its noise; the largest is the draw.
fn noisy(row: Row, value: f32, token: u32) -> f32 {
    return value + gumbel(threefry(row.seed, vec2(row.position, token)));
}
