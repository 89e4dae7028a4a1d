{% include "lib/prelude.wgsl" %}
// Copies `length` bytes; word by word of the destination, whose first and last word may be in part.
struct Params {
    head: Head,
    // Byte offsets into the first word of source and destination: 0 to 3.
    skip_source: u32,
    skip_target: u32,
    length: u32,
}
var<immediate> params: Params;
@group(0) @binding(0) var<storage, read> source: array<u32>;
@group(0) @binding(1) var<storage, read_write> target_words: array<u32>;
@group(0) @binding(2) var<storage, read> fault: array<u32>;

@compute @workgroup_size(256)
fn copy(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    if (fault[0] != 0u) {
        return;
    }
    let end = params.skip_target + params.length;
    let words = (end + 3u) / 4u;
    let first = base(params.head, 0u);
    let out = base(params.head, 1u);
    let last = first + (params.skip_source + params.length - 1u) / 4u;
    for (var i = id.x; i < words; i += groups.x * 256u) {
        // The byte of the source that belongs into the word's lowest byte; it may lie before the source's first.
        let at = i32(4u * i + params.skip_source) - i32(params.skip_target);
        let low = (at & ~3) / 4;
        let shift = u32(at & 3) * 8u;
        var value = 0u;
        if (low >= 0) {
            value = source[first + u32(low)] >> shift;
        }
        if (shift != 0u && first + u32(low + 1) <= last) {
            value |= source[first + u32(low + 1)] << (32u - shift);
        }
        var mask = 0xffffffffu;
        if (i == 0u) {
            mask <<= params.skip_target * 8u;
        }
        if (4u * i + 4u > end) {
            mask &= 0xffffffffu >> ((4u * i + 4u - end) * 8u);
        }
        if (mask == 0xffffffffu) {
            target_words[out + i] = value;
        } else {
            target_words[out + i] = (target_words[out + i] & ~mask) | (value & mask);
        }
    }
}
