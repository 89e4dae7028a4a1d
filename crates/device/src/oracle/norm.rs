/// An RMS norm's parameters.
#[derive(Debug, Clone, Copy)]
pub struct Norm<'a> {
    /// `[width]`.
    pub weight: &'a [f32],
    /// Added to the mean of squares.
    pub eps: f32,
}

/// x · weight / sqrt(mean(x²) + eps) of one row.
pub fn rms_norm(x: &[f32], norm: Norm<'_>) -> Vec<f32> {
    let squares: f64 = x.iter().map(|x| f64::from(*x).powi(2)).sum();
    let factor = 1.0 / (squares / x.len() as f64 + f64::from(norm.eps)).sqrt();
    x.iter().zip(norm.weight).map(|(x, w)| (f64::from(*x) * f64::from(*w) * factor) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divides_by_the_root_of_the_mean_square() {
        // Mean square 12.5; with eps 3.5 the root is 4.
        let normed = rms_norm(&[3.0, 4.0], Norm { weight: &[2.0, -4.0], eps: 3.5 });
        assert_eq!(normed, [1.5, -4.0]);
    }
}
