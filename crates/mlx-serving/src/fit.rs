//! Whether a model and what its configuration asks for fit this machine and its device. Looked at before anything is allocated.
//!
//! Beyond all of the memory that there is: refused. Beyond what is free now: warned of, because others may give some back. A device with
//! memory of its own has what it says that it has, no more.

use crate::commands::Context;
use crate::config::Config;
use crate::failure::Failure;
use crate::{device, load, machine};
use mlx_serving_checkpoint::Checkpoint;
use mlx_serving_cpu::{HostMemory, host_memory};
use mlx_serving_device::{Device, DeviceInfo, Storage};
use mlx_serving_metal_layer::WorkingSet;
use mlx_serving_model::{BLOCK_TOKENS, working_set};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

const MIB: u64 = 1 << 20;
/// The least that `engine.kv_cache_tokens` may be.
const LEAST_TOKENS: u64 = 256;

/// Host memory of the models that this process serves, bytes, by name. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ledger(Arc<Mutex<BTreeMap<String, u64>>>);

impl Ledger {
    /// What the others take.
    fn others(&self, id: &str) -> u64 {
        let models = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        models.iter().filter(|(other, _)| *other != id).map(|(_, bytes)| bytes).sum()
    }

    fn note(&self, id: &str, bytes: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned(), bytes);
    }
}

/// Checks one model before it is loaded; what may go wrong. Fails if it cannot be held.
pub(crate) fn check(
    context: &Context,
    id: &str,
    checkpoint: &Checkpoint,
    device: &dyn Device,
) -> Result<Vec<String>, Failure> {
    let (config, info) = (&context.config, device.info());
    let set = set(config, checkpoint, device);
    let need = Need::of(config, checkpoint.total_bytes(), info, &set);
    let others = context.memory.others(id);
    let mut warnings = Vec::new();
    let refused = |why: String| Failure::failed(format!("{id} does not fit: {why}"));
    let (own, host) = if info.unified_memory { (Need::default(), need) } else { need.split(&set) };
    if own.bytes() > info.memory_budget {
        return Err(refused(own.too_large(0, info.memory_budget, "this device has", config)));
    }
    if let Some(memory) = host_memory() {
        let resident = machine::resident_memory().unwrap_or(0);
        warnings.extend(host.within(others, memory, resident, config).map_err(refused)?);
    }
    context.memory.note(id, host.bytes());
    let m = &config.metal_optimizations;
    if m.enabled && m.memory_pool.enabled {
        warnings.extend(m.memory_pool.fits(info, &set));
    }
    Ok(warnings)
}

/// Checks the models that `serve` would load, each with its name. Models of the hub are left out: they may not be here yet.
pub(crate) fn check_configured(context: &Context) -> Result<Vec<(String, Vec<String>)>, Failure> {
    let named = &context.config.models.serve;
    let local = named.iter().filter(|name| Path::new(name).is_dir()).map(|name| Some(name.as_str()));
    let models: Vec<Option<&str>> = if named.is_empty() { vec![None] } else { local.collect() };
    let mut found = Vec::new();
    for model in models {
        // Without the bundled model there is nothing to be checked.
        let Ok((dir, id)) = load::resolve(context, model) else { continue };
        let checkpoint = Checkpoint::open(&dir).map_err(Failure::failed)?;
        let warnings =
            device::with(&context.config.engine, |device| check(context, &id, &checkpoint, device.as_ref()))?;
        found.push((id, warnings));
    }
    Ok(found)
}

/// What an engine holds while it runs, weights excepted.
fn set(config: &Config, checkpoint: &Checkpoint, device: &dyn Device) -> WorkingSet {
    let e = &config.engine;
    let (blocks, rows) = (e.kv_cache_tokens.div_ceil(BLOCK_TOKENS), e.max_batch_rows.max(e.max_sequences));
    let mut set = working_set(&checkpoint.config, device, blocks, rows, e.max_sequences);
    // Token counts, taken when the first request with penalties comes.
    set.others.push((4 * (e.max_sequences * checkpoint.config.vocab_size) as u64, Storage::Private));
    let m = &config.metal_optimizations;
    if m.enabled && m.blit_queue.enabled && !device.info().unified_memory {
        set.others.push((m.blit_queue.staging_buffer_size_mb << 20, Storage::Shared));
    }
    set
}

/// What a model takes, bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Need {
    weights: u64,
    kv: u64,
    /// Activations and the like.
    activations: u64,
    /// What the pool's heaps take beyond what lies in them.
    heaps: u64,
    spill: u64,
}

impl Need {
    fn of(config: &Config, weights: u64, info: &DeviceInfo, set: &WorkingSet) -> Self {
        let (kv, activations) = set.bytes();
        let m = &config.metal_optimizations;
        let pooled = if m.enabled && m.memory_pool.enabled { m.memory_pool.bytes(info, set) } else { 0 };
        let heaps = pooled.saturating_sub(kv.saturating_add(activations));
        Self { weights, kv, activations, heaps, spill: config.engine.kv_spill_mb << 20 }
    }

    /// The device's part and the host's, where they are two memories.
    fn split(self, set: &WorkingSet) -> (Self, Self) {
        let shared = set.others.iter().filter(|(_, storage)| *storage == Storage::Shared).map(|(bytes, _)| bytes).sum();
        (
            Self { spill: 0, activations: self.activations - shared, ..self },
            Self { spill: self.spill, activations: shared, ..Self::default() },
        )
    }

    fn bytes(&self) -> u64 {
        [self.kv, self.activations, self.heaps, self.spill]
            .iter()
            .fold(self.weights, |sum, part| sum.saturating_add(*part))
    }

