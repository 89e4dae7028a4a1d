//! Limits of latency, and the requests that keep them.

use serde::Serialize;
use std::str::FromStr;

/// Limits of a request's latencies, ms. As text: `ttft=200,itl=50,e2e=2000`, or some of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Limits {
    /// Arrival to first token.
    #[serde(rename = "ttft_ms")]
    pub ttft: Option<f64>,
    /// Mean time between two tokens.
    #[serde(rename = "itl_ms")]
    pub itl: Option<f64>,
    /// Arrival to last token.
    #[serde(rename = "e2e_ms")]
    pub e2e: Option<f64>,
}

/// Requests that kept all limits.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Goodput {
    /// Of all requests, those that failed among them; 0 to 1.
    pub share: f64,
    /// A second of the run.
    pub requests_s: f64,
}

impl Limits {
    /// True if a request keeps them. `itl` is `None` for an answer of one token.
    pub(crate) fn are_kept(&self, ttft: f64, itl: Option<f64>, e2e: f64) -> bool {
        let within = |limit: Option<f64>, value: f64| limit.is_none_or(|limit| value <= limit);
        within(self.ttft, ttft) && itl.is_none_or(|itl| within(self.itl, itl)) && within(self.e2e, e2e)
    }
}

impl FromStr for Limits {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let takes = || "it takes limits in ms, such as ttft=200,itl=50,e2e=2000 or one of them".to_owned();
        let mut limits = Self::default();
        for part in text.split(',') {
            let (name, value) = part.split_once('=').ok_or_else(takes)?;
            let limit = match name.trim() {
                "ttft" => &mut limits.ttft,
                "itl" => &mut limits.itl,
                "e2e" => &mut limits.e2e,
                _ => return Err(takes()),
            };
            let value = value.trim().parse::<f64>().ok().filter(|ms| ms.is_finite() && *ms > 0.0);
            if limit.replace(value.ok_or_else(takes)?).is_some() {
                return Err(format!("{} is given twice", name.trim()));
            }
        }
        Ok(limits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_from_text() {
        let limits = Limits { ttft: Some(200.0), itl: Some(0.5), e2e: None };
        assert_eq!("ttft=200, itl=0.5".parse(), Ok(limits));
        for bad in ["", "ttft", "ttft=", "ttft=-1", "ttft=NaN", "tpot=3", "ttft=1,", "ttft=200ms"] {
            assert!(bad.parse::<Limits>().unwrap_err().contains("ttft=200"), "{bad}");
        }
        assert_eq!("itl=1,itl=2".parse::<Limits>(), Err("itl is given twice".into()));
    }

    #[test]
    fn a_request_keeps_its_limits_or_does_not() {
        let limits: Limits = "ttft=10,itl=2,e2e=30".parse().unwrap();
        assert!(limits.are_kept(10.0, Some(2.0), 30.0) && limits.are_kept(1.0, None, 1.0));
        assert!(!limits.are_kept(10.1, Some(2.0), 30.0));
        assert!(!limits.are_kept(10.0, Some(2.1), 30.0));
        assert!(!limits.are_kept(10.0, Some(2.0), 30.1));
    }
}
