//! Lines for a terminal, broken between words while the text comes.

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// Characters of East Asian text that no line begins with.
const NOT_FIRST: &str = "、。，．！？：；）」』】〉》〕…ー々";
/// Characters of East Asian text that no line ends with.
const NOT_LAST: &str = "（「『【〈《〔";
/// Bytes of a word that is no longer waited for: whatever it is, it is no word.
const LONGEST: usize = 1024;

/// Breaks a text at the terminal's right edge, between words. The last word is held back until it is complete. Code between fences
/// keeps its lines, and the terminal breaks those that are too long.
#[derive(Debug)]
pub(super) struct Wrap {
    /// Columns of the line that are taken.
    column: usize,
    /// Space before the word, which a line break replaces.
    space: String,
    /// The word so far.
    word: String,
    /// Nothing but space came in this line of the text.
    begins: bool,
    /// Inside a fence.
    code: bool,
}

impl Wrap {
    /// A text that begins a line.
    pub(super) fn new() -> Self {
        Self { column: 0, space: String::new(), word: String::new(), begins: true, code: false }
    }

    /// Takes further text, and returns what can be shown by now on a terminal of `width` columns. Control characters would steer the terminal
    /// and come as U+FFFD.
    pub(super) fn push(&mut self, text: &str, width: usize) -> String {
        let (width, mut shown) = (width.max(2), String::new());
        for c in text.chars() {
            match c {
                '\n' => {
                    self.flush(width, &mut shown);
                    self.space.clear();
                    shown.push('\n');
                    (self.column, self.begins) = (0, true);
                }
                ' ' | '\t' => {
                    self.flush(width, &mut shown);
                    self.space.push(c);
                }
                '\r' => {}
                c => {
                    let c = if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
                    let full = self.word.len() >= LONGEST || self.word.width() + c.width().unwrap_or(0) > width;
                    if full || self.may_break_before(c) {
                        self.flush(width, &mut shown);
                    }
                    self.word.push(c);
                }
            }
        }
        shown
    }

    /// The rest, at the end of the text.
    pub(super) fn finish(&mut self, width: usize) -> String {
        let mut shown = String::new();
        self.flush(width.max(2), &mut shown);
        shown
    }

    /// East Asian text has no spaces: a line may end at any of its characters, but for punctuation.
    fn may_break_before(&self, c: char) -> bool {
        let Some(last) = self.word.chars().last() else { return false };
        let wide = |c: char| c.width() == Some(2);
        let joined = last == '\u{200D}' || c.width() == Some(0) || ('\u{1F3FB}'..='\u{1F3FF}').contains(&c);
        (wide(last) || wide(c)) && !joined && !NOT_FIRST.contains(c) && !NOT_LAST.contains(last)
    }

    fn flush(&mut self, width: usize, shown: &mut String) {
        if self.word.is_empty() {
            return;
        }
        let fence = ["```", "~~~"].iter().any(|f| self.word.strip_prefix(f).is_some_and(|rest| !rest.contains(f)));
        self.code ^= self.begins && fence;
        self.begins = false;
        let mut column = self.column;
        for c in self.space.chars() {
            column = if c == '\t' { (column / 8 + 1) * 8 } else { column + 1 };
        }
        let word = self.word.width();
        if self.column > 0 && column + word > width && !self.code {
            shown.push('\n');
            self.column = word;
        } else {
            *shown += &self.space;
            self.column = column + word;
        }
        *shown += &self.word;
        self.space.clear();
        self.word.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn wrapped(text: &str, width: usize) -> String {
        let mut wrap = Wrap::new();
        wrap.push(text, width) + &wrap.finish(width)
    }

    #[test]
    fn lines_break_between_words() {
        assert_eq!(wrapped("one two three", 7), "one two\nthree");
        assert_eq!(wrapped("one two three", 8), "one two\nthree");
        assert_eq!(wrapped("one two three", 6), "one\ntwo\nthree");
        assert_eq!(wrapped("a line\n\n- point\n  deeper", 80), "a line\n\n- point\n  deeper");
    }

    #[test]
    fn a_word_longer_than_a_line_fills_lines() {
        assert_eq!(wrapped("see abcdefghijkl now", 5), "see\nabcde\nfghij\nkl\nnow");
    }

    #[test]
    fn wide_characters_take_two_columns_and_may_end_a_line() {
        assert_eq!(wrapped("日本語の文章。終", 6), "日本語\nの文\n章。終");
        assert_eq!(wrapped("a 「日本」", 6), "a 「日\n本」");
        assert_eq!(wrapped("abc 「日本」", 6), "abc\n「日\n本」");
        let family = "👩\u{200D}👩\u{200D}👧";
        assert_eq!(wrapped(&format!("abc {family} d"), 6), format!("abc {family}\nd"));
    }

    #[test]
    fn fenced_code_keeps_its_lines() {
        let code = "```rust\nlet value = some_function(argument);\n    indented();\n```";
        assert_eq!(wrapped(&format!("{code}\nthen some words"), 10), format!("{code}\nthen some\nwords"));
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(wrapped("a\x1b[2Jb\r\nc", 80), "a\u{FFFD}[2Jb\nc");
    }

    #[test]
    fn a_word_is_held_back_until_it_is_complete() {
        let mut wrap = Wrap::new();
        assert_eq!(wrap.push("one tw", 7), "one");
        assert_eq!(wrap.push("o three", 7), " two");
        assert_eq!(wrap.finish(7), "\nthree");
    }

    proptest! {
        #[test]
        fn it_does_not_matter_how_the_text_is_cut(text in "[a-c日é \n`]{0,60}", cut in 0usize..60, width in 2usize..12) {
            let at = text.floor_char_boundary(cut.min(text.len()));
            let mut wrap = Wrap::new();
            let pieces = [wrap.push(&text[..at], width), wrap.push(&text[at..], width), wrap.finish(width)].concat();
            prop_assert_eq!(&pieces, &wrapped(&text, width));
            let kept = |s: &str| s.chars().filter(|c| !c.is_whitespace()).collect::<String>();
            prop_assert_eq!(kept(&pieces), kept(&text));
        }

        #[test]
        fn no_line_is_wider_than_the_terminal(text in "[a-z日é \n]{0,80}", width in 2usize..12) {
            // Indentation alone may be wider.
            let text: String = text.lines().map(|line| line.trim_start().to_owned() + "\n").collect();
            for line in wrapped(&text, width).lines() {
                prop_assert!(line.width() <= width, "{:?}", line);
            }
        }
    }
}