    /// Against the machine's memory, of which this process holds `resident`, and its other models take or will take `others`.
    fn within(
        &self,
        others: u64,
        memory: HostMemory,
        resident: u64,
        config: &Config,
    ) -> Result<Option<String>, String> {
        let all = self.bytes().saturating_add(others);
        if all > memory.total {
            return Err(self.too_large(others, memory.total, "this machine has", config));
        }
        let free = memory.available.saturating_add(resident).min(memory.total);
        Ok((all > free).then(|| self.too_large(others, free, "free on this machine are", config)))
    }

    /// The numbers, and the key to lower.
    fn too_large(&self, others: u64, room: u64, whose: &str, config: &Config) -> String {
        let parts = [
            ("weights", self.weights),
            ("KV cache", self.kv),
            ("activations", self.activations),
            ("room in the heaps of memory_pool", self.heaps),
            ("spilled blocks", self.spill),
            ("other models", others),
        ];
        let mib = |bytes: u64| bytes.div_ceil(MIB);
        let parts: Vec<String> = (parts.iter().filter(|(_, bytes)| *bytes > 0))
            .map(|(name, bytes)| format!("{name} {} MiB", mib(*bytes)))
            .collect();
        let all = self.bytes().saturating_add(others);
        format!(
            "{} take {} MiB together, but {whose} {} MiB: {}",
            parts.join(", "),
            mib(all),
            room / MIB,
            self.remedy(all - room, config)
        )
    }

    /// Which key to lower so that `excess` bytes less are taken.
    fn remedy(&self, excess: u64, config: &Config) -> String {
        let tokens = config.engine.kv_cache_tokens as u64;
        let token = self.kv.div_ceil(tokens.max(1)).max(1);
        let fewer = tokens.saturating_sub(excess.div_ceil(token)) / BLOCK_TOKENS as u64 * BLOCK_TOKENS as u64;
        let spill = format!("lower engine.kv_spill_mb to {}", self.spill.saturating_sub(excess) / MIB);
        let cache = format!("lower engine.kv_cache_tokens to {fewer}");
        let heaps = "lower metal_optimizations.memory_pool.num_heaps or heap_size_mb".to_owned();
        let helps = [
            (self.spill, self.spill >= excess, spill),
            (self.kv, fewer >= LEAST_TOKENS, cache),
            (self.heaps, self.heaps >= excess, heaps),
        ];
        // What takes most gives most.
        match helps.into_iter().filter(|(_, enough, _)| *enough).max_by_key(|(bytes, ..)| *bytes) {
            Some((.., remedy)) => remedy,
            None if self.bytes() - self.weights >= excess => {
                "lower engine.kv_cache_tokens, engine.kv_spill_mb and the heaps of memory_pool".into()
            }
            None => "choose a smaller model, or fewer bits a weight".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(tokens: usize) -> Config {
        let mut config = Config::default();
        config.engine.kv_cache_tokens = tokens;
        config
    }

    fn within(need: Need, others: u64, tokens: usize) -> Result<Option<String>, String> {
        let memory = HostMemory { total: 1000 * MIB, available: 500 * MIB };
        need.within(others * MIB, memory, 100 * MIB, &config(tokens))
    }

    fn need(weights: u64, kv: u64, heaps: u64, spill: u64) -> Need {
        Need { weights: weights * MIB, kv: kv * MIB, activations: MIB, heaps: heaps * MIB, spill: spill * MIB }
    }

    #[test]
    fn beyond_the_machine_is_refused_and_beyond_what_is_free_warned_of() {
        // Free are 500 MiB, and 100 that this process holds already.
        assert_eq!(within(need(100, 499, 0, 0), 0, 4096), Ok(None));
        let told = within(need(100, 600, 0, 0), 0, 4096).unwrap().unwrap();
        assert!(told.contains("701 MiB together") && told.contains("free on this machine are 600 MiB"), "{told}");
        assert!(within(need(100, 899, 0, 0), 0, 4096).unwrap().is_some());
        assert!(within(need(100, 900, 0, 0), 0, 4096).is_err());
    }

    #[test]
    fn the_key_that_takes_most_is_named_with_the_value_that_fits() {
        for (need, others, parts) in [
            (
                need(100, 1600, 0, 0),
                0,
                ["KV cache 1600 MiB", "1701 MiB together", "this machine has 1000 MiB", "kv_cache_tokens to 2288"],
            ),
            (
                need(100, 100, 0, 1 << 20),
                0,
                ["spilled blocks 1048576 MiB", "1048777 MiB", "1000 MiB", "kv_spill_mb to 799"],
            ),
            (need(100, 100, 2000, 0), 0, ["heaps of memory_pool 2000 MiB", "2201 MiB", "1000 MiB", "num_heaps"]),
            (need(100, 500, 0, 0), 600, ["other models 600 MiB", "1201 MiB", "1000 MiB", "kv_cache_tokens to 2448"]),
            (need(2000, 100, 0, 0), 0, ["weights 2000 MiB", "2101 MiB", "1000 MiB", "smaller model"]),
            (
                need(600, 300, 300, 300),
                0,
                ["weights 600 MiB", "1501 MiB", "1000 MiB", "lower engine.kv_cache_tokens, engine.kv_spill_mb"],
            ),
        ] {
            let message = within(need, others, 4096).unwrap_err();
            assert!(parts.iter().all(|part| message.contains(part)), "{parts:?} are not all in: {message}");
        }
    }

    #[test]
    fn sums_that_no_number_holds_are_too_large() {
        let huge = Need { kv: u64::MAX, spill: u64::MAX, ..need(1, 1, 0, 0) };
        assert!(within(huge, 0, 16_777_216).is_err());
    }
}
