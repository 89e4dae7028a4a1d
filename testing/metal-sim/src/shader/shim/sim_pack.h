// Four bytes or two halves of a word as normalized floats, and back.
#pragma once

namespace metal {
// Each of the N lanes is 32 / N bits wide; `scale` is the largest value that one holds.
template <int N, class V> inline uint sim_pack(V v, float low, float scale) {
    uint word = 0;
    for (int i = 0; i < N; i++) {
        int part = (int)__builtin_rintf(__builtin_fminf(__builtin_fmaxf(v[i], low), 1.0f) * scale);
        word |= ((uint)part & (~0u >> (32 - 32 / N))) << (i * (32 / N));
    }
    return word;
}
template <class V, class Part> inline V sim_unpack(uint word, float scale) {
    V v;
    for (int i = 0; i < sim_width<V>; i++)
        v[i] = __builtin_fmaxf((Part)(word >> (i * 8 * sizeof(Part))) / scale, -1.0f);
    return v;
}
inline uint pack_float_to_snorm4x8(float4 v) { return sim_pack<4>(v, -1.0f, 127.0f); }
inline uint pack_float_to_unorm4x8(float4 v) { return sim_pack<4>(v, 0.0f, 255.0f); }
inline uint pack_float_to_snorm2x16(float2 v) { return sim_pack<2>(v, -1.0f, 32767.0f); }
inline uint pack_float_to_unorm2x16(float2 v) { return sim_pack<2>(v, 0.0f, 65535.0f); }
inline float4 unpack_snorm4x8_to_float(uint w) { return sim_unpack<float4, signed char>(w, 127.0f); }
inline float4 unpack_unorm4x8_to_float(uint w) { return sim_unpack<float4, uchar>(w, 255.0f); }
inline float2 unpack_snorm2x16_to_float(uint w) { return sim_unpack<float2, short>(w, 32767.0f); }
inline float2 unpack_unorm2x16_to_float(uint w) { return sim_unpack<float2, ushort>(w, 65535.0f); }
} // namespace metal
