//! Which life of an id a copy shows, where the id was deleted and lives anew. Pure.
//!
//! What is left of the earlier life is to be removed. A copy of the life that is there now may be
//! all that is left of it, and another hand's is no business of the deletion.

use uuid::Uuid;

use super::{Revision, imported::ImportedDocument};
use crate::{
    log::{Loaded, entry::EntryHead, sqlite::MirrorRow},
    time::Timestamp,
};

/// Whose a copy is, by what its writer said of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Writer {
    /// This log, in this life of the id.
    Us,
    /// This log, before the id was deleted.
    UsBefore,
    /// Not known to this log.
    Another,
}

/// What a mirror knows of the life that is there now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Life {
    log: Uuid,
    incarnation: u64,
    /// Numbers go on over deletions.
    deleted_seq: u64,
}

impl Life {
    pub(super) fn of(row: &MirrorRow, log: Uuid) -> Self {
        Self {
            log,
            incarnation: row.incarnation,
            deleted_seq: row.deleted_seq,
        }
    }

    pub(super) fn writer(self, log: Uuid, incarnation: u64, seq: u64) -> Writer {
        if log != self.log {
            Writer::Another
        } else if incarnation == self.incarnation {
            Writer::Us
        } else if seq <= self.deleted_seq {
            Writer::UsBefore
        } else {
            // A life that this log, restored from a backup, knows nothing of.
            Writer::Another
        }
    }

    /// Who wrote a document, if it tells. One that was edited since tells it as well.
    pub(super) fn writer_of(self, document: &ImportedDocument) -> Option<Writer> {
        let Revision {
            log,
            incarnation,
            seq,
            ..
        } = document.claims()?;
        Some(self.writer(log, incarnation, seq))
    }

    /// When this life began, by its entries; `None`: they are of another one.
    pub(super) fn began(self, loaded: &Loaded) -> Option<Timestamp> {
        loaded.entries.iter().find_map(|entry| match &entry.head {
            EntryHead::Begun(begun) if begun.incarnation == self.incarnation => Some(begun.at),
            _ => None,
        })
    }
}

/// Whether a copy is of a life that was deleted before the one that `began` then. One that does not
/// tell who wrote it is, if it was there before.
pub(super) fn is_of_before(
    writer: Option<Writer>,
    changed: Option<Timestamp>,
    began: Timestamp,
) -> bool {
    match writer {
        Some(Writer::UsBefore) => true,
        Some(Writer::Us | Writer::Another) => false,
        None => changed.is_some_and(|changed| changed < began),
    }
}

/// When a copy was set aside, by its name: a time without colons behind `begin`.
pub(super) fn set_aside_at(name: &str, begin: &str) -> Option<Timestamp> {
    let time = name.strip_prefix(begin)?;
    let (date, time) = time.split_once('T')?;
    let (hours, rest) = time.split_at_checked(2)?;
    let (minutes, seconds) = rest.split_at_checked(2)?;
    let seconds = &seconds[..seconds.find('Z')? + 1];
    Timestamp::parse(&format!("{date}T{hours}:{minutes}:{seconds}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_copy_is_read_from_its_name() {
        let time = Timestamp::parse("2026-11-22T11:53:43.779059Z").unwrap();
        let spelled = time.to_string().replace(':', "");
        for end in [".json", "-7.json"] {
            let name = format!("c1.edited-{spelled}{end}");
            assert_eq!(set_aside_at(&name, "c1.edited-"), Some(time));
        }
        for name in ["c1.edited-earlier.json", "c1.edited-2026T1é", "c1.json"] {
            assert_eq!(set_aside_at(name, "c1.edited-"), None, "{name}");
        }
    }

    #[test]
    fn only_what_belongs_to_the_deleted_life_is_of_before() {
        let (log, at) = (Uuid::from_u128(1), Timestamp::from_micros);
        let life = Life {
            log,
            incarnation: 7,
            deleted_seq: 5,
        };
        let of = |log, incarnation, seq| {
            let writer = Some(life.writer(log, incarnation, seq));
            is_of_before(writer, Some(at(1)), at(2))
        };
        assert!(of(log, 6, 5));
        assert!(!of(log, 7, 3), "of this life, whatever its number");
        assert!(!of(log, 6, 6), "of a life that the log has lost");
        assert!(!of(Uuid::from_u128(2), 6, 5), "of another log");
        assert!(is_of_before(None, Some(at(1)), at(2)));
        assert!(!is_of_before(None, Some(at(2)), at(2)));
        assert!(!is_of_before(None, None, at(2)));
    }
}
