{% include "lib/prelude.wgsl" %}
{% include "lib/math.wgsl" %}
{% include "lib/key.wgsl" %}
{% include "lib/best.wgsl" %}
// Experts of a row and their weights: a workgroup a row. The order of the sum over all experts: for each of 128 lanes over its own,
// then the lanes, in rising order; of the sum over those that are chosen, their order.
struct Params {
    head: Head,
    experts: u32,
    slots: u32,
    renormalize: u32,
    factor: f32,
}
var<immediate> params: Params;
@group(0) @binding(0) var<storage, read> logits: array<f32>;
// Added to an expert's own score for the choice.
@group(0) @binding(1) var<storage, read> bias: array<f32>;
@group(0) @binding(2) var<storage, read_write> chosen: array<u32>;
@group(0) @binding(3) var<storage, read_write> weights: array<f32>;
@group(0) @binding(4) var<storage, read> fault: array<u32>;
const LANES = 128u;
// Route::MAX_EXPERTS of each.
var<workgroup> keys: array<u32, 1024>;
var<workgroup> own: array<f32, 1024>;
var<workgroup> sums: array<f32, 128>;
var<workgroup> broken: atomic<u32>;
var<workgroup> is_broken: u32;

fn is_finite(value: f32) -> bool {
    return (bitcast<u32>(value) & 0x7f800000u) != 0x7f800000u;
}

// No constant: WGSL has none that is no number.
fn no_number() -> f32 {
    return bitcast<f32>(0x7fc00000u | min(params.slots, 1u));
}

@compute @workgroup_size(128)
fn route(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (fault[0] != 0u) {
        return;
    }
    let first = base(params.head, 0u) + group.x * params.experts;
    let to_chosen = base(params.head, 2u) + group.x * params.slots;
    let to_weights = base(params.head, 3u) + group.x * params.slots;
    var highest = 0u;
    var finite = true;
    for (var expert = lane; expert < params.experts; expert += LANES) {
        let x = logits[first + expert];
        var score = x;
        finite = finite && is_finite(x);
        highest = max(highest, key_of(x));
{% if SIGMOID %}
        own[expert] = 1.0 / (1.0 + exact_exp(-x));
        score = own[expert] + bias[base(params.head, 1u) + expert];
        finite = finite && is_finite(score);
{% endif %}
        keys[expert] = key_of(score);
    }
    if (lane == 0u) {
        atomicStore(&broken, 0u);
    }
    workgroupBarrier();
    if (!finite) {
        atomicStore(&broken, 1u);
    }
    workgroupBarrier();
    if (lane == 0u) {
        is_broken = atomicLoad(&broken);
    }
    if (workgroupUniformLoad(&is_broken) != 0u) {
        for (var slot = lane; slot < params.slots; slot += LANES) {
            chosen[to_chosen + slot] = slot;
            weights[to_weights + slot] = no_number();
        }
        return;
    }
{% if not SIGMOID %}
    let top = value_of(best_of_lanes(lane, vec2(highest, lane)).x);
    var sum = 0.0;
    for (var expert = lane; expert < params.experts; expert += LANES) {
        own[expert] = exact_exp(logits[first + expert] - top);
        sum += own[expert];
    }
    sums[lane] = sum;
{% endif %}
    var of_chosen = 0.0;
    for (var slot = 0u; slot < params.slots; slot++) {
        var best_own = vec2(0u, NO_TOKEN);
        for (var expert = lane; expert < params.experts; expert += LANES) {
            if (keys[expert] > best_own.x) {
                best_own = vec2(keys[expert], expert);
            }
        }
        let expert = best_of_lanes(lane, best_own).y;
        if (expert % LANES == lane) {
            // What is taken is no candidate any more.
            keys[expert] = 0u;
        }
        of_chosen += own[expert];
        if (lane == 0u) {
            chosen[to_chosen + slot] = expert;
            weights[to_weights + slot] = own[expert];
        }
    }
    var total = 1.0;
    if (params.renormalize != 0u) {
        total = of_chosen;
    }
{% if not SIGMOID %}
    else {
        total = 0.0;
        for (var i = 0u; i < LANES; i++) {
            total += sums[i];
        }
    }
{% endif %}
    if (lane == 0u) {
        for (var slot = 0u; slot < params.slots; slot++) {
            weights[to_weights + slot] = weights[to_weights + slot] / total * params.factor;
        }
    }
}
