use crate::request::{FinishReason, Request, Usage};
use mlx_serving_metrics::{Counter, Gauge, Histogram, Labeled, lengths};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};

type FloatGauge = Gauge<f64, AtomicU64>;

/// The engine's counters, under vLLM's names, so that dashboards and gateways work unchanged. Clones share their counts.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Sequences that run.
    pub running: Gauge,
    /// Requests that wait.
    pub waiting: Gauge,
    /// Share of the KV cache's blocks in use.
    pub kv_usage: FloatGauge,
    /// Tokens of prompts computed or found cached, once a request.
    pub prompt_tokens: Counter,
    /// Tokens generated.
    pub generation_tokens: Counter,
    /// Prompt tokens looked up in the prefix cache when a request was first admitted.
    pub prefix_queries: Counter,
    /// Prompt tokens found there.
    pub prefix_hits: Counter,
    /// Sequences that gave their blocks back.
    pub preemptions: Counter,
    /// Seconds from arrival to the first token.
    pub time_to_first_token: Histogram,
    /// Seconds between two tokens of one answer.
    pub inter_token: Histogram,
    /// Rows of a step.
    pub(crate) step_tokens: Histogram,
    /// Spilled KV blocks.
    pub(crate) spill: SpillMetrics,
    /// Masks of allowed tokens.
    pub(crate) grammar: GrammarMetrics,
    ends: Ends,
    answers: Answers,
    /// Tokens of a KV block, and blocks.
    cache: Arc<OnceLock<(usize, usize)>>,
}

/// Requests by how they ended.
#[derive(Debug, Clone, Default)]
struct Ends {
    stop: Counter,
    length: Counter,
    abort: Counter,
    error: Counter,
}

/// Durations and lengths of completed answers.
#[derive(Debug, Clone)]
struct Answers {
    end_to_end: Histogram,
    queue: Histogram,
    prefill: Histogram,
    decode: Histogram,
    prompt_tokens: Histogram,
    generation_tokens: Histogram,
    max_tokens: Histogram,
}

/// Spilled KV blocks: those of the prefix cache that the device had no more room for. Clones share their counts.
#[derive(Debug, Clone, Default)]
pub(crate) struct SpillMetrics {
    /// Blocks that were copied out.
    pub stored: Counter,
    /// Blocks that were copied back in the place of computing them again.
    pub restored: Counter,
    /// Blocks that were dropped: no room, or the disk is full.
    pub dropped: Counter,
    /// Blocks that were read back different or not at all, and were computed again.
    pub damaged: Counter,
}

/// Masks of the tokens that grammars allow. Clones share their counts.
#[derive(Debug, Clone)]
pub(crate) struct GrammarMetrics {
    /// Masks that were made.
    pub masks: Counter,
    /// Seconds for one of them.
    pub mask_seconds: Histogram,
    /// Masks that came too late.
    pub late: Counter,
    /// Tokens that were not sampled because no other could come.
    pub forced: Counter,
}

impl Default for GrammarMetrics {
    fn default() -> Self {
        let (masks, late, forced) = Default::default();
        Self { masks, mask_seconds: Histogram::new(MASK_S), late, forced }
    }
}

const MASK_S: [f64; 14] =
    [0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.25, 1.0];
const FIRST_TOKEN_S: [f64; 18] =
    [0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0];
const BETWEEN_TOKENS_S: [f64; 17] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0];
const REQUEST_S: [f64; 16] = [0.05, 0.1, 0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 60.0, 120.0];

/// Bounds of the histogram of a step's tokens, as vLLM has them.
const STEP_TOKENS: [f64; 13] =
    [1.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0];

