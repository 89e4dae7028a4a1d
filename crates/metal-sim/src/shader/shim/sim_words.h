// MSL's words that C++ lacks, and the vector constructors. `float4 v` is the type, `float4(…)` the macro.
#pragma once
#define kernel static inline
#define device
#define constant const
#define threadgroup
#define thread
#define coherent
#define static_cast sim_cast
#define char2(...) sim_make<char2>(__VA_ARGS__)
#define char3(...) sim_make<char3>(__VA_ARGS__)
#define char4(...) sim_make<char4>(__VA_ARGS__)
#define uchar2(...) sim_make<uchar2>(__VA_ARGS__)
#define uchar3(...) sim_make<uchar3>(__VA_ARGS__)
#define uchar4(...) sim_make<uchar4>(__VA_ARGS__)
#define short2(...) sim_make<short2>(__VA_ARGS__)
#define short3(...) sim_make<short3>(__VA_ARGS__)
#define short4(...) sim_make<short4>(__VA_ARGS__)
#define ushort2(...) sim_make<ushort2>(__VA_ARGS__)
#define ushort3(...) sim_make<ushort3>(__VA_ARGS__)
#define ushort4(...) sim_make<ushort4>(__VA_ARGS__)
#define int2(...) sim_make<int2>(__VA_ARGS__)
#define int3(...) sim_make<int3>(__VA_ARGS__)
#define int4(...) sim_make<int4>(__VA_ARGS__)
#define uint2(...) sim_make<uint2>(__VA_ARGS__)
#define uint3(...) sim_make<uint3>(__VA_ARGS__)
#define uint4(...) sim_make<uint4>(__VA_ARGS__)
#define long2(...) sim_make<long2>(__VA_ARGS__)
#define long3(...) sim_make<long3>(__VA_ARGS__)
#define long4(...) sim_make<long4>(__VA_ARGS__)
#define ulong2(...) sim_make<ulong2>(__VA_ARGS__)
#define ulong3(...) sim_make<ulong3>(__VA_ARGS__)
#define ulong4(...) sim_make<ulong4>(__VA_ARGS__)
#define half2(...) sim_make<half2>(__VA_ARGS__)
#define half3(...) sim_make<half3>(__VA_ARGS__)
#define half4(...) sim_make<half4>(__VA_ARGS__)
#define float2(...) sim_make<float2>(__VA_ARGS__)
#define float3(...) sim_make<float3>(__VA_ARGS__)
#define float4(...) sim_make<float4>(__VA_ARGS__)
#define bool2(...) sim_make<bool2>(__VA_ARGS__)
#define bool3(...) sim_make<bool3>(__VA_ARGS__)
#define bool4(...) sim_make<bool4>(__VA_ARGS__)
#define packed_char4(...) sim_make<packed_char4>(__VA_ARGS__)
#define packed_uchar4(...) sim_make<packed_uchar4>(__VA_ARGS__)
