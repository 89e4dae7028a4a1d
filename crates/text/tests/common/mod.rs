//! Checkpoint folders for tests.
#![allow(dead_code, unreachable_pub, reason = "each test program uses a part")]
use mlx_serving_text::Tokenizer;
use std::path::{Path, PathBuf};

pub fn bundled_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/rustbook-5m-4bit")
}

/// A sentencepiece-like tokenizer: metaspace, byte fallback, a space stripped at the beginning.
pub fn metaspace_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/metaspace")
}

pub fn bundled() -> Tokenizer {
    Tokenizer::from_dir(&bundled_dir()).unwrap()
}

pub fn metaspace() -> Tokenizer {
    Tokenizer::from_dir(&metaspace_dir()).unwrap()
}
