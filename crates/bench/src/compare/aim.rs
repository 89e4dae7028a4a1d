//! Figures that each arm is judged by, with what was aimed at.

use super::arm::{Arm, BLIT};
use super::asked::LoadKind;
use super::figure::Figure;

/// Aim for one figure of one arm.
pub(super) struct Target {
    pub figure: Figure,
    /// The range, as it is shown.
    pub text: &'static str,
    /// The nearer end of the range; not a number where nothing is aimed at.
    pub least: f64,
    /// Points of a percentage rather than percent of the value.
    pub points: bool,
}

pub(super) const fn target(figure: Figure, text: &'static str, least: f64, points: bool) -> Target {
    Target { figure, text, least, points }
}

/// For comparison, without an aim.
const fn compared(figure: Figure) -> Target {
    target(figure, "none: for comparison", f64::NAN, false)
}

/// The figures of an arm that are judged.
pub(super) fn targets(arm: &Arm, load: LoadKind) -> Vec<Target> {
    let throughput = |arm: &Arm| match arm {
        Arm::One("memory_pool") => Some(target(Figure::Throughput, "+10 to +15 %", 10.0, false)),
        Arm::All(_) => Some(target(Figure::Throughput, "+40 to +60 %", 40.0, false)),
        _ => None,
    };
    if load == LoadKind::Conversations {
        return match arm {
            Arm::One(BLIT) => vec![compared(Figure::Throughput), target(Figure::Ttft, "−15 to −20 %", -15.0, false)],
            Arm::One("command_buffer_ring") => {
                vec![compared(Figure::Throughput), target(Figure::Utilization, "+5 to +10 points", 5.0, true)]
            }
            Arm::Plain | Arm::Direct => Vec::new(),
            arm => vec![throughput(arm).unwrap_or(compared(Figure::Throughput)), compared(Figure::Ttft)],
        };
    }
    match arm {
        Arm::One("memory_pool") | Arm::All(_) => throughput(arm).into_iter().collect(),
        Arm::One(BLIT) => vec![
            target(Figure::ColdTtft, "−15 to −20 %", -15.0, false),
            target(Figure::RestoreTtft, "−15 to −20 %", -15.0, false),
        ],
        Arm::One(_) => vec![target(Figure::Utilization, "+5 to +10 points", 5.0, true)],
        Arm::Direct => vec![compared(Figure::Throughput)],
        Arm::SynchronousSpill => vec![compared(Figure::RestoreTtft)],
        Arm::Plain => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_loads_have_the_aim_of_all_together() {
        for load in [LoadKind::Questions, LoadKind::Conversations] {
            let all = targets(&Arm::All(vec![BLIT]), load);
            assert!(all[0].figure == Figure::Throughput && all[0].text == "+40 to +60 %" && all[0].least == 40.0);
        }
        let first_token =
            targets(&Arm::One(BLIT), LoadKind::Conversations).into_iter().find(|t| t.figure == Figure::Ttft);
        assert_eq!(first_token.unwrap().text, "−15 to −20 %");
    }
}
