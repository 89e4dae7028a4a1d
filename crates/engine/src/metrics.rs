use crate::{FinishReason, Usage};
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::fmt::Write as _;
use std::sync::atomic::AtomicU64;

type FloatGauge = Gauge<f64, AtomicU64>;

/// The reason label of finished requests.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Finished {
    finished_reason: Reason,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Reason {
    Finish(FinishReason),
    Error,
}

impl EncodeLabelValue for Reason {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        encoder.write_str(match self {
            Reason::Finish(reason) => reason.as_str(),
            Reason::Error => "error",
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CacheConfig {
    block_size: u64,
    num_gpu_blocks: u64,
}

/// The engine's counters, under vLLM's names, so that dashboards and gateways work unchanged.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Sequences that run.
    pub running: Gauge,
    /// Requests that wait.
    pub waiting: Gauge,
    /// Share of the KV cache's blocks in use.
    pub kv_usage: FloatGauge,
    /// Tokens of prompts computed or found cached.
    pub prompt_tokens: Counter,
    /// Tokens generated.
    pub generation_tokens: Counter,
    /// Prompt tokens looked up in the prefix cache.
    pub prefix_queries: Counter,
    /// Prompt tokens found there.
    pub prefix_hits: Counter,
    /// Sequences that gave their blocks back.
    pub preemptions: Counter,
    /// Seconds from arrival to the first token.
    pub time_to_first_token: Histogram,
    /// Seconds between two tokens of one answer.
    pub inter_token: Histogram,
    end_to_end: Histogram,
    queue: Histogram,
    prefill: Histogram,
    decode: Histogram,
    /// Spilled KV blocks.
    pub(crate) spill: SpillMetrics,
    finished: Family<Finished, Counter>,
    cache_config: Family<CacheConfig, Gauge>,
}

/// What became of KV blocks of the prefix cache that the device had no more room for. Clones share their counts.
#[derive(Debug, Clone, Default)]
pub(crate) struct SpillMetrics {
    /// Blocks that were copied out.
    pub stored: Counter,
    /// Blocks that were copied back in the place of computing them again.
    pub restored: Counter,
    /// Blocks that were given up: no room, or the disk is full.
    pub dropped: Counter,
    /// Blocks that came back different or not at all, and were computed again.
    pub damaged: Counter,
}

const FIRST_TOKEN_S: [f64; 18] =
    [0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0];
const BETWEEN_TOKENS_S: [f64; 17] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0];
const REQUEST_S: [f64; 16] = [0.05, 0.1, 0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 60.0, 120.0];

impl Default for Metrics {
    fn default() -> Self {
        Self {
            running: Gauge::default(),
            waiting: Gauge::default(),
            kv_usage: FloatGauge::default(),
            prompt_tokens: Counter::default(),
            generation_tokens: Counter::default(),
            prefix_queries: Counter::default(),
            prefix_hits: Counter::default(),
            preemptions: Counter::default(),
            time_to_first_token: Histogram::new(FIRST_TOKEN_S),
            inter_token: Histogram::new(BETWEEN_TOKENS_S),
            end_to_end: Histogram::new(REQUEST_S),
            queue: Histogram::new(REQUEST_S),
            prefill: Histogram::new(REQUEST_S),
            decode: Histogram::new(REQUEST_S),
            spill: SpillMetrics::default(),
            finished: Family::default(),
            cache_config: Family::default(),
        }
    }
}

impl Metrics {
    /// Notes the shape of the KV cache.
    pub(crate) fn configure(&self, block_tokens: usize, blocks: usize) {
        let label = CacheConfig { block_size: block_tokens as u64, num_gpu_blocks: blocks as u64 };
        self.cache_config.get_or_create(&label).set(1);
    }

    /// Notes the end of an answer.
    pub(crate) fn finish(&self, reason: FinishReason, usage: &Usage) {
        self.finished.get_or_create(&Finished { finished_reason: Reason::Finish(reason) }).inc();
        self.end_to_end.observe(usage.queue_s + usage.prefill_s + usage.decode_s);
        self.queue.observe(usage.queue_s);
        self.prefill.observe(usage.prefill_s);
        self.decode.observe(usage.decode_s);
    }

    /// Notes a request that failed.
    pub(crate) fn fail(&self) {
        self.finished.get_or_create(&Finished { finished_reason: Reason::Error }).inc();
    }

    /// Registers all of them; the caller's registry adds the label `model_name`.
    pub fn register(&self, r: &mut Registry) {
        r.register("vllm:num_requests_running", "Sequences that run", self.running.clone());
        r.register("vllm:num_requests_waiting", "Requests that wait", self.waiting.clone());
        r.register("vllm:kv_cache_usage_perc", "Share of KV blocks in use, 0 to 1", self.kv_usage.clone());
        r.register("vllm:cache_config_info", "Shape of the KV cache", self.cache_config.clone());
        r.register("vllm:prompt_tokens", "Prompt tokens taken in", self.prompt_tokens.clone());
        r.register("vllm:generation_tokens", "Tokens generated", self.generation_tokens.clone());
        r.register(
            "vllm:prefix_cache_queries",
            "Prompt tokens looked up in the prefix cache",
            self.prefix_queries.clone(),
        );
        r.register("vllm:prefix_cache_hits", "Prompt tokens found in the prefix cache", self.prefix_hits.clone());
        r.register("vllm:num_preemptions", "Sequences that gave their blocks back", self.preemptions.clone());
        r.register("kv_spill_stored_blocks", "KV blocks copied out of the device", self.spill.stored.clone());
        r.register("kv_spill_restored_blocks", "KV blocks copied back", self.spill.restored.clone());
        r.register("kv_spill_dropped_blocks", "Spilled KV blocks given up", self.spill.dropped.clone());
        r.register("kv_spill_damaged_blocks", "Spilled KV blocks that came back wrong", self.spill.damaged.clone());
        r.register("vllm:request_success", "Answers by why they ended", self.finished.clone());
        r.register("vllm:time_to_first_token_seconds", "Arrival to first token", self.time_to_first_token.clone());
        r.register("vllm:inter_token_latency_seconds", "Token to token", self.inter_token.clone());
        r.register("vllm:e2e_request_latency_seconds", "Arrival to end", self.end_to_end.clone());
        r.register("vllm:request_queue_time_seconds", "Arrival to first computed", self.queue.clone());
        r.register("vllm:request_prefill_time_seconds", "First computed to first token", self.prefill.clone());
        r.register("vllm:request_decode_time_seconds", "First token to last", self.decode.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exposition_has_the_names_that_dashboards_know() {
        let metrics = Metrics::default();
        metrics.configure(16, 128);
        metrics.prompt_tokens.inc_by(5);
        metrics.finish(FinishReason::Stop, &Usage { decode_s: 0.2, ..Usage::default() });
        metrics.fail();
        let mut registry = Registry::default();
        metrics.register(registry.sub_registry_with_label(("model_name".into(), "m".into())));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            "vllm:prompt_tokens_total{model_name=\"m\"} 5",
            "vllm:request_success_total{model_name=\"m\",finished_reason=\"stop\"} 1",
            "vllm:request_success_total{model_name=\"m\",finished_reason=\"error\"} 1",
            "vllm:cache_config_info{model_name=\"m\",block_size=\"16\",num_gpu_blocks=\"128\"} 1",
            "vllm:e2e_request_latency_seconds_bucket{model_name=\"m\",le=\"0.3\"} 1",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
