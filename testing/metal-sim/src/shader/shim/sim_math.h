// Numeric functions, element by element. Floating-point ones go through f32 and libm, so they equal the host's.
#pragma once

// `f` on every element; a scalar beside a vector is used for each of its elements.
template <class F, class V, class... A> inline V sim_map(F f, V v, A... more) {
    if constexpr (sim_width<V> == 1) return f(v, more...);
    else {
        V r;
        for (int i = 0; i < sim_width<V>; i++) r[i] = f(v[i], sim_at(more, i)...);
        return r;
    }
}

#define SIM_MAP1(name, expression)                                                                                     \
    template <class V> inline V name(V v) {                                                                            \
        typedef sim_element<V> E;                                                                                      \
        return sim_map([](E x) -> E { return expression; }, v);                                                        \
    }
#define SIM_MAP2(name, expression)                                                                                     \
    template <class V, class A> inline V name(V v, A a) {                                                              \
        typedef sim_element<V> E;                                                                                      \
        return sim_map([](E x, E y) -> E { return expression; }, v, a);                                                \
    }
#define SIM_MAP3(name, expression)                                                                                     \
    template <class V, class A, class B> inline V name(V v, A a, B b) {                                                \
        typedef sim_element<V> E;                                                                                      \
        return sim_map([](E x, E y, E z) -> E { return expression; }, v, a, b);                                        \
    }

template <class E> constexpr bool sim_is_float = false;
template <> constexpr bool sim_is_float<float> = true;
template <> constexpr bool sim_is_float<half> = true;

// Of a number and a NaN, the number; as Metal's fmin and fmax.
template <class E> inline E sim_min(E x, E y) {
    if constexpr (sim_is_float<E>) return __builtin_fminf(x, y);
    else return y < x ? y : x;
}
template <class E> inline E sim_max(E x, E y) {
    if constexpr (sim_is_float<E>) return __builtin_fmaxf(x, y);
    else return x < y ? y : x;
}
template <class E> inline E sim_abs(E x) {
    if constexpr (sim_is_float<E>) return __builtin_fabsf(x);
    else return x < 0 ? -x : x;
}
inline float sim_sign(float x) { return x > 0 ? 1.0f : x < 0 ? -1.0f : 0.0f; }
template <class E> inline E sim_reverse(E x) {
    E r = 0;
    for (unsigned i = 0; i < 8 * sizeof(E); i++) r = (E)(r << 1) | ((x >> i) & 1);
    return r;
}
// `count` bits from `offset`; a signed type carries its sign on.
template <class E> inline E sim_extract(E x, uint offset, uint count) {
    if (count == 0) return 0;
    return (E)(x << (32 - offset - count)) >> (32 - count);
}
template <class E> inline E sim_insert(E x, E bits, uint offset, uint count) {
    uint mask = (count == 32 ? ~0u : (1u << count) - 1) << (offset & 31);
    return count == 0 ? x : (E)(((uint)x & ~mask) | (((uint)bits << offset) & mask));
}

