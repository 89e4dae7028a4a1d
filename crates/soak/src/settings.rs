use crate::error::SoakError;
use mlx_serving_metal_layer::config::MetalOptimizations;
use mlx_serving_runtime::Config;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::time::Duration;

/// Longest phase, seconds. Five phases, which `all` makes, are ten minutes: every ten minutes have each set of optimizations once.
const PHASE_S: f64 = 120.0;
/// Longest window, seconds: the record is written as often.
const WINDOW_S: f64 = 60.0;
/// Least tokens of the KV cache beside [`KV_EACH`]: the longest question fits with room to spare.
const KV_BASE: usize = 512;
/// Tokens of the KV cache for each request at a time: fewer than a request has on average, so that blocks are evicted and sequences
/// are preempted.
const KV_EACH: usize = 48;
/// Host memory for evicted blocks where the configuration has none, MiB.
const SPILL_MB: u64 = 64;

/// Most requests at a time: beyond it, the references of its conversations alone take longer than a run.
pub(crate) const MOST_CONCURRENCY: usize = 10_000;
/// Longest duration, seconds: no sum of times overflows.
pub(crate) const YEAR_S: u64 = 366 * 86_400;

/// Settings of a run. They are recorded, and equal in every part of a run that is resumed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Time of traffic, seconds.
    pub duration_s: f64,
    /// Requests at a time.
    pub concurrency: usize,
    /// Optimizations that are toggled.
    pub optimizations: Vec<String>,
    /// Seed of every choice that is made at random.
    pub seed: u64,
    /// Time with one set of optimizations, seconds.
    pub phase_s: f64,
    /// Time of one window of measurements, seconds.
    pub window_s: f64,
    /// The configuration under it: sections `engine` and `metal_optimizations`, every optimization off.
    pub configuration: Value,
}

impl Settings {
    /// Settings of a run of that duration under a configuration, of which [`Self::config`] makes the one that is run.
    ///
    /// # Errors
    /// The run is shorter than a second, or nothing or too much would be asked at a time.
    pub fn new(duration: Duration, concurrency: usize, config: &Config, seed: u64) -> Result<Self, SoakError> {
        if duration < Duration::from_secs(1) || concurrency == 0 {
            return Err(SoakError::Setting("a run takes at least 1 second and 1 request at a time".into()));
        }
        if concurrency > MOST_CONCURRENCY {
            return Err(SoakError::Setting(format!(
                "{concurrency} requests at a time are more than {MOST_CONCURRENCY}"
            )));
        }
        let duration_s = duration.as_secs_f64();
        let optimizations: Vec<String> = config.metal_optimizations.active().into_iter().map(str::to_owned).collect();
        let mut settings = Self {
            duration_s,
            concurrency,
            optimizations,
            seed,
            phase_s: PHASE_S,
            window_s: WINDOW_S,
            configuration: Value::Null,
        };
        // In a short run every set comes several times.
        settings.phase_s = PHASE_S.min(duration_s / (2 * settings.sets().len()) as f64);
        settings.window_s = WINDOW_S.min(settings.phase_s);
        let run = settings.config(config, "none").map_err(SoakError::Setting)?;
        settings.configuration = json!({ "engine": run.engine, "metal_optimizations": run.metal_optimizations });
        Ok(settings)
    }

    /// Sets of optimizations in the order of their phases: none, each, all.
    pub fn sets(&self) -> Vec<String> {
        let names = &self.optimizations;
        let mut sets = vec!["none".to_owned()];
        sets.extend(names.iter().cloned());
        if names.len() > 1 {
            sets.push(names.join(","));
        }
        sets
    }

    /// The configuration with a set of optimizations, and a KV cache that the traffic outgrows.
    ///
    /// # Errors
    /// The set names none that there is.
    pub fn config(&self, base: &Config, set: &str) -> Result<Config, String> {
        let mut config = base.clone();
        let options: &mut MetalOptimizations = &mut config.metal_optimizations;
        options.select(set)?;
        // One that was switched off on the way would not be tested.
        options.graceful_fallback = false;
        let engine = &mut config.engine;
        engine.kv_cache_tokens = KV_BASE + KV_EACH * self.concurrency;
        engine.max_waiting = engine.max_waiting.max(self.concurrency);
        if engine.kv_spill_mb == 0 {
            engine.kv_spill_mb = SPILL_MB;
        }
        Ok(config)
    }
}

/// A duration such as 90s, 60m, 24h or 1d.
///
/// # Errors
/// It is none; a clause that says what would do.
pub fn duration(text: &str) -> Result<Duration, String> {
    let form =
        || format!("{text:?} is not a duration; give a whole number with s, m, h or d, such as 90s, 60m, 24h or 1d");
    let unit = text.chars().next_back().ok_or_else(form)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return Err(form()),
    };
    let number: u64 = text[..text.len() - 1].parse().map_err(|_| form())?;
    let total = number.checked_mul(seconds).filter(|total| (1..=YEAR_S).contains(total));
    total.map(Duration::from_secs).ok_or_else(|| format!("{text} is out of range: from 1s to 366d"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        for (text, seconds) in [("90s", 90), ("60m", 3600), ("24h", 86_400), ("1d", 86_400), ("366d", 31_622_400)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)));
        }
        for bad in ["", "s", "90", "1.5h", "-1s", "+s", "0s", "367d", "99999999999999999999d", "5 m", "1é"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn requests_at_a_time_are_bounded() {
        for (concurrency, fits) in [(0, false), (1, true), (10_000, true), (10_001, false), (usize::MAX, false)] {
            let settings = Settings::new(Duration::from_secs(60), concurrency, &Config::default(), 1);
            assert_eq!(settings.is_ok(), fits, "{concurrency}");
        }
    }

    #[test]
    fn phases_have_every_set_of_optimizations_and_fit_the_run() {
        let mut config = Config::default();
        let settings = |config: &Config, seconds| Settings::new(Duration::from_secs(seconds), 10, config, 1).unwrap();
        assert_eq!(settings(&config, 10).sets(), ["none"]);
        config.metal_optimizations.select("all").unwrap();
        let day = settings(&config, 86_400);
        let all = "memory_pool,blit_queue,command_buffer_ring";
        assert_eq!(day.sets(), ["none", "memory_pool", "blit_queue", "command_buffer_ring", all]);
        assert_eq!((day.phase_s, day.window_s), (120.0, 60.0));
        assert_eq!(settings(&config, 10).phase_s, 1.0);
        config.metal_optimizations.select("memory_pool").unwrap();
        assert_eq!(settings(&config, 10).sets(), ["none", "memory_pool"]);
    }
}
