//! Places at which a text may be cut so that its parts, tokenized one by one, are its tokens.
//!
//! Two kinds of tokenizers are known well enough, which together are nearly all. *Byte-level* ones split text by a regular
//! expression first; between certain characters none of the expressions in use ever matches across. *Sentencepiece-like* ones
//! have no such places, but merge by rank alone, so that windows that overlap can be joined ([`crate::within`]).

use crate::byte_level::has_alphabet;
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use tokenizers::normalizers::{NFC, NFD};
use tokenizers::{AddedToken, Model as _, ModelWrapper, NormalizedString, Normalizer};

/// A tokenizer's treatment of text, as far as cutting goes.
#[derive(Debug)]
pub(crate) struct Cuts {
    pub(crate) rule: Rule,
    /// Bytes of text that a token stands for at most; `None` where one may stand for any number.
    pub(crate) longest: Option<usize>,
    added: HashMap<String, AddedToken>,
    /// Lengths of added tokens in bytes, ascending.
    lengths: Vec<usize>,
    /// Characters that stand side by side in an added token.
    pairs: HashSet<(char, char)>,
    /// First characters of added tokens.
    first: HashSet<char>,
    /// First and last characters of the added tokens that look at their neighbors.
    wary: [HashSet<char>; 2],
    /// True if added tokens are looked for in composed text, so that one may be spelled in several ways.
    composed: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// Byte-level: cuts between words. Where `letters`, a run of Latin letters is never divided by what stands before it; where
    /// `runs`, added tokens are looked for in the text as it is.
    Words { letters: bool, runs: bool },
    /// Sentencepiece-like: all text is one word (or its words begin with a space).
    Stream(Stream),
    /// Unknown: the text stays whole.
    Whole,
}

/// Rewriting of text by a sentencepiece-like tokenizer: its spaces, and what it puts in front.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Stream {
    /// Put before a text and after every added token.
    prepend: String,
    /// True if a text that begins with a space already gets nothing before it.
    unless_spaced: bool,
    /// Replacement of a space, [`MAX_SPACE`] bytes at most.
    space: String,
}

/// Bytes of one character.
pub(crate) const MAX_SPACE: usize = 4;

impl Stream {
    /// Bytes of `text` when it is rewritten, without what is put in front.
    pub(crate) fn width(&self, text: &str) -> usize {
        let spaces = text.bytes().filter(|&byte| byte == b' ').count();
        text.len() - spaces + spaces * self.space.len()
    }

    /// Bytes that are put in front of `text`.
    pub(crate) fn prefix(&self, text: &str) -> usize {
        let spaced = self.unless_spaced && (text.starts_with(' ') || text.starts_with(&self.space));
        if spaced { 0 } else { self.prepend.len() }
    }
}

impl Cuts {
    /// Looks at a tokenizer and its vocabulary, added tokens included.
    pub(crate) fn of(tokenizer: &tokenizers::Tokenizer, vocab: &HashMap<String, u32>) -> Self {
        let added: Vec<AddedToken> = tokenizer.get_added_tokens_decoder().into_values().collect();
        let steps = |value: Option<Value>| value.map_or_else(Vec::new, |value| flatten(&value));
        // Settings that cannot be written down are not known either.
        let normalizer = steps(tokenizer.get_normalizer().map(|n| serde_json::to_value(n).unwrap_or_default()));
        let splits = steps(tokenizer.get_pre_tokenizer().map(|p| serde_json::to_value(p).unwrap_or_default()));
        let rule = rule(tokenizer.get_model(), &normalizer, &splits, &added);
        let composes = normalizer.iter().any(|step| step["type"] == "NFC");
        let longest = match rule {
            // A letter a byte; added tokens are spelled as they are.
            Rule::Words { .. } => {
                let tokens = vocab.keys().map(|token| token.chars().count());
                let longest = tokens.chain(added.iter().map(|token| token.content.len())).max();
                longest.map(|bytes| if composes { NFC_SHRINKS * bytes } else { bytes })
            }
            Rule::Stream(_) => vocab.keys().map(String::len).max(),
            Rule::Whole => None,
        };
        let greedy = added.iter().any(|token| token.lstrip || token.rstrip);
        let composed = composes && added.iter().any(|token| token.normalized);
        let spelled: Vec<String> = added.iter().flat_map(|token| spellings(&token.content, composed)).collect();
        let wary = added.iter().filter(|token| token.single_word || token.lstrip || token.rstrip);
        let wary: Vec<String> = wary.flat_map(|token| spellings(&token.content, composed)).collect();
        let mut lengths: Vec<usize> = added.iter().map(|token| token.content.len()).collect();
        lengths.sort_unstable();
        lengths.dedup();
        Self {
            rule,
            longest: longest.filter(|_| !greedy),
            lengths,
            pairs: spelled.iter().flat_map(|text| text.chars().zip(text.chars().skip(1))).collect(),
            first: spelled.iter().filter_map(|text| text.chars().next()).collect(),
            wary: [
                wary.iter().filter_map(|text| text.chars().next()).collect(),
                wary.iter().filter_map(|text| text.chars().next_back()).collect(),
            ],
            composed,
            added: added.into_iter().map(|token| (token.content.clone(), token)).collect(),
        }
    }

