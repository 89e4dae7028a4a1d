{% include "lib/prelude.wgsl" %}
{% include "lib/attention.wgsl" %}
{% include "lib/math.wgsl" %}
{% include "lib/merge.wgsl" %}
// Attention of up to {{ QUERIES }} queries that share a kv head: a few rows of one sequence by the heads of a group. Keys come in
// stretches of 128, one a lane; values are summed by lanes that have eight of a query's columns each, {{ ITEMS }} times. What a query
// computes, and in which order, does not depend on the queries beside it: what it does not see changes nothing.
@group(0) @binding(0) var<storage, read> qkv: array<f32>;
@group(0) @binding(1) var<storage, read> angles: array<f32>;
@group(0) @binding(2) var<storage, read> q_norm: array<f32>;
@group(0) @binding(3) var<storage, read> spans: array<u32>;
@group(0) @binding(4) var<storage, read> tables: array<u32>;
@group(0) @binding(5) var<storage, read> cache: array<vec4<u32>>;
// [rows][heads][head_dim], or the stretches' results: [rows][heads][splits][padded width + 2]: values, largest score, sum.
@group(0) @binding(6) var<storage, read_write> result: array<f32>;
@group(0) @binding(7) var<storage, read> fault: array<u32>;
var<workgroup> queries: array<vec4<f32>, {{ 256 * ITEMS }}>;
// Scores of the stretch's keys, then their weights.
var<workgroup> scores: array<f32, {{ QUERIES * 128 }}>;
// Sixteen partial results a query.
var<workgroup> sixteenths: array<f32, {{ QUERIES * 16 }}>;
// What lane q tells the others of query q: the largest score (in the end the sum of all weights), and factors of the sums so far and
// of the stretch's.
var<workgroup> largest: array<f32, {{ QUERIES }}>;
var<workgroup> rescale: array<f32, {{ QUERIES }}>;
var<workgroup> stretch_factor: array<f32, {{ QUERIES }}>;

// Where the cache holds a position's row of a head: in 16-byte pieces, keys or values.
fn row_at(table: u32, position: u32, half: u32, head: u32) -> u32 {
    let pieces = padded() / {{ 8 if KV == 16 else 4 }}u;
    let block = tables[table + position / params.block_tokens];
    return base(params.head, 5u) / 4u
        + (((2u * block + half) * params.kv_heads + head) * params.block_tokens + position % params.block_tokens) * pieces;
}

// Eight columns of a row.
struct Eight {
    low: vec4<f32>,
    high: vec4<f32>,
}

fn eight(row: u32, i: u32) -> Eight {
    var e: Eight;
{% if KV == 16 %}
    let words = cache[row + i];
    e.low = vec4<f32>(unpack2x16float(words.x), unpack2x16float(words.y));
    e.high = vec4<f32>(unpack2x16float(words.z), unpack2x16float(words.w));
{% else %}
    e.low = bitcast<vec4<f32>>(cache[row + 2u * i]);
    e.high = bitcast<vec4<f32>>(cache[row + 2u * i + 1u]);
{% endif %}
    return e;
}

fn query_value(q: u32, i: u32) -> f32 {
    let at = q * padded() + i;
    return queries[at / 4u][at % 4u];
}

fn set_query_value(q: u32, i: u32, value: f32) {
    let at = q * padded() + i;
    queries[at / 4u][at % 4u] = value;
}

fn visible(position: u32, key: u32) -> bool {
    return key <= position && position - key < params.window;
}

