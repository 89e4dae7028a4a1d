/// Shape of one layer's paged KV cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KvSpec {
    /// Key/value heads.
    pub heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Tokens of one block (page).
    pub block_tokens: usize,
}
