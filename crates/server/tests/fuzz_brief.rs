//! The fuzz targets on the stable toolchain: valid bodies, mutated from fixed seeds. They return, whatever the bytes.

use mlx_serving_server::fuzz;

const ROUNDS: u64 = 20_000;
const CHAT: &[u8] = br#"{"model":"m","messages":[{"role":"system","content":"be brief"},{"role":"user","content":[{"type":"text","text":"h\u00e9"}],"name":"a"},{"role":"assistant","content":"b","refusal":null,"tool_calls":[],"annotations":[]}],"max_tokens":8,"temperature":0.7,"top_p":0.9,"top_k":-1,"min_p":0.05,"repetition_penalty":1.1,"presence_penalty":-0.5,"frequency_penalty":1e-3,"seed":-7,"logit_bias":{"5":-100,"6":1.5},"stop":["a","b"],"n":2,"logprobs":true,"top_logprobs":3,"stream":true,"stream_options":{"include_usage":true,"continuous_usage_stats":true,"include_obfuscation":false},"tools":[],"service_tier":"auto","modalities":["text"],"best_of":1,"return_tokens_as_token_ids":true,"response_format":{"type":"text"},"chat_template_kwargs":{"enable_thinking":false}}"#;
const COMPLETION: &[u8] = br#"{"prompt":[[1,2],[3]],"max_tokens":4,"temperature":0,"stop":"x","logprobs":5,"echo":true,"n":1,"seed":3,"logit_bias":{"1":0},"stream":false,"user":"u","suffix":null,"store":false,"response_format":{"type":"text"}}"#;

/// xorshift64.
fn next(state: &mut u64) -> usize {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    (*state >> 16) as usize
}

/// One to four edits: a piece replaced by a telling one, removed or doubled, or the end cut off.
fn mutate(valid: &[u8], seed: u64) -> Vec<u8> {
    const TELLING: [&[u8]; 14] = [
        b"0",
        b"-1",
        b"1e999",
        b"-0.0",
        b"9223372036854775808",
        b"null",
        b"[]",
        b"{}",
        b"\"\"",
        b"[[[[",
        b"\\ud800",
        b"\xff",
        b"true",
        b",",
    ];
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = valid.to_vec();
    for _ in 0..1 + next(&mut state) % 4 {
        if bytes.is_empty() {
            break;
        }
        let at = next(&mut state) % bytes.len();
        let end = (at + 1 + next(&mut state) % 8).min(bytes.len());
        match next(&mut state) % 8 {
            0..=3 => drop(bytes.splice(at..end, TELLING[next(&mut state) % TELLING.len()].to_vec())),
            4 => drop(bytes.drain(at..end)),
            5 => drop(bytes.splice(at..at, bytes[at..end].to_vec())),
            6 => bytes[at] ^= 1 << (next(&mut state) % 8),
            _ => bytes.truncate(at),
        }
    }
    bytes
}

#[test]
fn mutated_chat_bodies_are_read_or_refused() {
    (0..ROUNDS).for_each(|seed| fuzz::chat_body(&mutate(CHAT, seed)));
}

#[test]
fn mutated_completion_bodies_are_read_or_refused() {
    (0..ROUNDS).for_each(|seed| fuzz::completion_body(&mutate(COMPLETION, seed)));
}
