use std::ops::Range;

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

/// [`crate::ops::Normalize`] on slices.
#[derive(Debug, Clone)]
pub struct Normalize<'a> {
    /// Values from one row to the next.
    pub stride: usize,
    /// Columns that are normed.
    pub columns: Range<usize>,
    /// Norm over them.
    pub norm: Norm<'a>,
}

/// Norms the columns of every row of `input`: added to the rows of `target`, or without one in place.
pub fn normalize(op: &Normalize<'_>, input: &mut [f32], target: Option<&mut [f32]>) {
    let rows = input.chunks_exact_mut(op.stride).map(|row| &mut row[op.columns.clone()]);
    match target {
        None => rows.for_each(|row| row.copy_from_slice(&rms_norm(row, op.norm))),
        Some(target) => rows.zip(target.chunks_exact_mut(op.columns.len())).for_each(|(row, to)| {
            to.iter_mut().zip(rms_norm(row, op.norm)).for_each(|(to, x)| *to += x);
        }),
    }
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

    #[test]
    fn only_the_columns_of_each_row_are_normed() {
        let op = Normalize { stride: 4, columns: 1..3, norm: Norm { weight: &[2.0, -4.0], eps: 3.5 } };
        let rows = [9.0, 3.0, 4.0, 8.0, 7.0, 4.0, 3.0, 6.0];
        let (mut input, mut target) = (rows, [1.0, 1.0, 0.0, 10.0]);
        normalize(&op, &mut input, Some(&mut target));
        assert_eq!((input, target), (rows, [2.5, -3.0, 2.0, 7.0]));
        normalize(&op, &mut input, None);
        assert_eq!(input, [9.0, 1.5, -4.0, 8.0, 7.0, 2.0, -3.0, 6.0]);
    }
}
