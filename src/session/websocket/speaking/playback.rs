//! How far a client has come in playing what it was told. Pure: times are handed in.

use std::time::{Duration, Instant};

use super::Reports;

/// Rounding of a client's clock within which a piece counts as played whole.
const ROUNDING_MS: u32 = 50;

/// The pieces of a spoken reply, and what is known of their being played.
#[derive(Debug, Default)]
pub(super) struct Playback {
    /// Milliseconds of each piece that was told.
    pieces: Vec<u32>,
    /// When who plays them as they come is done with them.
    ends: Option<Instant>,
    /// The furthest that the client reports.
    played: Option<(u32, u32)>,
}

impl Playback {
    /// A piece of so many milliseconds is told; none for one that tells what went wrong.
    pub(super) fn told(&mut self, ms: u32, now: Instant) {
        self.pieces.push(ms);
        let begins = self.ends.map_or(now, |ends| ends.max(now));
        self.ends = Some(begins + Duration::from_millis(ms.into()));
    }

    /// The client has played all before a piece, and so many milliseconds of it.
    pub(super) fn reported(&mut self, sequence: u32, ms: u32) {
        self.played = self.played.max(Some((sequence, ms)));
    }

    /// Whether all that was told has been played: by the word of a client that reports, which may
    /// pause; that of another is played as it comes.
    pub(super) fn is_over(&self, reports: Reports, now: Instant) -> bool {
        let ms = |pieces: &[u32]| pieces.iter().map(|ms| u64::from(*ms)).sum::<u64>();
        if ms(&self.pieces) == 0 {
            return true;
        }
        match (reports, self.played) {
            (_, Some((sequence, played))) => {
                let at = usize::try_from(sequence).unwrap_or(usize::MAX);
                let left = self.pieces.get(at..).unwrap_or_default();
                ms(left) <= u64::from(played) + u64::from(ROUNDING_MS)
            }
            (Reports::Yes, None) => false,
            (Reports::No, None) => self.ends.is_none_or(|ends| now > ends),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3_600);

    /// Two seconds and one, and an error at the end.
    fn told(now: Instant) -> Playback {
        let mut playback = Playback::default();
        for ms in [2_000, 1_000, 0] {
            playback.told(ms, now);
        }
        playback
    }

    #[test]
    fn who_never_reports_plays_as_it_is_told() {
        let start = Instant::now();
        let playback = told(start);
        let over = |ms| playback.is_over(Reports::No, start + Duration::from_millis(ms));
        assert!(!over(2_900));
        assert!(over(3_100));
    }

    #[test]
    fn what_comes_after_a_pause_begins_to_play_then() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut playback = told(start);
        playback.told(5_000, at(20_000));
        assert!(!playback.is_over(Reports::No, at(24_900)));
        assert!(playback.is_over(Reports::No, at(25_100)));
    }

    #[test]
    fn who_reports_may_pause_for_as_long_as_it_likes() {
        let start = Instant::now();
        let mut playback = told(start);
        let over = |playback: &Playback| playback.is_over(Reports::Yes, start + LONG);
        assert!(!over(&playback), "it has reported on another reply");
        for (report, is_over) in [
            ((0, 1_990), false),
            ((1, 0), false),
            ((1, 940), false),
            ((1, 960), true),
            // What comes late takes nothing back.
            ((0, 5), true),
        ] {
            playback.reported(report.0, report.1);
            assert_eq!(over(&playback), is_over, "{report:?}");
        }
    }

    #[test]
    fn what_has_no_sound_is_over() {
        let start = Instant::now();
        let mut playback = Playback::default();
        assert!(playback.is_over(Reports::Yes, start));
        playback.told(0, start);
        assert!(playback.is_over(Reports::Yes, start));
        playback.reported(7, 0);
        assert!(playback.is_over(Reports::Yes, start));
    }
}
