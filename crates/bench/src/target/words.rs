//! Prompts as text: common words, each of which is a token of its own for most tokenizers.

use crate::load::Random;

const WORDS: [&str; 128] = [
    "the", "of", "and", "to", "in", "is", "that", "for", "it", "was", "on", "are", "as", "with", "his", "they", "at",
    "be", "this", "from", "have", "or", "by", "one", "had", "not", "but", "what", "all", "were", "when", "we", "there",
    "can", "an", "your", "which", "their", "said", "if", "do", "will", "each", "about", "how", "up", "out", "them",
    "then", "she", "many", "some", "so", "these", "would", "other", "into", "has", "more", "her", "two", "like", "him",
    "see", "time", "could", "no", "make", "than", "first", "been", "its", "who", "now", "people", "my", "made", "over",
    "did", "down", "only", "way", "find", "use", "may", "water", "long", "little", "very", "after", "words", "called",
    "just", "where", "most", "know", "get", "through", "back", "much", "before", "go", "good", "new", "write", "our",
    "used", "me", "man", "too", "any", "day", "same", "right", "look", "think", "also", "around", "another", "came",
    "come", "work", "three", "word", "must", "because", "does", "part",
];

/// So many words of a stream of a seed, with a space before each but the first.
pub(crate) fn words(seed: u64, stream: u64, count: usize) -> String {
    // Streams of lengths and arrivals have other numbers; where one is the same, nobody sees it.
    let mut random = Random::new(seed, stream.wrapping_add(1 << 40));
    let words: Vec<&str> = (0..count).map(|_| WORDS[random.below(WORDS.len())]).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_follow_from_seed_and_stream() {
        let text = words(1, 2, 40);
        assert_eq!(text.split(' ').count(), 40);
        assert_eq!(text, words(1, 2, 40));
        assert!(text != words(2, 2, 40) && text != words(1, 3, 40));
        assert!(words(1, 2, 50).starts_with(&text));
    }
}
