//! The fuzz target on the stable toolchain: templates and messages, mutated from fixed seeds. It returns, whatever the bytes.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use mlx_serving_text::fuzz;

const ROUNDS: u64 = 3_000;

/// xorshift64.
fn next(state: &mut u64) -> usize {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    (*state >> 16) as usize
}

/// Makes one to four edits: a piece doubled, moved or removed, or a byte replaced by a telling one.
fn mutate(valid: &[u8], seed: u64) -> Vec<u8> {
    const TELLING: &[u8] = b"{}[]()%-|.,:'~+*09 \0\xff";
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = valid.to_vec();
    for _ in 0..1 + next(&mut state) % 4 {
        if bytes.is_empty() {
            break;
        }
        let at = next(&mut state) % bytes.len();
        let end = (at + 1 + next(&mut state) % 40).min(bytes.len());
        match next(&mut state) % 4 {
            0 => bytes[at] = TELLING[next(&mut state) % TELLING.len()],
            1 => drop(bytes.drain(at..end)),
            2 => drop(bytes.splice(at..at, bytes[at..end].to_vec())),
            _ => {
                let piece: Vec<u8> = bytes.drain(at..end).collect();
                let to = next(&mut state) % (bytes.len() + 1);
                bytes.splice(to..to, piece);
            }
        }
    }
    bytes
}

#[test]
fn mutated_templates_and_messages_are_rendered_or_refused() {
    let config = std::fs::read(common::bundled_dir().join("tokenizer_config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
    let bundled = config["chat_template"].as_str().unwrap().as_bytes();
    let busy = b"{% set n = namespace(x=[]) %}{% macro m(a, b) %}{{ a ~ b | tojson }}{% endmacro %}{% for m in messages[1:] %}\
        {% set n.x = n.x + [m, m] %}{% if m.role == 'user' and 'x' in m.content %}{{ m.content.strip().split(' ')[::-1] | join(',') }}\
        {% elif loop.last %}{% continue %}{% else %}{{ m(m, n.x) }}{% endif %}{% endfor %}{{ n.x | map(attribute='role') | list }}";
    let python = br#"{% set c = cycler('a', 2) %}{% set j = joiner('-') %}{% for m in messages %}{{ j() }}{{ c.next() }}{{ '%5s|%-3d' % (m.role, 7) }}
        {{ '{:>9}{}'.format(m.role, [1e16]) }}{{ m.role.center(9, '*').rsplit('*', 1) }}{{ m.role.partition('s')[2].zfill(9).expandtabs(3) }}
        {{ [1, 2].index(2) ~ m.role.find('e', 1, -1) }}{{ m | string | truncate(9) | center(20) | wordcount }}{{ 7 % 3 ~ '8' | int(0, 16) }}
        {% generation %}{{ m.role.splitlines() | join(',') | e }}{{ m.role.split(None, 1) }}{% endgeneration %}{% endfor %}"#;
    let messages = br#"[{"role":"system","content":"be brief"},{"role":"user","content":"x y"},{"role":"assistant","content":[{"type":"text","text":"z"}]}]"#;
    for template in [bundled, &busy[..], &python[..]] {
        let valid = [template, b"\0", messages].concat();
        (0..ROUNDS).for_each(|seed| fuzz::chat_template(&mutate(&valid, seed)));
    }
}

#[test]
fn mutated_markup_is_divided_alike_however_it_is_cut() {
    let valid: [&[u8]; 8] = [
        b"\0<think>a</think>b <tool_call>{\"name\": \"f\", \"arguments\": {\"a\": \"x\\u00e9\"}}</tool_call> c",
        b"\x01<tool_call><function=f>\n<parameter=a>\nx\n</parameter><parameter=c>{\"k\": [1]}</parameter></function></tool_call>",
        b"\x02{\"name\": \"f\", \"parameters\": {\"a\": -1.5e3}}; {\"name\": \"g\"}",
        b"\x03[f(a='x\\'', c={'k': (1, None)}), g()]",
        b"\x04\x01[TOOL_CALLS]\x02f\x01[ARGS]\x02{\"a\": 1}\x01[TOOL_CALLS]\x02 [{\"name\": \"f\"}]",
        b"\x1d\x01<|channel>\x02thought\nx\x01<channel|>\x02\x01<|tool_call>\x02call:f{a:\x01<|\"|>\x02x\x01<|\"|>\x02,b:[1]}\x01<tool_call|>\x02",
        b"\x06<tool_call>f\n<arg_key>b</arg_key>\n<arg_value>null</arg_value></tool_call>",
        b"\x27\x01<|channel|>\x02analysis\x01<|message|>\x02x\x01<|end|>\x02\x01<|start|>\x02assistant\x01<|channel|>\x02commentary to=functions.f\x01<|message|>\x02{}",
    ];
    for valid in valid {
        (0..ROUNDS).for_each(|seed| fuzz::answer_markup(&mutate(valid, seed)));
    }
}
