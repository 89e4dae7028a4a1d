{% include "lib/prelude.wgsl" %}
{% set KV = 16 %}
{% include "lib/attention.wgsl" %}
{% include "lib/math.wgsl" %}
{% include "lib/merge.wgsl" %}
// Merges the results of a head's stretches, in order: one workgroup a row and head.
@group(0) @binding(0) var<storage, read> stretches: array<f32>;
@group(0) @binding(1) var<storage, read_write> result: array<f32>;
@group(0) @binding(2) var<storage, read> fault: array<u32>;

@compute @workgroup_size(64)
fn attend_merge(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (fault[0] != 0u) {
        return;
    }
    let record = padded() + 2u;
    let head = group.x * params.heads + group.y;
    for (var c = lane; c < params.head_dim; c += 64u) {
        var largest = LOWEST;
        var sum = 0.0;
        var value = 0.0;
        for (var i = 0u; i < params.splits; i++) {
            let at = base(params.head, 0u) + (head * params.splits + i) * record;
            let new_sum = stretches[at + padded() + 1u];
            if (new_sum > 0.0) {
                let w = merge(largest, sum, stretches[at + padded()], new_sum);
                largest = w.largest;
                sum = w.sum;
                value = fma(value, w.before, stretches[at + c] * w.stretch);
            }
        }
        result[base(params.head, 1u) + head * params.head_dim + c] = value * (1.0 / sum);
    }
}
