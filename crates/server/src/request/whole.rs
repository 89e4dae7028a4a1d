//! Whole numbers: JSON has one kind of number, so that 4.0 is as whole as 4.

use serde::de::{Deserialize, Deserializer, Error, Unexpected, Visitor};
use std::fmt;

/// A whole number of 64 bits, signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Whole(pub i64);

/// A token's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TokenId(pub u32);

/// The number, if it is whole and has at most 64 bits.
///
/// # Errors
/// It has a fraction, or is too large.
pub(crate) fn whole<E: Error>(number: f64) -> Result<i64, E> {
    const BOUND: f64 = -(i64::MIN as f64);
    if number.fract() != 0.0 {
        return Err(E::invalid_type(Unexpected::Float(number), &"a whole number"));
    }
    // The lower bound itself comes as a whole number; as any other it is one that has been rounded to it.
    if number.abs() < BOUND { Ok(number as i64) } else { Err(too_large(format_args!("{number:e}"))) }
}

fn too_large<E: Error>(number: impl fmt::Display) -> E {
    E::custom(format!("is {number}; it must fit 64 bits, signed"))
}

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Number;
        impl Visitor<'_> for Number {
            type Value = Whole;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number")
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Whole, E> {
                Ok(Whole(number))
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Whole, E> {
                i64::try_from(number).map(Whole).map_err(|_| too_large(number))
            }

            fn visit_f64<E: Error>(self, number: f64) -> Result<Whole, E> {
                whole(number).map(Whole)
            }
        }
        deserializer.deserialize_any(Number)
    }
}

impl<'de> Deserialize<'de> for TokenId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Whole(id) = Whole::deserialize(deserializer)?;
        u32::try_from(id).map(Self).map_err(|_| D::Error::custom(format!("is {id}, which is not a token id")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_without_a_fraction_is_whole() {
        let read = |json: &str| serde_json::from_str::<Whole>(json).map(|whole| whole.0).map_err(|e| e.to_string());
        for (json, number) in [("4", 4), ("4.0", 4), ("-1.0", -1), ("1e3", 1000), ("-9223372036854775808", i64::MIN)] {
            assert_eq!(read(json), Ok(number), "{json}");
        }
        for json in ["1.5", "9223372036854775808", "-9223372036854775809", "1e19", "-1e19", "\"4\"", "true", "[]"] {
            assert!(read(json).is_err(), "{json}");
        }
    }
}
