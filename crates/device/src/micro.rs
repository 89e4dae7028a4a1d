/// Formats of small floating-point codes with a scale of one byte for each group, by MLX's names.
///
/// Floats are called by the bits of their exponent and mantissa. E2M1 and E4M3 have a sign in front and subnormals; E8M0 is an exponent
/// alone. (OCP Microscaling Formats 1.0; nvfp4 is NVIDIA's.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Micro {
    /// E2M1 in groups of 32 with scales of E8M0.
    Mxfp4,
    /// E2M1 in groups of 16 with scales of E4M3.
    Nvfp4,
    /// E4M3 in groups of 32 with scales of E8M0.
    Mxfp8,
}

impl Micro {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Mxfp4, Self::Nvfp4, Self::Mxfp8];

    /// Bits of a code.
    pub const fn bits(self) -> usize {
        match self {
            Self::Mxfp4 | Self::Nvfp4 => 4,
            Self::Mxfp8 => 8,
        }
    }

    /// Values that share a scale.
    pub const fn group(self) -> usize {
        match self {
            Self::Mxfp4 | Self::Mxfp8 => 32,
            Self::Nvfp4 => 16,
        }
    }

    /// Value of a code, of which the bits beyond [`Self::bits`] are 0. Two codes of E4M3 are NaN.
    pub fn value(self, code: u8) -> f32 {
        match self {
            Self::Mxfp4 | Self::Nvfp4 => e2m1(code),
            Self::Mxfp8 => e4m3(code),
        }
    }

    /// Value of a scale. The last of E8M0 is NaN.
    pub fn scale(self, byte: u8) -> f32 {
        match self {
            Self::Mxfp4 | Self::Mxfp8 => e8m0(byte),
            Self::Nvfp4 => e4m3(byte),
        }
    }
}

fn e2m1(code: u8) -> f32 {
    const MAGNITUDES: [f32; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];
    let magnitude = MAGNITUDES[usize::from(code & 7)];
    if code & 8 == 0 { magnitude } else { -magnitude }
}

fn e4m3(code: u8) -> f32 {
    let (exponent, mantissa) = (i32::from(code >> 3 & 15), f32::from(code & 7));
    let magnitude = match (exponent, code & 7) {
        (15, 7) => f32::NAN,
        (0, _) => mantissa / 512.0,
        _ => (8.0 + mantissa) * 2f32.powi(exponent - 10),
    };
    if code & 0x80 == 0 { magnitude } else { -magnitude }
}

fn e8m0(byte: u8) -> f32 {
    match byte {
        255 => f32::NAN,
        // 2^−127 is no normal number.
        0 => f32::from_bits(1 << 22),
        _ => f32::from_bits(u32::from(byte) << 23),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A float of these fields as the formats' definitions have it, in arithmetic that loses nothing.
    fn defined(sign: bool, exponent: u32, mantissa: u32, mantissa_bits: u32, bias: i32) -> f64 {
        let fraction = f64::from(mantissa) / f64::from(1u32 << mantissa_bits);
        let magnitude = match exponent {
            0 => fraction * 2f64.powi(1 - bias),
            _ => (1.0 + fraction) * 2f64.powi(exponent as i32 - bias),
        };
        if sign { -magnitude } else { magnitude }
    }

    #[test]
    fn every_code_has_the_value_of_its_definition() {
        for code in 0..16u8 {
            let want = defined(code & 8 != 0, u32::from(code >> 1 & 3), u32::from(code & 1), 1, 1);
            assert_eq!(f64::from(Micro::Mxfp4.value(code)), want, "E2M1 {code:#x}");
            assert_eq!(Micro::Nvfp4.value(code).to_bits(), Micro::Mxfp4.value(code).to_bits());
        }
        for code in 0..=255u8 {
            let value = Micro::Mxfp8.value(code);
            let want = defined(code & 0x80 != 0, u32::from(code >> 3 & 15), u32::from(code & 7), 3, 7);
            match code & 0x7f {
                0x7f => assert!(value.is_nan(), "E4M3 {code:#x}"),
                _ => assert_eq!(f64::from(value), want, "E4M3 {code:#x}"),
            }
        }
        // From the specification's tables: the largest, the smallest normal and subnormal.
        assert_eq!(
            [0x7e, 0x08, 0x01, 0xfe].map(|code| Micro::Mxfp8.value(code)),
            [448.0, 0.015_625, 0.001_953_125, -448.0]
        );
    }

    #[test]
    fn every_scale_has_the_value_of_its_definition() {
        for byte in 0..=254u8 {
            assert_eq!(f64::from(Micro::Mxfp4.scale(byte)), 2f64.powi(i32::from(byte) - 127), "E8M0 {byte}");
            assert_eq!(Micro::Mxfp8.scale(byte).to_bits(), Micro::Mxfp4.scale(byte).to_bits());
        }
        assert!(Micro::Mxfp4.scale(255).is_nan() && Micro::Mxfp8.scale(255).is_nan());
        for byte in 0..=255u8 {
            assert_eq!(Micro::Nvfp4.scale(byte).to_bits(), Micro::Mxfp8.value(byte).to_bits());
        }
    }
}
