//! GPT-2's alphabet: every byte is written as one printable character.

use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{DecoderWrapper, Model as _, ModelWrapper, NormalizerWrapper, PreTokenizerWrapper};

/// The bytes of a byte-level token; an added token that is not spelled in that alphabet stands for itself.
pub(crate) fn byte_level(token: &str) -> Vec<u8> {
    token.chars().map(byte_of_char).collect::<Option<_>>().unwrap_or_else(|| token.as_bytes().to_vec())
}

/// Printable Latin-1 bytes are themselves, the 68 others are numbered from U+0100.
fn byte_of_char(c: char) -> Option<u8> {
    const PRINTABLE: [std::ops::RangeInclusive<u32>; 3] = [0x21..=0x7E, 0xA1..=0xAC, 0xAE..=0xFF];
    let code = u32::from(c);
    let printable = |byte: u32| PRINTABLE.iter().any(|range| range.contains(&byte));
    match code {
        0..=0xFF => printable(code).then_some(code as u8),
        _ => (0..=0xFFu8).filter(|&byte| !printable(byte.into())).nth(code as usize - 0x100),
    }
}

/// Makes the decoder undo what the tokenizer does to text. Where text is turned into byte letters, only `ByteLevel` does,
/// whatever else the file names or leaves out; transformers' own classes put it there too. Byte letters in the vocabulary that
/// no text is turned into are an error: its spaces and accents would be dropped in silence.
pub(crate) fn settle_decoder(tokenizer: &mut tokenizers::Tokenizer) -> Result<(), String> {
    let turned =
        tokenizer.get_pre_tokenizer().is_some_and(pre_tokenizes) || tokenizer.get_normalizer().is_some_and(normalizes);
    if turned && !tokenizer.get_decoder().is_some_and(decodes) {
        tokenizer.with_decoder(Some(ByteLevel::default()));
    }
    if !turned && has_alphabet(tokenizer.get_model()) {
        return Err("its vocabulary spells bytes as letters (`Ġ` for a space), but neither its pre-tokenizer nor its normalizer is \
                    ByteLevel, which would spell text so"
            .to_owned());
    }
    Ok(())
}

/// True for a byte-level vocabulary: it has every letter of the alphabet, and no `<0xHH>` for bytes. (A large vocabulary of
/// characters may have all the letters too.)
pub(crate) fn has_alphabet(model: &ModelWrapper) -> bool {
    model.token_to_id("<0x0A>").is_none()
        && ByteLevel::alphabet().into_iter().all(|letter| model.token_to_id(letter.encode_utf8(&mut [0; 4])).is_some())
}

fn pre_tokenizes(pre_tokenizer: &PreTokenizerWrapper) -> bool {
    match pre_tokenizer {
        PreTokenizerWrapper::ByteLevel(_) => true,
        PreTokenizerWrapper::Sequence(sequence) => sequence.as_ref().iter().any(pre_tokenizes),
        _ => false,
    }
}

fn normalizes(normalizer: &NormalizerWrapper) -> bool {
    match normalizer {
        NormalizerWrapper::ByteLevel(_) => true,
        NormalizerWrapper::Sequence(sequence) => sequence.as_ref().iter().any(normalizes),
        _ => false,
    }
}

fn decodes(decoder: &DecoderWrapper) -> bool {
    match decoder {
        DecoderWrapper::ByteLevel(_) => true,
        DecoderWrapper::Sequence(sequence) => sequence.get_decoders().iter().any(decodes),
        _ => false,
    }
}
