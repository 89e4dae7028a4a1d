//! Every op, computed naively on host slices: what a backend's results are compared with.
