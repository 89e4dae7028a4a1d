use std::cmp::Ordering;

/// [`crate::ops::Scoring`] on slices.
#[derive(Debug, Clone, Copy)]
pub enum Scoring<'a> {
    /// Probabilities over all experts.
    Softmax,
    /// Of each expert by itself, chosen after this has been added: `[experts]`.
    Sigmoid(&'a [f32]),
}

/// [`crate::ops::Route`] on slices.
#[derive(Debug, Clone, Copy)]
pub struct Route<'a> {
    /// Experts of a row.
    pub slots: usize,
    /// From logits to scores.
    pub scoring: Scoring<'a>,
    /// The weights of a row are divided by their sum.
    pub renormalize: bool,
    /// Factor of the weights.
    pub factor: f32,
}

impl Route<'_> {
    /// The experts of a row of logits, and their weights.
    pub fn row(&self, logits: &[f32]) -> (Vec<u32>, Vec<f32>) {
        let logistic = |x: f32| 1.0 / (1.0 + (-f64::from(x)).exp());
        let scores: Vec<f32> = match self.scoring {
            // In the order of the probabilities.
            Scoring::Softmax => logits.to_vec(),
            Scoring::Sigmoid(bias) => logits.iter().zip(bias).map(|(x, bias)| logistic(*x) as f32 + bias).collect(),
        };
        if !logits.iter().chain(&scores).all(|x| x.is_finite()) {
            return ((0..self.slots as u32).collect(), vec![f32::NAN; self.slots]);
        }
        let mut chosen: Vec<u32> = (0..logits.len() as u32).collect();
        // A stable sort: of equal scores the lower expert stays first.
        chosen.sort_by(|&a, &b| scores[b as usize].partial_cmp(&scores[a as usize]).unwrap_or(Ordering::Equal));
        chosen.truncate(self.slots);
        let highest = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        let weight = |x: f32| match self.scoring {
            Scoring::Softmax => (f64::from(x) - highest).exp(),
            Scoring::Sigmoid(_) => logistic(x),
        };
        let own: Vec<f64> = chosen.iter().map(|&expert| weight(logits[expert as usize])).collect();
        let sum = match (self.renormalize, self.scoring) {
            (true, _) => own.iter().sum(),
            (false, Scoring::Softmax) => logits.iter().map(|&x| weight(x)).sum(),
            (false, Scoring::Sigmoid(_)) => 1.0,
        };
        (chosen, own.iter().map(|own| (own / sum * f64::from(self.factor)) as f32).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTE: Route<'_> = Route { slots: 2, scoring: Scoring::Softmax, renormalize: false, factor: 1.0 };
    /// Logits whose exponentials are 1, 6, 2 and 1.
    const LOGITS: [f32; 4] = [0.0, 1.791_759_5, std::f32::consts::LN_2, 0.0];

    fn weights(route: Route<'_>) -> Vec<f32> {
        let (chosen, weights) = route.row(&LOGITS);
        assert_eq!(chosen, [1, 2]);
        weights.iter().map(|weight| (weight * 1e4).round() / 1e4).collect()
    }

    #[test]
    fn probabilities_are_of_all_or_of_the_chosen_times_a_factor() {
        assert_eq!(weights(ROUTE), [0.6, 0.2]);
        assert_eq!(weights(Route { renormalize: true, ..ROUTE }), [0.75, 0.25]);
        assert_eq!(weights(Route { renormalize: true, factor: 2.0, ..ROUTE }), [1.5, 0.5]);
    }

    #[test]
    fn a_bias_changes_the_choice_and_no_weight() {
        let route = Route { scoring: Scoring::Sigmoid(&[0.0, 0.0, 0.0, 9.0]), ..ROUTE };
        let (chosen, weights) = route.row(&LOGITS);
        assert_eq!(chosen, [3, 1]);
        assert!(weights[0] == 0.5 && (weights[1] - 6.0 / 7.0).abs() < 1e-6, "{weights:?}");
        let renormalized = Route { renormalize: true, ..route }.row(&LOGITS).1;
        assert!((renormalized.iter().sum::<f32>() - 1.0).abs() < 1e-6, "{renormalized:?}");
    }

    #[test]
    fn of_equal_scores_the_lower_expert_comes_first() {
        assert_eq!(ROUTE.row(&[1.0, 2.0, 2.0, 2.0]).0, [1, 2]);
        assert_eq!(Route { scoring: Scoring::Sigmoid(&[0.0; 4]), ..ROUTE }.row(&[3.0; 4]).0, [0, 1]);
    }

    #[test]
    fn a_row_that_is_not_finite_has_weights_that_are_no_number() {
        for logits in [[0.0, f32::NAN, 1.0], [f32::INFINITY, 0.0, 1.0], [f32::NEG_INFINITY, 0.0, 1.0]] {
            let (chosen, weights) = ROUTE.row(&logits);
            assert!(chosen == [0, 1] && weights.iter().all(|weight| weight.is_nan()), "{logits:?}");
        }
        let biased = Route { scoring: Scoring::Sigmoid(&[f32::NAN, 0.0, 0.0]), ..ROUTE };
        assert!(biased.row(&[0.0; 3]).1[0].is_nan());
    }
}
