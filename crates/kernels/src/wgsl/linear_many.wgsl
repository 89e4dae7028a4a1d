{% include "prelude.wgsl" %}
{% include "weight.wgsl" %}
{% include "math.wgsl" %}
{% include "linear.wgsl" %}
// Many rows: tiles of 64 rows by 64 features through workgroup memory, chunk by chunk of 32 columns; each lane has 4 × 4 results.
{% set dense = BITS > 8 %}
{% set weights = [0, 1] if GATED else [0] %}
@group(0) @binding(0) var<storage, read> prepared: array<f32>;
@group(0) @binding(1) var<storage, read_write> result: array<f32>;
@group(0) @binding(2) var<storage, read> weight0: array<u32>;
@group(0) @binding(3) var<storage, read> bias0: array<f32>;
{% if GATED %}
@group(0) @binding(4) var<storage, read> weight1: array<u32>;
@group(0) @binding(5) var<storage, read> bias1: array<f32>;
{% endif %}
@group(0) @binding({{ 6 if GATED else 4 }}) var<storage, read> fault: array<u32>;
// Transposed, four rows or features to a vector, padded against bank conflicts.
var<workgroup> x_tile: array<vec4<f32>, {{ 32 * 17 }}>;
{% for w in weights %}
var<workgroup> q_tile{{ w }}: array<array<f32, 68>, 32>;
var<workgroup> sides{{ w }}: array<vec2<f32>, 64>;
{% endfor %}
var<workgroup> sums: array<f32, 64>;

{% for w in weights %}
// Eight codes of one row of the weight into the tile.
fn load_codes{{ w }}(chunk: u32, feature_group: u32, lane: u32) {
    let n = lane >> 2u;
    let eighth = lane & 3u;
    let feature = feature_group * 64u + n;
    // Features beyond the last compute the last block's again.
    let row = min(feature, params.features - 1u);
    let block = base(params.head, {{ 2 + 2 * w }}u) + (row / 4u) * params.block_words;
    let words = block + (chunk * 4u + row % 4u) * {{ BITS }}u;
{% if dense %}
    for (var i = 0u; i < 8u; i++) {
{% if BITS == 32 %}
        q_tile{{ w }}[eighth * 8u + i][n] = bitcast<f32>(weight{{ w }}[words + eighth * 8u + i]);
{% else %}
        q_tile{{ w }}[eighth * 8u + i][n] = halves(params.kind, weight{{ w }}[words + eighth * 4u + i / 2u])[i & 1u];
{% endif %}
    }
{% else %}
    let bit = eighth * {{ 8 * BITS }}u;
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
    q_tile{{ w }}[eighth * 8u + {{ i }}u][n] = f32((low >> {{ at }}u) & {{ 2 ** BITS - 1 }}u);
{% elif at < 32 %}
    q_tile{{ w }}[eighth * 8u + {{ i }}u][n] = f32(((low >> {{ at }}u) | (high << {{ 32 - at }}u)) & {{ 2 ** BITS - 1 }}u);
{% else %}
    q_tile{{ w }}[eighth * 8u + {{ i }}u][n] = f32((high >> {{ at - 32 }}u) & {{ 2 ** BITS - 1 }}u);
{% endif %}
{% endfor %}
    if (eighth == 0u) {
        let side = block + params.chunks * {{ 4 * BITS }}u;
        let g = chunk >> params.group_shift;
        if (params.kind == F32) {
            let at = side + g * 8u + row % 4u;
            sides{{ w }}[n] = vec2<f32>(bitcast<f32>(weight{{ w }}[at]), bitcast<f32>(weight{{ w }}[at + 4u]));
        } else {
            sides{{ w }}[n] = halves(params.kind, weight{{ w }}[side + g * 4u + row % 4u]);
        }
    }
{% endif %}
}
{% endfor %}

