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
    Gzip(Box<MultiGzDecoder<Taken<'a>>>),
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
            "gzip" | "x-gzip" => Ok(Self::Gzip(Box::new(MultiGzDecoder::new(taken(DECODER))))),
            _ => Err(ApiError::unknown_encoding(&encodings)),
        }
    }

    /// Takes the next bytes as they came.
    ///
    /// # Errors
    /// 400, 413 and 429: they cannot be decoded, are too many, or find no room.
    pub(super) async fn take(&mut self, data: &[u8]) -> Result<(), ApiError> {
        let decoder = match self {
            Self::Plain(taken) => return taken.push(data),
            Self::Gzip(decoder) => decoder,
        };
        let mut told = decoder.get_ref().bytes.len();
        for piece in data.chunks(PIECE) {
            decoder.write_all(piece).map_err(|_| broken(decoder.get_mut()))?;
            if decoder.get_ref().bytes.len() - told > TURN {
                told = decoder.get_ref().bytes.len();
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }

    /// The whole body.
    ///
    /// # Errors
    /// As [`Self::take`]'s.
    pub(super) fn end(self) -> Result<Vec<u8>, ApiError> {
        match self {
            Self::Plain(taken) => Ok(taken.bytes),
            Self::Gzip(mut decoder) => {
                if decoder.try_finish().is_err() {
                    return Err(broken(decoder.get_mut()));
                }
                Ok(std::mem::take(&mut decoder.get_mut().bytes))
            }
        }
    }
}

/// The reason for which decoding has ended.
fn broken(taken: &mut Taken<'_>) -> ApiError {
    let broken =
        || ApiError::invalid("", "the body is not the gzip data that its Content-Encoding says, or not all of it");
    taken.refusal.take().unwrap_or_else(broken)
}