namespace metal {
SIM_MAP2(min, sim_min<E>(x, y))
SIM_MAP2(max, sim_max<E>(x, y))
SIM_MAP3(clamp, sim_min<E>(sim_max<E>(x, y), z))
SIM_MAP1(abs, sim_abs<E>(x))
SIM_MAP1(saturate, sim_min<E>(sim_max<E>(x, 0), 1))
SIM_MAP1(sign, sim_sign(x))
SIM_MAP2(fmod, __builtin_fmodf(x, y))
SIM_MAP3(fma, __builtin_fmaf(x, y, z))
SIM_MAP3(mix, x + (y - x) * z)
template <class E, class V> inline V step(E edge, V v) {
    return sim_map([](float x, float y) -> float { return x < y ? 0.0f : 1.0f; }, v, edge);
}
template <class A, class B, class V> inline V smoothstep(A low, B high, V v) {
    V t = clamp((v - low) / (high - low), 0, 1);
    return t * t * (V(3) - V(2) * t);
}

// Ours have libm's accuracy under each of Metal's three names.
#define SIM_LIBM                                                                                                       \
    SIM_MAP1(exp, __builtin_expf(x))                                                                                   \
    SIM_MAP1(exp2, __builtin_exp2f(x))                                                                                 \
    SIM_MAP1(log, __builtin_logf(x))                                                                                   \
    SIM_MAP1(log2, __builtin_log2f(x))                                                                                 \
    SIM_MAP2(pow, __builtin_powf(x, y))                                                                                \
    SIM_MAP1(sqrt, __builtin_sqrtf(x))                                                                                 \
    SIM_MAP1(rsqrt, 1.0f / __builtin_sqrtf(x))                                                                         \
    SIM_MAP2(divide, x / y)                                                                                            \
    SIM_MAP1(sin, __builtin_sinf(x))                                                                                   \
    SIM_MAP1(cos, __builtin_cosf(x))                                                                                   \
    SIM_MAP1(tan, __builtin_tanf(x))                                                                                   \
    SIM_MAP1(asin, __builtin_asinf(x))                                                                                 \
    SIM_MAP1(acos, __builtin_acosf(x))                                                                                 \
    SIM_MAP1(atan, __builtin_atanf(x))                                                                                 \
    SIM_MAP2(atan2, __builtin_atan2f(x, y))                                                                            \
    SIM_MAP1(sinh, __builtin_sinhf(x))                                                                                 \
    SIM_MAP1(cosh, __builtin_coshf(x))                                                                                 \
    SIM_MAP1(tanh, __builtin_tanhf(x))                                                                                 \
    SIM_MAP1(asinh, __builtin_asinhf(x))                                                                               \
    SIM_MAP1(acosh, __builtin_acoshf(x))                                                                               \
    SIM_MAP1(atanh, __builtin_atanhf(x))                                                                               \
    SIM_MAP1(ceil, __builtin_ceilf(x))                                                                                 \
    SIM_MAP1(floor, __builtin_floorf(x))                                                                               \
    SIM_MAP1(trunc, __builtin_truncf(x))                                                                               \
    SIM_MAP1(rint, __builtin_rintf(x))                                                                                 \
    SIM_MAP1(round, __builtin_roundf(x))                                                                               \
    SIM_MAP1(fract, __builtin_fminf(x - __builtin_floorf(x), 0x1.fffffep-1f))
SIM_LIBM
namespace precise {
SIM_LIBM
}
namespace fast {
SIM_LIBM
}

SIM_MAP1(popcount, __builtin_popcountll((ulong)x & (~0ul >> (64 - 8 * sizeof(E)))))
SIM_MAP1(clz, x == 0 ? 8 * sizeof(E) : __builtin_clzll((ulong)x << (64 - 8 * sizeof(E))))
SIM_MAP1(ctz, x == 0 ? 8 * sizeof(E) : __builtin_ctzll(x))
SIM_MAP1(reverse_bits, sim_reverse<E>(x))
template <class V> inline V extract_bits(V v, uint offset, uint count) {
    return sim_map([=](sim_element<V> x) { return sim_extract(x, offset, count); }, v);
}
template <class V> inline V insert_bits(V v, V bits, uint offset, uint count) {
    return sim_map([=](sim_element<V> x, sim_element<V> b) { return sim_insert(x, b, offset, count); }, v, bits);
}
SIM_MAP2(mulhi, ((ulong)x * (ulong)y) >> 32)

template <class V, class W, class C> inline V select(V no, W yes, C condition) {
    return sim_map([](sim_element<V> n, sim_element<V> y, bool c) { return c ? y : n; }, no, yes, condition);
}
template <class C> inline bool any(C condition) {
    bool r = false;
    for (int i = 0; i < sim_width<C>; i++) r |= sim_at(condition, i) != 0;
    return r;
}
template <class C> inline bool all(C condition) {
    bool r = true;
    for (int i = 0; i < sim_width<C>; i++) r &= sim_at(condition, i) != 0;
    return r;
}
template <class V> inline auto isnan(V v) {
    return v != v;
}
template <class V> inline auto isinf(V v) {
    return abs(v) == __builtin_inff();
}

template <class V> inline sim_element<V> dot(V a, V b) {
    sim_element<V> r = a[0] * b[0];
    for (int i = 1; i < sim_width<V>; i++) r += a[i] * b[i];
    return r;
}
template <class V> inline sim_element<V> length(V v) { return sqrt(dot(v, v)); }
template <class V> inline sim_element<V> distance(V a, V b) { return length(a - b); }
template <class V> inline V normalize(V v) { return v / length(v); }
template <class V> inline V faceforward(V n, V i, V reference) { return dot(reference, i) < sim_element<V>(0) ? n : -n; }
template <class V> inline V reflect(V i, V n) { return i - V(2) * V(dot(n, i)) * n; }
template <class V, class E> inline V refract(V i, V n, E eta) {
    E one = 1, d = dot(n, i), k = one - eta * eta * (one - d * d);
    return k < E(0) ? V(0) : V(eta) * i - V(eta * d + sqrt(k)) * n;
}
template <class V> inline V cross(V a, V b) {
    return a.template swizzle<1, 2, 0>() * b.template swizzle<2, 0, 1>() -
           a.template swizzle<2, 0, 1>() * b.template swizzle<1, 2, 0>();
}
template <class V> inline V modf(V v, V &whole) {
    whole = trunc(v);
    return v - whole;
}
template <class V, class I> inline V frexp(V v, I &exponent) {
    if constexpr (sim_width<V> == 1) return __builtin_frexpf(v, &exponent);
    else {
        for (int i = 0; i < sim_width<V>; i++) {
            int e;
            v[i] = __builtin_frexpf(v[i], &e);
            exponent[i] = e;
        }
        return v;
    }
}
template <class V, class I> inline V ldexp(V v, I exponent) {
    return sim_map([](sim_element<V> x, int e) -> sim_element<V> { return __builtin_ldexpf(x, e); }, v, exponent);
}
} // namespace metal
