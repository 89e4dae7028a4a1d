use crate::quantization::{Mode, Quantization, SmallFloat};
use crate::shard::Shard;
use crate::weights::WeightFiles;
use crate::{CheckpointError, Config, Embedding, GenerationDefaults, file, parts};
use safetensors::Dtype;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// An open checkpoint: configuration, and files whose tensors are read on demand. Parts that compute no text are left out.
#[derive(Debug)]
pub struct Checkpoint {
    /// `config.json`.
    pub config: Config,
    /// `generation_config.json`.
    pub generation: GenerationDefaults,
    /// `modules.json` and the pooling that it names: only embedding models have them.
    pub embedding: Option<Embedding>,
    dir: PathBuf,
    shards: Vec<Shard>,
    /// Tensor → its shard.
    tensors: BTreeMap<String, usize>,
    warnings: Vec<String>,
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
    /// Small floats: `weight` packs values, u32 (rows, cols · bits / 32); `scales` are U8 (rows, cols / group size).
    SmallFloat(SmallFloat),
    /// Plain values: `weight` is (rows, cols).
    Dense {
        /// F32, F16 or BF16.
        dtype: Dtype,
    },
}

const FLOATS: [Dtype; 3] = [Dtype::F32, Dtype::F16, Dtype::BF16];

impl Checkpoint {
    /// Opens the checkpoint in a folder: its files stay open, headers and configuration are validated; reads no weights.
    pub fn open(dir: &Path) -> Result<Self, CheckpointError> {
        file::refuse_special_in(dir)?;
        let config = Config::read(&dir.join("config.json"))?;
        let mut warnings = Vec::new();
        let generation = GenerationDefaults::read(&dir.join("generation_config.json"), &mut warnings)?;
        let embedding = Embedding::read(dir, &mut warnings)?;
        let (shards, mut tensors) = shards(dir, &mut warnings)?;
        warnings.extend(parts::leave_out(&mut tensors));
        if config.quantization.is_empty() && tensors.keys().any(|name| name.ends_with(".scales")) {
            let path = dir.join("config.json");
            warnings.push(format!(
                "{} has no quantization: the shapes of the tensors tell bits and groups",
                path.display()
            ));
        }
        Ok(Self { config, generation, embedding, dir: dir.to_owned(), shards, tensors, warnings })
    }

    /// A checkpoint without files.
    pub(crate) fn generated(config: Config, generation: GenerationDefaults, shard: Shard) -> Self {
        let (shards, tensors) = only(shard);
        Self { config, generation, embedding: None, dir: PathBuf::new(), shards, tensors, warnings: Vec::new() }
    }

    /// Files that are not read, or not as they were meant: sentences for people, each with its file.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
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

    /// The weight of a module of shape (`rows`, `cols`). Quantized if the module has scales, as in mlx-lm; its bits and group size are
    /// those that `config.json` has under the module's name, else those of its tensors' shapes.
    pub fn linear(&self, module: &str, rows: usize, cols: usize) -> Result<LinearFormat, CheckpointError> {
        self.matrices(module, &[rows], cols)
    }

    /// The weights of `count` modules of shape (`rows`, `cols`) in one tensor, of shape (`count`, `rows`, `cols`), and otherwise as
    /// [`Self::linear`].
    pub fn stack(&self, module: &str, count: usize, rows: usize, cols: usize) -> Result<LinearFormat, CheckpointError> {
        self.matrices(module, &[count, rows], cols)
    }

