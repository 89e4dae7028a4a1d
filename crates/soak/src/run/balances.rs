//! Balances: whether an engine without requests has given everything back.

use super::Run;
use crate::clock::Clock;
use crate::judge;
use crate::record::{Idle, Unbalanced};
use crate::subject::{Gauges, Subject};
use mlx_serving_metal_layer::Switched;

/// Moments in which an engine without requests has to have given everything back.
const SETTLE: u32 = 5000;

impl Run<'_> {
    /// Balances of an engine without requests.
    pub(super) fn balance(&mut self) {
        let Some(gauges) = settle(self.subject, self.clock) else { return };
        let idle = idle(&gauges, self.base);
        for fault in judge::unbalanced(&idle) {
            self.unbalanced(fault);
        }
        self.window.idle = Some(idle);
        *self.window.counts.entry("looks at balances".into()).or_default() += 1;
        self.look();
        // To settle may take as long as a pause.
        self.ran = self.clock.now();
    }

    /// Notes a balance that did not come out, once a window.
    pub(super) fn unbalanced(&mut self, fault: Unbalanced) {
        if self.window.unbalanced.iter().all(|known| known.check != fault.check) {
            self.fault("unbalanced", format!("{}: {}", fault.check, fault.detail));
            self.window.unbalanced.push(fault);
        }
    }
}

/// Waits until an engine without requests has nothing to do; its state then, or after the longest time that it may take.
pub(super) fn settle(subject: &dyn Subject, clock: &dyn Clock) -> Option<Gauges> {
    for _ in 0..SETTLE {
        let gauges = subject.gauges()?;
        let idle = idle(&gauges, None);
        let ring = idle.ring.is_none_or(|(free, all)| free == all);
        if idle.requests == [0; 3] && idle.kv_usage == 0.0 && ring && idle.blit.is_none_or(|(pending, _)| pending == 0)
        {
            return Some(gauges);
        }
        clock.moment();
    }
    subject.gauges()
}

/// Balances, beside those of the pool when the model was opened.
fn idle(gauges: &Gauges, base: Option<(u64, u64)>) -> Idle {
    let stats = &gauges.stats;
    let pool = stats.memory_pool.counters();
    let live = pool.map(|pool| (pool.total_acquired.saturating_sub(pool.total_released), pool.bytes_in_use));
    let (then_live, then_bytes) = base.or(live).unwrap_or_default();
    let mut fallen_back = Vec::new();
    let mut fell = |name: &str, reason: Option<&String>| {
        fallen_back.extend(reason.map(|reason| format!("{name}: {reason}")));
    };
    fell("memory_pool", reason(&stats.memory_pool));
    fell("blit_queue", reason(&stats.blit_queue));
    fell("command_buffer_ring", reason(&stats.command_buffer_ring));
    Idle {
        pool_live: live.map(|(now, _)| (now, then_live)),
        pool_bytes: live.map(|(_, now)| (now, then_bytes)),
        ring: stats.command_buffer_ring.counters().map(|ring| (ring.available_count, ring.ring_size)),
        blit: stats.blit_queue.counters().map(|blit| (blit.pending_operations, blit.checksum_failures)),
        kv_usage: gauges.kv_usage,
        requests: [gauges.running, gauges.waiting, gauges.live],
        fallen_back,
    }
}

fn reason<T>(switched: &Switched<T>) -> Option<&String> {
    match switched {
        Switched::Off { reason, .. } => reason.as_ref(),
        Switched::On { .. } => None,
    }
}
