//! Embeddings: from a model's hidden states to the vectors that clients get.

use mlx_serving_checkpoint::Embedding;
use mlx_serving_engine::{Pooling, Request};

/// The way in which a model makes embeddings. The default is that of a model that says nothing: of the last token's hidden state, scaled
/// to length 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Embedder(Embedding);

impl Embedder {
    /// One that pools so; `normalized` scales its vectors to length 1.
    pub fn new(pooling: Pooling, normalized: bool) -> Self {
        Self(Embedding { pooling, normalized })
    }

    /// The request for the hidden states of a prompt.
    pub fn request(&self, prompt: Vec<u32>) -> Request {
        Request { prompt, embed: Some(self.0.pooling), ..Request::default() }
    }

    /// The vector of pooled hidden states: the first so many of its dimensions, scaled to length 1 where the model's are. All zeros stay
    /// so.
    pub fn vector(&self, mut pooled: Vec<f32>, dimensions: usize) -> Vec<f32> {
        pooled.truncate(dimensions);
        let length = pooled.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
        if self.0.normalized && length > 0.0 {
            pooled.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
        }
        pooled
    }
}

impl From<Embedding> for Embedder {
    fn from(embedding: Embedding) -> Self {
        Self(embedding)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vector_is_cut_before_it_is_scaled() {
        let pooled = vec![3.0, 4.0, 12.0];
        let scaled = Embedder::default();
        assert_eq!(scaled.vector(pooled.clone(), 2), [0.6, 0.8]);
        assert_eq!(scaled.vector(pooled.clone(), 1), [1.0]);
        assert_eq!(scaled.vector(pooled.clone(), 3), [3.0 / 13.0, 4.0 / 13.0, 12.0 / 13.0]);
        assert_eq!(Embedder::new(Pooling::Mean, false).vector(pooled, 2), [3.0, 4.0]);
    }

    #[test]
    fn the_smallest_and_the_largest_values_have_a_length() {
        let scaled = Embedder::default();
        assert_eq!(scaled.vector(vec![0.0, -0.0], 2), [0.0, 0.0]);
        assert_eq!(scaled.vector(vec![f32::MAX, 0.0, f32::MAX], 2), [1.0, 0.0]);
        assert_eq!(scaled.vector(vec![f32::from_bits(1), 0.0], 2), [1.0, 0.0]);
    }
}
