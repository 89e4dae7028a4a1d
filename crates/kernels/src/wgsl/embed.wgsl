{% include "lib/prelude.wgsl" %}
{% include "lib/weight.wgsl" %}
// Rows of one part of an embedding table, dequantized, times scale: one invocation a chunk of 32 columns.
struct Params {
    head: Head,
    cols: u32,
    chunks: u32,
    block_words: u32,
    group_shift: u32,
    kind: u32,
    // Tokens of this part: from `first` on, `count` of them; `vocabulary` of all parts.
    first: u32,
    count: u32,
    vocabulary: u32,
    // Sampled tokens that there are.
    sampled_count: u32,
    scale: f32,
}
var<immediate> params: Params;
@group(0) @binding(0) var<storage, read> table: array<u32>;
@group(0) @binding(1) var<storage, read> tokens: array<u32>;
@group(0) @binding(2) var<storage, read> sampled: array<u32>;
@group(0) @binding(3) var<storage, read_write> result: array<f32>;
@group(0) @binding(4) var<storage, read_write> fault: array<atomic<u32>>;
{% include "lib/raise.wgsl" %}

@compute @workgroup_size(64)
fn embed(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let chunk = group.x * 64u + lane;
    let row = group.y;
    if (chunk >= params.chunks || atomicLoad(&fault[0]) != 0u) {
        return;
    }
    var token = tokens[base(params.head, 1u) + row];
    if ((token & 0x80000000u) != 0u) {
        let at = token & 0x7fffffffu;
        if (at >= params.sampled_count) {
            raise(2u, at);
            return;
        }
        token = sampled[base(params.head, 2u) + at];
        // A sequence whose logits were not finite goes on with token 0, and fails nobody else.
        if (token == 0xffffffffu) {
            token = 0u;
        }
    }
    if (token >= params.vocabulary) {
        raise(1u, token);
        return;
    }
    if (token < params.first || token - params.first >= params.count) {
        return;
    }
    let at = token - params.first;
    let block = base(params.head, 0u) + (at / 4u) * params.block_words;
    let words = block + (chunk * 4u + at % 4u) * {{ BITS }}u;
    let out = base(params.head, 3u) + row * params.cols + chunk * 32u;
{% if MICRO %}
    let sides = block + params.chunks * {{ 4 * BITS }}u;
    for (var i = 0u; i < 32u; i++) {
        let bit = i * {{ BITS }}u;
        let code = (table[words + bit / 32u] >> (bit % 32u)) & {{ 2 ** BITS - 1 }}u;
        let g = (chunk * 4u + i / 8u) >> params.group_shift;
        let pair = halves(params.kind, table[sides + (g / 2u) * 4u + at % 4u]);
        result[out + i] = small_float(code) * pair[g & 1u] * params.scale;
    }
{% elif BITS <= 8 %}
    let sides = block + params.chunks * {{ 4 * BITS }}u;
    let side = chunk >> params.group_shift;
    var sb: vec2<f32>;
    if (params.kind == F32) {
        sb = vec2<f32>(bitcast<f32>(table[sides + side * 8u + at % 4u]), bitcast<f32>(table[sides + side * 8u + 4u + at % 4u]));
    } else {
        sb = halves(params.kind, table[sides + side * 4u + at % 4u]);
    }
    for (var i = 0u; i < 32u; i++) {
        let bit = i * {{ BITS }}u;
        var code = table[words + bit / 32u] >> (bit % 32u);
        if (bit % 32u + {{ BITS }}u > 32u) {
            code |= table[words + bit / 32u + 1u] << (32u - bit % 32u);
        }
        result[out + i] = fma(f32(code & {{ 2 ** BITS - 1 }}u), sb.x, sb.y) * params.scale;
    }
{% else %}
    let left = min(32u, params.cols - chunk * 32u);
    for (var i = 0u; i < left; i++) {
{% if BITS == 32 %}
        result[out + i] = bitcast<f32>(table[words + i]) * params.scale;
{% else %}
        result[out + i] = halves(params.kind, table[words + i / 2u])[i & 1u] * params.scale;
{% endif %}
    }
{% endif %}
}
