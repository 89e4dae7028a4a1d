//! Figures of a run.

use super::arm::Run;

/// Something measured in every run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Figure {
    Throughput,
    ColdTtft,
    RestoreTtft,
    Utilization,
    Ttft,
    BetweenTokens,
    AllocationsPerToken,
    EncodeMs,
    Overlap,
    Reused,
}

impl Figure {
    /// All of them, in the order of tables.
    pub(crate) const ALL: [Figure; 10] = [
        Figure::Throughput,
        Figure::ColdTtft,
        Figure::RestoreTtft,
        Figure::Utilization,
        Figure::Ttft,
        Figure::BetweenTokens,
        Figure::AllocationsPerToken,
        Figure::EncodeMs,
        Figure::Overlap,
        Figure::Reused,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Figure::Throughput => "throughput, tok/s",
            Figure::ColdTtft => "cold start to first token, ms",
            Figure::RestoreTtft => "evicted prefix to first token, ms",
            Figure::Utilization => "device utilization, %",
            Figure::Ttft => "time to first token, ms",
            Figure::BetweenTokens => "between tokens, ms",
            Figure::AllocationsPerToken => "device allocations a token",
            Figure::EncodeMs => "host encode time a step, ms",
            Figure::Overlap => "copies overlapped by compute, %",
            Figure::Reused => "prompt tokens not computed again, %",
        }
    }

    /// Its value in a run; `None` where the run has none.
    pub(crate) fn of(self, run: &Run) -> Option<f64> {
        Some(match self {
            Figure::Throughput => run.measured.throughput_tok_s,
            Figure::ColdTtft => run.cold_ttft_ms,
            Figure::RestoreTtft => return run.restore_ttft_ms,
            Figure::Utilization => 100.0 * run.measured.device_utilization,
            Figure::Ttft => run.measured.ttft_ms.p50,
            Figure::BetweenTokens => run.measured.itl_ms.p50,
            Figure::AllocationsPerToken => run.measured.allocations_per_token,
            Figure::EncodeMs => run.measured.encode_ms_per_step,
            Figure::Overlap => return run.overlap_ratio.map(|ratio| 100.0 * ratio),
            Figure::Reused => 100.0 * run.measured.reused_share,
        })
    }
}
