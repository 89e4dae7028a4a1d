//! Numbers as text: the digits that matter, in few characters, and one minus sign (U+2212).

/// A measured value with four digits, in at most seven characters.
pub(super) fn value(value: f64) -> String {
    let size = value.abs();
    minus(match size {
        _ if !size.is_finite() => return "n/a".into(),
        0.0 => "0".into(),
        // Three digits of exponent leave room for one of the value.
        _ if !(1e-99..9e99).contains(&size) => format!("{value:.0e}"),
        _ if !(0.0005..999_999.5).contains(&size) => format!("{value:.1e}"),
        _ if size < 1.0 => format!("{value:.4}"),
        _ if size < 10.0 => format!("{value:.3}"),
        _ if size < 100.0 => format!("{value:.2}"),
        _ if size < 1000.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    })
}

/// A measured value within a sentence: without zeros at its end.
pub(super) fn brief(number: f64) -> String {
    let text = value(number);
    if text.contains('.') && !text.contains('e') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

/// A change with its sign, in at most six characters.
pub(super) fn signed(change: f64) -> String {
    let size = change.abs();
    minus(match size {
        _ if !size.is_finite() => return "n/a".into(),
        _ if size < 0.05 => "0.0".into(),
        _ if size < 999.95 => format!("{change:+.1}"),
        _ if size < 99_999.5 => format!("{change:+.0}"),
        _ => format!("{change:+.0e}"),
    })
}

/// A sentence that begins like one.
pub(super) fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

/// A number with a hyphen for its minus, as the standard library writes it, with the sign instead.
pub(super) fn minus(number: String) -> String {
    number.replace('-', "−")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_four_digits_and_one_kind_of_minus() {
        let values = [
            (0.0, "0"),
            (4276.92, "4277"),
            (85.956, "85.96"),
            (0.02131, "0.0213"),
            (1.2e-5, "1.2e−5"),
            (1.7e9, "1.7e9"),
            (f64::NAN, "n/a"),
        ];
        for (number, text) in values {
            assert_eq!(value(number), text);
        }
        assert_eq!([0.16, 7.0, 100.0, 1.0e9].map(brief), ["0.16", "7", "100", "1.0e9"]);
        let changes = [
            (-83.31, "−83.3"),
            (0.049, "0.0"),
            (-0.01, "0.0"),
            (1234.5, "+1234"),
            (-1e7, "−1e7"),
            (f64::INFINITY, "n/a"),
        ];
        for (number, text) in changes {
            assert_eq!(signed(number), text);
        }
    }

    #[test]
    fn no_number_is_wider_than_its_column() {
        for exponent in -320..=308 {
            for digits in [1.0, 5.0, 9.9996, 9.5] {
                let number: f64 = format!("{digits}e{exponent}").parse().unwrap();
                assert!(value(number).chars().count() <= 7, "{number:e}: {}", value(number));
                assert!(signed(-number).chars().count() <= 6, "{number:e}: {}", signed(-number));
            }
        }
    }
}
