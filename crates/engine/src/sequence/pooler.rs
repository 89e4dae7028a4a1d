use mlx_serving_model::Pooling;
use std::ops::Range;

/// Makes a prompt's embedding of the hidden states of its tokens, as steps bring them. The sums are taken in the order of the tokens, so
/// that they do not depend on how the prompt was cut.
#[derive(Debug)]
pub(super) struct Pooler {
    pooling: Pooling,
    /// Tokens of the prompt.
    prompt: usize,
    /// Tokens whose hidden states are in the sums.
    taken: usize,
    sums: Vec<f64>,
}

impl Pooler {
    pub(super) fn new(pooling: Pooling, prompt: usize, width: usize) -> Self {
        Self { pooling, prompt, taken: 0, sums: vec![0.0; width] }
    }

    /// Positions among these whose hidden states it needs; they are to be taken before any later ones.
    pub(super) fn wanted(&self, among: Range<usize>) -> Range<usize> {
        let wanted = match self.pooling {
            Pooling::Last => self.prompt - 1..self.prompt,
            Pooling::Mean => self.taken..self.prompt,
            Pooling::First => self.taken..1,
        };
        wanted.start.max(among.start)..wanted.end.min(among.end)
    }

    /// Tokens at the head of the prompt whose hidden states it does not need, or not any more.
    pub(super) fn served(&self) -> usize {
        match (self.pooling, self.taken) {
            (Pooling::Mean, taken) => taken,
            (Pooling::First, 0) => 0,
            // The prefix cache leaves the last token to be computed.
            (Pooling::First | Pooling::Last, _) => self.prompt,
        }
    }

    /// Takes the hidden states of the next tokens that it wants, row by row.
    pub(super) fn take(&mut self, rows: &[f32]) {
        for row in rows.chunks_exact(self.sums.len()) {
            self.sums.iter_mut().zip(row).for_each(|(sum, &value)| *sum += f64::from(value));
            self.taken += 1;
        }
    }

    /// The embedding, once all has been taken.
    pub(super) fn finish(&self) -> Vec<f32> {
        self.sums.iter().map(|sum| (sum / self.taken as f64) as f32).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The embedding of rows that steps of so many tokens bring, from the position on that the prefix cache may serve.
    fn pooled(pooling: Pooling, rows: &[[f32; 2]], steps: &[usize]) -> Vec<f32> {
        let mut pooler = Pooler::new(pooling, rows.len(), 2);
        let mut start = 0;
        for step in steps {
            let wanted = pooler.wanted(start..start + step);
            pooler.take(rows.get(wanted).unwrap_or_default().as_flattened());
            start += step;
        }
        assert_eq!(start, rows.len());
        pooler.finish()
    }

    #[test]
    fn each_way_of_pooling_takes_its_rows_however_the_prompt_is_cut() {
        let rows = [[1.0, -8.0], [0.1, 4.0], [0.2, 1e-3], [7.0, 3.5], [-2.0, 1.0]];
        for steps in [&[5][..], &[1, 4], &[4, 1], &[2, 2, 1], &[1, 1, 1, 1, 1]] {
            assert_eq!(pooled(Pooling::Last, &rows, steps), rows[4]);
            assert_eq!(pooled(Pooling::First, &rows, steps), rows[0]);
            let mean = [0, 1].map(|i| (rows.iter().map(|row| f64::from(row[i])).sum::<f64>() / 5.0) as f32);
            assert_eq!(pooled(Pooling::Mean, &rows, steps), mean);
        }
    }

    #[test]
    fn a_prompt_that_is_computed_again_is_taken_once() {
        let rows = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]];
        let mut pooler = Pooler::new(Pooling::Mean, 3, 2);
        pooler.take(rows[..2].as_flattened());
        assert_eq!((pooler.served(), pooler.wanted(0..2), pooler.wanted(0..3)), (2, 2..2, 2..3));
        pooler.take(&rows[2]);
        assert_eq!(pooler.finish(), [3.0, 4.0]);
        let mut first = Pooler::new(Pooling::First, 3, 2);
        assert_eq!((first.served(), first.wanted(0..3)), (0, 0..1));
        first.take(&rows[0]);
        assert!(first.wanted(0..3).is_empty() && first.served() == 3);
    }
}