    /// True where the tokens of `text` are those of its parts before and behind byte `at`, whatever stands there.
    pub(crate) fn is_free(&self, text: &str, at: usize) -> bool {
        let (Some(before), Some(behind)) = (text[..at].chars().next_back(), text[at..].chars().next()) else {
            return false;
        };
        let words = matches!(self.rule, Rule::Words { .. })
            && parts(before, behind)
            // The last character of several that are composed into one of a token is none of these.
            && (!self.composed || is_word(before))
            && !self.pairs.contains(&(before, behind))
            && !self.wary[0].contains(&behind)
            && !self.wary[1].contains(&before);
        words || self.begins_added(text, at)
    }

    /// True where an added token that is found whatever surrounds it begins, apart from all others: tokenizers of all kinds
    /// treat the text between such tokens as texts of their own.
    fn begins_added(&self, text: &str, at: usize) -> bool {
        let mark = |c: char| !c.is_alphanumeric() && !c.is_whitespace() && c != '_';
        let Some(token) = self.added_at(text, at).find(|token| {
            !token.normalized
                && !token.single_word
                && !token.lstrip
                && !token.rstrip
                && token.content.starts_with(mark)
                && token.content.ends_with(mark)
        }) else {
            return false;
        };
        let end = at + token.content.len();
        let mut found = self.occurrences(text, at, end).filter(|&(start, stop)| start < end && stop > at);
        found.next() == Some((at, end)) && found.next().is_none()
    }

    /// True where no added token touches `text[from..to]`.
    pub(crate) fn is_plain(&self, text: &str, from: usize, to: usize) -> bool {
        !self.occurrences(text, from, to).any(|(start, stop)| start <= to && stop >= from)
    }

    /// Ranges of the added tokens spelled in `text` that may touch `from..=to`.
    fn occurrences<'a>(&'a self, text: &'a str, from: usize, to: usize) -> impl Iterator<Item = (usize, usize)> + 'a {
        let longest = self.lengths.last().copied().unwrap_or(0);
        let from = text.ceil_char_boundary(from.saturating_sub(longest));
        let starts = text[from..].char_indices().map(move |(i, _)| from + i).take_while(move |&i| i <= to);
        starts.flat_map(move |i| self.added_at(text, i).map(move |token| (i, i + token.content.len())))
    }

