// Barriers and simd operations: the thread's fiber waits in the host until the others have come.
#pragma once

// Where a thread waits. Threads meet only at the same call, told apart by its place in the text.
struct SimSite {
    const char *call;
    uint line, column;
};
// What a simd operation's threads brought: `size` bytes for each of `count` lanes, 64 apart.
struct SimLanes {
    const unsigned char *values;
    uint lane, count;
};
struct SimHost {
    void (*barrier)(const SimSite *);
    SimLanes (*simd)(const SimSite *, const void *value, uint size);
    bool (*coarse_matrices)();
};
static const SimHost *sim_host;

constexpr uint sim_value_bytes = 64;
#define SIM_SITE uint line = __builtin_LINE(), uint column = __builtin_COLUMN()

template <class T> struct SimValues {
    SimLanes lanes;
    T operator[](uint lane) const {
        // A lane that is not there: bytes that are wrong wherever they are used.
        T value;
        if (lane >= lanes.count) __builtin_memset(&value, 0xA5, sizeof value);
        else __builtin_memcpy(&value, lanes.values + lane * sim_value_bytes, sizeof value);
        return value;
    }
};
template <class T> inline SimValues<T> sim_meet(const char *call, T value, uint line, uint column) {
    static_assert(sizeof(T) <= sim_value_bytes, "too large for a lane's slot");
    SimSite site = {call, line, column};
    return {sim_host->simd(&site, &value, sizeof value)};
}

namespace metal {
enum class mem_flags { mem_none = 0, mem_device = 1, mem_threadgroup = 2, mem_texture = 4 };
inline void threadgroup_barrier(mem_flags, SIM_SITE) {
    SimSite site = {"threadgroup_barrier", line, column};
    sim_host->barrier(&site);
}
inline void simdgroup_barrier(mem_flags, SIM_SITE) { sim_meet("simdgroup_barrier", 0, line, column); }

// In a fixed tree: halves are folded onto each other, whatever the seed.
template <class T, class F> inline T sim_fold(const SimValues<T> &values, F f) {
    T part[32];
    uint n = values.lanes.count;
    for (uint i = 0; i < n; i++) part[i] = values[i];
    for (uint half_width = 16; half_width > 0; half_width /= 2)
        for (uint i = 0; i < half_width && i + half_width < n; i++) part[i] = f(part[i], part[i + half_width]);
    return part[0];
}
#define SIM_REDUCE(name, expression)                                                                                   \
    template <class T> inline T name(T v, SIM_SITE) {                                                                  \
        return sim_fold(sim_meet(#name, v, line, column), [](T x, T y) -> T { return expression; });                   \
    }
SIM_REDUCE(simd_sum, x + y)
SIM_REDUCE(simd_product, x *y)
SIM_REDUCE(simd_min, metal::min(x, y))
SIM_REDUCE(simd_max, metal::max(x, y))
SIM_REDUCE(simd_and, x &y)
SIM_REDUCE(simd_or, x | y)
SIM_REDUCE(simd_xor, x ^ y)
SIM_REDUCE(simd_all, x &&y)
SIM_REDUCE(simd_any, x || y)

// From lane 0 on; `inclusive` counts the lane itself.
#define SIM_PREFIX(name, start, inclusive, op)                                                                         \
    template <class T> inline T name(T v, SIM_SITE) {                                                                  \
        auto values = sim_meet(#name, v, line, column);                                                                \
        T r = (T)start;                                                                                                \
        for (uint i = 0; i < values.lanes.lane + inclusive; i++) r = r op values[i];                                   \
        return r;                                                                                                      \
    }
SIM_PREFIX(simd_prefix_exclusive_sum, 0, 0, +)
SIM_PREFIX(simd_prefix_inclusive_sum, 0, 1, +)
SIM_PREFIX(simd_prefix_exclusive_product, 1, 0, *)
SIM_PREFIX(simd_prefix_inclusive_product, 1, 1, *)

struct simd_vote {
    ulong bits;
    explicit operator ulong() const { return bits; }
};
inline simd_vote simd_ballot(bool v, SIM_SITE) {
    auto values = sim_meet("simd_ballot", v, line, column);
    ulong bits = 0;
    for (uint i = 0; i < values.lanes.count; i++) bits |= (ulong)values[i] << i;
    return {bits};
}

// `from` is the lane read, of `lane`, the own one, and `n`, the argument.
#define SIM_SHUFFLE(name, from)                                                                                        \
    template <class T> inline T name(T v, ushort n, SIM_SITE) {                                                        \
        auto values = sim_meet(#name, v, line, column);                                                                \
        uint lane = values.lanes.lane;                                                                                 \
        return values[from];                                                                                           \
    }
SIM_SHUFFLE(simd_broadcast, (void(lane), n))
SIM_SHUFFLE(simd_shuffle, (void(lane), n))
SIM_SHUFFLE(simd_shuffle_up, lane - n)
SIM_SHUFFLE(simd_shuffle_down, lane + n)
SIM_SHUFFLE(simd_shuffle_xor, lane ^ n)
SIM_SHUFFLE(quad_broadcast, (lane & ~3u) + n)
SIM_SHUFFLE(quad_shuffle, (lane & ~3u) + n)
SIM_SHUFFLE(quad_shuffle_xor, lane ^ n)
template <class T> inline T simd_broadcast_first(T v, SIM_SITE) {
    return sim_meet("simd_broadcast_first", v, line, column)[0];
}
} // namespace metal
