//! What was spoken and heard, as providers charge for it.

use std::{fmt, ops::AddAssign, time::Duration};

use serde::{Deserialize, Serialize};

/// Name of the member of a document that tells it.
pub const MEMBER: &str = "voice_usage";

/// Characters spoken, and sound heard.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Shown")]
pub struct VoiceUsage {
    /// Characters that were spoken, as the speech provider counts them.
    #[serde(rename = "characters_spoken", skip_serializing_if = "is_zero")]
    pub characters: u64,
    /// Milliseconds of sound that was written down.
    #[serde(
        rename = "seconds_heard",
        serialize_with = "as_seconds",
        skip_serializing_if = "is_zero"
    )]
    pub heard_ms: u64,
}

/// As a document shows it.
#[derive(Deserialize)]
struct Shown {
    #[serde(default)]
    characters_spoken: u64,
    #[serde(default)]
    seconds_heard: f64,
}

impl From<Shown> for VoiceUsage {
    fn from(shown: Shown) -> Self {
        Self {
            characters: shown.characters_spoken,
            ..Self::heard(shown.seconds_heard)
        }
    }
}

impl VoiceUsage {
    /// So many characters were spoken.
    #[must_use]
    pub fn spoken(characters: u64) -> Self {
        Self {
            characters,
            heard_ms: 0,
        }
    }

    /// So many seconds were heard; none if that is no time.
    #[must_use]
    pub fn heard(seconds: f64) -> Self {
        let heard = Duration::try_from_secs_f64(seconds).unwrap_or_default();
        let micros = heard.as_micros() + 500;
        Self {
            characters: 0,
            heard_ms: u64::try_from(micros / 1_000).unwrap_or(u64::MAX),
        }
    }

    /// Seconds of sound.
    #[must_use]
    pub fn seconds_heard(self) -> f64 {
        Duration::from_millis(self.heard_ms).as_secs_f64()
    }

    /// Whether it is nothing.
    #[must_use]
    pub fn is_nothing(self) -> bool {
        self == Self::default()
    }

    /// What this is more than another one.
    #[must_use]
    pub fn beyond(self, other: Self) -> Self {
        Self {
            characters: self.characters.saturating_sub(other.characters),
            heard_ms: self.heard_ms.saturating_sub(other.heard_ms),
        }
    }
}

impl AddAssign for VoiceUsage {
    fn add_assign(&mut self, other: Self) {
        self.characters = self.characters.saturating_add(other.characters);
        self.heard_ms = self.heard_ms.saturating_add(other.heard_ms);
    }
}

/// The JSON object that documents show.
impl fmt::Display for VoiceUsage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let json = serde_json::to_string(self).map_err(|_unwritable| fmt::Error)?;
        f.write_str(&json)
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn as_seconds<S: serde::Serializer>(ms: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(Duration::from_millis(*ms).as_secs_f64())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_shown_is_read_as_it_was(characters: u64, heard_ms in 0u64..1 << 40) {
            let usage = VoiceUsage { characters, heard_ms };
            let read: VoiceUsage = serde_json::from_str(&usage.to_string()).unwrap();
            prop_assert_eq!(read, usage);
        }
    }

    #[test]
    fn only_what_there_was_is_shown() {
        let usage = VoiceUsage::spoken(12);
        assert_eq!(usage.to_string(), r#"{"characters_spoken":12}"#);
        let usage = VoiceUsage::heard(1.2504);
        assert_eq!(usage.to_string(), r#"{"seconds_heard":1.25}"#);
        for seconds in [f64::NAN, -1.0, f64::INFINITY] {
            assert!(VoiceUsage::heard(seconds).is_nothing());
        }
    }
}
