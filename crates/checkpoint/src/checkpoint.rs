use crate::quantization::Quantization;
use crate::shard::Shard;
use crate::{CheckpointError, Config, GenerationDefaults, file, json};
use safetensors::Dtype;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

/// An open checkpoint: configuration, and files whose tensors are read on demand.
#[derive(Debug)]
pub struct Checkpoint {
    /// `config.json`.
    pub config: Config,
    /// `generation_config.json`.
    pub generation: GenerationDefaults,
    dir: PathBuf,
    shards: Vec<Shard>,
    /// Tensor → its shard.
    tensors: BTreeMap<String, usize>,
}

/// A tensor's entry in its file's header.
#[derive(Debug, Clone, Copy)]
pub struct TensorInfo<'a> {
    /// Type of a value.
    pub dtype: Dtype,
    /// Shape, outermost first.
    pub shape: &'a [usize],
    /// Bytes of its values.
    pub bytes: u64,
}

/// Layout of one linear (or embedding) module's weight of shape (rows, cols) in its tensors. All are row-major.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinearFormat {
    /// MLX's affine quantization: `weight` packs values, u32 (rows, cols · bits / 32); `scales` and `biases` are (rows, cols / group
    /// size).
    Quantized {
        /// Bits and group size.
        quantization: Quantization,
        /// Type of scales and biases: F32, F16 or BF16.
        scale_dtype: Dtype,
    },
    /// Plain values: `weight` is (rows, cols).
    Dense {
        /// F32, F16 or BF16.
        dtype: Dtype,
    },
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
const FLOATS: [Dtype; 3] = [Dtype::F32, Dtype::F16, Dtype::BF16];

impl Checkpoint {
    /// Opens the checkpoint in a folder: its files stay open, headers and configuration are validated; reads no weights.
    pub fn open(dir: &Path) -> Result<Self, CheckpointError> {
        file::refuse_special_in(dir)?;
        let config = Config::read(&dir.join("config.json"))?;
        let generation = GenerationDefaults::read(&dir.join("generation_config.json"))?;
        let (shards, tensors) = match json::read_optional::<Index>(&dir.join(INDEX))? {
            Some(index) => sharded(dir, &index)?,
            None => single(dir)?,
        };
        Ok(Self { config, generation, dir: dir.to_owned(), shards, tensors })
    }

    /// A checkpoint without files.
    pub(crate) fn generated(config: Config, generation: GenerationDefaults, shard: Shard) -> Self {
        let (shards, tensors) = only(shard);
        Self { config, generation, dir: PathBuf::new(), shards, tensors }
    }

    /// The folder; empty for a checkpoint without files.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Bytes of all tensors.
    pub fn total_bytes(&self) -> u64 {
        self.tensors.keys().filter_map(|name| self.get(name)).map(|t| t.bytes).sum()
    }

