// Notes a fault, unless there is one. Codes are those of fault.rs.
fn raise(code: u32, value: u32) {
    if (atomicCompareExchangeWeak(&fault[0], 0u, (params.head.op << 8u) | code).exchanged) {
        atomicStore(&fault[1], value);
    }
}
