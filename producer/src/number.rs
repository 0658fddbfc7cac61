/// The most digits that numeric holds before its point, and after it.
const NUMERIC_DIGITS_MAX: i64 = 131_072;
const NUMERIC_SCALE_MAX: i64 = 16_383;

/// A number as numeric holds it: exact, with its scale (the digits printed after the point).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Number {
    negative: bool,
    /// Without leading zeros; empty for zero.
    digits: Vec<u8>,
    /// How many of the digits stand before the point; may be negative or beyond the last.
    point: i64,
    scale: i64,
}

impl Number {
    /// Reads a JSON number; `None` when numeric cannot hold it.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
            None => (text, 0),
        };
        if exponent.unsigned_abs() >= u64::from(i32::MAX.unsigned_abs() / 2) {
            return None;
        }
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let mut digits = [whole.as_bytes(), fraction.as_bytes()].concat();
        let zeros = digits.iter().take_while(|&&digit| digit == b'0').count();
        digits.drain(..zeros);
        let scale = (fraction.len() as i64 - exponent).max(0);
        let point = if digits.is_empty() { 0 } else { whole.len() as i64 + exponent - zeros as i64 };
        if scale > NUMERIC_SCALE_MAX || point > NUMERIC_DIGITS_MAX {
            return None;
        }
        Some(Self { negative: negative && !digits.is_empty(), digits, point, scale })
    }

    pub(crate) fn printed_bytes(&self) -> usize {
        usize::from(self.negative)
            + usize::try_from(self.point).unwrap_or(0).max(1)
            + usize::try_from(self.scale).map_or(0, |scale| if scale > 0 { scale + 1 } else { 0 })
    }

    /// As Postgres prints it.
    pub(crate) fn print(&self) -> String {
        let mut text = String::with_capacity(self.printed_bytes());
        if self.negative {
            text.push('-');
        }
        (0..self.point).for_each(|place| text.push(self.digit(place)));
        if self.point <= 0 {
            text.push('0');
        }
        if self.scale > 0 {
            text.push('.');
            (0..self.scale).for_each(|place| text.push(self.digit(self.point + place)));
        }
        text
    }

    fn digit(&self, index: i64) -> char {
        usize::try_from(index)
            .ok()
            .and_then(|index| self.digits.get(index))
            .map_or('0', |&digit| digit as char)
    }

    /// The number times `10^shift`, when it is not negative and whole.
    fn scaled(&self, shift: i64) -> Option<(u64, bool)> {
        let places = self.point + shift;
        if self.negative || places > 18 {
            return None;
        }
        let whole =
            (0..places.max(0)).fold(0_u64, |sum, place| sum * 10 + u64::from(self.digit(place) as u8 - b'0'));
        let rest = self.digits.iter().skip(usize::try_from(places).unwrap_or(0)).any(|&digit| digit != b'0');
        Some((whole, rest))
    }

    /// Whether it is whole and from 0 to `max`, by value: 3.0 and 3e0 are whole.
    pub(crate) fn is_whole_up_to(&self, max: u64) -> bool {
        matches!(self.scaled(0), Some((whole, false)) if whole <= max)
    }

    /// Whether it is from 0.001 to `max`.
    pub(crate) fn is_seconds_up_to(&self, max: u64) -> bool {
        matches!(self.scaled(3), Some((millis, rest)) if millis >= 1 && (millis < max * 1000 || millis == max * 1000 && !rest))
    }

    /// As an integer, when it is one of up to 18 digits.
    pub(crate) fn whole(&self) -> Option<i64> {
        let positive = Self { negative: false, ..self.clone() };
        match positive.scaled(0)? {
            (whole, false) => {
                i64::try_from(whole).ok().map(|whole| if self.negative { -whole } else { whole })
            }
            _ => None,
        }
    }

    /// In millionths, rounded; `None` when that is out of bounds.
    pub(crate) fn micros(&self) -> Option<i128> {
        let positive = Self { negative: false, ..self.clone() };
        let (tenths, _) = positive.scaled(7)?;
        let micros = i128::from(tenths + 5) / 10;
        Some(if self.negative { -micros } else { micros })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(text: &str) -> String {
        let number = Number::parse(text).unwrap();
        assert_eq!(number.print().len(), number.printed_bytes(), "{text}");
        number.print()
    }

    #[test]
    fn numbers_print_as_numeric_prints_them() {
        for (text, expected) in [
            ("0", "0"),
            ("-0", "0"),
            ("-0.0", "0.0"),
            ("1.10", "1.10"),
            ("1e3", "1000"),
            ("1.50e1", "15.0"),
            ("1E-3", "0.001"),
            ("0e5", "0"),
            ("0.0e-3", "0.0000"),
            ("-12.5e+2", "-1250"),
            ("123e-2", "1.23"),
            ("0.00120", "0.00120"),
            ("12345678901234567890.123", "12345678901234567890.123"),
            ("100e-1", "10.0"),
            ("0.5e1", "5"),
            ("5e-1", "0.5"),
        ] {
            assert_eq!(printed(text), expected, "{text}");
        }
        assert_eq!(Number::parse("1e131071").unwrap().printed_bytes(), 131_072);
        for bad in ["1e131072", "1e-16384", "0e-16384", "1e99999999999999999999", "0e2147483647"] {
            assert!(Number::parse(bad).is_none(), "{bad}");
        }
        assert!(Number::parse("0e131072").is_some());
    }

    #[test]
    fn numbers_compare_by_value() {
        let number = |text| Number::parse(text).unwrap();
        for good in ["0", "-0", "3.0", "3e0", "1e6", "1000000.000", "100e-1"] {
            assert!(number(good).is_whole_up_to(1_000_000), "{good}");
        }
        for bad in ["-1", "0.5", "1000001", "1e7", "1e100", "1000000.001", "1e-300"] {
            assert!(!number(bad).is_whole_up_to(1_000_000), "{bad}");
        }
        for good in ["0.001", "1e-3", "86400", "86400.000", "0.5"] {
            assert!(number(good).is_seconds_up_to(86_400), "{good}");
        }
        for bad in ["0", "-1", "0.0009999", "86400.0000000001", "1e9", "1e-300"] {
            assert!(!number(bad).is_seconds_up_to(86_400), "{bad}");
        }
        assert_eq!(number("-0.0000005").micros(), Some(-1));
        assert_eq!(number("1.5").micros(), Some(1_500_000));
    }
}
