enable f16;
enable wgpu_cooperative_matrix;
{% include "lib/prelude.wgsl" %}
{% include "lib/weight.wgsl" %}
{% include "lib/math.wgsl" %}
{% include "lib/linear.wgsl" %}
{% include "lib/linear_tiles.wgsl" %}
// Many rows through matrix units that multiply squares of {{ SIDE }}: subgroups make the 64 × 64 sums of a chunk in eight jobs of 16 rows by
// 32 features, whatever the size of a subgroup; then each lane scales and adds its own.
{% set weights = [0, 1] if GATED else [0] %}
{% set matrix = "coop_mat" ~ SIDE ~ "x" ~ SIDE %}
// Rows of 32 columns, padded against bank conflicts by what keeps them aligned to 16 bytes.
const STRIDE: u32 = 40u;
const SUMS: u32 = 68u;
var<workgroup> x_tile: array<f16, {{ 64 * 40 }}>;
var<workgroup> q_tile: array<f16, {{ 64 * 40 }}>;
var<workgroup> products: array<f32, {{ 64 * 68 }}>;
// Of this chunk and of the one before, which slower lanes may still read.
var<workgroup> sums: array<vec2<f32>, 128>;
{% for w in weights %}
var<workgroup> sides{{ w }}: array<vec2<f32>, 128>;
{% endfor %}

// A quarter of a row's chunk, with its sum and step. Rows beyond the last read the last again.
fn load_row(chunk: u32, tile: u32, lane: u32, turn: u32) {
    let m = lane >> 2u;
    let quarter = lane & 3u;
    let row = min(tile * 64u + m, params.rows - 1u);
    let first = base(params.head, 0u);
    let from_word = first + (row * params.chunks + chunk) * 16u + quarter * 4u;
    let to = m * STRIDE + quarter * 8u;
    for (var i = 0u; i < 4u; i++) {
        let pair = unpack2x16float(prepared[from_word + i]);
        x_tile[to + 2u * i] = f16(pair.x);
        x_tile[to + 2u * i + 1u] = f16(pair.y);
    }
    if (quarter == 0u) {
        let at = first + (params.rows * 16u + row) * params.chunks + chunk;
        sums[turn * 64u + m] = bitcast<vec2<f32>>(vec2<u32>(prepared[at], prepared[at + params.rows * params.chunks]));
    }
}

{% for w in weights %}
// A quarter of a chunk of one row of the weight, with its scale and bias.
fn load_codes{{ w }}(chunk: u32, tile: u32, lane: u32, turn: u32) {
    let n = lane >> 2u;
    let quarter = lane & 3u;
    let row = weight_row(tile, n);
    let values = eight{{ w }}(row, chunk, quarter);
    let to = n * STRIDE + quarter * 8u;
{% for i in range(8) %}
    q_tile[to + {{ i }}u] = f16(values[{{ i // 4 }}][{{ i % 4 }}]);
{% endfor %}
    if (quarter == 0u) {
        sides{{ w }}[turn * 64u + n] = side{{ w }}(row, chunk);
    }
}
{% endfor %}

@compute @workgroup_size(256)
fn linear_matrix(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
) {
    if (fault[0] != 0u) {
        return;
    }
    let m4 = lane / 16u;
    let n4 = lane % 16u;
    if (lane < {{ SIDE * SIDE }}u) {
        products[(lane / {{ SIDE }}u) * SUMS + lane % {{ SIDE }}u] = 0.0;
    }
    workgroupBarrier();
    let zero = coopLoadT<{{ matrix }}<f32, C>>(&products[0], SUMS);
{% for w in weights %}{% for m in range(4) %}
    var y{{ w }}_{{ m }} = vec4<f32>(0.0);
{% endfor %}{% endfor %}
    var turn = 0u;
    for (var p = 0u; p < 32u; p++) {
{% for w in weights %}{% for m in range(4) %}
        var part{{ w }}_{{ m }} = vec4<f32>(0.0);
{% endfor %}{% endfor %}
        for (var chunk = p; chunk < params.chunks; chunk += 32u) {
            load_row(chunk, group.y, lane, turn);
{% for w in weights %}
            load_codes{{ w }}(chunk, group.x, lane, turn);
            workgroupBarrier();
            for (var job = subgroup; job < 8u; job += subgroups) {
                let row = (job >> 1u) * 16u;
                let col = (job & 1u) * 32u;
{% for a in range(16 // SIDE) %}{% for b in range(32 // SIDE) %}
                var c{{ a }}_{{ b }} = zero;
{% endfor %}{% endfor %}
{% for k in range(32 // SIDE) %}
{% for a in range(16 // SIDE) %}
                let x{{ k }}_{{ a }} = coopLoadT<{{ matrix }}<f16, A>>(&x_tile[(row + {{ a * SIDE }}u) * STRIDE + {{ k * SIDE }}u], STRIDE);
{% endfor %}
{% for b in range(32 // SIDE) %}
                let q{{ k }}_{{ b }} = coopLoad<{{ matrix }}<f16, B>>(&q_tile[(col + {{ b * SIDE }}u) * STRIDE + {{ k * SIDE }}u], STRIDE);
{% for a in range(16 // SIDE) %}
                c{{ a }}_{{ b }} = coopMultiplyAdd(x{{ k }}_{{ a }}, q{{ k }}_{{ b }}, c{{ a }}_{{ b }});
{% endfor %}
{% endfor %}
{% endfor %}
{% for a in range(16 // SIDE) %}{% for b in range(32 // SIDE) %}
                coopStoreT(c{{ a }}_{{ b }}, &products[(row + {{ a * SIDE }}u) * SUMS + col + {{ b * SIDE }}u], SUMS);
{% endfor %}{% endfor %}
            }
            workgroupBarrier();
            {
                let at = turn * 64u + n4 * 4u;
                let s0 = sides{{ w }}[at];
                let s1 = sides{{ w }}[at + 1u];
                let s2 = sides{{ w }}[at + 2u];
                let s3 = sides{{ w }}[at + 3u];
                let scale = vec4<f32>(s0.x, s1.x, s2.x, s3.x);
                let bias = vec4<f32>(s0.y, s1.y, s2.y, s3.y);
{% for m in range(4) %}
                {
                    let sum = sums[turn * 64u + m4 * 4u + {{ m }}u];
                    let first = (m4 * 4u + {{ m }}u) * SUMS + n4 * 4u;
                    let t = vec4<f32>(products[first], products[first + 1u], products[first + 2u], products[first + 3u]);
                    part{{ w }}_{{ m }} = fma(vec4<f32>(sum.y), fma(scale, t, bias * sum.x), part{{ w }}_{{ m }});
                }
{% endfor %}
            }
{% endfor %}
            turn ^= 1u;
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
            let factor = bitcast<f32>(prepared[base(params.head, 0u) + params.rows * params.chunks * 18u + row]);
            finish(row, feature, factor, {% for w in weights %}y{{ w }}_{{ m }}{{ ", " if not loop.last }}{% endfor %});
        }
    }
{% endfor %}
}