impl Metrics {
    /// Metrics of a model whose context holds `max_context` tokens.
    pub(crate) fn new(max_context: usize) -> Self {
        let (seconds, tokens) = (|| Histogram::new(REQUEST_S), || Histogram::new(lengths(max_context)));
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
            step_tokens: Histogram::new(STEP_TOKENS),
            spill: SpillMetrics::default(),
            grammar: GrammarMetrics::default(),
            ends: Ends::default(),
            answers: Answers {
                end_to_end: seconds(),
                queue: seconds(),
                prefill: seconds(),
                decode: seconds(),
                prompt_tokens: tokens(),
                generation_tokens: tokens(),
                max_tokens: tokens(),
            },
            cache: Arc::default(),
        }
    }

    /// Notes the shape of the KV cache.
    pub(crate) fn configure(&self, block_tokens: usize, blocks: usize) {
        // It has one shape as long as it lives.
        let _ = self.cache.set((block_tokens, blocks));
    }

    /// Notes the end of an answer, or of an embedding.
    pub(crate) fn finish(&self, reason: FinishReason, request: &Request, usage: &Usage) {
        match reason {
            FinishReason::Stop => self.ends.stop.inc(),
            FinishReason::Length => self.ends.length.inc(),
            // What it took says nothing about answers.
            FinishReason::Canceled => {
                self.ends.abort.inc();
                return;
            }
        };
        let answers = &self.answers;
        answers.end_to_end.observe(usage.queue_s + usage.prefill_s + usage.decode_s);
        answers.queue.observe(usage.queue_s);
        answers.prefill.observe(usage.prefill_s);
        answers.prompt_tokens.observe(usage.prompt_tokens as f64);
        // Nothing was generated, and none was asked for.
        if request.embed.is_some() {
            return;
        }
        answers.decode.observe(usage.decode_s);
        answers.generation_tokens.observe(usage.completion_tokens as f64);
        if let Some(max) = request.max_tokens {
            answers.max_tokens.observe(max as f64);
        }
    }

    /// Notes a request that failed.
    pub(crate) fn fail(&self) {
        self.ends.error.inc();
    }

    /// Adds all of them.
    pub(crate) fn tell(&self, to: &mut Labeled<'_>) {
        to.gauge("vllm:num_requests_running", "Sequences that run.", self.running.get() as u64);
        to.gauge("vllm:num_requests_waiting", "Requests that wait.", self.waiting.get() as u64);
        to.gauge("vllm:kv_cache_usage_perc", "Share of KV blocks in use, 0 to 1.", self.kv_usage.get());
        if let Some((tokens, blocks)) = self.cache.get() {
            let shape = [("block_size", &*tokens.to_string()), ("num_gpu_blocks", &*blocks.to_string())];
            to.with(&shape).gauge("vllm:cache_config_info", "Shape of the KV cache.", 1u64);
        }
        to.counter("vllm:prompt_tokens", "Prompt tokens taken in, once a request.", self.prompt_tokens.get());
        to.counter("vllm:generation_tokens", "Tokens generated.", self.generation_tokens.get());
        let help = "Prompt tokens looked up in the prefix cache, once a request.";
        to.counter("vllm:prefix_cache_queries", help, self.prefix_queries.get());
        let help = "Prompt tokens found in the prefix cache, once a request.";
        to.counter("vllm:prefix_cache_hits", help, self.prefix_hits.get());
        to.counter("vllm:num_preemptions", "Sequences that gave their blocks back.", self.preemptions.get());
        self.tell_ends(to);
        to.histogram("vllm:iteration_tokens_total", "Tokens computed in a step.", &self.step_tokens);
        to.histogram("vllm:time_to_first_token_seconds", "Arrival to first token.", &self.time_to_first_token);
        to.histogram("vllm:inter_token_latency_seconds", "Token to token.", &self.inter_token);
        self.answers.tell(to);
        self.spill.tell(to);
        self.grammar.tell(to);
    }

    fn tell_ends(&self, to: &mut Labeled<'_>) {
        let Ends { stop, length, abort, error } = &self.ends;
        let mut told = |name, help, reasons: [(&str, &Counter); 2]| {
            for (reason, count) in reasons {
                to.with(&[("finished_reason", reason)]).counter(name, help, count.get());
            }
        };
        told("vllm:request_success", "Answers by why they ended.", [("stop", stop), ("length", length)]);
        let help = "Requests without a whole answer: the client hung up, or computing it failed.";
        told("request_failure", help, [("abort", abort), ("error", error)]);
    }
}

