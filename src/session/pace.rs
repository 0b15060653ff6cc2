//! How long a client may take to take its audio.

use std::time::Duration;

use idol_actors::voice::format::AudioFormat;
use tokio::time::Instant;

/// How long a client may take nothing.
const STALL: Duration = Duration::from_secs(15);

/// The pace of a client that is sent audio. One that plays as it takes is never too slow: between two
/// reads it may let pass as much time as all that it was given plays.
#[derive(Debug)]
pub(super) struct Pace {
    format: AudioFormat,
    began: Option<Instant>,
    bytes: usize,
}

impl Pace {
    /// Of a client that was given nothing yet.
    pub(super) fn of(format: AudioFormat) -> Self {
        Self {
            format,
            began: None,
            bytes: 0,
        }
    }

    /// It is given more.
    pub(super) fn gave(&mut self, bytes: usize) {
        self.began.get_or_insert_with(Instant::now);
        self.bytes += bytes;
    }

    /// Until when it has to take the next piece.
    pub(super) fn takes_until(&self) -> Instant {
        let now = Instant::now();
        let played = self
            .began
            .map(|began| began + self.format.duration_of(self.bytes));
        played.map_or(now, |played| played.max(now)) + STALL
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_plays_as_it_takes_has_as_long_as_what_it_has_plays() {
        let mut pace = Pace::of(AudioFormat::PCM_8000);
        let start = Instant::now();
        assert_eq!(pace.takes_until(), start + STALL);
        let minute = 60 * 16_000;
        pace.gave(minute);
        tokio::time::advance(Duration::from_secs(50)).await;
        assert_eq!(pace.takes_until(), start + Duration::from_secs(60) + STALL);
        tokio::time::advance(Duration::from_secs(40)).await;
        assert_eq!(pace.takes_until(), start + Duration::from_secs(90) + STALL);
        pace.gave(minute);
        assert_eq!(pace.takes_until(), start + Duration::from_secs(120) + STALL);
    }
}
