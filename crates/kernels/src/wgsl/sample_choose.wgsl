{% include "lib/prelude.wgsl" %}
// Second of two, one workgroup a row: the best of the row's tiles, or, if the row has filters, the draw among the survivors.
// Passes over the keys of a filtered row: one for the draw, and before it, for top-k and top-p, two to eight that find the cut
// (typically three); tiles without a survivor are passed over.
struct Params {
    head: Head,
    vocab: u32,
    tiles: u32,
}
var<immediate> params: Params;
@group(0) @binding(0) var<storage, read> settings: array<u32>;
// [rows][tiles · TILE].
@group(0) @binding(1) var<storage, read> keys: array<u32>;
// [rows][tiles] pairs of key and token.
@group(0) @binding(2) var<storage, read> bests: array<u32>;
@group(0) @binding(3) var<storage, read_write> history: array<u32>;
@group(0) @binding(4) var<storage, read_write> chosen_tokens: array<u32>;
@group(0) @binding(5) var<storage, read> fault: array<u32>;

{% include "lib/sample_row.wgsl" %}
fn key_at(index: u32, tile: u32, i: u32) -> u32 {
    return keys[base(params.head, 1u) + (index * params.tiles + tile) * TILE + i];
}

fn best_key_of(index: u32, tile: u32) -> u32 {
    return bests[base(params.head, 2u) + 2u * (index * params.tiles + tile)];
}

{% include "lib/sample_cut.wgsl" %}
fn best_of_tiles(lane: u32, index: u32) -> vec2<u32> {
    var own = vec2(0u, NO_TOKEN);
    for (var tile = lane; tile < params.tiles; tile += LANES) {
        let key = best_key_of(index, tile);
        if (key > own.x) {
            own = vec2(key, bests[base(params.head, 2u) + 2u * (index * params.tiles + tile) + 1u]);
        }
    }
    return best_of_lanes(lane, own);
}

// The lowest order that survives all filters.
fn strictest_cut(lane: u32, index: u32, row: Row, top: f32) -> vec2<u32> {
    var cut = vec2(0u);
    if (row.top_k > 0u || row.top_p < 1.0) {
        cut = cut_of(lane, index, row, top);
    }
    if (row.min_p > 0.0) {
        let floor_key = key_of(top + exact_ln(row.min_p));
        if (floor_key > cut.x) {
            cut = vec2(floor_key, 0u);
        }
    }
    return cut;
}

fn draw(lane: u32, index: u32, row: Row, cut: vec2<u32>) -> vec2<u32> {
    var own = vec2(0u, NO_TOKEN);
    for (var tile = 0u; tile < params.tiles; tile += 1u) {
        if (best_key_of(index, tile) < cut.x) {
            continue;
        }
{%- for i in range(8) %}
        let key{{ i }} = key_at(index, tile, {{ i }}u * LANES + lane);
{%- endfor %}
{%- for i in range(8) %}
        {
            let token = tile * TILE + {{ i }}u * LANES + lane;
            if (key{{ i }} != 0u && (key{{ i }} > cut.x || (key{{ i }} == cut.x && ~token >= cut.y))) {
                let key = key_of(noisy(row, value_of(key{{ i }}), token));
                if (key > own.x) {
                    own = vec2(key, token);
                }
            }
        }
{%- endfor %}
    }
    return best_of_lanes(lane, own);
}

@compute @workgroup_size(256)
fn sample_choose(@builtin(local_invocation_index) lane: u32, @builtin(workgroup_id) group: vec3<u32>) {
    if (fault[0] != 0u) {
        return;
    }
    let row = row_of(group.x);
    var chosen = best_of_tiles(lane, group.x);
    // Beside +∞ all others have no probability, and above 1 min-p leaves none but the first.
    if (is_filtered(row) && chosen.x != 0u && chosen.x != INFINITY_KEY && row.min_p <= 1.0) {
        chosen = draw(lane, group.x, row, strictest_cut(lane, group.x, row, value_of(chosen.x)));
    }
    if (lane == 0u) {
        chosen_tokens[base(params.head, 4u) + group.x] = chosen.y;
        if (row.history_row != NO_HISTORY_ROW && chosen.y != NO_TOKEN) {
            history[base(params.head, 3u) + row.history_row * params.vocab + chosen.y] += 1u;
        }
    }
}