    /// Added tokens spelled at byte `at`. One look for each length: there may be thousands, all with the same beginning.
    fn added_at<'a>(&'a self, text: &'a str, at: usize) -> impl Iterator<Item = &'a AddedToken> + 'a {
        let begins = text[at..].starts_with(|c| self.first.contains(&c));
        let lengths = if begins { &self.lengths[..] } else { &[] };
        lengths.iter().filter_map(move |&length| self.added.get(text.get(at..at + length)?))
    }

    /// True where all of `text[from..]` up to two characters behind `to` is certain to be inside one word.
    pub(crate) fn is_one_run(&self, text: &str, from: usize, to: usize) -> bool {
        let Rule::Words { letters, runs: true } = self.rule else { return false };
        let mut chars = text[from..].char_indices().map(|(i, c)| (from + i, c));
        let Some(run) = chars.next().and_then(|(_, c)| Run::of(c)) else { return false };
        let mut beyond = 0;
        for (i, c) in chars {
            if Run::of(c) != Some(run) {
                return false;
            }
            beyond += usize::from(i >= to);
            if beyond == 2 {
                return letters || !matches!(run, Run::Lower | Run::Upper);
            }
        }
        false
    }
}

/// The ways in which a token that is looked for in composed text may begin, end and go on: a text that is composed to it
/// consists, around every place at which it may be cut, of characters of one of these.
fn spellings(content: &str, composed: bool) -> Vec<String> {
    let normalized = |normalizer: &dyn Fn(&mut NormalizedString) -> tokenizers::Result<()>| {
        let mut text = NormalizedString::from(content);
        normalizer(&mut text).ok().map(|()| text.get().to_owned())
    };
    let forms = [normalized(&|text| NFC.normalize(text)), normalized(&|text| NFD.normalize(text))];
    let forms = forms.into_iter().flatten().filter(|_| composed);
    std::iter::once(content.to_owned()).chain(forms).collect()
}

/// NFC leaves a fourth of a text's bytes at least: of three for the Kelvin sign one, of seven for U+1FBE U+0308 U+0301 two.
const NFC_SHRINKS: usize = 4;

/// Characters that every expression below keeps together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Run {
    Lower,
    Upper,
    Space,
    Tab,
    Newline,
    Mark,
    Ideograph,
    Emoji,
}

impl Run {
    fn of(c: char) -> Option<Self> {
        Some(match c {
            'a'..='z' => Self::Lower,
            'A'..='Z' => Self::Upper,
            ' ' => Self::Space,
            '\t' => Self::Tab,
            '\n' => Self::Newline,
            '\'' => return None,
            '!'..='~' if c.is_ascii_punctuation() => Self::Mark,
            '\u{4E00}'..='\u{9FA5}' => Self::Ideograph,
            '\u{1F300}'..='\u{1F3FA}'
            | '\u{1F400}'..='\u{1F53D}'
            | '\u{1F600}'..='\u{1F640}'
            | '\u{1F980}'..='\u{1F991}' => Self::Emoji,
            _ => return None,
        })
    }
}

/// The alternatives of the expressions in use (GPT-2, GPT-4 and 4o, Llama 3, Qwen, Tekken, DeepSeek). None looks back, only
/// `(?!\S)` ahead, and then behind spaces; [`parts`] and [`Run`] hold for each.
#[rustfmt::skip]
const ALTERNATIVES: [&str; 33] = [
    r"'s", r"'t", r"'re", r"'ve", r"'m", r"'ll", r"'d", r"(?i:'s|'t|'re|'ve|'m|'ll|'d)", r"'(?i:[sdmt]|ll|ve|re)",
    r" ?\p{L}+", r"[^\r\n\p{L}\p{N}]?\p{L}+", r"[^\r\n\p{L}\p{N}]?+\p{L}+", r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r" ?\p{N}+", r"\p{N}", r"\p{N}{1,2}", r"\p{N}{1,3}",
    r" ?[^\s\p{L}\p{N}]+", r" ?[^\s\p{L}\p{N}]+[\r\n]*", r" ?[^\s\p{L}\p{N}]++[\r\n]*", r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
    r" ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*",
    r"\s*[\r\n]+", r"\s*[\r\n]", r"\s+(?!\S)", r"\s+",
    "[一-龥぀-ゟ゠-ヿ]+", r"[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+", r" ?[\p{P}\p{S}]+[\r\n]*",
];
/// DeepSeek's, after which letters are divided at the first that is not Latin.
const MARK_AND_LETTERS: &str = r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+"##;
/// The expression by which `ByteLevel` splits where it is told to.
const GPT_2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

