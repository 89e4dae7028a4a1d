// Where top-k and top-p end, in the order of falling key and rising token, without sorting: a token's order is the pair
// (key, ~token), and eight levels, from the highest byte of the pair to the lowest, each find the byte in which the last survivor
// lies from a histogram of the tokens that share the bytes found so far. One token left ends it early.
{% include "lib/wide.wgsl" %}
const BINS = 256u;
// Histograms side by side, since many tokens share a bin and atomics on one word wait for each other.
const COPIES = 4u;
const UNLIMITED = 0xffffffffu;

var<workgroup> counts: array<atomic<u32>, 1024>;
var<workgroup> masses_low: array<atomic<u32>, 1024>;
var<workgroup> masses_high: array<atomic<u32>, 1024>;
// Of a bin and all above it.
var<workgroup> sum_counts: array<u32, 256>;
var<workgroup> sum_masses: array<vec2<u32>, 256>;

// Up to where tokens survive: the one that makes up `count`, or the one with which `mass` is reached, whichever comes first.
struct Limit {
    count: u32,
    mass: vec2<u32>,
}

// One level's result: the bin of the last survivor (BINS for none), how many tokens it holds, and the limit within it.
struct Step {
    bin: u32,
    members: u32,
    limit: Limit,
}
var<workgroup> last: Step;

// Probability relative to the largest token's, in units of 2⁻⁴⁴, rounded down; sums over 2²⁰ tokens fit 64 bits.
fn mass_of(weight: f32) -> vec2<u32> {
    let mantissa = (bitcast<u32>(weight) & 0x007fffffu) | 0x00800000u;
    let shift = i32(bitcast<u32>(weight) >> 23u) - 106;
    if (shift <= -24) {
        return vec2(0u);
    }
    if (shift <= 0) {
        return vec2(mantissa >> u32(-shift), 0u);
    }
    return vec2(mantissa << u32(shift), mantissa >> u32(32 - shift));
}

fn reached(limit: Limit, bin: u32) -> bool {
    return sum_counts[bin] >= limit.count || at_least(sum_masses[bin], limit.mass);
}

// Adds a token to the histogram of one byte of its order.
fn note(lane: u32, bin: u32, key: u32, top: f32, massive: bool) {
    let at = bin * COPIES + lane % COPIES;
    atomicAdd(&counts[at], 1u);
    if (massive) {
        let mass = mass_of(exact_exp(value_of(key) - top));
        let before = atomicAdd(&masses_low[at], mass.x);
        let high = mass.y + select(0u, 1u, before + mass.x < before);
        if (high != 0u) {
            atomicAdd(&masses_high[at], high);
        }
    }
}

// Sums of each bin and all above it, from the histograms.
fn sum_bins(lane: u32) {
    var count = 0u;
    var mass = vec2(0u);
    for (var at = lane * COPIES; at < (lane + 1u) * COPIES; at += 1u) {
        count += atomicLoad(&counts[at]);
        mass = plus(mass, vec2(atomicLoad(&masses_low[at]), atomicLoad(&masses_high[at])));
    }
    for (var distance = 1u; distance < BINS; distance *= 2u) {
        sum_counts[lane] = count;
        sum_masses[lane] = mass;
        workgroupBarrier();
        if (lane + distance < BINS) {
            count += sum_counts[lane + distance];
            mass = plus(mass, sum_masses[lane + distance]);
        }
        workgroupBarrier();
    }
    sum_counts[lane] = count;
    sum_masses[lane] = mass;
    workgroupBarrier();
}

// The lowest order that survives; undecided bits are 0.
fn cut_of(lane: u32, index: u32, row: Row, top: f32) -> vec2<u32> {
    let massive = row.top_p < 1.0;
    var limit = Limit(select(UNLIMITED, row.top_k, row.top_k > 0u), vec2(UNLIMITED));
    var cut = vec2(0u);
    var known = vec2(0u);
    for (var level = 0u; level < 8u; level += 1u) {
        let shift = 24u - 8u * (level % 4u);
        for (var at = lane; at < BINS * COPIES; at += LANES) {
            atomicStore(&counts[at], 0u);
            atomicStore(&masses_low[at], 0u);
            atomicStore(&masses_high[at], 0u);
        }
        if (lane == 0u) {
            last.bin = BINS;
        }
        workgroupBarrier();
        for (var tile = 0u; tile < params.tiles; tile += 1u) {
            if (best_key_of(index, tile) < cut.x) {
                continue;
            }
{%- for i in range(8) %}
            let key{{ i }} = key_at(index, tile, {{ i }}u * LANES + lane);
{%- endfor %}
{%- for i in range(8) %}
            {
                let order = vec2(key{{ i }}, ~(tile * TILE + {{ i }}u * LANES + lane));
                if (key{{ i }} != 0u && all(((order ^ cut) & known) == vec2(0u))) {
                    let bin = (select(order.y, order.x, level < 4u) >> shift) & 255u;
                    note(lane, bin, key{{ i }}, top, massive);
                }
            }
{%- endfor %}
        }
        workgroupBarrier();
        sum_bins(lane);
        if (level == 0u && massive) {
            // The largest token alone survives a share of nothing.
            limit.mass = vec2(1u, 0u);
            if (row.top_p > 0.0) {
                limit.mass = share_of(row.top_p, sum_masses[0]);
            }
        }
        var above = vec3(0u);
        var ended = false;
        if (lane + 1u < BINS) {
            above = vec3(sum_counts[lane + 1u], sum_masses[lane + 1u]);
            ended = reached(limit, lane + 1u);
        }
        if (!ended && reached(limit, lane)) {
            last = Step(lane, sum_counts[lane] - above.x, Limit(limit.count - above.x, minus(limit.mass, above.yz)));
        }
        let found = workgroupUniformLoad(&last);
        if (found.bin == BINS) {
            // At the first level: there are fewer than top_k.
            break;
        }
        limit = found.limit;
        if (level < 4u) {
            cut.x |= found.bin << shift;
            known.x |= 255u << shift;
        } else {
            cut.y |= found.bin << shift;
            known.y |= 255u << shift;
        }
        if (found.members == 1u) {
            break;
        }
    }
    return cut;
}