@compute @workgroup_size(256)
fn linear_many(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (fault[0] != 0u) {
        return;
    }
    let m4 = lane / 16u;
    let n4 = lane % 16u;
    let first = base(params.head, 0u);
{% for w in weights %}{% for m in range(4) %}
    var y{{ w }}_{{ m }} = vec4<f32>(0.0);
{% endfor %}{% endfor %}
    for (var p = 0u; p < 32u; p++) {
{% for w in weights %}{% for m in range(4) %}
        var part{{ w }}_{{ m }} = vec4<f32>(0.0);
{% endfor %}{% endfor %}
        for (var chunk = p; chunk < params.chunks; chunk += 32u) {
            workgroupBarrier();
            {
                // A lane takes eight columns of one row. Rows beyond the last read the last again.
                let m = lane >> 2u;
                let row = min(group.y * 64u + m, params.rows - 1u);
                let from_col = first + (row * params.chunks + chunk) * 32u + (lane & 3u) * 8u;
                for (var i = 0u; i < 8u; i++) {
                    x_tile[((lane & 3u) * 8u + i) * 17u + (m >> 2u)][m & 3u] = prepared[from_col + i];
                }
                if ((lane & 3u) == 0u) {
                    sums[m] = prepared[first + (params.rows * 32u + row) * params.chunks + chunk];
                }
            }
{% for w in weights %}
            load_codes{{ w }}(chunk, group.x, lane);
{% endfor %}
            workgroupBarrier();
{% for w in weights %}
            {
{% for m in range(4) %}
                var t{{ m }} = vec4<f32>(0.0);
{% endfor %}
                for (var k = 0u; k < 32u; k++) {
                    let u = x_tile[k * 17u + m4];
                    let q = vec4<f32>(q_tile{{ w }}[k][n4 * 4u], q_tile{{ w }}[k][n4 * 4u + 1u], q_tile{{ w }}[k][n4 * 4u + 2u], q_tile{{ w }}[k][n4 * 4u + 3u]);
{% for m in range(4) %}
                    t{{ m }} = fma(q, vec4<f32>(u[{{ m }}]), t{{ m }});
{% endfor %}
                }
{% if dense %}
{% for m in range(4) %}
                part{{ w }}_{{ m }} += t{{ m }};
{% endfor %}
{% else %}
                let s0 = sides{{ w }}[n4 * 4u];
                let s1 = sides{{ w }}[n4 * 4u + 1u];
                let s2 = sides{{ w }}[n4 * 4u + 2u];
                let s3 = sides{{ w }}[n4 * 4u + 3u];
                let scale = vec4<f32>(s0.x, s1.x, s2.x, s3.x);
                let bias = vec4<f32>(s0.y, s1.y, s2.y, s3.y);
{% for m in range(4) %}
                part{{ w }}_{{ m }} += fma(scale, t{{ m }}, bias * sums[m4 * 4u + {{ m }}u]);
{% endfor %}
{% endif %}
            }
{% endfor %}
        }
{% for w in weights %}{% for m in range(4) %}
        y{{ w }}_{{ m }} += part{{ w }}_{{ m }};
{% endfor %}{% endfor %}
    }
    let feature = group.x * 64u + n4 * 4u;
{% for m in range(4) %}
    {
        let row = group.y * 64u + m4 * 4u + {{ m }}u;
        if (row < params.rows) {
            let factor = prepared[first + params.rows * params.chunks * 33u + row];
            let out = base(params.head, 1u) + row * params.out_stride + params.out_first + feature;
            for (var n = 0u; n < 4u && feature + n < params.features; n++) {
{% for w in weights %}
                var bias_of_{{ w }} = 0.0;
                if (has(HAS_BIAS)) {
                    bias_of_{{ w }} = bias{{ w }}[base(params.head, {{ 3 + 2 * w }}u) + feature + n];
                }
                let z{{ w }} = fma(y{{ w }}_{{ m }}[n], factor, bias_of_{{ w }});
{% endfor %}
{% if GATED %}
                result[out + n] = silu(z0) * z1;
{% else %}
                if (has(ADDS)) {
                    result[out + n] += z0;
                } else {
                    result[out + n] = z0;
                }
{% endif %}
            }
        }
    }
{% endfor %}
}
