// Square matrices spread over a simd-group: each lane holds neighbors of a row. Metal has 8 × 8; naga prints 16 × 16 alike, so that
// kernels for other devices' units can be run.
#pragma once

namespace metal {
template <class T, uint N> struct sim_simdgroup_matrix {
    static constexpr uint parts_of_lane = N * N / 32;
    T parts[parts_of_lane];
    // Row, and column of a lane's element.
    static uint row(uint lane) { return lane * parts_of_lane / N; }
    static uint column(uint lane, uint i) { return lane * parts_of_lane % N + i; }
    // The element at (r, c), of all lanes' values.
    template <class V, class F> static T at(const V &values, uint r, uint c, F part) {
        uint element = r * N + c;
        return part(values[element / parts_of_lane])[element % parts_of_lane];
    }
};
typedef sim_simdgroup_matrix<float, 8> simdgroup_float8x8;
typedef sim_simdgroup_matrix<half, 8> simdgroup_half8x8;
typedef sim_simdgroup_matrix<float, 16> simdgroup_float16x16;
typedef sim_simdgroup_matrix<half, 16> simdgroup_half16x16;

template <class T, uint N>
inline void simdgroup_load(sim_simdgroup_matrix<T, N> &m, const T *p, ulong stride, ulong2 origin = 0,
                           bool transposed = false, SIM_SITE) {
    uint lane = sim_meet("simdgroup_load", 0, line, column).lanes.lane;
    p += origin.y * stride + origin.x;
    for (uint i = 0; i < m.parts_of_lane; i++) {
        ulong r = m.row(lane), c = m.column(lane, i);
        m.parts[i] = transposed ? p[c * stride + r] : p[r * stride + c];
    }
}
template <class T, uint N>
inline void simdgroup_store(const sim_simdgroup_matrix<T, N> &m, T *p, ulong stride, ulong2 origin = 0,
                            bool transposed = false, SIM_SITE) {
    uint lane = sim_meet("simdgroup_store", 0, line, column).lanes.lane;
    p += origin.y * stride + origin.x;
    for (uint i = 0; i < m.parts_of_lane; i++) {
        ulong r = m.row(lane), c = m.column(lane, i);
        (transposed ? p[c * stride + r] : p[r * stride + c]) = m.parts[i];
    }
}

// d = a · b + c, each element a chain of fma over k; of coarse matrices, each sum is rounded to half.
template <class D, class A, class B, class C, uint N>
inline void simdgroup_multiply_accumulate(sim_simdgroup_matrix<D, N> &d, const sim_simdgroup_matrix<A, N> &a,
                                          const sim_simdgroup_matrix<B, N> &b, const sim_simdgroup_matrix<C, N> &c,
                                          SIM_SITE) {
    struct Both {
        sim_simdgroup_matrix<A, N> a;
        sim_simdgroup_matrix<B, N> b;
    };
    auto values = sim_meet("simdgroup_multiply_accumulate", Both{a, b}, line, column);
    uint lane = values.lanes.lane;
    bool coarse = sim_host->coarse_matrices();
    for (uint i = 0; i < d.parts_of_lane; i++) {
        float sum = c.parts[i];
        for (uint k = 0; k < N; k++) {
            float left = a.at(values, a.row(lane), k, [](const Both &both) { return both.a.parts; });
            float right = b.at(values, k, b.column(lane, i), [](const Both &both) { return both.b.parts; });
            sum = __builtin_fmaf(left, right, sum);
            if (coarse) sum = (half)sum;
        }
        d.parts[i] = sum;
    }
}
} // namespace metal
