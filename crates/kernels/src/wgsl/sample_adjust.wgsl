{% include "lib/prelude.wgsl" %}
// First of two: penalties, biases, temperature and mask for one tile of one row, in the oracle's order and bit for bit; the tile's best.
// A row without filters is drawn here (or its largest value taken), and of filtered ones the keys are kept for the second kernel.
struct Params {
    head: Head,
    vocab: u32,
    tiles: u32,
    // How many there are.
    history_rows: u32,
    biases: u32,
    mask_rows: u32,
    // 0, which no compiler knows: see rounded.
    zero: u32,
}
var<immediate> params: Params;
@group(0) @binding(0) var<storage, read> settings: array<u32>;
@group(0) @binding(1) var<storage, read> logits: array<f32>;
// Pairs of token and bias.
@group(0) @binding(2) var<storage, read> biases: array<u32>;
@group(0) @binding(3) var<storage, read> history: array<u32>;
// [mask rows][words].
@group(0) @binding(4) var<storage, read> masks: array<u32>;
// [rows][tiles · TILE].
@group(0) @binding(5) var<storage, read_write> keys: array<u32>;
// [rows][tiles] pairs of key and token.
@group(0) @binding(6) var<storage, read_write> bests: array<u32>;
@group(0) @binding(7) var<storage, read_write> fault: array<atomic<u32>, 2>;

{% include "lib/raise.wgsl" %}
{% include "lib/sample_row.wgsl" %}
{% include "lib/divide.wgsl" %}
var<workgroup> stopped: u32;

// Hides from the compiler how a value came about, so that it is not fused with what follows.
fn rounded(value: f32) -> f32 {
    return bitcast<f32>(bitcast<u32>(value) ^ params.zero);
}

fn penalized(row: Row, value: f32, entry: u32) -> f32 {
    if (entry == 0u) {
        return value;
    }
    var z = value;
    if (z > 0.0) {
        z = exact_divide(z, row.repetition);
    } else {
        z = rounded(z * row.repetition);
    }
    let count = entry & 0x7fffffffu;
    if (count > 0u) {
        z = rounded(rounded(z - row.presence) - rounded(row.frequency * f32(count)));
    }
    return z;
}

fn adjusted(index: u32, row: Row, token: u32) -> f32 {
    var z = logits[base(params.head, 1u) + index * params.vocab + token];
    if (row.history_row != NO_HISTORY_ROW) {
        z = penalized(row, z, history[base(params.head, 3u) + row.history_row * params.vocab + token]);
    }
    let bias = base(params.head, 2u) + 2u * row.bias_first;
    for (var i = 0u; i < row.bias_count; i += 1u) {
        if (biases[bias + 2u * i] == token) {
            z = rounded(z + bitcast<f32>(biases[bias + 2u * i + 1u]));
        }
    }
    if (is_random(row) && row.temperature != 1.0) {
        z = exact_divide(z, row.temperature);
    }
    return z;
}

fn allowed(row: Row, token: u32) -> bool {
    if (row.mask_row == NO_MASK_ROW) {
        return true;
    }
    let words = (params.vocab + 31u) / 32u;
    let word = masks[base(params.head, 4u) + row.mask_row * words + token / 32u];
    return ((word >> (token % 32u)) & 1u) == 1u;
}

@compute @workgroup_size(256)
fn sample_adjust(@builtin(local_invocation_index) lane: u32, @builtin(workgroup_id) group: vec3<u32>) {
    if (lane == 0u) {
        stopped = atomicLoad(&fault[0]);
    }
    if (workgroupUniformLoad(&stopped) != 0u) {
        return;
    }
    let row = row_of(group.y);
    if (row.history_row != NO_HISTORY_ROW && row.history_row >= params.history_rows) {
        raise(7u, row.history_row);
        return;
    }
    if (row.bias_count > 0u && row.bias_count > params.biases - min(row.bias_first, params.biases)) {
        raise(8u, row.bias_first);
        return;
    }
    if (row.mask_row != NO_MASK_ROW && row.mask_row >= params.mask_rows) {
        raise(9u, row.mask_row);
        return;
    }
    let filtered = is_filtered(row);
    let tile = group.y * params.tiles + group.x;
    var own = vec2(0u, NO_TOKEN);
    for (var step = 0u; step < TILE / LANES; step += 1u) {
        let i = step * LANES + lane;
        let token = group.x * TILE + i;
        var key = 0u;
        if (token < params.vocab && allowed(row, token)) {
            var z = adjusted(group.y, row, token);
            if (is_random(row) && !filtered) {
                z = noisy(row, z, token);
            }
            key = key_of(z);
        }
        if (filtered) {
            keys[base(params.head, 5u) + tile * TILE + i] = key;
        }
        if (key > own.x) {
            own = vec2(key, token);
        }
    }
    let winner = best_of_lanes(lane, own);
    if (lane == 0u) {
        bests[base(params.head, 6u) + 2u * tile] = winner.x;
        bests[base(params.head, 6u) + 2u * tile + 1u] = winner.y;
    }
}
