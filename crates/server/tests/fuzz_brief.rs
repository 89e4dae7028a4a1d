//! The fuzz targets on the stable toolchain: valid bodies, mutated from fixed seeds. They return, whatever the bytes.

use mlx_serving_server::fuzz;

const ROUNDS: u64 = 20_000;
const CHAT: &[u8] = br#"{"model":"m","messages":[{"role":"system","content":"be brief"},{"role":"user","content":[{"type":"text","text":"h\u00e9"}],"name":"a"},{"role":"assistant","content":"b","refusal":null,"tool_calls":[],"annotations":[]}],"max_tokens":8,"temperature":0.7,"top_p":0.9,"top_k":-1,"min_p":0.05,"repetition_penalty":1.1,"presence_penalty":-0.5,"frequency_penalty":1e-3,"seed":-7,"logit_bias":{"5":-100,"6":1.5},"stop":["a","b"],"n":2,"logprobs":true,"top_logprobs":3,"stream":true,"stream_options":{"include_usage":true,"continuous_usage_stats":true,"include_obfuscation":false},"tools":[],"service_tier":"auto","modalities":["text"],"best_of":1,"return_tokens_as_token_ids":true,"response_format":{"type":"text"},"chat_template_kwargs":{"enable_thinking":false}}"#;
const COMPLETION: &[u8] = br#"{"prompt":[[1,2],[3]],"max_tokens":4,"temperature":0,"stop":"x","logprobs":5,"echo":true,"n":1,"seed":3,"logit_bias":{"1":0},"stream":false,"user":"u","suffix":null,"store":false,"response_format":{"type":"text"}}"#;
const EMBEDDING: &[u8] = br#"{"model":"m","input":["a",[1,2],"h\u00e9"],"encoding_format":"base64","dimensions":8.0,"user":"u","add_special_tokens":true}"#;
const MESSAGE: &[u8] = br#"{"model":"m","max_tokens":8,"system":[{"type":"text","text":"x-anthropic-billing-header: a\nbe brief","cache_control":{"type":"ephemeral"}}],"messages":[{"role":"user","content":[{"type":"text","text":"h\u00e9","citations":null}]},{"role":"assistant","content":[{"type":"thinking","thinking":"hm","signature":"s"},{"type":"redacted_thinking","data":"d"},{"type":"tool_use","id":"t","name":"f","input":{"a":[1]}}]},{"role":"user","content":[{"type":"tool_result","tool_use_id":"t","content":[{"type":"text","text":"4"}],"is_error":true}]}],"tools":[{"name":"f","description":"d","input_schema":{"type":"object"},"strict":true},{"type":"web_search_20250305","name":"web_search","max_uses":3}],"tool_choice":{"type":"any","disable_parallel_tool_use":true},"thinking":{"type":"enabled","budget_tokens":1024,"display":"omitted"},"output_config":{"effort":"low","format":{"type":"json_schema","schema":{"type":"object"}}},"stop_sequences":["x"],"temperature":0.5,"top_k":5,"metadata":{"user_id":"u"},"service_tier":"auto","stream":true,"context_management":{"edits":[]}}"#;
const RESPONSE: &[u8] = br#"{"model":"m","input":[{"role":"developer","content":"a"},{"type":"reasoning","id":"rs_1","summary":[{"type":"summary_text","text":"s"}],"content":null,"encrypted_content":"mlx-serving:x"},{"type":"message","id":"msg_1","status":"completed","role":"assistant","content":[{"type":"output_text","text":"b","annotations":[]},{"type":"refusal","refusal":"no"}]},{"type":"function_call","id":"fc_1","call_id":"c","name":"f","arguments":"{\"a\":1}"},{"type":"function_call_output","call_id":"c","output":[{"type":"input_text","text":"4"}]},{"type":"item_reference","id":"msg_ab_0"}],"instructions":"i","tools":[{"type":"function","name":"f","parameters":{"type":"object"},"strict":true},{"type":"web_search"}],"tool_choice":{"type":"allowed_tools","mode":"required","tools":[{"type":"function","name":"f"}]},"parallel_tool_calls":false,"text":{"format":{"type":"json_schema","name":"n","schema":{"type":"object"},"strict":true}},"reasoning":{"effort":"low","summary":"auto"},"include":["reasoning.encrypted_content"],"max_output_tokens":8,"metadata":{"k":"v"},"store":false,"stream":true,"truncation":"disabled","temperature":0.5}"#;

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

#[test]
fn mutated_bodies_for_embeddings_are_read_or_refused() {
    (0..ROUNDS).for_each(|seed| fuzz::embedding_body(&mutate(EMBEDDING, seed)));
}

#[test]
fn mutated_message_bodies_are_read_or_refused() {
    (0..ROUNDS).for_each(|seed| fuzz::message_body(&mutate(MESSAGE, seed)));
}

#[test]
fn mutated_response_bodies_are_read_or_refused() {
    (0..ROUNDS).for_each(|seed| fuzz::response_body(&mutate(RESPONSE, seed)));
}
