const NO_TOKEN = 0xffffffffu;

var<workgroup> best_key: atomic<u32>;
var<workgroup> best_token: atomic<u32>;
var<workgroup> best: vec2<u32>;

// The largest key of all lanes and the smallest token that has it, from a key and its token in each lane. Key 0 is none; without
// any the result is (0, NO_TOKEN).
fn best_of_lanes(lane: u32, own: vec2<u32>) -> vec2<u32> {
    if (lane == 0u) {
        atomicStore(&best_key, 0u);
        atomicStore(&best_token, NO_TOKEN);
    }
    workgroupBarrier();
    atomicMax(&best_key, own.x);
    workgroupBarrier();
    if (own.x != 0u && own.x == atomicLoad(&best_key)) {
        atomicMin(&best_token, own.y);
    }
    workgroupBarrier();
    if (lane == 0u) {
        best = vec2(atomicLoad(&best_key), atomicLoad(&best_token));
    }
    return workgroupUniformLoad(&best);
}
