// Matrices of C columns with R rows.
#pragma once

template <class T, int C, int R> struct sim_matrix {
    typedef sim_vec<T, R> column;
    typedef sim_vec<T, C> row;
    column columns[C];

    sim_matrix() = default;
    template <class... V> sim_matrix(V... v) : columns{v...} {
        static_assert(sizeof...(V) == C, "one vector a column");
    }
    column &operator[](int i) { return columns[i]; }
    column operator[](int i) const { return columns[i]; }

    template <class F> sim_matrix map(F f) const {
        sim_matrix r;
        for (int i = 0; i < C; i++) r[i] = f(i);
        return r;
    }
    sim_matrix operator+(const sim_matrix &m) const {
        return map([&](int i) { return columns[i] + m[i]; });
    }
    sim_matrix operator-(const sim_matrix &m) const {
        return map([&](int i) { return columns[i] - m[i]; });
    }
    sim_matrix operator-() const {
        return map([&](int i) { return -columns[i]; });
    }
    sim_matrix operator*(T s) const {
        return map([&](int i) { return columns[i] * s; });
    }
    friend sim_matrix operator*(T s, const sim_matrix &m) { return m * s; }
    column operator*(row v) const {
        column r = columns[0] * v[0];
        for (int i = 1; i < C; i++) r += columns[i] * v[i];
        return r;
    }
    friend row operator*(column v, const sim_matrix &m) {
        row r;
        for (int i = 0; i < C; i++) r[i] = metal::dot(v, m[i]);
        return r;
    }
    template <int K> sim_matrix<T, K, R> operator*(const sim_matrix<T, K, C> &m) const {
        sim_matrix<T, K, R> r;
        for (int i = 0; i < K; i++) r[i] = *this * m[i];
        return r;
    }
};

namespace metal {
#define SIM_MATRICES(T, C)                                                                                             \
    typedef sim_matrix<T, C, 2> T##C##x2;                                                                              \
    typedef sim_matrix<T, C, 3> T##C##x3;                                                                              \
    typedef sim_matrix<T, C, 4> T##C##x4;
SIM_MATRICES(float, 2)
SIM_MATRICES(float, 3)
SIM_MATRICES(float, 4)
SIM_MATRICES(half, 2)
SIM_MATRICES(half, 3)
SIM_MATRICES(half, 4)

template <class T, int C, int R> inline sim_matrix<T, R, C> transpose(const sim_matrix<T, C, R> &m) {
    sim_matrix<T, R, C> r;
    for (int i = 0; i < C; i++)
        for (int j = 0; j < R; j++) r[j][i] = m[i][j];
    return r;
}
template <class T, int N> inline T determinant(const sim_matrix<T, N, N> &m) {
    if constexpr (N == 2) return m[0][0] * m[1][1] - m[1][0] * m[0][1];
    else {
        // Along the first row.
        T sum = 0;
        for (int skip = 0; skip < N; skip++) {
            sim_matrix<T, N - 1, N - 1> minor;
            for (int i = 0; i < N - 1; i++)
                for (int j = 0; j < N - 1; j++) minor[i][j] = m[i < skip ? i : i + 1][j + 1];
            T part = m[skip][0] * determinant(minor);
            sum = skip % 2 ? sum - part : sum + part;
        }
        return sum;
    }
}
} // namespace metal
