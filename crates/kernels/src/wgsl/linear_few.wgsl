{% include "lib/prelude.wgsl" %}
{% include "lib/weight.wgsl" %}
{% include "lib/math.wgsl" %}
{% include "lib/linear.wgsl" %}
// Few rows: the weights stream through once. 32 lanes share four features, each with a partition of the columns; a workgroup has 16
// features, of both projections where they are gated, for up to {{ TILE }} rows, which a lane takes {{ 2 if TILE > 1 else 1 }} at a time.
{% if EXPERTS %}
// A row is a pair of a row and a slot here, whose weights are those of its expert; gated, the slots of a row take one row of the input.
{% endif %}
{% set ragged = BITS > 8 %}
{% set dense = ragged or MICRO %}
{% set weights = [0, 1] if GATED else [0] %}
{% set pair = 2 if TILE > 1 else 1 %}
@group(0) @binding(0) var<storage, read> input: array<{{ "f32" if ragged else "vec4<f32>" }}>;
@group(0) @binding(1) var<storage, read> norm: array<{{ "f32" if ragged else "vec4<f32>" }}>;
// Rows of the input, or experts.
@group(0) @binding(2) var<storage, read> gather: array<u32>;
@group(0) @binding(3) var<storage, read_write> result: array<f32>;
@group(0) @binding(4) var<storage, read> weight0: array<vec4<u32>>;
@group(0) @binding(5) var<storage, read> bias0: array<f32>;
{% if GATED %}
@group(0) @binding(6) var<storage, read> weight1: array<vec4<u32>>;
@group(0) @binding(7) var<storage, read> bias1: array<f32>;
{% endif %}
@group(0) @binding({{ 8 if GATED else 6 }}) var<storage, read> fault: array<u32>;

// A lane's sums by (weight, feature of four, row); lanes apart so that neither writing nor reading lanes meet in a bank.
const STRIDE: u32 = 133u;
var<workgroup> partial: array<f32, {{ 133 * 4 * TILE * weights | length }}>;
var<workgroup> squares: array<f32, {{ 128 * TILE }}>;
var<workgroup> factors: array<f32, {{ TILE }}>;

