{% include "lib/prelude.wgsl" %}
// Raises a fault where a gathered row is not there.
struct Params {
    head: Head,
    rows: u32,
    input_rows: u32,
}
var<immediate> params: Params;
@group(0) @binding(0) var<storage, read> gather: array<u32>;
@group(0) @binding(1) var<storage, read_write> fault: array<atomic<u32>>;
{% include "lib/raise.wgsl" %}

@compute @workgroup_size(64)
fn gather_check(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x < params.rows) {
        let row = gather[base(params.head, 0u) + id.x];
        if (row >= params.input_rows) {
            raise(3u, row);
        }
    }
}
