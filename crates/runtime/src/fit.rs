//! A check, before anything is allocated, that a model and its configuration fit this machine and its device.
//!
//! Beyond all of the memory that there is: refused. Beyond what is free now: warned of, because others may give some back. A device with
//! memory of its own has what it says that it has free, no more. Where nobody tells, a warning says that nothing was checked.

use crate::config::Config;
use crate::device::budget;
use crate::error::RuntimeError;
use crate::machine::{self, HostMemory, host_memory};
use crate::memory::{Ledger, Reservation, Taken};
use mlx_serving_checkpoint::Checkpoint;
use mlx_serving_device::{Device, DeviceInfo, Storage};
use mlx_serving_metal_layer::WorkingSet;
use mlx_serving_model::{BLOCK_TOKENS, Blueprint, working_set};
use std::sync::Arc;

const MIB: u64 = 1 << 20;
/// The least that `engine.kv_cache_tokens` may be.
const LEAST_TOKENS: u64 = 256;

/// Checks a model before it is loaded, and reserves its memory. Warns of what may go wrong.
///
/// # Errors
/// [`RuntimeError::DoesNotFit`].
pub(crate) fn reserve(
    ledger: &Ledger,
    config: &Config,
    id: &str,
    checkpoint: &Checkpoint,
    device: &Arc<dyn Device>,
) -> Result<(Reservation, Vec<String>), RuntimeError> {
    let info = device.info();
    let set = set(config, &Blueprint::of(checkpoint).map_err(RuntimeError::Checkpoint)?, device.as_ref());
    let need = Need::of(config, checkpoint.total_bytes(), info, &set);
    let (own, host) = if info.unified_memory { (None, need) } else { need.split(&set) };
    let known = Known { device: budget(info), host: host_memory(), resident: machine::resident_memory() };
    let taken = Taken { device: own.map_or(0, |own| own.bytes()), host: host.bytes() };
    let decide = |others| Ok((taken, within(own, host, others, &known, config)?));
    let refused = |reason: String| RuntimeError::DoesNotFit { model: id.to_owned(), reason };
    let (reservation, mut warnings) = ledger.reserve(id, device, decide).map_err(&refused)?;
    let m = &config.metal_optimizations;
    if m.enabled && m.memory_pool.enabled {
        let misfit = m.memory_pool.fits(info, &set);
        // Heaps that the device has no room for are done without; buffers outside the heaps are not.
        let heaps = (m.memory_pool.heap_size_mb * m.memory_pool.num_heaps as u64) << 20;
        match misfit {
            Some(why) if !m.graceful_fallback && heaps <= info.memory_budget => {
                return Err(refused(format!("{why}, or set metal_optimizations.graceful_fallback to allow them")));
            }
            misfit => warnings.extend(misfit),
        }
    }
    Ok((reservation, warnings))
}

/// Memory that an engine holds while it runs, weights excepted.
fn set(config: &Config, model: &Blueprint, device: &dyn Device) -> WorkingSet {
    let e = &config.engine;
    let (blocks, rows) = (e.kv_cache_tokens.div_ceil(BLOCK_TOKENS), e.batch_rows(device.info()).max(e.max_sequences));
    let mut set = working_set(model, device, blocks, rows, e.max_sequences);
    // Token counts, taken when the first request with penalties comes.
    set.others.push((4 * (e.max_sequences * model.vocab) as u64, Storage::Private));
    let m = &config.metal_optimizations;
    if m.enabled && m.blit_queue.enabled && !device.info().unified_memory {
        set.others.push((m.blit_queue.staging_buffer_size_mb << 20, Storage::Shared));
    }
    set
}

/// Memory that there is, as far as it is known.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    /// Bytes that the device may be asked for.
    device: Option<u64>,
    host: Option<HostMemory>,
    /// Bytes of the host's memory that this process holds.
    resident: Option<u64>,
}

/// Memory of a machine or a device.
#[derive(Debug, Clone, Copy)]
struct Room {
    whose: &'static str,
    bytes: u64,
    /// The bytes are those that nobody holds, instead of all that there are.
    free: bool,
}

/// Memory that a model takes, bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Need {
    weights: u64,
    kv: u64,
    /// Activations and the like.
    activations: u64,
    /// Room in the pool's heaps beyond their content.
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
    fn split(self, set: &WorkingSet) -> (Option<Self>, Self) {
        let shared = set.others.iter().filter(|(_, storage)| *storage == Storage::Shared).map(|(bytes, _)| bytes).sum();
        (
            Some(Self { spill: 0, activations: self.activations - shared, ..self }),
            Self { spill: self.spill, activations: shared, ..Self::default() },
        )
    }

    fn bytes(&self) -> u64 {
        [self.kv, self.activations, self.heaps, self.spill]
            .iter()
            .fold(self.weights, |sum, part| sum.saturating_add(*part))
    }

    fn within_device(&self, others: u64, bytes: u64, config: &Config) -> Result<(), String> {
        match self.bytes().saturating_add(others) > bytes {
            true => Err(self.too_large(others, Room { whose: "this device", bytes, free: true }, config)),
            false => Ok(()),
        }
    }

    /// Checks the need against the machine's memory, of which its other models take or will take `others`.
    fn within_host(&self, others: u64, known: &Known, config: &Config) -> Result<Vec<String>, String> {
        let Some(memory) = known.host else { return Ok(vec![unknown("this machine's")]) };
        let all = self.bytes().saturating_add(others);
        let room = |bytes, free| Room { whose: "this machine", bytes, free };
        if all > memory.total {
            return Err(self.too_large(others, room(memory.total, false), config));
        }
        let free = memory.available.saturating_add(known.resident.unwrap_or(0)).min(memory.total);
        Ok((all > free).then(|| self.too_large(others, room(free, true), config)).into_iter().collect())
    }

    /// The numbers, and the key to lower.
    fn too_large(&self, others: u64, room: Room, config: &Config) -> String {
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
            "{} take {} MiB together, but {} has {} MiB{}: {}",
            parts.join(", "),
            mib(all),
            room.whose,
            room.bytes / MIB,
            if room.free { " free" } else { "" },
            self.remedy(all - room.bytes, config)
        )
    }

    /// The key to lower so that `excess` bytes less are taken.
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

