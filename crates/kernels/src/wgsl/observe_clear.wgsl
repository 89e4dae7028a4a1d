{% include "lib/prelude.wgsl" %}
// First of two: zeros for one row of the history.
struct Params {
    head: Head,
    vocab: u32,
}
var<immediate> params: Params;
@group(0) @binding(0) var<storage, read_write> history: array<u32>;
@group(0) @binding(1) var<storage, read> fault: array<u32>;

@compute @workgroup_size(256)
fn observe_clear(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    if (fault[0] != 0u) {
        return;
    }
    for (var i = id.x; i < params.vocab; i += groups.x * 256u) {
        history[base(params.head, 0u) + i] = 0u;
    }
}
