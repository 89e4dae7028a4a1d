//! JSON as Python's `json` reads and writes it, which is what checkpoints are made with: NaN and infinities, halves of surrogate pairs,
//! numbers beyond a double's. A byte-order mark is taken too.

use crate::CheckpointError;
use crate::file::PlainFile;
use serde_json::Value;
use std::path::Path;

/// Longest JSON file read: configuration is small, and an index of 100 000 tensors is a few MB.
const LIMIT: u64 = 64 << 20;

/// Parses JSON. A number that no double holds becomes an object such as `{"__float__": "NaN"}`, as transformers writes it, which is
/// taken for no text; half a surrogate pair becomes U+FFFD; of equal keys the last one counts.
///
/// # Errors
/// The bytes are not JSON to Python either.
pub fn parse_json(bytes: &[u8]) -> serde_json::Result<Value> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    // Nearly all files are plain JSON, and need no second look.
    serde_json::from_slice(bytes).or_else(|_| serde_json::from_slice(&plain(bytes)))
}

/// Reads and parses a JSON file; `None` if it is not there.
pub(crate) fn read_optional(path: &Path) -> Result<Option<Value>, CheckpointError> {
    match read(path) {
        Err(CheckpointError::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        found => found.map(Some),
    }
}

/// Reads and parses a JSON file that must be there.
pub(crate) fn read(path: &Path) -> Result<Value, CheckpointError> {
    let file = PlainFile::open(path)?;
    if file.len() > LIMIT {
        let message = format!("{} bytes; a JSON file of a checkpoint has at most {LIMIT}", file.len());
        return Err(CheckpointError::Json { path: path.to_owned(), message });
    }
    let mut bytes = vec![0; file.len() as usize];
    file.read(0, &mut bytes)?;
    parse(&bytes, path)
}

pub(crate) fn parse(bytes: &[u8], path: &Path) -> Result<Value, CheckpointError> {
    parse_json(bytes)
        .map_err(|e| CheckpointError::Json { path: path.to_owned(), message: format!("invalid JSON: {e}") })
}

/// Plain JSON of Python's, not longer than seven times its length.
fn plain(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(&first) = rest.first() {
        let len = match first {
            b'"' => text(rest, &mut out),
            b'-' | b'0'..=b'9' | b'N' | b'I' => number(rest, &mut out),
            _ => {
                out.push(first);
                1
            }
        };
        rest = &rest[len..];
    }
    out
}

/// Copies a number or a name of one, and returns its length.
fn number(bytes: &[u8], out: &mut Vec<u8>) -> usize {
    let part = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.');
    let len = bytes.iter().take_while(|byte| part(byte)).count();
    let found = &bytes[..len];
    let digits = found.last().is_some_and(u8::is_ascii_digit);
    let double = std::str::from_utf8(found).ok().filter(|_| digits).and_then(|text| text.parse::<f64>().ok());
    let name = match (found, double) {
        (b"NaN" | b"Infinity" | b"-Infinity", _) => found,
        (_, Some(f64::INFINITY)) => b"Infinity",
        (_, Some(f64::NEG_INFINITY)) => b"-Infinity",
        _ => {
            out.extend_from_slice(found);
            return len;
        }
    };
    out.extend_from_slice(br#"{"__float__":""#);
    out.extend_from_slice(name);
    out.extend_from_slice(br#""}"#);
    len
}

/// Copies a text with its quotes, and returns its length.
fn text(bytes: &[u8], out: &mut Vec<u8>) -> usize {
    let mut at = 1;
    out.push(b'"');
    while let Some(&byte) = bytes.get(at) {
        let len = match (byte, surrogate(&bytes[at..])) {
            (_, Some(0xd800..=0xdbff)) if matches!(surrogate(&bytes[at + 6..]), Some(0xdc00..=0xdfff)) => 12,
            (_, Some(_)) => {
                out.extend_from_slice(b"\\ufffd");
                at += 6;
                continue;
            }
            (b'\\', None) => 2.min(bytes.len() - at),
            _ => 1,
        };
        out.extend_from_slice(&bytes[at..at + len]);
        at += len;
        if byte == b'"' {
            break;
        }
    }
    at
}

/// Number of the surrogate whose escape is at the start.
fn surrogate(bytes: &[u8]) -> Option<u32> {
    let digits = std::str::from_utf8(bytes.strip_prefix(b"\\u")?.get(..4)?).ok()?;
    u32::from_str_radix(digits, 16).ok().filter(|unit| (0xd800..0xe000).contains(unit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_python_writes_is_read() {
        let float = |name: &str| json!({ "__float__": name });
        let (nan, infinity, negative) = (float("NaN"), float("Infinity"), float("-Infinity"));
        for (text, value) in [
            (r#"{"a": NaN, "b": [Infinity, -Infinity]}"#, json!({ "a": nan, "b": [infinity, negative] })),
            (r#"{"a": "NaN, -Infinity \" NaN \\", "b": NaN}"#, json!({ "a": "NaN, -Infinity \" NaN \\", "b": nan })),
            ("[1e999, -1e999, 1E+999, 0.5, -3]", json!([infinity, negative, infinity, 0.5, -3])),
            (r#"["\ud83d\ude00", "a\ud83d", "\ude00b", "\ud83d\ud83d\ude00", "\\ud83d"]"#, {
                json!(["😀", "a\u{fffd}", "\u{fffd}b", "\u{fffd}😀", "\\ud83d"])
            }),
            ("\u{feff}{\"a\": 1, \"a\": 2}", json!({ "a": 2 })),
            ("[1000000000000000019884624838656]", json!([1e30])),
        ] {
            assert_eq!(parse_json(text.as_bytes()).unwrap(), value, "{text}");
        }
        let digits = format!("[{}]", "9".repeat(400));
        assert_eq!(parse_json(digits.as_bytes()).unwrap(), json!([infinity]));
    }

    #[test]
    fn what_is_no_json_to_python_either_is_refused() {
        let texts = [
            "", "{", "nan", "[+1]", "[01]", "[1.]", "[.5]", "[NaNx]", "[-NaN]", "[Inf]", "['a']", "[1,]", "{a: 1}",
            "// 1",
        ];
        let broken = [
            r#"["\ud83d]"#,
            r#"["\ud8"]"#,
            r#"["\"#,
            "[\"\n\"]",
            "[1e]",
            "[--Infinity]",
            "[1Infinity]",
            "\u{feff}\u{feff}1",
        ];
        for text in texts.iter().chain(&broken) {
            assert!(parse_json(text.as_bytes()).is_err(), "{text}");
        }
        assert!(parse_json(b"[\"\xff\"]").is_err());
        assert!(parse_json("[".repeat(100_000).as_bytes()).is_err());
    }
}
