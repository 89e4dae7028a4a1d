{% include "prelude.wgsl" %}
{% include "math.wgsl" %}
{% include "linear.wgsl" %}
// Prepares rows for linear_many: u in whole chunks, then the sum of every chunk, then the norm's factors. 32 lanes a row.
@group(0) @binding(0) var<storage, read> input: array<f32>;
@group(0) @binding(1) var<storage, read> norm: array<f32>;
@group(0) @binding(2) var<storage, read> gather: array<u32>;
@group(0) @binding(3) var<storage, read_write> prepared: array<f32>;
@group(0) @binding(4) var<storage, read> fault: array<u32>;
var<workgroup> squares: array<f32, 128>;

@compute @workgroup_size(128)
fn linear_rows(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (fault[0] != 0u) {
        return;
    }
    let p = lane & 31u;
    let row = group.x * 4u + (lane >> 5u);
    var sum_squares = 0.0;
    if (row < params.rows) {
        var from_row = row;
        if (has(HAS_GATHER)) {
            from_row = gather[base(params.head, 2u) + row];
        }
        let first = base(params.head, 0u) + from_row * params.cols;
        let out = base(params.head, 3u) + row * params.chunks * 32u;
        let sums = base(params.head, 3u) + (params.rows * 32u + row) * params.chunks;
        for (var chunk = p; chunk < params.chunks; chunk += 32u) {
            var sum = 0.0;
            for (var i = 0u; i < 32u; i++) {
                let col = chunk * 32u + i;
                var x = 0.0;
                var weight = 1.0;
                if (col < params.cols) {
                    x = input[first + col];
                    if (has(HAS_NORM)) {
                        weight = norm[base(params.head, 1u) + col];
                    }
                }
                sum_squares = fma(x, x, sum_squares);
                sum = fma(x, weight, sum);
                prepared[out + col] = x * weight;
            }
            prepared[sums + chunk] = sum;
        }
    }
    squares[lane] = sum_squares;
    workgroupBarrier();
    if (p == 0u && row < params.rows) {
        var total = 0.0;
        for (var i = 0u; i < 32u; i++) {
            total += squares[lane + i];
        }
        var factor = 1.0;
        if (has(HAS_NORM)) {
            factor = norm_factor(total);
        }
        prepared[base(params.head, 3u) + params.rows * params.chunks * 33u + row] = factor;
    }
}
