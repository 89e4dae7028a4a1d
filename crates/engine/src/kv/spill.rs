//! Storage for blocks of the prefix cache whose room the device needs: host memory, then a file; both bounded.

use crate::error::EngineError;
use crate::kv::prefix::{Content, Prefix};
use crate::kv::spill_file::{FileSlot, SpillFile};
use crate::metrics::SpillMetrics;
use mlx_serving_device::DeviceError;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bounds of what outlives its room on the device of the prefix cache. All zero: nothing does.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SpillOptions {
    /// Bytes of host memory.
    pub memory_bytes: u64,
    /// A file for what host memory has no room for; created at the start, removed at the end.
    pub file: Option<PathBuf>,
    /// Bytes of the file.
    pub file_bytes: u64,
}

impl SpillOptions {
    /// Checks that there is a folder to create the file in.
    ///
    /// # Errors
    /// There is none; an engine with these options would not start.
    pub fn check(&self) -> Result<(), EngineError> {
        let Some(path) = &self.file else { return Ok(()) };
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        match std::fs::metadata(folder) {
            Err(error) => Err(unusable(path, &error)),
            Ok(found) if !found.is_dir() => Err(unusable(path, &io::ErrorKind::NotADirectory.into())),
            Ok(_) => Ok(()),
        }
    }
}

fn unusable(path: &Path, error: &io::Error) -> EngineError {
    let path = path.display();
    EngineError::Unstarted(format!(
        "the KV spill file {path} cannot be used: {error}; name another with engine.kv_spill_file"
    ))
}

/// Spilled blocks, found by what they hold. The least recently used goes first: from memory to the file, from the file for good.
#[derive(Debug)]
pub(crate) struct SpillStore {
    block_bytes: usize,
    memory_blocks: usize,
    index: Mutex<Index>,
    file: Option<Arc<SpillFile>>,
    metrics: SpillMetrics,
    /// Writing fails: said once, until it works again.
    failing: AtomicBool,
    /// Blocks cannot be restored: the same.
    losing: AtomicBool,
}

#[derive(Debug, Default)]
struct Index {
    entries: HashMap<Prefix, Entry>,
    /// Prefixes by when they were last used, in memory and in the file.
    in_memory: BTreeMap<u64, Prefix>,
    in_file: BTreeMap<u64, Prefix>,
    clock: u64,
}

#[derive(Debug)]
struct Entry {
    content: Content,
    block: Spilled,
    used: u64,
}

/// A spilled block; the handle keeps its bytes.
#[derive(Debug, Clone)]
pub(crate) struct Spilled {
    place: Place,
    checksum: u32,
}

#[derive(Debug, Clone)]
enum Place {
    Memory(Arc<[u8]>),
    File(Arc<SpillFile>, Arc<FileSlot>),
}

impl Spilled {
    /// Copies the block to `out`, which has its length; an error if it is not what was spilled.
    pub(crate) fn read(&self, out: &mut [u8]) -> Result<(), String> {
        match &self.place {
            Place::Memory(bytes) if bytes.len() == out.len() => out.copy_from_slice(bytes),
            Place::Memory(bytes) => {
                return Err(format!("a spilled block has {} bytes, not {}", bytes.len(), out.len()));
            }
            Place::File(file, slot) => {
                file.read(slot, out).map_err(|e| format!("a spilled KV block could not be read: {e}"))?;
            }
        }
        if crc32fast::hash(out) == self.checksum {
            return Ok(());
        }
        Err("a spilled KV block is different from what was spilled".into())
    }
}

impl Index {
    fn age(&mut self, block: &Spilled) -> &mut BTreeMap<u64, Prefix> {
        match block.place {
            Place::Memory(_) => &mut self.in_memory,
            Place::File(..) => &mut self.in_file,
        }
    }

    fn insert(&mut self, content: Content, block: Spilled) {
        self.clock += 1;
        let (used, prefix) = (self.clock, content.prefix);
        self.age(&block).insert(used, prefix);
        self.entries.insert(prefix, Entry { content, block, used });
    }

    fn remove(&mut self, prefix: Prefix) -> Option<Entry> {
        let entry = self.entries.remove(&prefix)?;
        self.age(&entry.block).remove(&entry.used);
        Some(entry)
    }

