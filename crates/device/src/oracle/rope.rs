use crate::ops::Growth;

/// [`crate::ops::RopeAngles`] on slices: (cos, sin) · scale of position · frequency, `[positions][frequencies][2]`. The angle is
/// rounded to `f32`, as models are trained with.
pub fn rope_angles(positions: &[u32], inv_freq: &[f32], scale: f32, growth: Option<Growth>) -> Vec<f32> {
    let turn = |position: u32, freq: f32| {
        let (sin, cos) = f64::from(position as f32 * freq).sin_cos();
        let grown = growth.map_or(1.0, |by| 1.0 + f64::from(by.beta) * f64::from(1 + position / by.every).ln());
        [cos, sin].map(|x| (x * f64::from(scale) * grown) as f32)
    };
    positions.iter().flat_map(|position| inv_freq.iter().flat_map(move |freq| turn(*position, *freq))).collect()
}

/// Turns the pairs of one head by `angles`, `[pairs][2]`. Pair i is (`x[i]`, `x[i + pairs]`), or (`x[2i]`, `x[2i + 1]`) when
/// `interleaved`; what lies beyond the pairs stays as it is.
pub fn rotate(head: &mut [f32], angles: &[f32], interleaved: bool) {
    let pairs = angles.len() / 2;
    for (i, angle) in angles.chunks_exact(2).enumerate() {
        let (a, b) = if interleaved { (2 * i, 2 * i + 1) } else { (i, i + pairs) };
        let [x, y, cos, sin] = [head[a], head[b], angle[0], angle[1]].map(f64::from);
        head[a] = (x * cos - y * sin) as f32;
        head[b] = (y * cos + x * sin) as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_turn_swaps_each_pair() {
        let angles = [0.0, 1.0, 0.0, 1.0];
        let mut halves = [1.0, 2.0, 3.0, 4.0, 5.0];
        rotate(&mut halves, &angles, false);
        assert_eq!(halves, [-3.0, -4.0, 1.0, 2.0, 5.0]);
        let mut interleaved = [1.0, 2.0, 3.0, 4.0, 5.0];
        rotate(&mut interleaved, &angles, true);
        assert_eq!(interleaved, [-2.0, 1.0, -4.0, 3.0, 5.0]);
    }

    #[test]
    fn angles_are_positions_times_frequencies() {
        let angles = rope_angles(&[0, 2], &[0.5, 1.0], 3.0, None);
        assert_eq!(angles[..4], [3.0, 0.0, 3.0, 0.0]);
        assert_eq!(angles[4..], [1f64.cos(), 1f64.sin(), 2f64.cos(), 2f64.sin()].map(|x| (3.0 * x) as f32));
    }

    #[test]
    fn growth_begins_behind_the_first_stretch() {
        let growth = Some(Growth { beta: 0.5, every: 4 });
        let angles = rope_angles(&[3, 4, 8], &[0.0], 2.0, growth);
        assert_eq!(angles, [2.0, 0.0, 2.0 + 2f64.ln() as f32, 0.0, 2.0 + 3f64.ln() as f32, 0.0]);
    }
}
