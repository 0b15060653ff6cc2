//! `import`: documents into the log, from a directory or from the bucket.
//!
//! Resumed by being run again: what the log has is left alone. Nothing is ever replaced, and
//! nothing of the source is changed.

use std::sync::Arc;

use idol_actors::{
    id::ConversationId,
    importing::{ImportFailure, Imported, import_document},
    log::sqlite::SqliteLog,
    mirror::imported::ImportedDocument,
};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::{Missing, Opened, Report, STOPPED, Status, ToolError, bucket};
use crate::config::{Config, Import};

mod folder;
mod objects;

pub(super) async fn run(
    asked: &Import,
    config: &Config,
    stop: CancellationToken,
) -> Result<Report, ToolError> {
    let client = match &asked.directory {
        Some(_) => None,
        None => Some(bucket::configured(config)?.ok_or(ToolError::NoBucket)?),
    };
    let opened = Opened::open(config, Missing::Make)?;
    opened.recover().await?;
    let mut tally = Tally::default();
    let done = match (&asked.directory, client) {
        (Some(directory), _) => folder::import(directory, &opened, &stop, &mut tally).await,
        (None, Some(client)) => objects::import(&client, &opened, &stop, &mut tally).await,
        (None, None) => Err(ToolError::NoBucket),
    };
    opened.close().await;
    done?;
    tally.complete &= !stop.is_cancelled();
    Ok(match asked.json {
        true => tally.json(),
        false => tally.text(),
    })
}

/// A file or an object, and what is to be said about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Remark {
    name: String,
    reason: String,
}

/// What became of one document.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Fate {
    Done(Imported),
    /// It is none, or not to be taken; the same would be said another time.
    Skipped(String),
    /// It could not be read; another time it may be.
    Failed(String),
    /// The log does not write: there is no use in going on.
    LogFailed(String),
}

#[derive(Debug, Serialize)]
struct Tally {
    imported: u64,
    continued: u64,
    already_there: u64,
    /// Messages that the log has now and did not have.
    messages: u64,
    skipped: Vec<Remark>,
    failed: Vec<Remark>,
    /// Whether all of the source was looked at.
    complete: bool,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            imported: 0,
            continued: 0,
            already_there: 0,
            messages: 0,
            skipped: vec![],
            failed: vec![],
            complete: true,
        }
    }
}

/// Whether to take the next document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    GoOn,
    GiveUp,
}

impl Tally {
    fn count(&mut self, name: String, fate: Fate) -> Next {
        match fate {
            Fate::Done(Imported::Begun { messages, .. }) => {
                self.imported += 1;
                self.messages += messages as u64;
            }
            Fate::Done(Imported::Continued { messages }) => {
                self.continued += 1;
                self.messages += messages as u64;
            }
            Fate::Done(Imported::AlreadyThere) => self.already_there += 1,
            Fate::Done(Imported::Parted) => self.skip(name, "the log has another history"),
            Fate::Done(Imported::Deleted) => self.skip(name, "the conversation was deleted"),
            Fate::Skipped(reason) => self.skip(name, reason),
            Fate::Failed(reason) => self.failed.push(Remark { name, reason }),
            Fate::LogFailed(reason) => {
                self.failed.push(Remark { name, reason });
                self.complete = false;
                return Next::GiveUp;
            }
        }
        Next::GoOn
    }

    fn skip(&mut self, name: String, reason: impl Into<String>) {
        let reason = reason.into();
        self.skipped.push(Remark { name, reason });
    }

    fn done(&self) -> u64 {
        let named = self.skipped.len() + self.failed.len();
        self.imported + self.continued + self.already_there + named as u64
    }

    fn status(&self) -> Status {
        if self.failed.is_empty() && self.complete {
            Status::Well
        } else {
            Status::Failed
        }
    }

    fn json(&self) -> Report {
        let status = self.status();
        // Plain data: it always has a JSON form.
        let text = serde_json::to_string(self).unwrap_or_default() + "\n";
        Report { text, status }
    }

    fn text(&self) -> Report {
        let mut text = String::new();
        for (word, remarks) in [("skipped", &self.skipped), ("failed", &self.failed)] {
            for Remark { name, reason } in remarks {
                // A name may hold anything, line ends included.
                text.push_str(&format!("{word} {}: {reason}\n", name.escape_debug()));
            }
        }
        text.push_str(&format!(
            "imported {}, continued {}, already there {}, skipped {}, failed {}; {} messages\n",
            self.imported,
            self.continued,
            self.already_there,
            self.skipped.len(),
            self.failed.len(),
            self.messages
        ));
        if !self.complete {
            text.push_str(STOPPED);
        }
        let status = self.status();
        Report { text, status }
    }
}

/// Brings a parsed document into the log.
async fn take(log: &Arc<SqliteLog>, id: &ConversationId, document: &ImportedDocument) -> Fate {
    match import_document(log.as_ref(), id, document).await {
        Ok(imported) => Fate::Done(imported),
        Err(ImportFailure::Unusable(error)) => Fate::Skipped(error.to_string()),
        Err(ImportFailure::Write(error)) => Fate::LogFailed(error.to_string()),
        Err(error @ (ImportFailure::Read(_) | ImportFailure::Fold(_))) => {
            Fate::Failed(error.to_string())
        }
    }
}
