//! Choice of experts for one row.

/// Chooses a row's experts, and weighs them.
pub(crate) struct Choose<'a> {
    /// [experts]
    pub(crate) logits: &'a [f32],
    /// [experts], added to scores that are each expert's own; without it scores are probabilities over all.
    pub(crate) bias: Option<&'a [f32]>,
    pub(crate) renormalize: bool,
    pub(crate) factor: f32,
    /// Room for the scores: [experts]
    pub(crate) scores: &'a mut [f32],
    /// [slots]
    pub(crate) chosen: &'a mut [u32],
    /// [slots]
    pub(crate) weights: &'a mut [f32],
}

impl Choose<'_> {
    pub(crate) fn run(self) {
        let Self { logits, bias, renormalize, factor, scores, chosen, weights } = self;
        match bias {
            // In the order of the probabilities.
            None => scores.copy_from_slice(logits),
            Some(bias) => {
                for ((score, x), bias) in scores.iter_mut().zip(logits).zip(bias) {
                    *score = logistic(*x) + bias;
                }
            }
        }
        if !logits.iter().chain(&*scores).all(|x| x.is_finite()) {
            chosen.iter_mut().zip(0..).for_each(|(expert, i)| *expert = i);
            return weights.fill(f32::NAN);
        }
        for expert in chosen.iter_mut() {
            let first =
                scores.iter().enumerate().fold(0, |best, (i, score)| if *score > scores[best] { i } else { best });
            *expert = first as u32;
            // What is taken is no candidate any more: all others are finite.
            scores[first] = f32::NEG_INFINITY;
        }
        let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let weight = |x: f32| if bias.is_some() { logistic(x) } else { (x - highest).exp() };
        for (to, expert) in weights.iter_mut().zip(&*chosen) {
            *to = weight(logits[*expert as usize]);
        }
        let sum = match (renormalize, bias) {
            (true, _) => weights.iter().sum(),
            (false, None) => logits.iter().map(|x| weight(*x)).sum(),
            (false, Some(_)) => 1.0,
        };
        weights.iter_mut().for_each(|to| *to = *to / sum * factor);
    }
}

fn logistic(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}
