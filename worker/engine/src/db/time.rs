//! Timestamps as Postgres stores them, for display.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Serialize, Serializer};
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgTypeInfo, PgValueFormat, PgValueRef};
use sqlx::{Decode, Postgres, Type};

/// Microseconds from 1970 to 2000, the epoch of Postgres.
const EPOCH_2000_US: i64 = 946_684_800_000_000;
const DAY_US: i64 = 86_400_000_000;
/// First timestamp that Postgres can store (4714 BC), and the end of its range (after 294276).
const FIRST_US: i64 = -211_813_488_000_000_000;
const END_US: i64 = 9_223_371_331_200_000_000;

/// A `timestamptz`: microseconds since 2000-01-01 UTC. Its values include infinity and years of six
/// digits, on which chrono would panic. Years 1 to 9999 are formatted as chrono does, all others as
/// Postgres does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(i64);

impl Time {
    /// Converts a number from [`Time::raw`]. Returns `None` if it is outside the range of
    /// `timestamptz`.
    pub fn from_raw(us: i64) -> Option<Time> {
        let is_one = us == i64::MIN || us == i64::MAX || (FIRST_US..END_US).contains(&us);
        is_one.then_some(Time(us))
    }

    /// Returns the number that Postgres stores: microseconds since 2000-01-01 UTC. The infinities
    /// are the smallest and the largest number.
    pub fn raw(self) -> i64 {
        self.0
    }

    /// Returns the microseconds since an earlier time, saturating at the limits of `i64`.
    pub fn us_since(self, earlier: Time) -> i64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Formats the time as RFC 3339; `None` outside the years 1 to 9999.
    pub fn rfc3339(self) -> Option<String> {
        self.usual().map(|time| time.to_rfc3339())
    }

    /// Formats the time as RFC 3339 or, outside the years 1 to 9999, as Postgres does.
    pub fn exact(self) -> String {
        self.rfc3339().unwrap_or_else(|| self.to_string())
    }

    /// Converts a time in the years 1 to 9999.
    fn usual(self) -> Option<DateTime<Utc>> {
        let time = DateTime::from_timestamp_micros(self.0.checked_add(EPOCH_2000_US)?)?;
        (1..=9999).contains(&chrono::Datelike::year(&time)).then_some(time)
    }
}

impl From<DateTime<Utc>> for Time {
    fn from(time: DateTime<Utc>) -> Time {
        Time(time.timestamp_micros().saturating_sub(EPOCH_2000_US))
    }
}

/// Formats the time in UTC with milliseconds and without a zone. Outside the years 1 to 9999,
/// formats it as Postgres does.
impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.usual(), self.0) {
            (Some(time), _) => write!(f, "{}", time.format("%Y-%m-%d %H:%M:%S%.3f")),
            (None, i64::MIN) => f.write_str("-infinity"),
            (None, i64::MAX) => f.write_str("infinity"),
            (None, us) => {
                let (year, month, day) = civil(us.div_euclid(DAY_US));
                let us = us.rem_euclid(DAY_US);
                let (seconds, fraction) = (us / 1_000_000, us % 1_000_000);
                let shown = if year > 0 { year } else { 1 - year };
                write!(f, "{shown:04}-{month:02}-{day:02} ")?;
                write!(f, "{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)?;
                if fraction > 0 {
                    write!(f, ".{}", format!("{fraction:06}").trim_end_matches('0'))?;
                }
                f.write_str(if year > 0 { "+00" } else { "+00 BC" })
            }
        }
    }
}

/// Converts a day since 2000-01-01 to year (0 is 1 BC), month and day. Uses the Gregorian calendar,
/// extended to earlier years as in Postgres.
fn civil(day: i64) -> (i64, i64, i64) {
    // If years begin in March, the leap day is the last day of a year. 2000-03-01 begins a 400-year
    // cycle.
    let day = day - 60;
    let (era, day) = (day.div_euclid(146_097), day.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let year = 2000 + era * 400 + year + i64::from(month >= 10);
    (year, if month < 10 { month + 3 } else { month - 9 }, day)
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.usual() {
            Some(time) => time.serialize(serializer),
            None => serializer.collect_str(self),
        }
    }
}

impl Type<Postgres> for Time {
    fn type_info() -> PgTypeInfo {
        <DateTime<Utc> as Type<Postgres>>::type_info()
    }
}

impl<'r> Decode<'r, Postgres> for Time {
    fn decode(value: PgValueRef<'r>) -> Result<Time, BoxDynError> {
        match value.format() {
            PgValueFormat::Binary => Ok(Time(i64::from_be_bytes(value.as_bytes()?.try_into()?))),
            PgValueFormat::Text => Err("a time in text format; allowed: the binary format".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_usual_time_is_written_as_before_and_any_other_as_postgres_writes_it() {
        let usual = DateTime::parse_from_rfc3339("2026-02-28T23:59:59.123456Z").unwrap().to_utc();
        let time = Time::from(usual);
        assert_eq!(time.to_string(), "2026-02-28 23:59:59.123");
        assert_eq!(time.rfc3339(), Some(usual.to_rfc3339()));
        assert_eq!(serde_json::json!(time), serde_json::json!(usual));
        // Expected texts are the output of psql in UTC.
        for (us, text) in [
            (i64::MAX, "infinity"),
            (i64::MIN, "-infinity"),
            (FIRST_US, "4714-11-24 00:00:00+00 BC"),
            (END_US - 1, "294276-12-31 23:59:59.999999+00"),
            (252_455_616_000_000_000, "10000-01-01 00:00:00+00"),
            (-63_082_281_600_000_000 - 1, "0001-12-31 23:59:59.999999+00 BC"),
        ] {
            let time = Time::from_raw(us).unwrap();
            assert_eq!((time.to_string().as_str(), time.rfc3339()), (text, None));
            assert_eq!(serde_json::json!(time), serde_json::json!(text));
        }
    }

    #[test]
    fn days_are_chronos_days() {
        for day in (-730_000..2_900_000).step_by(13) {
            let date = chrono::NaiveDate::from_ymd_opt(2000, 1, 1).unwrap() + chrono::TimeDelta::days(day);
            use chrono::Datelike as _;
            assert_eq!(civil(day), (date.year().into(), date.month().into(), date.day().into()), "day {day}");
        }
    }

    #[test]
    fn differences_end_at_the_limits() {
        let (first, last) = (Time(i64::MIN), Time(i64::MAX));
        assert_eq!(
            [last.us_since(first), first.us_since(last), last.us_since(last)],
            [i64::MAX, i64::MIN, 0]
        );
        assert_eq!([Time::from_raw(END_US), Time::from_raw(FIRST_US - 1)], [None, None]);
    }
}
