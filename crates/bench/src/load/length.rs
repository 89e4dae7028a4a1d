//! Lengths of prompts and answers.

use super::random::Random;
use crate::error::BenchError;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The most that sigma of a lognormal distribution may be: one length in six is then above 20,000 times the median.
const MAX_SIGMA: f64 = 10.0;

/// Distribution of lengths, tokens. As text and in JSON: `128` (in JSON a number), `64..256`, `normal:MEAN,SD`, `lognormal:MEDIAN,SIGMA`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(into = "Written", try_from = "Written")]
pub enum Length {
    /// All alike.
    Fixed(usize),
    /// Each length from the first to the last equally often.
    Uniform(usize, usize),
    /// Mean and standard deviation.
    Normal(f64, f64),
    /// Median, and the standard deviation of the logarithm.
    LogNormal(f64, f64),
}

impl Length {
    /// The most tokens of a prompt, and of an answer.
    pub const MAX: usize = 1_048_576;

    /// Length that none exceeds; `None` for a distribution with a tail.
    pub(crate) fn longest(self) -> Option<usize> {
        match self {
            Length::Fixed(length) | Length::Uniform(_, length) => Some(length),
            Length::Normal(..) | Length::LogNormal(..) => None,
        }
    }

    /// Refuses a distribution that is empty or whose lengths no model takes. `name` is the setting's key.
    pub(crate) fn check(self, name: &'static str) -> Result<(), BenchError> {
        let most = Self::MAX;
        let refused = |why: String| Err(BenchError::setting(name, format!("{self} is out of range; {why}")));
        let middle = 1.0..=most as f64;
        match self {
            Length::Fixed(length) if !(1..=most).contains(&length) => refused(format!("it takes 1 to {most}")),
            Length::Uniform(least, longest) if !(1 <= least && least <= longest && longest <= most) => {
                refused(format!("it takes LEAST..MOST within 1 to {most}"))
            }
            Length::Normal(mean, deviation) if !middle.contains(&mean) || !(0.0..=most as f64).contains(&deviation) => {
                refused(format!("the mean is 1 to {most}, the standard deviation 0 to {most}"))
            }
            Length::LogNormal(median, sigma) if !middle.contains(&median) || !(0.0..=MAX_SIGMA).contains(&sigma) => {
                refused(format!("the median is 1 to {most}, sigma 0 to {MAX_SIGMA}"))
            }
            _ => Ok(()),
        }
    }

    /// A length of the distribution, from 1 to [`Length::MAX`].
    pub(crate) fn draw(self, random: &mut Random) -> usize {
        let length = match self {
            Length::Fixed(length) => return length,
            Length::Uniform(least, most) => return least + random.below(most - least + 1),
            Length::Normal(mean, deviation) => mean + deviation * random.normal(),
            Length::LogNormal(median, sigma) => median * (sigma * random.normal()).exp(),
        };
        length.round().clamp(1.0, Self::MAX as f64) as usize
    }
}

impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Length::Fixed(length) => write!(f, "{length}"),
            Length::Uniform(least, most) => write!(f, "{least}..{most}"),
            Length::Normal(mean, deviation) => write!(f, "normal:{mean},{deviation}"),
            Length::LogNormal(median, sigma) => write!(f, "lognormal:{median},{sigma}"),
        }
    }
}

impl From<usize> for Length {
    fn from(length: usize) -> Self {
        Length::Fixed(length)
    }
}

impl FromStr for Length {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let pair = |text: &str| {
            let (a, b) = text.split_once(',')?;
            Some((a.trim().parse::<f64>().ok()?, b.trim().parse::<f64>().ok()?))
        };
        let read = || match text.split_once(':') {
            Some(("normal", rest)) => pair(rest).map(|(mean, deviation)| Length::Normal(mean, deviation)),
            Some(("lognormal", rest)) => pair(rest).map(|(median, sigma)| Length::LogNormal(median, sigma)),
            Some(_) => None,
            None => match text.split_once("..") {
                Some((least, most)) => Some(Length::Uniform(least.trim().parse().ok()?, most.trim().parse().ok()?)),
                None => text.parse().ok().map(Length::Fixed),
            },
        };
        read().ok_or_else(|| {
            "it takes a number (128), a range (64..256), normal:MEAN,SD or lognormal:MEDIAN,SIGMA".to_owned()
        })
    }
}