    /// A tensor, if it is there.
    pub fn get(&self, name: &str) -> Option<TensorInfo<'_>> {
        let info = self.shards[*self.tensors.get(name)?].info(name)?;
        let (start, end) = info.data_offsets;
        Some(TensorInfo { dtype: info.dtype, shape: &info.shape, bytes: (end - start) as u64 })
    }

    /// Fills `out` with a tensor's bytes from `offset` on: row-major, little-endian. Safe to call from any thread.
    ///
    /// # Errors
    /// Also for a file that has been shortened or written to since the checkpoint was opened.
    pub fn read(&self, name: &str, offset: u64, out: &mut [u8]) -> Result<(), CheckpointError> {
        let shard = self.tensors.get(name).map(|&i| &self.shards[i]);
        match shard.and_then(|shard| Some((shard, shard.info(name)?))) {
            Some((shard, info)) => shard.read(name, info, offset, out),
            None => Err(self.missing(name)),
        }
    }

    fn missing(&self, tensor: &str) -> CheckpointError {
        CheckpointError::Missing { path: self.dir.clone(), tensor: tensor.into() }
    }

    /// A tensor that must be there with this shape and one of these types.
    pub fn tensor(&self, name: &str, shape: &[usize], dtypes: &[Dtype]) -> Result<TensorInfo<'_>, CheckpointError> {
        let Some(info) = self.get(name) else { return Err(self.missing(name)) };
        if info.shape != shape || !dtypes.contains(&info.dtype) {
            let types: Vec<String> = dtypes.iter().map(|d| format!("{d:?}")).collect();
            return Err(CheckpointError::Tensor {
                path: self.path_of(name).to_owned(),
                tensor: name.into(),
                found: format!("{:?} {:?}", info.dtype, info.shape),
                expected: format!("{} {shape:?}", types.join(" or ")),
            });
        }
        Ok(info)
    }

    /// A vector of `len` floating-point values.
    pub fn vector(&self, name: &str, len: usize) -> Result<TensorInfo<'_>, CheckpointError> {
        self.tensor(name, &[len], &FLOATS)
    }

    /// The weight of a module of shape (`rows`, `cols`). Quantized if the module has scales, as in mlx-lm; its parameters then
    /// come from `config.json`, overrides included.
    pub fn linear(&self, module: &str, rows: usize, cols: usize) -> Result<LinearFormat, CheckpointError> {
        let weight = format!("{module}.weight");
        let scales = format!("{module}.scales");
        if !self.tensors.contains_key(&scales) {
            let dtype = self.tensor(&weight, &[rows, cols], &FLOATS)?.dtype;
            return Ok(LinearFormat::Dense { dtype });
        }
        let config = self.dir.join("config.json");
        let Some(quantization) = self.config.quantization.as_ref().and_then(|plan| plan.of(module)) else {
            let expected = format!("parameters for {module}, which has scales");
            return Err(CheckpointError::config(&config, "quantization", "missing or false", expected));
        };
        let (group, bits) = (usize::from(quantization.group_size), usize::from(quantization.bits));
        if !cols.is_multiple_of(group) {
            let expected = format!("a divisor of {cols}, the width of {module}");
            return Err(CheckpointError::config(&config, "quantization.group_size", group, expected));
        }
        self.tensor(&weight, &[rows, cols * bits / 32], &[Dtype::U32])?;
        let side = [rows, cols / group];
        let scale_dtype = self.tensor(&scales, &side, &FLOATS)?.dtype;
        self.tensor(&format!("{module}.biases"), &side, &[scale_dtype])?;
        Ok(LinearFormat::Quantized { quantization, scale_dtype })
    }

    /// Tensors that are not in `used`, for a warning.
    pub fn unused(&self, used: &BTreeSet<String>) -> Vec<String> {
        self.tensors.keys().filter(|name| !used.contains(*name)).cloned().collect()
    }

    /// The file that holds a tensor; the folder where there is no such tensor.
    pub fn path_of(&self, name: &str) -> &Path {
        self.tensors.get(name).map_or(self.dir.as_path(), |&i| self.shards[i].path())
    }
}

type Shards = (Vec<Shard>, BTreeMap<String, usize>);

fn single(dir: &Path) -> Result<Shards, CheckpointError> {
    Shard::open(&dir.join(SINGLE)).map(only)
}

fn only(shard: Shard) -> Shards {
    let tensors = shard.names().into_iter().map(|name| (name, 0)).collect();
    (vec![shard], tensors)
}

fn sharded(dir: &Path, index: &Index) -> Result<Shards, CheckpointError> {
    let path = dir.join(INDEX);
    let mut shards: Vec<Shard> = Vec::new();
    let mut files: BTreeMap<&str, usize> = BTreeMap::new();
    let mut tensors = BTreeMap::new();
    for (name, file) in &index.weight_map {
        let shard = match files.get(file.as_str()) {
            Some(&i) => i,
            None => {
                let plain = Path::new(file).components().eq([Component::Normal(file.as_ref())]);
                if !plain {
                    let message = format!("weight_map names the file {file:?}; shards lie beside the index");
                    return Err(CheckpointError::Json { path, message });
                }
                shards.push(Shard::open(&dir.join(file))?);
                files.insert(file, shards.len() - 1);
                shards.len() - 1
            }
        };
        if shards[shard].info(name).is_none() {
            return Err(CheckpointError::Missing { path: shards[shard].path().to_owned(), tensor: name.clone() });
        }
        tensors.insert(name.clone(), shard);
    }
    // Tensors that the index does not know of would be lost silently.
    for (i, shard) in shards.iter().enumerate() {
        for name in shard.names() {
            match tensors.get(&name) {
                Some(&other) if other == i => {}
                Some(&other) => {
                    let message = format!("tensor {name} is in {} too", shards[other].path().display());
                    return Err(CheckpointError::Format { path: shard.path().to_owned(), message });
                }
                None => {
                    tensors.insert(name, i);
                }
            }
        }
    }
    Ok((shards, tensors))
}
