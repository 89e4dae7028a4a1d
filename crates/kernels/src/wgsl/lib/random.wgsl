// First word of Threefry-2x32 with 20 rounds (Salmon et al. 2011).
{% set rotations = [13, 15, 26, 6, 17, 29, 16, 24] -%}
fn threefry(key: vec2<u32>, counter: vec2<u32>) -> u32 {
    let key0 = key.x;
    let key1 = key.y;
    let key2 = key.x ^ key.y ^ 0x1BD11BDAu;
    var a = counter.x + key0;
    var b = counter.y + key1;
{%- for round in range(20) %}
    a += b;
    b = ((b << {{ rotations[round % 8] }}u) | (b >> {{ 32 - rotations[round % 8] }}u)) ^ a;
{%- if round % 4 == 3 %}
{%- set injection = round // 4 + 1 %}
    a += key{{ injection % 3 }};
    b += key{{ (injection + 1) % 3 }} + {{ injection }}u;
{%- endif %}
{%- endfor %}
    return a;
}

// A draw from the standard Gumbel distribution, −ln(−ln u): u is the middle of the interval that the word's upper 23 bits name.
fn gumbel(word: u32) -> f32 {
    let u = (f32(word >> 9u) + 0.5) * 1.1920929e-7;
    return -exact_ln(-exact_ln(u));
}
