use mlx_serving_model::BLOCK_TOKENS;

/// Tokens of a full block.
pub(crate) type BlockTokens = [u32; BLOCK_TOKENS];

/// Identity of a full block's content: its own tokens and, through the chain, all before them and the salt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Prefix(u128);

/// Content of a full block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Content {
    pub prefix: Prefix,
    parent: Prefix,
    salt: u64,
    tokens: BlockTokens,
}

/// Full blocks at the head of a sequence, as far as they are shared.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Chain {
    salt: u64,
    tip: Prefix,
    blocks: usize,
}

impl Prefix {
    /// The empty prefix of sequences with this salt.
    fn root(salt: u64) -> Prefix {
        const BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
        Prefix(BASIS).extend(salt.to_le_bytes())
    }

    /// The prefix that these bytes make behind `self`. 128-bit FNV-1a: collisions are out of reach by accident, and whoever looks
    /// a [`Content`] up compares all of it, so a forged one only misses.
    fn extend(self, bytes: impl IntoIterator<Item = u8>) -> Prefix {
        const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
        let start = self.0.rotate_left(1);
        Prefix(bytes.into_iter().fold(start, |h, b| (h ^ u128::from(b)).wrapping_mul(PRIME)))
    }
}

impl Chain {
    /// A chain without blocks. Chains of unequal salts have no content in common.
    pub(crate) fn new(salt: u64) -> Self {
        Self { salt, tip: Prefix::root(salt), blocks: 0 }
    }

    /// Its blocks.
    pub(crate) fn blocks(&self) -> usize {
        self.blocks
    }

    /// The content that `tokens` make behind it.
    pub(crate) fn next(&self, tokens: &BlockTokens) -> Content {
        let prefix = self.tip.extend(tokens.iter().flat_map(|t| t.to_le_bytes()));
        Content { prefix, parent: self.tip, salt: self.salt, tokens: *tokens }
    }

    /// Goes one block on.
    pub(crate) fn push(&mut self, content: &Content) {
        debug_assert!(content.parent == self.tip && content.salt == self.salt, "a block of another chain");
        self.tip = content.prefix;
        self.blocks += 1;
    }
}

#[cfg(test)]
impl Content {
    /// Content of the same prefix that is not the same.
    pub(crate) fn forged(&self) -> Self {
        let mut forged = self.clone();
        forged.tokens[0] ^= 1;
        forged
    }

    /// Content of the same prefix and tokens under another salt.
    pub(crate) fn salted(&self, salt: u64) -> Self {
        Self { salt, ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_tokens_have_one_prefix_where_salt_and_all_before_them_are_equal() {
        let (one, other) = ([1; BLOCK_TOKENS], [2; BLOCK_TOKENS]);
        let content = |salt, blocks: &[BlockTokens]| {
            let mut chain = Chain::new(salt);
            let extend = |tokens| {
                let content = chain.next(tokens);
                chain.push(&content);
                content
            };
            let last = blocks.iter().map(extend).last().unwrap();
            assert_eq!(chain.blocks(), blocks.len());
            last
        };
        assert_eq!(content(0, &[one, other]), content(0, &[one, other]));
        for (salt, blocks) in [(1, &[one, other][..]), (u64::MAX, &[one, other]), (0, &[other, other]), (0, &[other])] {
            assert_ne!(content(0, &[one, other]).prefix, content(salt, blocks).prefix);
        }
        assert_ne!(content(0, &[one]), content(0, &[one]).salted(1), "though the prefix were the same");
    }
}
