{% include "lib/prelude.wgsl" %}
// Raises a fault where a number of a row, or of an expert, is none below the limit.
struct Params {
    head: Head,
    rows: u32,
    limit: u32,
    code: u32,
}
var<immediate> params: Params;
@group(0) @binding(0) var<storage, read> gather: array<u32>;
@group(0) @binding(1) var<storage, read_write> fault: array<atomic<u32>>;
{% include "lib/raise.wgsl" %}

@compute @workgroup_size(64)
fn gather_check(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x < params.rows) {
        let number = gather[base(params.head, 0u) + id.x];
        if (number >= params.limit) {
            raise(params.code, number);
        }
    }
}
