//! Tokens that say when they were sent, as they arrive in pieces of any size.

use crate::error::LoadError;

/// One token: when it was sent and when it came, by the machine's monotonic clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) sent: u64,
    pub(super) came: u64,
}

/// The tokens of one reply.
#[derive(Debug, Default)]
pub(super) struct Stamps {
    pending: String,
    seen: Vec<Seen>,
}

impl Stamps {
    /// Takes a piece that came at a time.
    pub(super) fn take(&mut self, text: &str, came: u64) -> Result<(), LoadError> {
        self.pending.push_str(text);
        let Some(end) = self.pending.rfind(' ') else {
            return Ok(());
        };
        for stamp in self.pending[..end].split(' ') {
            let last = self.seen.last().map_or(0, |seen| seen.sent);
            match stamp.parse() {
                Ok(sent) if last <= sent && sent <= came => self.seen.push(Seen { sent, came }),
                _ => {
                    let wrong = format!("{stamp:?} came behind {last} at {came}");
                    return Err(LoadError::WrongReply(wrong));
                }
            }
        }
        self.pending.drain(..=end);
        Ok(())
    }

    /// What was seen, if it is all that there was to be.
    pub(super) fn end(&mut self, tokens: u32) -> Result<Vec<Seen>, LoadError> {
        let (came, rest) = (self.seen.len(), &self.pending);
        if came != tokens as usize || !rest.is_empty() {
            let wrong = format!("{came} of {tokens} tokens came, and {rest:?}");
            return Err(LoadError::WrongReply(wrong));
        }
        Ok(std::mem::take(&mut self.seen))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_however_they_are_cut() {
        let mut stamps = Stamps::default();
        stamps.take("12 3", 500).unwrap();
        stamps.take("4", 600).unwrap();
        stamps.take("5 346 ", 700).unwrap();
        let seen = stamps.end(3).unwrap();
        assert_eq!(
            seen[0],
            Seen {
                sent: 12,
                came: 500
            }
        );
        assert_eq!(
            seen[2],
            Seen {
                sent: 346,
                came: 700
            }
        );
    }

    #[test]
    fn what_is_lost_twice_or_no_time_is_wrong() {
        let mut stamps = Stamps::default();
        stamps.take("7 ", 10).unwrap();
        assert!(stamps.take("6 ", 10).is_err());
        assert!(Stamps::default().take("x ", 10).is_err());
        assert!(Stamps::default().take("11 ", 10).is_err());
        let mut cut = Stamps::default();
        cut.take("7 8", 10).unwrap();
        assert!(cut.end(2).is_err());
    }
}
