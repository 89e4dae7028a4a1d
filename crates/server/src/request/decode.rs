//! Bodies as they come: plain, or compressed with gzip and then decoded piece by piece, within the same bounds.

use crate::admission::Share;
use crate::error::ApiError;
use axum::http::HeaderMap;
use axum::http::header::CONTENT_ENCODING;
use flate2::write::MultiGzDecoder;
use std::io::{self, Write};

/// Bytes of each body that are not counted: small requests pass while large ones take all that there is.
const UNCOUNTED: usize = 16 << 10;
/// Bytes of a decoder, which are counted in the place of as many of its body.
const DECODER: usize = 80 << 10;
/// Compressed bytes that are decoded in one go: they become a mebibyte at most.
const PIECE: usize = 1 << 10;
/// Decoded bytes after which others get a turn.
const TURN: usize = 64 << 10;
/// Decoded bytes that a byte as it came is worth: members of gzip take time even if they are empty.
const WORTH: usize = 8;

/// A body that is taken, no longer than its bound and within its share of the memory for bodies.
pub(super) struct Taken<'a> {
    bytes: Vec<u8>,
    limit: usize,
    /// Bytes that are not counted.
    uncounted: usize,
    share: &'a Share,
    refusal: Option<ApiError>,
}

impl Taken<'_> {
    fn push(&mut self, data: &[u8]) -> Result<(), ApiError> {
        if self.bytes.len() + data.len() > self.limit {
            return Err(ApiError::too_large(self.limit));
        }
        let uncounted = self.uncounted.saturating_sub(self.bytes.len()).min(data.len());
        if !self.share.grow(data.len() - uncounted) {
            return Err(ApiError::crowded_bodies());
        }
        self.bytes.extend_from_slice(data);
        Ok(())
    }
}

impl Write for Taken<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match self.push(data) {
            Ok(()) => Ok(data.len()),
            Err(refusal) => {
                self.refusal = Some(refusal);
                Err(io::ErrorKind::OutOfMemory.into())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A body's decoder.
pub(super) enum Decoder<'a> {
    Plain(Taken<'a>),
    Gzip(Box<Gzip<'a>>),
}

/// A decoder of gzip.
pub(super) struct Gzip<'a> {
    decoder: MultiGzDecoder<Taken<'a>>,
    /// Bytes as they came so far.
    came: usize,
    /// Bytes since others got a turn, as [`TURN`] counts them.
    turn: usize,
}

impl<'a> Decoder<'a> {
    /// The decoder of a body with these headers, which has at most `limit` bytes when it is decoded.
    ///
    /// # Errors
    /// 415 for any encoding but gzip, and 429 where there is no room for a decoder.
    pub(super) fn new(headers: &HeaderMap, limit: usize, share: &'a Share) -> Result<Self, ApiError> {
        let taken = |uncounted| Taken { bytes: Vec::new(), limit, uncounted, share, refusal: None };
        let named = headers.get_all(CONTENT_ENCODING).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
        let encodings = named.collect::<Vec<_>>().join(",").to_ascii_lowercase();
        match encodings.trim() {
            "" | "identity" => Ok(Self::Plain(taken(UNCOUNTED))),
            "gzip" | "x-gzip" if !share.grow(DECODER) => Err(ApiError::crowded_bodies()),
            "gzip" | "x-gzip" => {
                Ok(Self::Gzip(Box::new(Gzip { decoder: MultiGzDecoder::new(taken(DECODER)), came: 0, turn: 0 })))
            }
            _ => Err(ApiError::unknown_encoding(&encodings)),
        }
    }

    /// Takes the next bytes as they came.
    ///
    /// # Errors
    /// 400, 413 and 429: they cannot be decoded, are too many, or find no room.
    pub(super) async fn take(&mut self, data: &[u8]) -> Result<(), ApiError> {
        match self {
            Self::Plain(taken) => taken.push(data),
            Self::Gzip(gzip) => gzip.take(data).await,
        }
    }

    /// The whole body.
    ///
    /// # Errors
    /// As [`Self::take`]'s.
    pub(super) fn end(self) -> Result<Vec<u8>, ApiError> {
        match self {
            Self::Plain(taken) => Ok(taken.bytes),
            Self::Gzip(gzip) => {
                let mut decoder = gzip.decoder;
                if decoder.try_finish().is_err() {
                    return Err(broken(decoder.get_mut()));
                }
                Ok(std::mem::take(&mut decoder.get_mut().bytes))
            }
        }
    }
}

impl Gzip<'_> {
    async fn take(&mut self, data: &[u8]) -> Result<(), ApiError> {
        self.came += data.len();
        let limit = self.decoder.get_ref().limit;
        if self.came > limit {
            return Err(ApiError::too_large(limit));
        }
        for piece in data.chunks(PIECE) {
            let before = self.decoder.get_ref().bytes.len();
            self.decoder.write_all(piece).map_err(|_| broken(self.decoder.get_mut()))?;
            self.turn += self.decoder.get_ref().bytes.len() - before + WORTH * piece.len();
            if self.turn > TURN {
                self.turn = 0;
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }
}

/// The reason for which decoding has ended.
fn broken(taken: &mut Taken<'_>) -> ApiError {
    let broken =
        || ApiError::invalid("", "the body is not the gzip data that its Content-Encoding says, or not all of it");
    taken.refusal.take().unwrap_or_else(broken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::Admission;
    use crate::limits::Limits;
    use axum::http::HeaderValue;
    use std::pin::pin;
    use std::task::{Context, Waker};

    /// A member of gzip that holds nothing.
    const EMPTY: [u8; 20] = *b"\x1f\x8b\x08\0\0\0\0\0\0\x03\x03\0\0\0\0\0\0\0\0\0";

    /// Times that the decoder lets others have a turn, and its outcome.
    fn turns(decoder: &mut Decoder<'_>, data: &[u8]) -> (usize, Result<(), u16>) {
        let mut taking = pin!(decoder.take(data));
        let mut turns = 0;
        loop {
            if let std::task::Poll::Ready(outcome) = taking.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                return (turns, outcome.map_err(|e| axum::response::IntoResponse::into_response(e).status().as_u16()));
            }
            turns += 1;
        }
    }

    #[test]
    fn empty_members_give_others_turns_and_count_as_they_came() {
        let admission = Admission::new(&Limits::default());
        let share = admission.share();
        let headers = HeaderMap::from_iter([(CONTENT_ENCODING, HeaderValue::from_static("gzip"))]);
        let members = EMPTY.repeat(1000);
        let mut decoder = Decoder::new(&headers, 3 * members.len(), &share).ok().unwrap();
        assert_eq!(turns(&mut decoder, &members), (2, Ok(())));
        // Small pieces add up.
        let small = members.chunks(100).map(|piece| turns(&mut decoder, piece)).fold(0, |sum, (turns, outcome)| {
            assert_eq!(outcome, Ok(()));
            sum + turns
        });
        assert_eq!(small, 2);
        assert_eq!(turns(&mut decoder, &members).1, Ok(()));
        assert_eq!(turns(&mut decoder, &EMPTY), (0, Err(413)));
    }
}
