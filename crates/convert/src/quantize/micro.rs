use super::Packed;
use crate::float::Float;

/// Small floating-point numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Codes {
    /// Sign, two bits of exponent, one of mantissa: up to 6.
    E2m1,
    /// Sign, four bits of exponent, three of mantissa: up to 448.
    E4m3,
}

/// Places between neighbors among 0, 0.5, 1, 1.5, 2, 3, 4 and 6; in the middle the smaller is taken.
const MIDDLES: [f32; 7] = [0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0];

/// Quantizes a group under the least power of two that keeps it in the codes' range.
pub(super) fn quantize(values: &[f32], codes: Codes, float: Float, to: &mut Packed) {
    let exponent = match most(values, codes, float) {
        0.0 => 0,
        ratio => (f64::from(ratio).log2().ceil() as i32).clamp(-127, 127),
    };
    to.scales.push((exponent + 127) as u8);
    encode(values, codes, 2f64.powi(exponent) as f32, to);
}

/// Quantizes a group of E2M1 under a scale of E4M3.
pub(super) fn quantize_16(values: &[f32], float: Float, to: &mut Packed) {
    let scale = e4m3(most(values, Codes::E2m1, float));
    to.scales.push(scale);
    encode(values, Codes::E2m1, of_e4m3(scale), to);
}

/// The farthest of the values from 0, by the largest of the codes, in the values' own type.
fn most(values: &[f32], codes: Codes, float: Float) -> f32 {
    let largest = match codes {
        Codes::E2m1 => 6.0,
        Codes::E4m3 => 448.0,
    };
    float.round(values.iter().fold(0f32, |most, value| most.max(value.abs())) / largest)
}

fn encode(values: &[f32], codes: Codes, scale: f32, to: &mut Packed) {
    let scaled = |value: f32| if scale == 0.0 { 0.0 } else { value / scale };
    match codes {
        Codes::E2m1 => {
            let pairs = values.as_chunks::<2>().0.iter();
            to.values.extend(pairs.map(|&[low, high]| e2m1(scaled(low)) | e2m1(scaled(high)) << 4));
        }
        Codes::E4m3 => to.values.extend(values.iter().map(|&value| e4m3(scaled(value)))),
    }
}

/// The nearest E2M1; what rounds to 0 has no sign.
fn e2m1(x: f32) -> u8 {
    match MIDDLES.iter().filter(|&&middle| x.abs() > middle).count() as u8 {
        0 => 0,
        code => code | if x < 0.0 { 8 } else { 0 },
    }
}

/// The nearest E4M3, the even one in the middle, and the largest for what lies beyond.
fn e4m3(x: f32) -> u8 {
    let size = f64::from(x.abs()).min(448.0);
    // Neighbors are an eighth of their power of two apart, those below 2^−6 as those above.
    let exponent = if size < 2f64.powi(-6) { -6 } else { size.log2().floor() as i32 };
    let eighths = (size / 2f64.powi(exponent - 3)).round_ties_even() as u8;
    // From 8 eighths on the first is implied; 16 carry into the exponent by themselves.
    let code = ((exponent + 6) as u8) * 8 + eighths;
    code | if x.is_sign_negative() { 0x80 } else { 0 }
}

/// Value of a code of E4M3 that is not negative.
fn of_e4m3(code: u8) -> f32 {
    let (exponent, eighths) = (i32::from(code >> 3), f32::from(code & 7));
    match exponent {
        0 => eighths * 2f32.powi(-9),
        _ => (8.0 + eighths) * 2f32.powi(exponent - 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_of_e4m3_is_nearest_to_its_own_value_and_to_what_lies_around_it() {
        // The last is not a number.
        for code in 0..0x7e {
            let (value, next) = (of_e4m3(code), of_e4m3(code + 1));
            assert_eq!((e4m3(value), e4m3(-value)), (code, code | 0x80), "{value}");
            let middle = (value + next) / 2.0;
            assert_eq!(e4m3(middle), code + code % 2, "{middle}");
            assert_eq!(e4m3(middle.next_down()), code, "{middle}");
            assert_eq!(e4m3(middle.next_up()), code + 1, "{middle}");
        }
        assert_eq!((e4m3(1e9), e4m3(f32::MIN_POSITIVE)), (0x7e, 0));
    }

    #[test]
    fn in_the_middle_of_two_codes_of_e2m1_the_smaller_is_taken() {
        for (code, middle) in (0..).zip(MIDDLES) {
            assert_eq!((e2m1(middle), e2m1(middle.next_up())), (code, code + 1));
            assert_eq!(e2m1(-middle.next_up()), 8 | (code + 1));
        }
        assert_eq!((e2m1(1e9), e2m1(-0.1), e2m1(-0.0)), (7, 0, 0));
    }
}