/// True if no expression matches across, and one always matches from `behind` on.
fn parts(before: char, behind: char) -> bool {
    match behind {
        ' ' => !before.is_whitespace(),
        '\t' | '\n' | '\r' => is_word(before),
        '0'..='9' => before.is_ascii_alphabetic(),
        // Behind a word it may be one of `'s`, `'ll` and so on.
        '\'' => false,
        '、' | '。' | '，' | '！' | '？' | '：' | '；' | '（' | '）' | '「' | '」' => is_word(before),
        _ => behind.is_ascii_punctuation() && is_word(before),
    }
}

/// A letter or digit beyond doubt, whatever the version of Unicode.
fn is_word(c: char) -> bool {
    matches!(c, '0'..='9' | 'a'..='z' | 'A'..='Z' | 'а'..='я' | 'А'..='Я' | 'ぁ'..='ん' | 'ァ'..='ヶ' | '一'..='龥' | '가'..='힣')
}

fn rule(model: &ModelWrapper, normalizer: &[Value], splits: &[Value], added: &[AddedToken]) -> Rule {
    let ModelWrapper::BPE(bpe) = model else { return Rule::Whole };
    let set = |option: &Option<String>| option.as_ref().is_some_and(|text| !text.is_empty());
    let random = bpe.dropout.is_some_and(|dropout| dropout > 0.0);
    if random || set(&bpe.continuing_subword_prefix) || set(&bpe.end_of_word_suffix) {
        return Rule::Whole;
    }
    if has_alphabet(model) {
        return words(normalizer, splits, added).unwrap_or(Rule::Whole);
    }
    let minds = |token: &AddedToken| {
        token.lstrip || token.rstrip || token.single_word || (token.normalized && token.content.contains([' ', '▁']))
    };
    // Every byte must have a token: unknown ones are fused over any length.
    let bytes = bpe.byte_fallback && (0..=255u8).all(|byte| model.token_to_id(&format!("<0x{byte:02X}>")).is_some());
    match stream(normalizer, splits) {
        Some(stream) if bytes && !added.iter().any(minds) => Rule::Stream(stream),
        _ => Rule::Whole,
    }
}

fn words(normalizer: &[Value], splits: &[Value], added: &[AddedToken]) -> Option<Rule> {
    let (last, before) = splits.split_last()?;
    let mut expressions: Vec<String> = Vec::new();
    let mut digits = false;
    for split in before {
        match split["type"].as_str()? {
            "Digits" => digits = true,
            "Split" if split["behavior"] == "Isolated" && split["invert"] == false => {
                // Some files have the characters themselves.
                expressions.push(split["pattern"]["Regex"].as_str()?.replace('\r', r"\r").replace('\n', r"\n"));
            }
            _ => return None,
        }
    }
    if last["type"] != "ByteLevel" || last["add_prefix_space"] != false || normalizer.iter().any(|n| n["type"] != "NFC")
    {
        return None;
    }
    if last["use_regex"] == true {
        expressions.push(GPT_2.to_owned());
    }
    let mut letters = true;
    let (mut spaces, mut marks) = (false, false);
    for alternatives in expressions.iter().map(|expression| alternatives(expression)) {
        for alternative in &alternatives {
            letters &= *alternative != MARK_AND_LETTERS;
            digits |= alternative.trim_start_matches(" ?").starts_with(r"\p{N}");
            marks |= alternative.starts_with(" ?[");
            if *alternative != MARK_AND_LETTERS && !ALTERNATIVES.contains(alternative) {
                return None;
            }
        }
        spaces |= alternatives.last() == Some(&r"\s+");
    }
    let runs = normalizer.is_empty() || !added.iter().any(|token| token.normalized);
    (digits && spaces && marks).then_some(Rule::Words { letters, runs })
}

