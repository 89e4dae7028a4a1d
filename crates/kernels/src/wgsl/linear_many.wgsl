{% include "lib/prelude.wgsl" %}
{% include "lib/weight.wgsl" %}
{% include "lib/math.wgsl" %}
{% include "lib/linear.wgsl" %}
{% include "lib/linear_tiles.wgsl" %}
// Many rows, each lane multiplying for itself.
{% set dense = BITS > 8 or MICRO %}
{% set weights = [0, 1] if GATED else [0] %}
// Transposed, four rows or features to a vector, padded against bank conflicts.
var<workgroup> x_tile: array<vec4<f32>, {{ 32 * 17 }}>;
{% for w in weights %}
var<workgroup> q_tile{{ w }}: array<array<f32, 68>, 32>;
var<workgroup> sides{{ w }}: array<vec2<f32>, 64>;
{% endfor %}
var<workgroup> sums: array<f32, 64>;

{% for w in weights %}
// Eight codes of one row of the weight into the tile.
fn load_codes{{ w }}(chunk: u32, tile: u32, lane: u32) {
    let n = lane >> 2u;
    let quarter = lane & 3u;
    let row = weight_row(tile, n);
    let values = eight{{ w }}(row, chunk, quarter);
{% for i in range(8) %}
    q_tile{{ w }}[quarter * 8u + {{ i }}u][n] = values[{{ i // 4 }}][{{ i % 4 }}];
{% endfor %}
{% if not dense %}
    if (quarter == 0u) {
        sides{{ w }}[n] = side{{ w }}(row, chunk);
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
                    x_tile[((lane & 3u) * 8u + i) * 17u + (m >> 2u)][m & 3u] = bitcast<f32>(prepared[from_col + i]);
                }
                if ((lane & 3u) == 0u) {
                    sums[m] = bitcast<f32>(prepared[first + (params.rows * 32u + row) * params.chunks + chunk]);
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
            let factor = bitcast<f32>(prepared[first + params.rows * params.chunks * 33u + row]);
            finish(row, feature, factor, {% for w in weights %}y{{ w }}_{{ m }}{{ ", " if not loop.last }}{% endfor %});
        }
    }
{% endfor %}
}
