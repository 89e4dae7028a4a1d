use super::*;

fn rope(scaling: Scaling) -> Rope {
    Rope { dims: 8, theta: 10_000.0, interleaved: false, scaling, growth: None }
}

fn close(found: &[f32], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    for (f, e) in found.iter().zip(expected) {
        assert!((f64::from(*f) - e).abs() <= 1e-6 * e.abs(), "{found:?} is not {expected:?}");
    }
}

#[test]
fn plain_and_linear_follow_the_paper() {
    close(&rope(Scaling::None).frequencies(1), &[1.0, 0.1, 0.01, 0.001]);
    close(&rope(Scaling::Linear { factor: 4.0 }).frequencies(1), &[0.25, 0.025, 0.0025, 0.00025]);
}

#[test]
fn dynamic_grows_its_base_only_beyond_the_trained_context() {
    let dynamic = rope(Scaling::Dynamic { factor: 2.0, max_position: 16 });
    close(&dynamic.frequencies(16), &[1.0, 0.1, 0.01, 0.001]);
    // 32 tokens: 2 · 2 − 1 = 3, to the power 8 / 6, times the base.
    let base = 10_000.0 * 3f64.powf(8.0 / 6.0);
    close(&dynamic.frequencies(32), &[1.0, base.powf(-0.25), base.powf(-0.5), base.powf(-0.75)]);
}

#[test]
fn llama3_keeps_short_wavelengths_and_stretches_long_ones() {
    let llama3 = rope(Scaling::Llama3 { factor: 8.0, low: 1.0, high: 4.0, original: 128.0 });
    // Turns in 128 positions: 20.4, 2.04, 0.204, 0.0204; the second lies on the ramp.
    let keep = (12.8 / TAU - 1.0) / 3.0;
    close(&llama3.frequencies(1), &[1.0, 0.1 * (keep + (1.0 - keep) / 8.0), 0.01 / 8.0, 0.001 / 8.0]);
}

#[test]
fn yarn_ramps_between_its_two_betas_and_warms_attention() {
    let yarn = rope(Scaling::Yarn { factor: 4.0, original: 4096.0, beta_fast: 32.0, beta_slow: 1.0, attention: 1.25 });
    // Pairs of 32 turns and of 1 turn: floor(1.309) = 1 and ceil(2.814) = 3; pair 2 lies half way.
    close(&yarn.frequencies(1), &[1.0, 0.1, 0.01 * (0.5 + 0.5 / 4.0), 0.001 / 4.0]);
    assert_eq!(yarn.attention_factor(), 1.25);
    assert_eq!(rope(Scaling::None).attention_factor(), 1.0);
}

#[test]
fn longrope_stretches_every_pair_by_its_own_factor() {
    let long = rope(Scaling::Long { factors: vec![1.0, 2.0, 4.0, 10.0], attention: 1.19 });
    close(&long.frequencies(1), &[1.0, 0.05, 0.0025, 0.0001]);
    assert_eq!((long.attention_factor(), long.stretched(131_072)), (1.19, 131_072));
}

#[test]
fn scaling_stretches_the_context() {
    assert_eq!(rope(Scaling::None).stretched(4096), 4096);
    assert_eq!(rope(Scaling::Linear { factor: 4.0 }).stretched(4096), 16_384);
    assert_eq!(rope(Scaling::Dynamic { factor: 1e300, max_position: 16 }).stretched(16), 1 << 30);
    assert_eq!(
        rope(Scaling::Llama3 { factor: 8.0, low: 1.0, high: 4.0, original: 8192.0 }).stretched(131_072),
        131_072
    );
    let yarn = |original| Scaling::Yarn { factor: 4.0, original, beta_fast: 32.0, beta_slow: 1.0, attention: 1.0 };
    assert_eq!(rope(yarn(32_768.0)).stretched(32_768), 131_072);
    assert_eq!(rope(yarn(4096.0)).stretched(32_768), 32_768);
}

#[test]
fn rows_share_frequencies_unless_their_sequence_is_long_and_dynamic() {
    let span = |first_row, rows, start| Span { first_row, rows, start, table: 0 };
    let spans = [span(0, 3, 4), span(3, 2, 14), span(5, 2, 30)];
    assert_eq!(rope(Scaling::None).runs(&spans, &[8, 8, 40], 7), [(7, 0)]);
    let dynamic = rope(Scaling::Dynamic { factor: 2.0, max_position: 16 });
    // A short prompt and a decode within the context share; a long prompt's rows all take its whole length.
    assert_eq!(dynamic.runs(&spans, &[8, 8, 40], 7), [(5, 16), (2, 40)]);
    // Recomputed rows behind the prompt each take their own position.
    assert_eq!(dynamic.runs(&spans[2..], &[31], 2), [(1, 31), (1, 32)]);
}
