// Keys: u32 in the order of the values, zeros of both signs alike; 0 for what is never chosen, NaN and −∞.
const INFINITY_KEY = 0xff800000u;

fn key_of(value: f32) -> u32 {
    let bits = bitcast<u32>(value);
    let magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u || bits == 0xff800000u) {
        return 0u;
    }
    return select(magnitude | 0x80000000u, ~bits, bits > 0x80000000u);
}

// The value of a key that is not 0.
fn value_of(key: u32) -> f32 {
    return bitcast<f32>(select(~key, key & 0x7fffffffu, key >= 0x80000000u));
}