{% macro code(w, r, i) -%}
{%- set word = r * BITS + i * BITS // 32 -%}
{%- set shift = i * BITS % 32 -%}
{%- if BITS == 32 -%}
bitcast<f32>(w{{ w }}_{{ word // 4 }}[{{ word % 4 }}])
{%- elif BITS == 16 -%}
halves(params.kind, w{{ w }}_{{ word // 4 }}[{{ word % 4 }}])[{{ i % 2 }}]
{%- elif MICRO -%}
small_float((w{{ w }}_{{ word // 4 }}[{{ word % 4 }}] >> {{ shift }}u) & {{ 2 ** BITS - 1 }}u) * scale{{ w }}_{{ i // 16 }}[{{ r }}]
{%- elif shift + BITS <= 32 -%}
f32((w{{ w }}_{{ word // 4 }}[{{ word % 4 }}] >> {{ shift }}u) & {{ 2 ** BITS - 1 }}u)
{%- else -%}
f32(((w{{ w }}_{{ word // 4 }}[{{ word % 4 }}] >> {{ shift }}u) | (w{{ w }}_{{ (word + 1) // 4 }}[{{ (word + 1) % 4 }}] << {{ 32 - shift }}u)) & {{ 2 ** BITS - 1 }}u)
{%- endif -%}
{%- endmacro %}

// Four columns of a row of the input, and of the norm's weight.
{% if ragged %}
fn column(first: u32, col: u32) -> f32 {
    if (col < params.cols) {
        return input[first + col];
    }
    return 0.0;
}

fn columns(row: u32, chunk: u32, j: u32) -> vec4<f32> {
    // Dense rows may have any length.
    let first = base(params.head, 0u) + row * params.cols;
    let col = chunk * 32u + j * 4u;
    return vec4<f32>(column(first, col), column(first, col + 1u), column(first, col + 2u), column(first, col + 3u));
}

fn weight_column(col: u32) -> f32 {
    if (col < params.cols) {
        return norm[base(params.head, 1u) + col];
    }
    return 0.0;
}

fn norm_columns(chunk: u32, j: u32) -> vec4<f32> {
    let col = chunk * 32u + j * 4u;
    return vec4<f32>(weight_column(col), weight_column(col + 1u), weight_column(col + 2u), weight_column(col + 3u));
}
{% else %}
fn columns(row: u32, chunk: u32, j: u32) -> vec4<f32> {
    return input[base(params.head, 0u) / 4u + row * (params.cols / 4u) + chunk * 8u + j];
}

fn norm_columns(chunk: u32, j: u32) -> vec4<f32> {
    return norm[base(params.head, 1u) / 4u + chunk * 8u + j];
}
{% endif %}

fn input_row(row: u32) -> u32 {
    // Rows of the tile beyond the last compute the last again.
    let clamped = min(row, params.rows - 1u);
{% if EXPERTS %}
    return {{ "clamped / params.slots" if GATED else "clamped" }};
{% else %}
    if (has(HAS_GATHER)) {
        return gather[base(params.head, 2u) + clamped];
    }
    return clamped;
{% endif %}
}

@compute @workgroup_size(128)
fn linear_few(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (fault[0] != 0u) {
        return;
    }
    let p = lane & 31u;
    let blocks = (params.features + 3u) / 4u;
    // Blocks beyond the last compute the last again.
    let own_block = min(group.y * 4u + (lane >> 5u), blocks - 1u);
{% if EXPERTS %}
    let first_row = group.z * params.slots + group.x;
    let block = gather[base(params.head, 2u) + first_row] * blocks + own_block;
{% else %}
    let first_row = group.x * {{ TILE }}u;
    let block = own_block;
{% endif %}
    let rows = min({{ TILE }}u, params.rows - first_row);
    let place = (lane >> 5u) * 33u + p;
{% for w in weights %}
    let block{{ w }} = base(params.head, {{ 4 + 2 * w }}u) / 4u + block * (params.block_words / 4u);
{% endfor %}
    for (var i = 0u; i < {{ 4 * TILE * weights | length }}u; i++) {
        partial[i * STRIDE + place] = 0.0;
    }
    for (var m = 0u; m < {{ TILE }}u; m++) {
        squares[m * 128u + lane] = 0.0;
    }

    for (var chunk = p; chunk < params.chunks; chunk += 32u) {
{% for w in weights %}
{% for v in range(BITS) %}
        let w{{ w }}_{{ v }} = weight{{ w }}[block{{ w }} + chunk * {{ BITS }}u + {{ v }}u];
{% endfor %}
{% if MICRO %}
{% for half in range(2) %}
        // The scales of columns {{ 16 * half }} to {{ 16 * half + 15 }}.
        let g{{ w }}_{{ half }} = (chunk * 4u + {{ 2 * half }}u) >> params.group_shift;
        let sides{{ w }}_{{ half }} = weight{{ w }}[block{{ w }} + params.chunks * {{ BITS }}u + g{{ w }}_{{ half }} / 2u];
        let scale{{ w }}_{{ half }} = bitcast<vec4<f32>>((sides{{ w }}_{{ half }} << vec4<u32>((1u - (g{{ w }}_{{ half }} & 1u)) * 16u)) & vec4<u32>(0xffff0000u));
{% endfor %}
{% elif not dense %}
        var scale{{ w }}: vec4<f32>;
        var bias_{{ w }}: vec4<f32>;
        let side{{ w }} = block{{ w }} + params.chunks * {{ BITS }}u;
        if (params.kind == F32) {
            scale{{ w }} = bitcast<vec4<f32>>(weight{{ w }}[side{{ w }} + 2u * (chunk >> params.group_shift)]);
            bias_{{ w }} = bitcast<vec4<f32>>(weight{{ w }}[side{{ w }} + 2u * (chunk >> params.group_shift) + 1u]);
        } else {
            let sides = weight{{ w }}[side{{ w }} + (chunk >> params.group_shift)];
{% for r in range(4) %}
            let sb{{ r }} = halves(params.kind, sides[{{ r }}]);
            scale{{ w }}[{{ r }}] = sb{{ r }}.x;
            bias_{{ w }}[{{ r }}] = sb{{ r }}.y;
{% endfor %}
        }
{% endif %}
{% endfor %}
        for (var m = 0u; m < rows; m += {{ pair }}u) {
{% for k in range(pair) %}
            let row{{ k }} = input_row(first_row + m + {{ k }}u);
            var sum{{ k }} = 0.0;
            var step{{ k }} = 1.0;
            var squares{{ k }} = squares[(m + {{ k }}u) * 128u + lane];
{% for j in range(8) %}
            let x{{ k }}_{{ j }} = columns(row{{ k }}, chunk, {{ j }}u);
            var u{{ k }}_{{ j }} = x{{ k }}_{{ j }};
            var g{{ k }}_{{ j }} = vec4<f32>(1.0);
            if (has(HAS_NORM)) {
                g{{ k }}_{{ j }} = norm_columns(chunk, {{ j }}u);
                u{{ k }}_{{ j }} = x{{ k }}_{{ j }} * g{{ k }}_{{ j }};
            }
{% for c in range(4) %}
            squares{{ k }} = fma(x{{ k }}_{{ j }}[{{ c }}], x{{ k }}_{{ j }}[{{ c }}], squares{{ k }});
            sum{{ k }} = fma(x{{ k }}_{{ j }}[{{ c }}], g{{ k }}_{{ j }}[{{ c }}], sum{{ k }});
{% endfor %}
{% endfor %}
{% if not dense %}
            if (has(ROUNDS)) {
                var highest = 0u;
{% for j in range(8) %}
                highest = max(highest, highest_of(u{{ k }}_{{ j }}));
{% endfor %}
                let step = step_of(highest);
                step{{ k }} = step.y;
                var sums = vec4<f32>(0.0);
{% for j in range(8) %}
                u{{ k }}_{{ j }} = round(u{{ k }}_{{ j }} * step.x);
                sums += u{{ k }}_{{ j }};
{% endfor %}
                sum{{ k }} = sums.x + sums.y + sums.z + sums.w;
            }
{% endif %}
            squares[(m + {{ k }}u) * 128u + lane] = squares{{ k }};
{% endfor %}
{% for w in weights %}{% for r in range(4) %}
            {
{% for k in range(pair) %}
                var t{{ k }} = 0.0;
{% endfor %}
{% for i in range(32) %}
                let q{{ i }} = {{ code(w, r, i) }};
{% for k in range(pair) %}
                t{{ k }} = fma(q{{ i }}, u{{ k }}_{{ i // 4 }}[{{ i % 4 }}], t{{ k }});
{% endfor %}
{% endfor %}
{% for k in range(pair) %}
{% if dense %}
                partial[({{ (w * 4 + r) * TILE + k }}u + m) * STRIDE + place] += t{{ k }};
{% else %}
                let at{{ k }} = ({{ (w * 4 + r) * TILE + k }}u + m) * STRIDE + place;
                let of_chunk{{ k }} = fma(scale{{ w }}[{{ r }}], t{{ k }}, bias_{{ w }}[{{ r }}] * sum{{ k }});
                partial[at{{ k }}] = fma(step{{ k }}, of_chunk{{ k }}, partial[at{{ k }}]);
{% endif %}
{% endfor %}
            }
{% endfor %}{% endfor %}
        }
    }
    workgroupBarrier();
    if (lane < {{ TILE }}u) {
        var factor = 1.0;
        if (has(HAS_NORM)) {
            var total = 0.0;
            for (var i = 0u; i < 32u; i++) {
                total += squares[lane * 128u + i];
            }
            factor = norm_factor(total);
        }
        factors[lane] = factor;
    }
    workgroupBarrier();
    let row = first_row + lane / 16u;
    let feature = group.y * 16u + lane % 16u;
    if (lane < {{ 16 * TILE }}u && row < params.rows && feature < params.features) {
        let at = (lane % 4u) * {{ TILE }}u + lane / 16u;
        let from_place = ((lane % 16u) / 4u) * 33u;
{% for w in weights %}
        var total{{ w }} = 0.0;
        for (var i = 0u; i < 32u; i++) {
            total{{ w }} += partial[({{ w * 4 * TILE }}u + at) * STRIDE + from_place + i];
        }
        var bias_of_{{ w }} = 0.0;
        if (has(HAS_BIAS)) {
            bias_of_{{ w }} = bias{{ w }}[base(params.head, {{ 5 + 2 * w }}u) + feature];
        }
        let z{{ w }} = fma(total{{ w }}, factors[lane / 16u], bias_of_{{ w }});
{% endfor %}
        let out = base(params.head, 3u) + row * params.out_stride + params.out_first + feature;
{% if GATED %}
        result[out] = activated(z0) * z1;
{% else %}
        if (has(ADDS)) {
            result[out] += z0;
        } else {
            result[out] = z0;
        }
{% endif %}
    }
}
