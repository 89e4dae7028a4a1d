// 8 × 8 matrices spread over a simd-group: each lane holds two neighbours of a row.
#pragma once

namespace metal {
template <class T> struct sim_simdgroup_matrix {
    T parts[2];
};
typedef sim_simdgroup_matrix<float> simdgroup_float8x8;
typedef sim_simdgroup_matrix<half> simdgroup_half8x8;

// Row and first column of a lane's two elements.
inline uint sim_row(uint lane) { return lane / 4; }
inline uint sim_column(uint lane) { return lane % 4 * 2; }

template <class T>
inline void simdgroup_load(sim_simdgroup_matrix<T> &m, const T *p, ulong stride, ulong2 origin = 0,
                           bool transposed = false, SIM_SITE) {
    uint lane = sim_meet("simdgroup_load", 0, line, column).lanes.lane;
    p += origin.y * stride + origin.x;
    for (uint i = 0; i < 2; i++) {
        ulong r = sim_row(lane), c = sim_column(lane) + i;
        m.parts[i] = transposed ? p[c * stride + r] : p[r * stride + c];
    }
}
template <class T>
inline void simdgroup_store(const sim_simdgroup_matrix<T> &m, T *p, ulong stride, ulong2 origin = 0,
                            bool transposed = false, SIM_SITE) {
    uint lane = sim_meet("simdgroup_store", 0, line, column).lanes.lane;
    p += origin.y * stride + origin.x;
    for (uint i = 0; i < 2; i++) {
        ulong r = sim_row(lane), c = sim_column(lane) + i;
        (transposed ? p[c * stride + r] : p[r * stride + c]) = m.parts[i];
    }
}

// d = a · b + c, each element a chain of fma over k; of coarse matrices, each sum is rounded to half.
template <class D, class A, class B, class C>
inline void simdgroup_multiply_accumulate(sim_simdgroup_matrix<D> &d, const sim_simdgroup_matrix<A> &a,
                                          const sim_simdgroup_matrix<B> &b, const sim_simdgroup_matrix<C> &c,
                                          SIM_SITE) {
    struct Both {
        sim_simdgroup_matrix<A> a;
        sim_simdgroup_matrix<B> b;
    };
    auto values = sim_meet("simdgroup_multiply_accumulate", Both{a, b}, line, column);
    uint lane = values.lanes.lane, row = sim_row(lane), first = sim_column(lane);
    float sum[2] = {c.parts[0], c.parts[1]};
    bool coarse = sim_host->coarse_matrices();
    for (uint k = 0; k < 8; k++) {
        float left = values[row * 4 + k / 2].a.parts[k % 2];
        auto right = values[k * 4 + first / 2].b;
        for (uint i = 0; i < 2; i++) {
            sum[i] = __builtin_fmaf(left, right.parts[i], sum[i]);
            if (coarse) sum[i] = (half)sum[i];
        }
    }
    for (uint i = 0; i < 2; i++) d.parts[i] = sum[i];
}
} // namespace metal
