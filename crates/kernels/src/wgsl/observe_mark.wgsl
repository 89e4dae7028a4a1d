{% include "lib/prelude.wgsl" %}
// Second of two: marks the prompt's tokens in the row of the history and counts the answer's.
struct Params {
    head: Head,
    vocab: u32,
    count: u32,
    prompt: u32,
}
var<immediate> params: Params;
@group(0) @binding(0) var<storage, read_write> history: array<atomic<u32>>;
@group(0) @binding(1) var<storage, read> tokens: array<u32>;
@group(0) @binding(2) var<storage, read_write> fault: array<atomic<u32>, 2>;

{% include "lib/raise.wgsl" %}
const PROMPT = 0x80000000u;

@compute @workgroup_size(256)
fn observe_mark(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    if (atomicLoad(&fault[0]) != 0u) {
        return;
    }
    for (var i = id.x; i < params.count; i += groups.x * 256u) {
        let token = tokens[base(params.head, 1u) + i];
        if (token >= params.vocab) {
            raise(6u, token);
        } else if (i < params.prompt) {
            atomicOr(&history[base(params.head, 0u) + token], PROMPT);
        } else {
            atomicAdd(&history[base(params.head, 0u) + token], 1u);
        }
    }
}