/// A length in JSON.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    Number(usize),
    Text(String),
}

impl From<Length> for Written {
    fn from(length: Length) -> Self {
        match length {
            Length::Fixed(length) => Written::Number(length),
            other => Written::Text(other.to_string()),
        }
    }
}

impl TryFrom<Written> for Length {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        match written {
            Written::Number(length) => Ok(Length::Fixed(length)),
            Written::Text(text) => text.parse().map_err(|takes| format!("{text:?} is not a length: {takes}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_form_is_read_and_written_alike() {
        for (text, length) in [
            ("128", Length::Fixed(128)),
            ("64..256", Length::Uniform(64, 256)),
            ("normal:100,12.5", Length::Normal(100.0, 12.5)),
            ("lognormal:80,0.7", Length::LogNormal(80.0, 0.7)),
        ] {
            assert_eq!(text.parse(), Ok(length));
            assert_eq!(length.to_string(), text);
            let json = serde_json::to_value(length).unwrap();
            assert_eq!(json.is_number(), text == "128", "{json}");
            assert_eq!(serde_json::from_value::<Length>(json).unwrap(), length);
        }
        for bad in ["", "x", "-1", "1.5", "3..", "..3", "normal:3", "normal:a,b", "pareto:1,2", "64...256", "1,2"] {
            let takes = bad.parse::<Length>().unwrap_err();
            assert!(takes.contains("64..256") && takes.contains("lognormal:MEDIAN,SIGMA"), "{bad}: {takes}");
        }
    }

    #[test]
    fn lengths_that_no_model_takes_are_refused() {
        for bad in [
            "0",
            "1048577",
            "0..4",
            "5..4",
            "1..1048577",
            "normal:0,1",
            "normal:5,-1",
            "normal:NaN,1",
            "lognormal:inf,1",
            "lognormal:9,11",
        ] {
            let error = bad.parse::<Length>().unwrap().check("max_tokens").unwrap_err();
            assert!(matches!(&error, BenchError::Setting { name: "max_tokens", .. }), "{bad}: {error}");
        }
        for good in ["1", "1048576", "7..7", "normal:1,0", "lognormal:9,0"] {
            good.parse::<Length>().unwrap().check("max_tokens").unwrap();
        }
    }

    #[test]
    fn draws_have_the_means_of_their_distributions() {
        for (text, mean, tolerance) in [
            ("50", 50.0, 0.0),
            ("10..30", 20.0, 0.3),
            ("normal:100,10", 100.0, 0.5),
            // exp(σ² / 2) times the median.
            ("lognormal:100,0.5", 113.3, 3.0),
        ] {
            let length: Length = text.parse().unwrap();
            let mut random = Random::new(7, 0);
            let sum: usize = (0..10_000).map(|_| length.draw(&mut random)).sum();
            let drawn = sum as f64 / 10_000.0;
            assert!((drawn - mean).abs() <= tolerance, "{text}: {drawn}");
        }
    }

    proptest! {
        #[test]
        fn draws_stay_within_bounds(seed: u64, least in 1usize..1000, span in 0usize..1000, spread in 0.0f64..10.0) {
            let mut random = Random::new(seed, 1);
            for _ in 0..50 {
                let drawn = Length::Uniform(least, least + span).draw(&mut random);
                prop_assert!((least..=least + span).contains(&drawn));
                for tailed in [Length::Normal(least as f64, 1e6), Length::LogNormal(least as f64, spread)] {
                    prop_assert!((1..=Length::MAX).contains(&tailed.draw(&mut random)));
                }
            }
        }
    }
}
