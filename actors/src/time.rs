//! Wall-clock instants as the documents show them.

use std::fmt;

use chrono::{DateTime, NaiveDateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};

/// Microseconds since the Unix epoch, UTC.
///
/// Written as RFC 3339 with six digits and `Z`, always [`Timestamp::TEXT_BYTES`] bytes long, so
/// that it can be replaced in place.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Debug)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// Length of [`fmt::Display`]'s text, for the years 0 to 9999.
    pub const TEXT_BYTES: usize = "2026-11-22T11:53:43.779059Z".len();

    /// Microseconds of `9999-12-31T23:59:59.999999Z`; beyond it the text would grow.
    const MICROS_MAX: i64 = 253_402_300_799_999_999;

    /// The clock's reading.
    #[must_use]
    pub fn now() -> Self {
        Self(Utc::now().timestamp_micros())
    }

    /// From microseconds since the epoch; clamped to the years 1970 to 9999.
    #[must_use]
    pub fn from_micros(micros: i64) -> Self {
        Self(micros.clamp(0, Self::MICROS_MAX))
    }

    /// Microseconds since the epoch.
    #[must_use]
    pub fn micros(self) -> i64 {
        self.0
    }

    /// One microsecond later.
    #[must_use]
    pub fn next(self) -> Self {
        Self::from_micros(self.0.saturating_add(1))
    }

    /// Reads RFC 3339, or a naive date-time, which is taken as UTC (the ancestor's documents).
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if let Ok(zoned) = DateTime::parse_from_rfc3339(text) {
            return Some(Self::from_micros(zoned.timestamp_micros()));
        }
        ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f"]
            .iter()
            .find_map(|format| NaiveDateTime::parse_from_str(text, format).ok())
            .map(|naive| Self::from_micros(naive.and_utc().timestamp_micros()))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = DateTime::<Utc>::from_timestamp_micros(self.0).unwrap_or_default();
        f.write_str(&time.to_rfc3339_opts(SecondsFormat::Micros, true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn naive_times_of_old_documents_are_utc() {
        let with = Timestamp::parse("2026-11-22T11:53:43.779059").unwrap();
        assert_eq!(with.to_string(), "2026-11-22T11:53:43.779059Z");
        let without_fraction = Timestamp::parse("2026-11-22T11:53:43").unwrap();
        assert_eq!(without_fraction.to_string(), "2026-11-22T11:53:43.000000Z");
        assert_eq!(
            Timestamp::parse("2026-11-22T12:53:43.779059+01:00"),
            Some(with)
        );
        assert_eq!(Timestamp::parse("yesterday"), None);
    }

    #[test]
    fn the_text_has_one_length() {
        for micros in [i64::MIN, 0, 1, 1_800_000_000_000_000, i64::MAX] {
            assert_eq!(
                Timestamp::from_micros(micros).to_string().len(),
                Timestamp::TEXT_BYTES
            );
        }
    }
}
