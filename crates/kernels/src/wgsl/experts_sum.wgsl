{% include "lib/prelude.wgsl" %}
// A row's sum of its experts' products, each times its weight, slot after slot: added to the row of the output.
struct Params {
    head: Head,
    slots: u32,
    features: u32,
}
var<immediate> params: Params;
// [rows][slots][features]
@group(0) @binding(0) var<storage, read> products: array<f32>;
@group(0) @binding(1) var<storage, read> weights: array<f32>;
@group(0) @binding(2) var<storage, read_write> result: array<f32>;
@group(0) @binding(3) var<storage, read> fault: array<u32>;

@compute @workgroup_size(128)
fn experts_sum(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let feature = group.x * 128u + lane;
    if (fault[0] != 0u || feature >= params.features) {
        return;
    }
    let row = group.y;
    var sum = 0.0;
    for (var slot = 0u; slot < params.slots; slot++) {
        let at = row * params.slots + slot;
        let weight = weights[base(params.head, 1u) + at];
        sum = fma(weight, products[base(params.head, 0u) + at * params.features + feature], sum);
    }
    let out = base(params.head, 2u) + row * params.features + feature;
    result[out] = result[out] + sum;
}
