/// Digits before the point of a numeric.
const NUMERIC_DIGITS_MAX: i64 = 131_072;
/// Digits after the point of a numeric.
const NUMERIC_SCALE_MAX: i64 = 16_383;

/// A number as numeric holds it: exact, with the number of digits printed after the point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Number {
    negative: bool,
    /// Without leading zeros; empty for zero.
    digits: Vec<u8>,
    /// How many of the digits stand before the point; may be negative or beyond the last.
    point: i64,
    scale: i64,
}

impl Number {
    /// Reads a JSON number; `None` when numeric cannot hold it.
    pub fn parse(text: &str) -> Option<Self> {
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

    /// Length of the number as Postgres prints it, without printing it.
    pub fn printed_bytes(&self) -> usize {
        usize::from(self.negative)
            + usize::try_from(self.point).unwrap_or(0).max(1)
            + usize::try_from(self.scale).map_or(0, |scale| if scale > 0 { scale + 1 } else { 0 })
    }

    /// The number as Postgres prints it.
    pub fn print(&self) -> String {
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

    /// The absolute value times `10^shift`, cut to a whole number, and whether something was cut
    /// off. `None` beyond 18 digits.
    fn scaled(&self, shift: i64) -> Option<(i64, bool)> {
        let places = self.point + shift;
        if places > 18 {
            return None;
        }
        let whole =
            (0..places.max(0)).fold(0, |sum, place| sum * 10 + i64::from(self.digit(place) as u8 - b'0'));
        let rest = self.digits.iter().skip(usize::try_from(places).unwrap_or(0)).any(|&digit| digit != b'0');
        Some((whole, rest))
    }

    fn signed<T: std::ops::Neg<Output = T>>(&self, absolute: T) -> T {
        if self.negative { -absolute } else { absolute }
    }

    /// The number as an integer, when it is one of up to 18 digits: 3.0 and 3e0 are whole.
    pub fn whole(&self) -> Option<i64> {
        match self.scaled(0)? {
            (whole, false) => Some(self.signed(whole)),
            _ => None,
        }
    }

    /// The number in millionths, rounded. `None` beyond 18 digits.
    pub fn micros(&self) -> Option<i128> {
        let (tenths, _) = self.scaled(7)?;
        Some(self.signed((i128::from(tenths) + 5) / 10))
    }

    /// Whether it is a number of seconds from 0.001 to `max`, to the last digit.
    pub fn is_seconds_up_to(&self, max: u64) -> bool {
        let Some((millis, rest)) = self.scaled(3) else { return false };
        let max = i64::try_from(max).unwrap_or(i64::MAX).saturating_mul(1_000);
        !self.negative && millis >= 1 && (millis < max || millis == max && !rest)
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
        for (text, expected) in [
            ("-0", 0),
            ("3.0", 3),
            ("3e0", 3),
            ("-1e6", -1_000_000),
            ("1000000.000", 1_000_000),
            ("100e-1", 10),
            ("999999999999999999", 999_999_999_999_999_999),
        ] {
            assert_eq!(number(text).whole(), Some(expected), "{text}");
        }
        for bad in ["0.5", "1e18", "1e100", "1000000.001", "1e-300"] {
            assert_eq!(number(bad).whole(), None, "{bad}");
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