impl Answers {
    fn tell(&self, to: &mut Labeled<'_>) {
        to.histogram("vllm:e2e_request_latency_seconds", "Arrival to end.", &self.end_to_end);
        to.histogram("vllm:request_queue_time_seconds", "Arrival to first computed.", &self.queue);
        to.histogram("vllm:request_prefill_time_seconds", "First computed to first token.", &self.prefill);
        to.histogram("vllm:request_decode_time_seconds", "First token to last.", &self.decode);
        to.histogram("vllm:request_prompt_tokens", "Tokens of a prompt.", &self.prompt_tokens);
        to.histogram("vllm:request_generation_tokens", "Tokens of an answer.", &self.generation_tokens);
        // Every choice is a request of its own here, so that the longest of them is each.
        let help = "Tokens of the longest answer of a request.";
        to.histogram("vllm:request_max_num_generation_tokens", help, &self.generation_tokens);
        let help = "Tokens that a request allowed, where it said so.";
        to.histogram("vllm:request_params_max_tokens", help, &self.max_tokens);
    }
}

impl SpillMetrics {
    fn tell(&self, to: &mut Labeled<'_>) {
        to.counter("kv_spill_stored_blocks", "KV blocks copied out of the device.", self.stored.get());
        to.counter("kv_spill_restored_blocks", "KV blocks copied back.", self.restored.get());
        to.counter("kv_spill_dropped_blocks", "Spilled KV blocks dropped.", self.dropped.get());
        to.counter("kv_spill_damaged_blocks", "Spilled KV blocks that were damaged.", self.damaged.get());
    }
}

impl GrammarMetrics {
    fn tell(&self, to: &mut Labeled<'_>) {
        let Self { masks, mask_seconds, late, forced } = self;
        to.counter("mlx_serving_grammar_masks", "Masks of allowed tokens made.", masks.get());
        to.histogram("mlx_serving_grammar_mask_seconds", "Time to make a mask of allowed tokens.", mask_seconds);
        to.counter(
            "mlx_serving_grammar_late_masks",
            "Masks that came too late, each of which failed a request.",
            late.get(),
        );
        let help = "Tokens that were not sampled because no other could come.";
        to.counter("mlx_serving_grammar_forced_tokens", help, forced.get());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mlx_serving_metrics::{Families, Format};

    #[test]
    fn exposition_has_the_names_that_dashboards_know() {
        let metrics = Metrics::new(2048);
        metrics.configure(16, 128);
        metrics.prompt_tokens.inc_by(5);
        let usage = Usage { prompt_tokens: 5, completion_tokens: 20, decode_s: 0.2, ..Usage::default() };
        let request = Request { max_tokens: Some(1000), ..Request::default() };
        metrics.finish(FinishReason::Stop, &request, &usage);
        metrics.finish(FinishReason::Canceled, &request, &usage);
        metrics.fail();
        let mut families = Families::default();
        metrics.tell(&mut families.labeled(&[("model_name", "m")]));
        let text = families.write(Format::OpenMetrics).unwrap();
        for line in [
            "vllm:prompt_tokens_total{model_name=\"m\"} 5",
            "vllm:request_success_total{model_name=\"m\",finished_reason=\"stop\"} 1",
            "vllm:request_success_total{model_name=\"m\",finished_reason=\"length\"} 0",
            "request_failure_total{model_name=\"m\",finished_reason=\"abort\"} 1",
            "request_failure_total{model_name=\"m\",finished_reason=\"error\"} 1",
            "vllm:cache_config_info{model_name=\"m\",block_size=\"16\",num_gpu_blocks=\"128\"} 1",
            "vllm:e2e_request_latency_seconds_bucket{le=\"0.3\",model_name=\"m\"} 1",
            "vllm:request_prompt_tokens_bucket{le=\"5.0\",model_name=\"m\"} 1",
            "vllm:request_generation_tokens_bucket{le=\"10.0\",model_name=\"m\"} 0",
            "vllm:request_max_num_generation_tokens_bucket{le=\"20.0\",model_name=\"m\"} 1",
            "vllm:request_params_max_tokens_bucket{le=\"1000.0\",model_name=\"m\"} 1",
            "vllm:request_params_max_tokens_count{model_name=\"m\"} 1",
            "vllm:iteration_tokens_total_count{model_name=\"m\"} 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }
}
