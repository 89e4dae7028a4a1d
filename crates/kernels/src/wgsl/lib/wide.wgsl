// 64-bit integers as (low, high).
fn plus(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    let low = a.x + b.x;
    return vec2(low, a.y + b.y + select(0u, 1u, low < a.x));
}

fn minus(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    return vec2(a.x - b.x, a.y - b.y - select(0u, 1u, a.x < b.x));
}

fn at_least(a: vec2<u32>, b: vec2<u32>) -> bool {
    return a.y > b.y || (a.y == b.y && a.x >= b.x);
}

fn product(a: u32, b: u32) -> vec2<u32> {
    let low = (a & 0xffffu) * (b & 0xffffu);
    let middle = (a >> 16u) * (b & 0xffffu) + (low >> 16u);
    let other = (a & 0xffffu) * (b >> 16u) + (middle & 0xffffu);
    return vec2((low & 0xffffu) | (other << 16u), (a >> 16u) * (b >> 16u) + (middle >> 16u) + (other >> 16u));
}

// ⌈share · total⌉ for 0 < share < 1.
fn share_of(share: f32, total: vec2<u32>) -> vec2<u32> {
    let mantissa = (bitcast<u32>(share) & 0x007fffffu) | 0x00800000u;
    let low = product(total.x, mantissa);
    let high = product(total.y, mantissa);
    var part = vec2(low.x, low.y + high.x);
    var top = high.y + select(0u, 1u, part.y < low.y);
    var lost = 0u;
    for (var shift = 150u - (bitcast<u32>(share) >> 23u); shift > 0u; shift -= 1u) {
        lost |= part.x & 1u;
        part = vec2((part.x >> 1u) | (part.y << 31u), (part.y >> 1u) | (top << 31u));
        top >>= 1u;
    }
    return plus(part, vec2(lost, 0u));
}
