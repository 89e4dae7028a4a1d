// What the generated wrappers need: a kernel's arguments, whatever their types, and where a thread stands.
#pragma once

// Becomes the reference or pointer that the parameter wants.
struct SimArgument {
    void *pointer;
    template <class T> operator T &() const { return *(T *)pointer; }
    template <class T> operator T *() const { return (T *)pointer; }
};

// The threadgroup being run. Same layout in group.rs.
struct SimGroup {
    uint group[3], groups[3], threads[3];
};

struct SimPosition {
    uint x, y, z;
    operator uint3() const { return uint3{x, y, z}; }
    operator uint2() const { return uint2{x, y}; }
    operator uint() const { return x; }
    operator ushort3() const { return ushort3{(ushort)x, (ushort)y, (ushort)z}; }
    operator ushort2() const { return ushort2{(ushort)x, (ushort)y}; }
    operator ushort() const { return x; }
};

struct SimThread {
    const SimGroup &g;
    uint index;
    SimPosition at;
    SimThread(const SimGroup &g, uint index)
        : g(g), index(index),
          at{index % g.threads[0], index / g.threads[0] % g.threads[1], index / g.threads[0] / g.threads[1]} {}
    void next() {
        index++;
        if (++at.x < g.threads[0]) return;
        at.x = 0;
        if (++at.y < g.threads[1]) return;
        at.y = 0;
        at.z++;
    }
    static SimPosition of(const uint (&v)[3]) { return {v[0], v[1], v[2]}; }
    SimPosition threadgroup_position_in_grid() const { return of(g.group); }
    SimPosition threadgroups_per_grid() const { return of(g.groups); }
    SimPosition threads_per_threadgroup() const { return of(g.threads); }
    SimPosition dispatch_threads_per_threadgroup() const { return of(g.threads); }
    SimPosition thread_position_in_threadgroup() const { return at; }
    SimPosition thread_position_in_grid() const {
        return {g.group[0] * g.threads[0] + at.x, g.group[1] * g.threads[1] + at.y, g.group[2] * g.threads[2] + at.z};
    }
    SimPosition threads_per_grid() const {
        return {g.groups[0] * g.threads[0], g.groups[1] * g.threads[1], g.groups[2] * g.threads[2]};
    }
    uint thread_index_in_threadgroup() const { return index; }
    uint thread_index_in_simdgroup() const { return index % 32; }
    uint simdgroup_index_in_threadgroup() const { return index / 32; }
    uint simdgroups_per_threadgroup() const { return (g.threads[0] * g.threads[1] * g.threads[2] + 31) / 32; }
    uint thread_execution_width() const { return 32; }
    uint threads_per_simdgroup() const { return 32; }
};

// Bytes and alignment behind each parameter, in order, and whether the elements are structs; zeros for values.
struct SimLayout {
    ulong size, align, is_class;
};
template <class T> struct sim_item {
    typedef T type;
};
template <class T, ulong N> struct sim_item<T[N]> : sim_item<T> {};
template <class T> struct sim_layout {
    static constexpr SimLayout value = {0, 0, 0};
};
template <class T> struct sim_layout<T &> {
    static constexpr SimLayout value = {sizeof(T), alignof(T), __is_class(typename sim_item<T>::type)};
};
template <class T> struct sim_layout<T *> : sim_layout<T &> {};
template <class... P> struct SimLayouts {
    SimLayout of[sizeof...(P) + 1];
};
template <class... P> constexpr SimLayouts<P...> sim_layouts(void (*)(P...)) {
    return {{sim_layout<P>::value..., {0, 0, 0}}};
}
