//! Escapes of JSON that no text of Unicode has.

/// Characters of an escape such as `\ud83d`.
const ESCAPE: usize = 6;
/// Escape of U+FFFD.
const REPLACEMENT: &str = "\\ufffd";

/// JSON on its way to a client, in which half of a pair of surrogates becomes U+FFFD: JSON has it, texts of Unicode do not, and parsers of
/// clients refuse it.
#[derive(Debug, Clone, Default)]
pub(super) struct Surrogates {
    /// An escape that is not whole, or the first half of a pair and what follows it so far.
    held: String,
}

impl Surrogates {
    /// Takes the next character and adds what is known now to `json`.
    pub(super) fn push(&mut self, c: char, json: &mut String) {
        if self.held.is_empty() && c != '\\' {
            return json.push(c);
        }
        if self.held.len() == ESCAPE && c != '\\' {
            self.held.clear();
            json.push_str(REPLACEMENT);
            return json.push(c);
        }
        self.held.push(c);
        let first = if self.held.len() > ESCAPE { ESCAPE } else { 0 };
        let escape = &self.held[first..];
        let is_code = escape.len() < 2 || escape.starts_with("\\u");
        if is_code && escape.len() < ESCAPE {
            return;
        }
        let code = escape.get(2..).and_then(|digits| u16::from_str_radix(digits, 16).ok()).filter(|_| is_code);
        match code {
            Some(0xdc00..=0xdfff) if first > 0 => json.push_str(&self.held),
            Some(0xd800..=0xdbff) => {
                if first > 0 {
                    json.push_str(REPLACEMENT);
                    self.held.drain(..ESCAPE);
                }
                return;
            }
            _ => {
                if first > 0 {
                    json.push_str(REPLACEMENT);
                }
                match code {
                    Some(0xdc00..=0xdfff) => json.push_str(REPLACEMENT),
                    _ => json.push_str(escape),
                }
            }
        }
        self.held.clear();
    }

    /// What is held back, as it came: nothing more comes.
    pub(super) fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What a client gets of a string, whole.
    fn replaced(text: &str) -> String {
        let (mut surrogates, mut json) = (Surrogates::default(), String::new());
        text.chars().for_each(|c| surrogates.push(c, &mut json));
        json + &surrogates.finish()
    }

    #[test]
    fn half_of_a_pair_of_surrogates_is_replaced() {
        for (text, expected) in [
            (r#""a\n\u00e9\\ud83d""#, r#""a\n\u00e9\\ud83d""#),
            (r#""\ud83d\ude00\uD83D\uDE00""#, r#""\ud83d\ude00\uD83D\uDE00""#),
            (r#""\ud83d x""#, r#""\ufffd x""#),
            (r#""\ud83d""#, r#""\ufffd""#),
            (r#""\ud83d\n\ude00\\""#, r#""\ufffd\n\ufffd\\""#),
            (r#""\ud83d\ud83d\ude00""#, r#""\ufffd\ud83d\ude00""#),
            (r#""\ud83d\u0041\ude00\ude00""#, r#""\ufffd\u0041\ufffd\ufffd""#),
            (r#""\ud83d\"""#, r#""\ufffd\"""#),
            (r#""\ud83"#, r#""\ud83"#),
        ] {
            assert_eq!(replaced(text), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn replaced_surrogates_leave_a_text(parts in prop::collection::vec(prop::sample::select(vec![
            "\\ud83d", "\\ude00", "\\u0041", "\\n", "\\\\", "\\\"", "a", "u", "d83d", "é",
        ]), 0..12)) {
            let text = format!("\"{}\"", parts.concat());
            let told = replaced(&text);
            prop_assert!(serde_json::from_str::<String>(&told).is_ok(), "{} of {}", told, text);
            if serde_json::from_str::<String>(&text).is_ok() {
                prop_assert_eq!(told, text);
            }
        }
    }
}