fn stream(normalizer: &[Value], splits: &[Value]) -> Option<Stream> {
    let mut stream = Stream { space: " ".to_owned(), ..Stream::default() };
    for step in normalizer {
        match step["type"].as_str()? {
            "Prepend" if stream.prepend.is_empty() => stream.prepend = step["prepend"].as_str()?.to_owned(),
            "Replace" if step["pattern"]["String"] == " " && stream.space == " " => {
                let fits = |content: &&str| (1..=MAX_SPACE).contains(&content.len());
                stream.space = step["content"].as_str().filter(fits)?.to_owned();
            }
            _ => return None,
        }
    }
    let replaced = stream.space != " ";
    match splits {
        [] => {}
        // There is no space left to split at.
        [split] if split["type"] == "Split" && split["pattern"]["String"] == " " && replaced => {}
        [split] if split["type"] == "Metaspace" && !replaced && stream.prepend.is_empty() => {
            stream.space = split["replacement"].as_str()?.to_owned();
            stream.unless_spaced = true;
            if split["prepend_scheme"] != "never" {
                stream.prepend = stream.space.clone();
            }
        }
        _ => return None,
    }
    (!stream.prepend.contains(' ')).then_some(stream)
}

/// The steps of a `Sequence`, or the only one.
fn flatten(step: &Value) -> Vec<Value> {
    let steps = step.get("normalizers").or_else(|| step.get("pretokenizers")).and_then(Value::as_array);
    steps.map_or_else(|| vec![step.clone()], |steps| steps.iter().flat_map(flatten).collect())
}

/// The alternatives of a regular expression at its top level.
fn alternatives(expression: &str) -> Vec<&str> {
    let (mut found, mut start) = (Vec::new(), 0);
    let (mut depth, mut class, mut escaped) = (0usize, false, false);
    for (i, c) in expression.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ']' => class = false,
            _ if class => {}
            '[' => class = true,
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            '|' if depth == 0 => {
                found.push(&expression[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    found.push(&expression[start..]);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normalized(normalizer: &impl Normalizer, text: &str) -> String {
        let mut text = NormalizedString::from(text);
        normalizer.normalize(&mut text).unwrap();
        text.get().to_owned()
    }

    #[test]
    fn alternatives_are_divided_at_the_top_level_only() {
        assert_eq!(alternatives(r"(?i:'s|'t)|[|)]\|?|\s+"), [r"(?i:'s|'t)", r"[|)]\|?", r"\s+"]);
        assert_eq!(alternatives(MARK_AND_LETTERS), [MARK_AND_LETTERS]);
    }

    /// The longest text of which composition makes one character, for every character: its parts in every way that characters
    /// decompose into.
    #[test]
    fn composition_leaves_a_fourth_at_least() {
        let mut longest: HashMap<String, usize> = HashMap::new();
        let mut composed = Vec::new();
        for c in (0..=0x10FFFF).filter_map(char::from_u32) {
            let text = c.to_string();
            let parts = normalized(&NFD, &text);
            let known = longest.entry(parts.clone()).or_default();
            *known = text.len().max(*known);
            if parts != text {
                composed.push(parts);
            }
        }
        /// `parts` shared out among characters, the first of which takes the first part.
        fn most(parts: &[char], longest: &HashMap<String, usize>) -> usize {
            let Some((first, others)) = parts.split_first() else { return 0 };
            let ways = (0..1usize << others.len()).filter_map(|chosen| {
                let (mine, rest): (Vec<_>, Vec<_>) = others.iter().enumerate().partition(|(i, _)| chosen >> i & 1 == 1);
                let mine: String = std::iter::once(first).chain(mine.into_iter().map(|(_, c)| c)).collect();
                let rest: Vec<char> = rest.into_iter().map(|(_, c)| *c).collect();
                Some(longest.get(&mine)? + most(&rest, longest))
            });
            ways.max().unwrap_or(0)
        }
        for parts in composed {
            let result = normalized(&NFC, &parts).len();
            let parts: Vec<char> = parts.chars().collect();
            assert!(
                most(&parts, &longest) <= NFC_SHRINKS * result,
                "{parts:?}: {} into {result}",
                most(&parts, &longest)
            );
        }
    }
}
