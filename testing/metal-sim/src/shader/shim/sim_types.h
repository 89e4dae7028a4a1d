// Scalars, vectors, packed vectors, and how one becomes another.
#pragma once
#include <stdint.h>

typedef unsigned char uchar;
typedef unsigned short ushort;
typedef unsigned int uint;
typedef unsigned long ulong;

// A parameter of type `sim_if<condition>::type` takes a template out of consideration where the condition is false.
template <bool> struct sim_if {};
template <> struct sim_if<true> {
    typedef int type;
};

// f16: every operation is one of f32, rounded back.
struct half {
    __fp16 bits;
    half() = default;
    template <class A, typename sim_if<__is_arithmetic(A)>::type = 0> half(A a) : bits((__fp16)(float)a) {}
    operator float() const { return bits; }
    half operator-() const { return -(float)bits; }
#define SIM_HALF(op)                                                                                                   \
    friend half operator op(half a, half b) { return (float)a op(float) b; }                                           \
    half &operator op##=(half b) { return *this = *this op b; }
    SIM_HALF(+)
    SIM_HALF(-)
    SIM_HALF(*)
    SIM_HALF(/)
#undef SIM_HALF
#define SIM_HALF(op)                                                                                                   \
    friend bool operator op(half a, half b) { return (float)a op(float) b; }
    SIM_HALF(==)
    SIM_HALF(!=)
    SIM_HALF(<)
    SIM_HALF(<=)
    SIM_HALF(>)
    SIM_HALF(>=)
#undef SIM_HALF
};
inline half operator""h(long double v) { return (float)v; }

template <class T, int N> struct sim_vec;
// Without padding, and aligned as its elements are: a member of a buffer.
template <class T, int N> struct sim_packed;

// What a type is made of: a scalar is a vector of width 1.
template <class V> struct sim_vector {
    static constexpr int width = 1;
    typedef V element;
};
template <class T, int N> struct sim_vector<sim_vec<T, N>> {
    static constexpr int width = N;
    typedef T element;
};
template <class T, int N> struct sim_vector<sim_packed<T, N>> {
    static constexpr int width = N;
    typedef T element;
};
template <class V> using sim_element = typename sim_vector<V>::element;
template <class V> constexpr int sim_width = sim_vector<V>::width;

template <class V> inline sim_element<V> sim_at(const V &v, int i) {
    if constexpr (sim_width<V> == 1) return v;
    else return v[i];
}

// The compiler's own vectors, for speed, where it has them.
template <class T, int N> struct sim_native {
    static constexpr bool exists = true;
    typedef T type __attribute__((ext_vector_type(N)));
};
template <int N> struct sim_native<half, N> {
    static constexpr bool exists = false;
    typedef uint16_t type __attribute__((ext_vector_type(N)));
};
template <int N> struct sim_native<bool, N> {
    static constexpr bool exists = false;
    typedef uint8_t type __attribute__((ext_vector_type(N)));
};

template <class T, int N> struct sim_parts;
#define SIM_PARTS(N, ...)                                                                                              \
    template <class T> struct sim_parts<T, N> {                                                                        \
        union {                                                                                                        \
            typename sim_native<T, N>::type native;                                                                    \
            T parts[N];                                                                                                \
            struct {                                                                                                   \
                T __VA_ARGS__;                                                                                         \
            };                                                                                                         \
        };                                                                                                             \
    };
SIM_PARTS(2, x, y)
SIM_PARTS(3, x, y, z)
SIM_PARTS(4, x, y, z, w)

