{% include "lib/prelude.wgsl" %}
// RMS norm of some columns of a row, in place or added to a row of the target: a workgroup a row. The order of the sum of squares,
// whatever the batch: for each of 128 lanes over its columns, then the lanes, in rising order.
struct Params {
    head: Head,
    stride: u32,
    first: u32,
    width: u32,
    eps: f32,
}
var<immediate> params: Params;
{% if ADDS %}
@group(0) @binding(0) var<storage, read> input: array<f32>;
@group(0) @binding(1) var<storage, read> norm: array<f32>;
@group(0) @binding(2) var<storage, read_write> result: array<f32>;
@group(0) @binding(3) var<storage, read> fault: array<u32>;
{% else %}
@group(0) @binding(0) var<storage, read_write> input: array<f32>;
@group(0) @binding(1) var<storage, read> norm: array<f32>;
@group(0) @binding(2) var<storage, read> fault: array<u32>;
{% endif %}
var<workgroup> squares: array<f32, 128>;

@compute @workgroup_size(128)
fn normalize(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (fault[0] != 0u) {
        return;
    }
    let row = base(params.head, 0u) + group.x * params.stride + params.first;
    var sum = 0.0;
    for (var col = lane; col < params.width; col += 128u) {
        let x = input[row + col];
        sum = fma(x, x, sum);
    }
    squares[lane] = sum;
    workgroupBarrier();
    var total = 0.0;
    for (var i = 0u; i < 128u; i++) {
        total += squares[i];
    }
    let factor = inverseSqrt(total / f32(params.width) + params.eps);
    for (var col = lane; col < params.width; col += 128u) {
        let x = input[row + col] * factor * norm[base(params.head, 1u) + col];
{% if ADDS %}
        let at = base(params.head, 2u) + group.x * params.width + col;
        result[at] = result[at] + x;
{% else %}
        input[row + col] = x;
{% endif %}
    }
}
