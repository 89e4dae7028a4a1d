// Atomics. Threadgroups run on several host threads at once, so these are the host's own.
#pragma once

template <class T> struct sim_atomic {
    T value;
};
// A parameter that takes no part in deduction.
template <class T> struct sim_same_as {
    typedef T type;
};
template <class T> using sim_same = typename sim_same_as<T>::type;

// naga writes its compare-and-exchange helper once for each address space; these being one here, the second takes this.
template <class A> struct sim_no_address {};

namespace metal {
typedef sim_atomic<int> atomic_int;
typedef sim_atomic<uint> atomic_uint;
typedef sim_atomic<ulong> atomic_ulong;
typedef sim_atomic<float> atomic_float;
enum memory_order { memory_order_relaxed };

template <class T> inline T atomic_load_explicit(const sim_atomic<T> *a, memory_order) {
    T value;
    __atomic_load(&a->value, &value, __ATOMIC_RELAXED);
    return value;
}
template <class T> inline void atomic_store_explicit(sim_atomic<T> *a, sim_same<T> value, memory_order) {
    __atomic_store(&a->value, &value, __ATOMIC_RELAXED);
}
template <class T> inline T atomic_exchange_explicit(sim_atomic<T> *a, sim_same<T> value, memory_order) {
    T old;
    __atomic_exchange(&a->value, &value, &old, __ATOMIC_RELAXED);
    return old;
}
template <class T>
inline bool atomic_compare_exchange_weak_explicit(sim_atomic<T> *a, T *expected, sim_same<T> value, memory_order,
                                                  memory_order) {
    return __atomic_compare_exchange(&a->value, expected, &value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
}

// `expression` makes the new value of `x`, the old one, and `y`.
#define SIM_FETCH(name, expression)                                                                                    \
    template <class T> inline T atomic_##name##_explicit(sim_atomic<T> *a, sim_same<T> y, memory_order order) {        \
        T x = atomic_load_explicit(a, order);                                                                          \
        while (!atomic_compare_exchange_weak_explicit(a, &x, expression, order, order)) {}                             \
        return x;                                                                                                      \
    }
SIM_FETCH(fetch_add, x + y)
SIM_FETCH(fetch_sub, x - y)
SIM_FETCH(fetch_and, x &y)
SIM_FETCH(fetch_or, x | y)
SIM_FETCH(fetch_xor, x ^ y)
SIM_FETCH(fetch_min, sim_min<T>(x, y))
SIM_FETCH(fetch_max, sim_max<T>(x, y))
SIM_FETCH(min, sim_min<T>(x, y))
SIM_FETCH(max, sim_max<T>(x, y))
} // namespace metal
