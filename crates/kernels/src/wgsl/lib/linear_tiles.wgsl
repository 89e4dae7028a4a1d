// What the kernels of many rows share: a tile of 64 rows by 64 features to a workgroup of 256 lanes, 4 × 4 results to a lane, chunk by
// chunk of 32 columns through workgroup memory.
{% set dense = BITS > 8 or MICRO %}
{% set weights = [0, 1] if GATED else [0] %}
@group(0) @binding(0) var<storage, read> prepared: array<u32>;
@group(0) @binding(1) var<storage, read_write> result: array<f32>;
@group(0) @binding(2) var<storage, read> weight0: array<u32>;
@group(0) @binding(3) var<storage, read> bias0: array<f32>;
{% if GATED %}
@group(0) @binding(4) var<storage, read> weight1: array<u32>;
@group(0) @binding(5) var<storage, read> bias1: array<f32>;
{% endif %}
@group(0) @binding({{ 6 if GATED else 4 }}) var<storage, read> fault: array<u32>;

// The row of a weight that is feature n of the tile; features beyond the last read the last again.
fn weight_row(tile: u32, n: u32) -> u32 {
    return min(tile * 64u + n, params.features - 1u);
}

{% for w in weights %}
fn block{{ w }}(row: u32) -> u32 {
    return base(params.head, {{ 2 + 2 * w }}u) + (row / 4u) * params.block_words;
}

// Eight columns of a chunk of one row: its first, second, third or last quarter.
fn eight{{ w }}(row: u32, chunk: u32, quarter: u32) -> array<vec4<f32>, 2> {
    let words = block{{ w }}(row) + (chunk * 4u + row % 4u) * {{ BITS }}u;
{% if BITS == 32 %}
    let first = words + quarter * 8u;
    return array<vec4<f32>, 2>(
        bitcast<vec4<f32>>(vec4<u32>({% for i in range(4) %}weight{{ w }}[first + {{ i }}u]{{ ", " if not loop.last }}{% endfor %})),
        bitcast<vec4<f32>>(vec4<u32>({% for i in range(4, 8) %}weight{{ w }}[first + {{ i }}u]{{ ", " if not loop.last }}{% endfor %})),
    );
{% elif BITS == 16 %}
    let first = words + quarter * 4u;
{% for i in range(4) %}
    let pair{{ i }} = halves(params.kind, weight{{ w }}[first + {{ i }}u]);
{% endfor %}
    return array<vec4<f32>, 2>(vec4<f32>(pair0, pair1), vec4<f32>(pair2, pair3));
{% elif MICRO %}
    let g = (chunk * 4u + quarter) >> params.group_shift;
    let pair = halves(params.kind, weight{{ w }}[block{{ w }}(row) + params.chunks * {{ 4 * BITS }}u + (g / 2u) * 4u + row % 4u]);
    let scale = pair[g & 1u];
    let first = words + quarter * {{ BITS // 4 }}u;
{% for i in range(BITS // 4) %}
    let word{{ i }} = weight{{ w }}[first + {{ i }}u];
{% endfor %}
{% for i in range(8) %}
    // Exact: a code and a scale have eight bits of mantissa between them.
    let q{{ i }} = small_float((word{{ i * BITS // 32 }} >> {{ i * BITS % 32 }}u) & {{ 2 ** BITS - 1 }}u) * scale;
{% endfor %}
    return array<vec4<f32>, 2>(vec4<f32>(q0, q1, q2, q3), vec4<f32>(q4, q5, q6, q7));
{% else %}
    let bit = quarter * {{ 8 * BITS }}u;
    let word = bit / 32u;
    let shift = bit % 32u;
    let next = weight{{ w }}[words + min(word + 1u, {{ BITS - 1 }}u)];
    var low = weight{{ w }}[words + word];
    var high = next;
    if (shift != 0u) {
        low = (low >> shift) | (next << (32u - shift));
        high = next >> shift;
    }
{% for i in range(8) %}
{% set at = i * BITS %}
{% if at + BITS <= 32 %}
    let q{{ i }} = f32((low >> {{ at }}u) & {{ 2 ** BITS - 1 }}u);
{% elif at < 32 %}
    let q{{ i }} = f32(((low >> {{ at }}u) | (high << {{ 32 - at }}u)) & {{ 2 ** BITS - 1 }}u);
{% else %}
    let q{{ i }} = f32((high >> {{ at - 32 }}u) & {{ 2 ** BITS - 1 }}u);
{% endif %}
{% endfor %}
    return array<vec4<f32>, 2>(vec4<f32>(q0, q1, q2, q3), vec4<f32>(q4, q5, q6, q7));
{% endif %}
}

{% if not dense %}
// Scale and bias of a chunk of one row.
fn side{{ w }}(row: u32, chunk: u32) -> vec2<f32> {
    let side = block{{ w }}(row) + params.chunks * {{ 4 * BITS }}u;
    let g = chunk >> params.group_shift;
    if (params.kind == F32) {
        let at = side + g * 8u + row % 4u;
        return vec2<f32>(bitcast<f32>(weight{{ w }}[at]), bitcast<f32>(weight{{ w }}[at + 4u]));
    }
    return halves(params.kind, weight{{ w }}[side + g * 4u + row % 4u]);
}

{% endif %}
{% endfor %}
// Writes four results of a row.
fn finish(row: u32, feature: u32, factor: f32, {% for w in weights %}y{{ w }}: vec4<f32>{{ ", " if not loop.last }}{% endfor %}) {
    let out = base(params.head, 1u) + row * params.out_stride + params.out_first + feature;
    for (var n = 0u; n < 4u && feature + n < params.features; n++) {
{% for w in weights %}
        var bias_of_{{ w }} = 0.0;
        if (has(HAS_BIAS)) {
            bias_of_{{ w }} = bias{{ w }}[base(params.head, {{ 3 + 2 * w }}u) + feature + n];
        }
        let z{{ w }} = fma(y{{ w }}[n], factor, bias_of_{{ w }});
{% endfor %}
{% if GATED %}
        result[out + n] = activated(z0) * z1;
{% else %}
        if (has(ADDS)) {
            result[out + n] += z0;
        } else {
            result[out + n] = z0;
        }
{% endif %}
    }
}
