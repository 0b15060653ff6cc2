//! What `verify` found, by kind.

use std::collections::BTreeMap;

use idol_actors::log::sqlite::CatalogueRow;
use serde::Serialize;

use crate::tools::{Report, Status};

/// Of each kind so many are named, unless all are asked for.
const NAMED: usize = 10;

/// A way in which a conversation's copies can differ, or the log be damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    LogFile,
    History,
    Catalogue,
    FileMissing,
    FileBehind,
    FileAhead,
    FileEdited,
    FileUnreadable,
    FileOfDeleted,
    FileUnknown,
    ObjectMissing,
    ObjectBehind,
    ObjectAhead,
    ObjectForeign,
    ObjectDiffers,
    ObjectUnreadable,
    ObjectOfDeleted,
    ObjectUnknown,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::LogFile => "log_file",
            Self::History => "history",
            Self::Catalogue => "catalogue",
            Self::FileMissing => "file_missing",
            Self::FileBehind => "file_behind",
            Self::FileAhead => "file_ahead",
            Self::FileEdited => "file_edited",
            Self::FileUnreadable => "file_unreadable",
            Self::FileOfDeleted => "file_of_deleted",
            Self::FileUnknown => "file_unknown",
            Self::ObjectMissing => "object_missing",
            Self::ObjectBehind => "object_behind",
            Self::ObjectAhead => "object_ahead",
            Self::ObjectForeign => "object_foreign",
            Self::ObjectDiffers => "object_differs",
            Self::ObjectUnreadable => "object_unreadable",
            Self::ObjectOfDeleted => "object_of_deleted",
            Self::ObjectUnknown => "object_unknown",
        }
    }

    fn sentence(self) -> &'static str {
        match self {
            Self::LogFile => "SQLite finds the log's file damaged",
            Self::History => "the log holds a history that cannot be put together",
            Self::Catalogue => "the log's catalogue does not say what its entries do",
            Self::FileMissing => "the JSON file is gone",
            Self::FileBehind => "the JSON file is behind: the next start writes it",
            Self::FileAhead => "the JSON file has more than the log: `reconcile` takes it back",
            Self::FileEdited => "the JSON file is not what the server wrote",
            Self::FileUnreadable => "the JSON file is no document",
            Self::FileOfDeleted => "a file of a deleted conversation",
            Self::FileUnknown => "a JSON file of no conversation of the log",
            Self::ObjectMissing => "the object is not in the bucket",
            Self::ObjectBehind => "the object is behind",
            Self::ObjectAhead => "the object has more than the log: `reconcile` takes it back",
            Self::ObjectForeign => "the object was written by another log, or another program",
            Self::ObjectDiffers => "the object claims to be up to date and says something else",
            Self::ObjectUnreadable => "the object is no document",
            Self::ObjectOfDeleted => "an object of a deleted conversation",
            Self::ObjectUnknown => "an object of no conversation of the log",
        }
    }
}

/// How many of each kind are named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    First,
    All,
}

impl Shown {
    fn of(self, names: &[String]) -> &[String] {
        match self {
            Self::All => names,
            Self::First => &names[..names.len().min(NAMED)],
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Findings {
    present: u64,
    deleted: u64,
    differences: BTreeMap<Kind, Vec<String>>,
    unread: Vec<(String, String)>,
}

#[derive(Serialize)]
struct Group<'a> {
    count: usize,
    names: &'a [String],
}

#[derive(Serialize)]
struct Unread<'a> {
    name: &'a str,
    reason: &'a str,
}

#[derive(Serialize)]
struct Summary<'a> {
    conversations: u64,
    deleted: u64,
    differences: BTreeMap<&'static str, Group<'a>>,
    unread: Vec<Unread<'a>>,
}

impl Findings {
    /// A conversation was looked at.
    pub(super) fn conversation(&mut self, row: &CatalogueRow) {
        match row.is_deleted() {
            true => self.deleted += 1,
            false => self.present += 1,
        }
    }

    /// Conversations looked at.
    pub(super) fn conversations(&self) -> u64 {
        self.present + self.deleted
    }

    /// Something differs.
    pub(super) fn add(&mut self, kind: Kind, name: &str) {
        self.differences
            .entry(kind)
            .or_default()
            .push(name.to_owned());
    }

    /// Something could not be read.
    pub(super) fn unread(&mut self, name: String, reason: String) {
        self.unread.push((name, reason));
    }

    fn status(&self) -> Status {
        // What was not read may hide what differs: that comes first.
        if !self.unread.is_empty() {
            Status::Failed
        } else if !self.differences.is_empty() {
            Status::Differs
        } else {
            Status::Well
        }
    }

    pub(super) fn json(&self, shown: Shown) -> Report {
        let group = |(kind, names): (&Kind, &Vec<String>)| {
            let count = names.len();
            let names = shown.of(names).to_owned();
            (kind.name(), count, names)
        };
        let groups: Vec<_> = self.differences.iter().map(group).collect();
        let summary = Summary {
            conversations: self.present,
            deleted: self.deleted,
            differences: groups
                .iter()
                .map(|(kind, count, names)| {
                    let count = *count;
                    (*kind, Group { count, names })
                })
                .collect(),
            unread: self
                .unread
                .iter()
                .map(|(name, reason)| Unread { name, reason })
                .collect(),
        };
        // Plain data: it always has a JSON form.
        let text = serde_json::to_string(&summary).unwrap_or_default() + "\n";
        let status = self.status();
        Report { text, status }
    }

    pub(super) fn text(&self, shown: Shown) -> Report {
        let mut text = String::new();
        for (kind, names) in &self.differences {
            let (name, count) = (kind.name(), names.len());
            text.push_str(&format!("{name} {count}: {}\n", kind.sentence()));
            let named = shown.of(names);
            for name in named {
                text.push_str(&format!("  {}\n", name.escape_debug()));
            }
            if named.len() < count {
                let more = count - named.len();
                text.push_str(&format!("  and {more} more; --all names them\n"));
            }
        }
        for (name, reason) in &self.unread {
            text.push_str(&format!("not read: {}: {reason}\n", name.escape_debug()));
        }
        let differing: usize = self.differences.values().map(Vec::len).sum();
        text.push_str(&format!(
            "{} conversations, {} deleted; {differing} differences, {} not read\n",
            self.present,
            self.deleted,
            self.unread.len()
        ));
        let status = self.status();
        Report { text, status }
    }
}