    /// The weight of a module whose tensors have a row of `cols` values for each of `outer`.
    fn matrices(&self, module: &str, outer: &[usize], cols: usize) -> Result<LinearFormat, CheckpointError> {
        let shape = |width: usize| [outer, &[width]].concat();
        let [weight, scales, biases] = ["weight", "scales", "biases"].map(|tensor| format!("{module}.{tensor}"));
        let Some(scale) = self.get(&scales) else {
            let dtype = self.tensor(&weight, &shape(cols), &FLOATS)?.dtype;
            return Ok(LinearFormat::Dense { dtype });
        };
        let plan = &self.config.quantization;
        let named = plan.of(module)?;
        let Some(packed) = self.get(&weight) else { return Err(self.missing(&weight)) };
        let width = |tensor: &TensorInfo<'_>| {
            tensor.shape.last().filter(|_| tensor.shape.len() == outer.len() + 1).copied().unwrap_or(0)
        };
        let contradiction = |expected| {
            let (path, tensor) = (self.path_of(&weight).to_owned(), weight.clone());
            let found =
                format!("{:?} {:?} with scales of {:?} {:?}", packed.dtype, packed.shape, scale.dtype, scale.shape);
            CheckpointError::Tensor { path, tensor, found, expected }
        };
        if scale.dtype == Dtype::U8 || matches!(named.mode, Some(Mode::Small(_))) {
            let mode = named.small_or_by_shape(cols, width(&packed), width(&scale)).map_err(contradiction)?;
            return self.small_floats(module, outer, cols, mode);
        }
        let quantization = named.or_by_shape(cols, width(&packed), width(&scale)).map_err(contradiction)?;
        let (group, bits) = (usize::from(quantization.group_size), usize::from(quantization.bits));
        self.tensor(&weight, &shape(cols * bits / 32), &[Dtype::U32])?;
        let side = shape(cols / group);
        let scale_dtype = self.tensor(&scales, &side, &FLOATS)?.dtype;
        self.tensor(&biases, &side, &[scale_dtype])?;
        Ok(LinearFormat::Quantized { quantization, scale_dtype })
    }

    /// Checks the tensors of a module of small floats.
    fn small_floats(
        &self,
        module: &str,
        outer: &[usize],
        cols: usize,
        mode: SmallFloat,
    ) -> Result<LinearFormat, CheckpointError> {
        let shape = |width: usize| [outer, &[width]].concat();
        let Quantization { group_size, bits } = mode.quantization();
        self.tensor(&format!("{module}.weight"), &shape(cols * usize::from(bits) / 32), &[Dtype::U32])?;
        self.tensor(&format!("{module}.scales"), &shape(cols / usize::from(group_size)), &[Dtype::U8])?;
        for other in ["biases", "global_scale"].map(|tensor| format!("{module}.{tensor}")) {
            if let Some(info) = self.get(&other) {
                let path = self.path_of(&other).to_owned();
                let (found, expected) =
                    (format!("{:?} {:?}", info.dtype, info.shape), format!("no such tensor of {}", mode.name()));
                return Err(CheckpointError::Tensor { path, tensor: other, found, expected });
            }
        }
        Ok(LinearFormat::SmallFloat(mode))
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

fn only(shard: Shard) -> Shards {
    let tensors = shard.names().into_iter().map(|name| (name, 0)).collect();
    (vec![shard], tensors)
}

/// Opens the files of weights, and those beside them that have nothing but further tensors.
fn shards(dir: &Path, warnings: &mut Vec<String>) -> Result<Shards, CheckpointError> {
    let files = WeightFiles::find(dir)?;
    warnings.extend(files.warning);
    let (mut shards, mut tensors) = (Vec::<Shard>::new(), BTreeMap::new());
    for file in &files.names {
        let shard = Shard::open(&dir.join(file))?;
        for name in shard.names() {
            if let Some(other) = tensors.insert(name.clone(), shards.len()) {
                let (path, other) = (shard.path().to_owned(), shards[other].path().to_owned());
                return Err(CheckpointError::Twice { path, other, tensor: name });
            }
        }
        shards.push(shard);
    }
    for file in &files.beside {
        let path = dir.join(file);
        let shard = match Shard::open(&path) {
            Ok(shard) => shard,
            Err(error) => {
                warnings.push(format!("not read, because the model has its weights from other files: {error}"));
                continue;
            }
        };
        let names = shard.names();
        if let Some((name, &other)) = names.iter().find_map(|name| tensors.get_key_value(name)) {
            let other = shards[other].path().display();
            warnings.push(format!("{} is not read: {other} has its tensor {name} too", path.display()));
            continue;
        }
        tensors.extend(names.into_iter().map(|name| (name, shards.len())));
        shards.push(shard);
    }
    Ok((shards, tensors))
}
