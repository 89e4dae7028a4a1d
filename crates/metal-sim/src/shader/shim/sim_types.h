// Scalars, vectors, packed vectors; building one from parts and converting between them.
#pragma once
#include <stdint.h>

typedef unsigned char uchar;
typedef unsigned short ushort;
typedef unsigned int uint;
typedef unsigned long ulong;
// Stored as 16 bits; scalar arithmetic is f32 until the value is stored.
typedef __fp16 half;

// What a type is made of: a scalar is a vector of width 1.
template <class V> struct sim_vector {
    static constexpr int width = 1;
    typedef V element;
};
template <class V> using sim_element = typename sim_vector<V>::element;
template <class V> constexpr int sim_width = sim_vector<V>::width;

#define SIM_VECTOR(T, N)                                                                                               \
    typedef T T##N __attribute__((ext_vector_type(N)));                                                                \
    template <> struct sim_vector<T##N> {                                                                              \
        static constexpr int width = N;                                                                                \
        typedef T element;                                                                                             \
    };
#define SIM_VECTORS(T) SIM_VECTOR(T, 2) SIM_VECTOR(T, 3) SIM_VECTOR(T, 4)
SIM_VECTORS(char)
SIM_VECTORS(uchar)
SIM_VECTORS(short)
SIM_VECTORS(ushort)
SIM_VECTORS(int)
SIM_VECTORS(uint)
SIM_VECTORS(long)
SIM_VECTORS(ulong)
SIM_VECTORS(half)
SIM_VECTORS(float)
// A comparison of 32-bit vectors gives an int vector of 0 and -1: that is the vector of bool here.
typedef int2 bool2;
typedef int3 bool3;
typedef int4 bool4;

template <class V> inline sim_element<V> sim_at(V v, int i) {
    if constexpr (sim_width<V> == 1) return v;
    else return v[i];
}

template <class V, class A> inline void sim_put(V &v, int &next, A a) {
    for (int i = 0; i < sim_width<A>; i++) v[next++] = (sim_element<V>)sim_at(a, i);
}

// `V(a, b.xy, …)`: the parts in a row; one scalar fills every element.
template <class V, class... A> inline V sim_make(A... parts) {
    constexpr int given = (0 + ... + sim_width<A>);
    static_assert(given == sim_width<V> || given == 1 || given == 0, "the parts do not fill the vector");
    V v = {};
    int next = 0;
    (sim_put(v, next, parts), ...);
    if constexpr (given == 1)
        for (int i = 1; i < sim_width<V>; i++) v[i] = v[0];
    return v;
}

template <class To, class From> inline To sim_cast(From from) {
    if constexpr (sim_width<To> == 1) return (To)from;
    else return sim_make<To>(from);
}

// Vectors without padding or alignment beyond the element's, as members of buffers.
template <class T, int N> struct sim_packed {
    typedef T vector __attribute__((ext_vector_type(N)));
    T parts[N];
    sim_packed() = default;
    sim_packed(vector v) {
        for (int i = 0; i < N; i++) parts[i] = v[i];
    }
    operator vector() const {
        vector v;
        for (int i = 0; i < N; i++) v[i] = parts[i];
        return v;
    }
    T &operator[](int i) { return parts[i]; }
    T operator[](int i) const { return parts[i]; }
};
template <class T, int N> struct sim_vector<sim_packed<T, N>> {
    static constexpr int width = N;
    typedef T element;
};
typedef sim_packed<char, 4> packed_char4;
typedef sim_packed<uchar, 4> packed_uchar4;

template <class To, class From> inline To as_type(From from) {
    static_assert(sizeof(To) == sizeof(From), "as_type between sizes");
    To to;
    __builtin_memcpy(&to, &from, sizeof to);
    return to;
}

namespace metal {
using ::uint;
using ::ushort;
using ::half;
#define SIM_USE(T)                                                                                                     \
    using ::T##2;                                                                                                      \
    using ::T##3;                                                                                                      \
    using ::T##4;                                                                                                      \
    typedef sim_packed<T, 3> packed_##T##3;
SIM_USE(short)
SIM_USE(ushort)
SIM_USE(int)
SIM_USE(uint)
SIM_USE(long)
SIM_USE(ulong)
SIM_USE(half)
SIM_USE(float)
using ::bool2;
using ::bool3;
using ::bool4;
// Inside `metal::` these names are looked for here once the macros of sim_words.h stand before them.
using ::sim_make;
} // namespace metal
