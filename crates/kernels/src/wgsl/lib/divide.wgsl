// a / b, correctly rounded wherever operands and quotient are normal, from a division that is only nearly right.
fn exact_divide(a: f32, b: f32) -> f32 {
    let near = a / b;
    let exponent_a = i32((bitcast<u32>(a) >> 23u) & 255u);
    let exponent_b = i32((bitcast<u32>(b) >> 23u) & 255u);
    let m = (bitcast<u32>(a) & 0x007fffffu) | 0x00800000u;
    let n = (bitcast<u32>(b) & 0x007fffffu) | 0x00800000u;
    // The quotient's 24 bits are those of m · 2^shift / n.
    let shift = select(23u, 24u, m < n);
    let exponent = exponent_a - exponent_b + 150 - i32(shift);
    let normal = min(exponent_a, exponent_b) > 0 && max(exponent_a, exponent_b) < 255 && exponent > 0 && exponent < 255;
    if (!normal) {
        return near;
    }
    var quotient = u32(f32(m) / f32(n) * f32(1u << shift));
    // Its few lowest bits may be wrong: the remainder says by how much, and is small enough for 32 bits.
    var remainder = bitcast<i32>((m << shift) - quotient * n);
    while (remainder < 0) {
        quotient -= 1u;
        remainder += i32(n);
    }
    while (remainder >= i32(n)) {
        quotient += 1u;
        remainder -= i32(n);
    }
    // It is never just the half.
    if (2 * remainder > i32(n)) {
        quotient += 1u;
    }
    let sign = (bitcast<u32>(a) ^ bitcast<u32>(b)) & 0x80000000u;
    return bitcast<f32>(sign | ((u32(exponent) << 23u) + quotient - 0x00800000u));
}
