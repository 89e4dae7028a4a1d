//! Long texts take little memory. A program of its own: the peak is the process's.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use mlx_serving_text::TextError;

/// Bytes of text; at once they would take 200 MiB.
const SIZE: usize = 1 << 20;

/// Peak resident size, MiB.
#[cfg(target_os = "linux")]
fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() / 1024
}

#[cfg(not(target_os = "linux"))]
fn peak() -> usize {
    0
}

#[test]
fn long_texts_cost_little_more_than_their_ids() {
    for tokenizer in [common::bundled(), common::metaspace()] {
        for unit in ["the cat sat on a mat, 12 times.\n", " ", "你好，世界。", "<|im_end|></s>"] {
            let text = unit.repeat(SIZE / unit.len());
            let before = peak();
            let too_long = tokenizer.encode_within(&text, true, 1000, &mut || true);
            assert!(matches!(too_long, Err(TextError::TooLong { .. })), "{unit:?}");
            if !unit.starts_with('<') {
                let ids = tokenizer.encode_within(&text, false, usize::MAX, &mut || true).unwrap();
                let room = 2 * 4 * ids.len() / (1 << 20);
                assert!(peak() <= before + room + 24, "{unit:?}: {before} MiB, then {} with {room} for ids", peak());
            }
        }
    }
}