    fn find(&self, content: &Content) -> Option<&Entry> {
        self.entries.get(&content.prefix).filter(|entry| entry.content == *content)
    }
}

impl SpillStore {
    /// A store for blocks of `block_bytes` bytes over all layers; `None` if the options leave no room for one.
    pub(crate) fn open(
        options: &SpillOptions,
        block_bytes: u64,
        metrics: SpillMetrics,
    ) -> Result<Option<Arc<Self>>, EngineError> {
        let room = |bytes: u64| bytes / block_bytes.max(1);
        let file = match &options.file {
            Some(path) if room(options.file_bytes) > 0 => {
                let file = SpillFile::create(path, options.file_bytes, block_bytes);
                Some(Arc::new(file.map_err(|error| unusable(path, &error))?))
            }
            _ => None,
        };
        let memory_blocks = room(options.memory_bytes) as usize;
        if memory_blocks == 0 && file.is_none() {
            return Ok(None);
        }
        let (index, failing, losing) = (Mutex::default(), AtomicBool::new(false), AtomicBool::new(false));
        let block_bytes = block_bytes as usize;
        Ok(Some(Arc::new(Self { block_bytes, memory_blocks, index, file, metrics, failing, losing })))
    }

    fn lock(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True if it holds this block.
    pub(crate) fn contains(&self, content: &Content) -> bool {
        self.lock().find(content).is_some()
    }

    /// A block, which counts as used.
    pub(crate) fn fetch(&self, content: &Content) -> Option<Spilled> {
        let mut index = self.lock();
        index.find(content)?;
        let entry = index.remove(content.prefix)?;
        let block = entry.block.clone();
        index.insert(entry.content, entry.block);
        Some(block)
    }

    /// Takes blocks that lie one behind the other. What there is no room for is dropped.
    pub(crate) fn insert(&self, contents: Vec<Content>, bytes: &[u8]) {
        for (content, bytes) in contents.into_iter().zip(bytes.chunks_exact(self.block_bytes)) {
            let block = Spilled { checksum: crc32fast::hash(bytes), place: Place::Memory(bytes.into()) };
            self.metrics.stored.inc();
            let mut evicted = Vec::new();
            {
                let mut index = self.lock();
                index.remove(content.prefix);
                index.insert(content, block);
                while index.in_memory.len() > self.memory_blocks {
                    let Some(&prefix) = index.in_memory.values().next() else { break };
                    evicted.extend(index.remove(prefix));
                }
            }
            evicted.into_iter().for_each(|entry| self.move_to_file(entry));
        }
    }

    fn move_to_file(&self, entry: Entry) {
        let (Some(file), Place::Memory(bytes)) = (&self.file, &entry.block.place) else {
            self.metrics.dropped.inc();
            return;
        };
        let slot = file.slot().or_else(|| {
            let mut index = self.lock();
            let oldest = index.in_file.values().next().copied()?;
            drop(index.remove(oldest));
            self.metrics.dropped.inc();
            file.slot()
        });
        let Some(slot) = slot else {
            self.metrics.dropped.inc();
            return;
        };
        match file.write(&slot, bytes) {
            Ok(()) => {
                self.failing.store(false, Ordering::Relaxed);
                let place = Place::File(file.clone(), slot);
                self.lock().insert(entry.content, Spilled { place, ..entry.block });
            }
            Err(error) => {
                self.metrics.dropped.inc();
                if !self.failing.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, "KV blocks cannot be written to the spill file and are dropped");
                }
            }
        }
    }

    /// Forgets a block that turned out to be damaged.
    pub(crate) fn discard(&self, content: &Content) {
        self.metrics.damaged.inc();
        self.lock().remove(content.prefix);
    }

    /// Notes blocks that could not be restored.
    pub(crate) fn note_lost(&self, error: &DeviceError) {
        if !self.losing.swap(true, Ordering::Relaxed) {
            tracing::warn!(%error, "spilled KV blocks could not be restored and are computed again");
        }
    }

    /// Notes blocks that were restored.
    pub(crate) fn note_restored(&self, blocks: usize) {
        self.losing.store(false, Ordering::Relaxed);
        self.metrics.restored.inc_by(blocks as u64);
    }
}

#[cfg(test)]
mod tests;