@compute @workgroup_size(128)
fn attend(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (fault[0] != 0u) {
        return;
    }
    // The sequence and the rows of this tile.
    var tile = group.x;
    var span = base(params.head, 3u);
    var sequence = 0u;
    for (; sequence < params.sequences; sequence++) {
        let tiles = (spans[span + 1u] + params.tile_rows - 1u) / params.tile_rows;
        if (tile < tiles) {
            break;
        }
        tile -= tiles;
        span += 4u;
    }
    if (sequence == params.sequences) {
        return;
    }
    let before = tile * params.tile_rows;
    let first_row = spans[span] + before;
    let rows = min(params.tile_rows, spans[span + 1u] - before);
    let first_position = spans[span + 2u] + before;
    let last_position = first_position + rows - 1u;
    let table = base(params.head, 4u) + spans[span + 3u];

    let group_heads = params.heads / params.kv_heads;
    let head_tiles = (group_heads + params.tile_heads - 1u) / params.tile_heads;
    let kv_head = group.y / head_tiles;
    let first_in_group = (group.y % head_tiles) * params.tile_heads;
    let heads = min(params.tile_heads, group_heads - first_in_group);
    let first_head = kv_head * group_heads + first_in_group;
    let count = rows * heads;
    let width = padded();
    let dim = params.head_dim;

    // Queries: normed, turned, scaled, padded with zeros.
    for (var i = lane; i < count * width; i += 128u) {
        let q = i / width;
        var value = 0.0;
        if (i % width < dim) {
            let row = first_row + q / heads;
            let row_width = (params.heads + 2u * params.kv_heads) * dim;
            value = qkv[base(params.head, 0u) + row * row_width + (first_head + q % heads) * dim + i % width];
        }
        queries[i / 4u][i % 4u] = value;
    }
    workgroupBarrier();
    if (has(Q_NORM)) {
        for (var i = lane; i < count * 16u; i += 128u) {
            var sum = 0.0;
            for (var c = i % 16u; c < dim; c += 16u) {
                let x = query_value(i / 16u, c);
                sum = fma(x, x, sum);
            }
            sixteenths[i] = sum;
        }
        workgroupBarrier();
        if (lane < count) {
            var total = 0.0;
            for (var i = 0u; i < 16u; i++) {
                total += sixteenths[lane * 16u + i];
            }
            rescale[lane] = inverseSqrt(total / f32(dim) + params.q_eps);
        }
        workgroupBarrier();
        for (var i = lane; i < count * dim; i += 128u) {
            let q = i / dim;
            let c = i % dim;
            set_query_value(q, c, query_value(q, c) * rescale[q] * q_norm[base(params.head, 2u) + c]);
        }
        workgroupBarrier();
    }
    for (var i = lane; i < count * params.pairs; i += 128u) {
        let q = i / params.pairs;
        let at = partners(i % params.pairs);
        let angle = base(params.head, 1u) + 2u * ((first_row + q / heads) * params.pairs + i % params.pairs);
        let turned = rotated(vec2<f32>(query_value(q, at.x), query_value(q, at.y)), vec2<f32>(angles[angle], angles[angle + 1u]));
        set_query_value(q, at.x, turned.x);
        set_query_value(q, at.y, turned.y);
    }
    workgroupBarrier();
    for (var i = lane; i < count * width / 4u; i += 128u) {
        queries[i] = queries[i] * params.scale;
    }

    // The stretches that this workgroup computes: those that any of its rows sees, or one.
    var from_key = 0u;
    if (first_position >= params.window) {
        from_key = first_position - params.window + 1u;
    }
    var stretch = from_key / STRETCH;
    var end_stretch = last_position / STRETCH + 1u;
    if (params.splits > 1u) {
        stretch = max(stretch, group.z);
        end_stretch = min(end_stretch, group.z + 1u);
    }

    let eights = width / 8u;
    // Of query `lane`: largest score and sum of weights, of all stretches and of the last one.
    var all_largest = LOWEST;
    var all_sum = 0.0;
    var own_largest = LOWEST;
    var own_sum = 0.0;
{% for i in range(ITEMS) %}
    let query{{ i }} = (lane + {{ 128 * i }}u) / eights;
    let eight{{ i }} = (lane + {{ 128 * i }}u) % eights;
    var all_low{{ i }} = vec4<f32>(0.0);
    var all_high{{ i }} = vec4<f32>(0.0);
    var low{{ i }} = vec4<f32>(0.0);
    var high{{ i }} = vec4<f32>(0.0);
{% endfor %}
    for (; stretch < end_stretch; stretch++) {
        let first_key = max(stretch * STRETCH, from_key);
        let end_key = min((stretch + 1u) * STRETCH, last_position + 1u);
        workgroupBarrier();
        // Scores: a lane has a key, and reads it once for all queries.
        let key = stretch * STRETCH + lane;
        let seen = key >= first_key && key < end_key;
{% for q in range(QUERIES) %}
        var s{{ q }} = 0.0;
{% endfor %}
        if (seen) {
            let row = row_at(table, key, 0u, kv_head);
            for (var i = 0u; i < eights; i++) {
                let k = eight(row, i);
{% for q in range(QUERIES) %}
                if ({{ q }}u < count) {
                    let a = queries[{{ q }}u * width / 4u + 2u * i];
                    let b = queries[{{ q }}u * width / 4u + 2u * i + 1u];
                    s{{ q }} = fma(a.w, k.low.w, fma(a.z, k.low.z, fma(a.y, k.low.y, fma(a.x, k.low.x, s{{ q }}))));
                    s{{ q }} = fma(b.w, k.high.w, fma(b.z, k.high.z, fma(b.y, k.high.y, fma(b.x, k.high.x, s{{ q }}))));
                }
{% endfor %}
            }
        }
{% for q in range(QUERIES) %}
        if ({{ q }}u < count) {
            if (!seen || !visible(first_position + {{ q }}u / heads, key)) {
                s{{ q }} = LOWEST;
            }
            scores[{{ q * 128 }}u + lane] = s{{ q }};
        }
{% endfor %}
        workgroupBarrier();
        for (var i = lane; i < count * 16u; i += 128u) {
            var top = LOWEST;
            for (var j = 0u; j < 8u; j++) {
                top = max(top, scores[(i / 16u) * 128u + (i % 16u) * 8u + j]);
            }
            sixteenths[i] = top;
        }
        workgroupBarrier();
        if (lane < count) {
            own_largest = LOWEST;
            for (var i = 0u; i < 16u; i++) {
                own_largest = max(own_largest, sixteenths[lane * 16u + i]);
            }
            largest[lane] = own_largest;
        }
        workgroupBarrier();
{% for q in range(QUERIES) %}
        if ({{ q }}u < count) {
            var weight = 0.0;
            if (s{{ q }} > LOWEST) {
                weight = exact_exp(s{{ q }} - largest[{{ q }}]);
            }
            scores[{{ q * 128 }}u + lane] = weight;
        }
{% endfor %}
        workgroupBarrier();
        for (var i = lane; i < count * 16u; i += 128u) {
            var sum = 0.0;
            for (var j = 0u; j < 8u; j++) {
                sum += scores[(i / 16u) * 128u + (i % 16u) * 8u + j];
            }
            sixteenths[i] = sum;
        }
{% for i in range(ITEMS) %}
        low{{ i }} = vec4<f32>(0.0);
        high{{ i }} = vec4<f32>(0.0);
        if (query{{ i }} < count) {
            for (var at = first_key; at < end_key; at++) {
                let v = eight(row_at(table, at, 1u, kv_head), eight{{ i }});
                let weight = vec4<f32>(scores[query{{ i }} * 128u + at % STRETCH]);
                low{{ i }} = fma(v.low, weight, low{{ i }});
                high{{ i }} = fma(v.high, weight, high{{ i }});
            }
        }
{% endfor %}
        workgroupBarrier();
        if (lane < count) {
            own_sum = 0.0;
            for (var i = 0u; i < 16u; i++) {
                own_sum += sixteenths[lane * 16u + i];
            }
            var w: Weights;
            // A stretch of which the query sees nothing changes nothing.
            w.stretch = 0.0;
            if (own_sum > 0.0) {
                w = merge(all_largest, all_sum, own_largest, own_sum);
                all_largest = w.largest;
                all_sum = w.sum;
            }
            rescale[lane] = w.before;
            stretch_factor[lane] = w.stretch;
            largest[lane] = all_sum;
        }
        workgroupBarrier();
{% for i in range(ITEMS) %}
        if (query{{ i }} < count) {
            let factor = stretch_factor[query{{ i }}];
            if (factor > 0.0) {
                all_low{{ i }} = fma(all_low{{ i }}, vec4<f32>(rescale[query{{ i }}]), low{{ i }} * factor);
                all_high{{ i }} = fma(all_high{{ i }}, vec4<f32>(rescale[query{{ i }}]), high{{ i }} * factor);
            }
        }
{% endfor %}
    }

    if (params.splits > 1u) {
        // A stretch that nobody here sees has a sum of 0.
        let record = width + 2u;
{% for i in range(ITEMS) %}
        if (query{{ i }} < count) {
            let row = first_row + query{{ i }} / heads;
            let at = base(params.head, 6u)
                + ((row * params.heads + first_head + query{{ i }} % heads) * params.splits + group.z) * record + eight{{ i }} * 8u;
            for (var c = 0u; c < 4u; c++) {
                result[at + c] = low{{ i }}[c];
                result[at + 4u + c] = high{{ i }}[c];
            }
        }
{% endfor %}
        if (lane < count) {
            let row = first_row + lane / heads;
            let at = base(params.head, 6u)
                + ((row * params.heads + first_head + lane % heads) * params.splits + group.z) * record + width;
            result[at] = own_largest;
            result[at + 1u] = own_sum;
        }
        return;
    }
{% for i in range(ITEMS) %}
    if (query{{ i }} < count) {
        let row = first_row + query{{ i }} / heads;
        let at = base(params.head, 6u) + (row * params.heads + first_head + query{{ i }} % heads) * dim + eight{{ i }} * 8u;
        let whole = 1.0 / largest[query{{ i }}];
        for (var c = 0u; c < 4u; c++) {
            if (eight{{ i }} * 8u + c < dim) {
                result[at + c] = all_low{{ i }}[c] * whole;
            }
            if (eight{{ i }} * 8u + 4u + c < dim) {
                result[at + 4u + c] = all_high{{ i }}[c] * whole;
            }
        }
    }
{% endfor %}
}
