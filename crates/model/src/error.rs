use mlx_serving_checkpoint::CheckpointError;
use mlx_serving_device::DeviceError;
use std::path::PathBuf;

/// Failure to load or run a model.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The files.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The device.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The weights alone exceed the device's memory.
    #[error(
        "the weights need {needed} bytes ({:.2} GiB), but this device has a budget of {budget} ({:.2} GiB); at 4 bits and groups of 64, up to about {:.1} billion \
         parameters would fit: choose a smaller model, fewer bits, or another device with --device",
        gib(*needed), gib(*budget), *budget as f64 / BYTES_OF_4_BITS / 1e9
    )]
    TooLarge {
        /// Bytes of the checkpoint's tensors.
        needed: u64,
        /// The device's budget.
        budget: u64,
    },
    /// A tensor that would change the model's answers if it were used.
    #[error(
        "{path}: {tensor} does not fit config.json, {why}; config.json and the weights do not belong together, or the model needs a feature that is not implemented"
    )]
    Contradiction {
        /// The checkpoint's folder.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The configuration's words against it.
        why: String,
    },
    /// Experts one by one, as transformers writes them.
    #[error(
        "{path}: {tensor} is a tensor of one expert, and there is no {module}.weight of all of them; convert the model with mlx_lm.convert, which stacks them"
    )]
    SingleExperts {
        /// The tensor's file.
        path: PathBuf,
        /// A tensor of the first expert.
        tensor: String,
        /// The module in which all are expected.
        module: String,
    },
    /// A gate and an up projection that the device does not multiply together.
    #[error("{layer}.mlp: {source}")]
    Gated {
        /// The layer.
        layer: String,
        /// The device's refusal.
        source: DeviceError,
    },
    /// A weight that cannot be divided is longer than the device's buffers.
    #[error(
        "{module} takes {bytes} bytes, but this device's longest buffer has {limit}; choose another device, or a model with fewer bits"
    )]
    TooLong {
        /// The module.
        module: String,
        /// Bytes in the device's layout.
        bytes: u64,
        /// The device's limit.
        limit: u64,
    },
    /// A model without a head, asked for logits.
    #[error("this model makes embeddings: it has no head, and so no logits")]
    NoHead,
    /// A token outside the vocabulary.
    #[error("token {token} is outside the vocabulary, which ends at {last}")]
    Token {
        /// The token.
        token: u32,
        /// The last one there is.
        last: usize,
    },
    /// More tokens than there is room for.
    #[error("{tokens} tokens do not fit a context of {room}")]
    Context {
        /// Tokens given.
        tokens: usize,
        /// Tokens that fit.
        room: usize,
    },
    /// Two models that cannot be compared.
    #[error("vocabularies of {reference} and {other} tokens cannot be compared; name two forms of one model")]
    Vocabularies {
        /// Size of the reference's.
        reference: usize,
        /// Size of the other's.
        other: usize,
    },
    /// A transfer of weights failed.
    #[error("loading {tensor} from {path} failed: {why}")]
    Upload {
        /// Name of the weights.
        tensor: String,
        /// Their file.
        path: PathBuf,
        /// Cause of the failure.
        why: String,
    },
}

/// Bytes of a weight of 4 bits with its share of scale and bias in groups of 64.
const BYTES_OF_4_BITS: f64 = 4.5 / 8.0;

fn gib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}