template <class T, int N> struct sim_vec : sim_parts<T, N> {
    sim_vec() = default;
    // One scalar fills every element.
    sim_vec(T all) {
        for (int i = 0; i < N; i++) this->parts[i] = all;
    }
    // The parts in a row, each converted; of a single vector, its elements.
    template <class... A, typename sim_if<(0 + ... + sim_width<A>) == N>::type = 0> explicit sim_vec(const A &...a) {
        int next = 0;
        (put(next, a), ...);
    }
    T &operator[](int i) { return this->parts[i]; }
    T operator[](int i) const { return this->parts[i]; }
    template <int... I> sim_vec<T, sizeof...(I)> swizzle() const {
        return sim_vec<T, sizeof...(I)>(this->parts[I]...);
    }

#define SIM_OPERATOR(op)                                                                                               \
    friend sim_vec operator op(sim_vec a, sim_vec b) {                                                                 \
        if constexpr (sim_native<T, N>::exists) a.native = a.native op b.native;                                       \
        else                                                                                                           \
            for (int i = 0; i < N; i++) a[i] = a[i] op b[i];                                                           \
        return a;                                                                                                      \
    }                                                                                                                  \
    sim_vec &operator op##=(sim_vec b) { return *this = *this op b; }
    SIM_OPERATOR(+)
    SIM_OPERATOR(-)
    SIM_OPERATOR(*)
    SIM_OPERATOR(/)
    SIM_OPERATOR(%)
    SIM_OPERATOR(&)
    SIM_OPERATOR(|)
    SIM_OPERATOR(^)
#undef SIM_OPERATOR
    // By amounts of any integer type.
#define SIM_OPERATOR(op)                                                                                               \
    template <class A> friend sim_vec operator op(sim_vec v, A amount) {                                               \
        for (int i = 0; i < N; i++) v[i] = v[i] op sim_at(amount, i);                                                  \
        return v;                                                                                                      \
    }                                                                                                                  \
    template <class A> sim_vec &operator op##=(A amount) { return *this = *this op amount; }
    SIM_OPERATOR(<<)
    SIM_OPERATOR(>>)
#undef SIM_OPERATOR
#define SIM_OPERATOR(op)                                                                                               \
    friend sim_vec<bool, N> operator op(sim_vec a, sim_vec b) {                                                        \
        sim_vec<bool, N> r;                                                                                            \
        for (int i = 0; i < N; i++) r[i] = a[i] op b[i];                                                               \
        return r;                                                                                                      \
    }
    SIM_OPERATOR(==)
    SIM_OPERATOR(!=)
    SIM_OPERATOR(<)
    SIM_OPERATOR(<=)
    SIM_OPERATOR(>)
    SIM_OPERATOR(>=)
    SIM_OPERATOR(&&)
    SIM_OPERATOR(||)
#undef SIM_OPERATOR
#define SIM_OPERATOR(op)                                                                                               \
    sim_vec operator op() const {                                                                                      \
        sim_vec r;                                                                                                     \
        for (int i = 0; i < N; i++) r[i] = op this->parts[i];                                                          \
        return r;                                                                                                      \
    }
    SIM_OPERATOR(-)
    SIM_OPERATOR(~)
    SIM_OPERATOR(!)
#undef SIM_OPERATOR

  private:
    template <class A> void put(int &next, const A &a) {
        for (int i = 0; i < sim_width<A>; i++) this->parts[next++] = (T)sim_at(a, i);
    }
};

template <class T, int N> struct sim_packed {
    T parts[N];
    sim_packed() = default;
    sim_packed(const sim_vec<T, N> &v) {
        for (int i = 0; i < N; i++) parts[i] = v[i];
    }
    template <class A> explicit sim_packed(const sim_vec<A, N> &v) : sim_packed(sim_vec<T, N>(v)) {}
    operator sim_vec<T, N>() const { return sim_vec<T, N>(*this); }
    T &operator[](int i) { return parts[i]; }
    T operator[](int i) const { return parts[i]; }
};

template <class To, class From> inline To as_type(From from) {
    static_assert(sizeof(To) == sizeof(From), "as_type between sizes");
    To to;
    __builtin_memcpy(&to, &from, sizeof to);
    return to;
}

#define SIM_NAMES(T)                                                                                                   \
    typedef sim_vec<T, 2> T##2;                                                                                        \
    typedef sim_vec<T, 3> T##3;                                                                                        \
    typedef sim_vec<T, 4> T##4;                                                                                        \
    typedef sim_packed<T, 2> packed_##T##2;                                                                            \
    typedef sim_packed<T, 3> packed_##T##3;                                                                            \
    typedef sim_packed<T, 4> packed_##T##4;                                                                            \
    namespace metal {                                                                                                  \
    using ::T##2;                                                                                                      \
    using ::T##3;                                                                                                      \
    using ::T##4;                                                                                                      \
    using ::packed_##T##2;                                                                                             \
    using ::packed_##T##3;                                                                                             \
    using ::packed_##T##4;                                                                                             \
    }
SIM_NAMES(bool)
SIM_NAMES(char)
SIM_NAMES(uchar)
SIM_NAMES(short)
SIM_NAMES(ushort)
SIM_NAMES(int)
SIM_NAMES(uint)
SIM_NAMES(long)
SIM_NAMES(ulong)
SIM_NAMES(half)
SIM_NAMES(float)

namespace metal {
using ::half;
using ::uchar;
using ::uint;
using ::ulong;
using ::ushort;
} // namespace metal