fn unknown(whose: &str) -> String {
    format!("{whose} memory is unknown, so whether the model fits it was not checked")
}

/// Warnings about a model that puts `own` into a device's own memory, if it has any, and `host` into the host's, beside what other models
/// take. Fails if either does not fit.
fn within(own: Option<Need>, host: Need, others: Taken, known: &Known, config: &Config) -> Result<Vec<String>, String> {
    let mut warnings = Vec::new();
    match (own, known.device) {
        (Some(own), Some(bytes)) => own.within_device(others.device, bytes, config)?,
        (Some(_), None) => warnings.push(unknown("this device's")),
        // They share it: the device's word counts where the system says nothing.
        (None, Some(bytes)) if known.host.is_none() => {
            return host.within_device(others.host, bytes, config).map(|()| warnings);
        }
        (None, _) => {}
    }
    warnings.extend(host.within_host(others.host, known, config)?);
    Ok(warnings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(tokens: usize) -> Config {
        let mut config = Config::default();
        config.engine.kv_cache_tokens = tokens;
        config
    }

    const HOST: Known = Known {
        device: None,
        host: Some(HostMemory { total: 1000 * MIB, available: 500 * MIB }),
        resident: Some(100 * MIB),
    };

    fn hosted(mib: u64) -> Taken {
        Taken { host: mib * MIB, device: 0 }
    }

    fn shared(need: Need, others: u64, tokens: usize) -> Result<Option<String>, String> {
        within(None, need, hosted(others), &HOST, &config(tokens)).map(|warnings| warnings.into_iter().next())
    }

    fn need(weights: u64, kv: u64, heaps: u64, spill: u64) -> Need {
        Need { weights: weights * MIB, kv: kv * MIB, activations: MIB, heaps: heaps * MIB, spill: spill * MIB }
    }

    #[test]
    fn beyond_the_machine_is_refused_and_beyond_what_is_free_warned_of() {
        // Free are 500 MiB, and 100 that this process holds already.
        assert_eq!(shared(need(100, 499, 0, 0), 0, 4096), Ok(None));
        let told = shared(need(100, 600, 0, 0), 0, 4096).unwrap().unwrap();
        assert!(told.contains("701 MiB together") && told.contains("this machine has 600 MiB free: "), "{told}");
        assert!(shared(need(100, 899, 0, 0), 0, 4096).unwrap().is_some());
        assert!(shared(need(100, 900, 0, 0), 0, 4096).is_err());
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
            let message = shared(need, others, 4096).unwrap_err();
            assert!(parts.iter().all(|part| message.contains(part)), "{parts:?} are not all in: {message}");
        }
    }

    #[test]
    fn memory_that_nobody_tells_of_is_said_to_be_unknown() {
        let huge = need(1 << 20, 100, 0, 0);
        let told = within(None, huge, hosted(0), &Known::default(), &config(4096)).unwrap();
        assert!(matches!(&told[..], [one] if one.contains("this machine's memory is unknown")), "{told:?}");
        let told = within(Some(huge), huge, hosted(0), &Known::default(), &config(4096)).unwrap();
        assert!(matches!(&told[..], [device, _] if device.contains("this device's memory is unknown")), "{told:?}");
        let device = Known { device: Some(300 * MIB), ..Known::default() };
        let within = |others| within(None, need(100, 100, 0, 0), hosted(others), &device, &config(4096));
        assert_eq!(within(0), Ok(Vec::new()));
        let message = within(200).unwrap_err();
        assert!(
            message.contains("other models 200 MiB") && message.contains("this device has 300 MiB free"),
            "{message}"
        );
    }

    #[test]
    fn a_device_with_memory_of_its_own_holds_all_but_what_is_spilled() {
        let known = Known { device: Some(300 * MIB), ..HOST };
        let set = WorkingSet { kv_layers: 1, kv_layer_bytes: MIB, others: vec![(MIB, Storage::Private)] };
        let beside = |others: u64, need: Need| {
            let (own, host) = need.split(&set);
            within(own, host, Taken { device: others * MIB, host: 0 }, &known, &config(4096))
        };
        let within = |need| beside(0, need);
        assert_eq!(within(need(100, 100, 0, 500)), Ok(Vec::new()));
        let message = within(need(300, 100, 0, 0)).unwrap_err();
        assert!(message.contains("401 MiB together, but this device has 300 MiB free"), "{message}");
        assert_eq!(beside(99, need(100, 100, 0, 0)), Ok(Vec::new()));
        let message = beside(100, need(100, 100, 0, 0)).unwrap_err();
        assert!(
            message.contains("other models 100 MiB") && message.contains("this device has 300 MiB free"),
            "{message}"
        );
        let message = within(need(100, 100, 0, 1001)).unwrap_err();
        assert!(
            message.contains("spilled blocks 1001 MiB") && message.contains("this machine has 1000 MiB: "),
            "{message}"
        );
    }

    #[test]
    fn sums_that_no_number_holds_are_too_large() {
        let huge = Need { kv: u64::MAX, spill: u64::MAX, ..need(1, 1, 0, 0) };
        assert!(shared(huge, 0, 16_777_216).is_err());
    }
}
