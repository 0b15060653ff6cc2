//! `verify`: the log against itself, its JSON files and the bucket. Writes nothing.

use std::{collections::HashMap, sync::Arc};

use futures::{StreamExt as _, TryStreamExt as _};
use idol_actors::{
    id::ConversationId,
    log::{
        Log as _, LogError,
        sqlite::{CatalogueRow, Depth, check_file},
    },
    mirror::{
        Render as _, Rendered,
        json_files::{self, CopyState, compare, files_by_conversation},
    },
    rendering::DocumentRenderer,
};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use self::{
    findings::{Findings, Kind, Shown},
    objects::{Objects, Reading},
};
use super::{Missing, Opened, Report, ToolError, bucket, catalogue, progress::Progress};
use crate::config::{Config, Verify};

mod findings;
mod objects;

/// Conversations looked at at once; each may call the bucket.
const CONVERSATIONS: usize = bucket::CALLS;

pub(super) async fn run(
    asked: &Verify,
    config: &Config,
    stop: CancellationToken,
) -> Result<Report, ToolError> {
    let client = bucket::configured(config)?;
    let opened = Opened::open(config, Missing::Refuse)?;
    let (reading, depth) = match asked.deep {
        true => (Reading::Whole, Depth::Full),
        false => (Reading::AsNeeded, Depth::Quick),
    };
    let found = async {
        let mut findings = Findings::default();
        database(&opened, depth, &mut findings).await?;
        let objects = match client {
            Some(client) => Objects::list(client, reading, &mut findings).await,
            None => None,
        };
        conversations(&opened, objects, &stop, &mut findings).await?;
        Ok::<_, ToolError>(findings)
    };
    let found = found.await;
    opened.close().await;
    let mut findings = found?;
    if stop.is_cancelled() {
        findings.unread("the rest".into(), "stopped before the end".into());
    }
    let shown = match asked.all {
        true => Shown::All,
        false => Shown::First,
    };
    Ok(match asked.json {
        true => findings.json(shown),
        false => findings.text(shown),
    })
}

async fn database(opened: &Opened, depth: Depth, findings: &mut Findings) -> Result<(), ToolError> {
    let path = opened.dir.log_file();
    let checked = spawn_blocking(move || check_file(&path, depth)).await;
    match checked {
        Ok(wrong) => {
            for finding in wrong? {
                findings.add(Kind::LogFile, &finding);
            }
        }
        Err(panic) => findings.unread("the log's file".into(), panic.to_string()),
    }
    Ok(())
}

async fn conversations(
    opened: &Opened,
    mut objects: Option<Objects>,
    stop: &CancellationToken,
    findings: &mut Findings,
) -> Result<(), ToolError> {
    let directory = opened.dir.conversations();
    let mut files = files_by_conversation(&directory).map_err(ToolError::path(&directory))?;
    let mut progress = Progress::new("conversations", None);
    let bucket = objects.as_ref().map(Objects::reader);
    let mut found = catalogue::walk(opened.log.clone(), stop.clone())
        .map_ok(|row| {
            let bucket = bucket.clone();
            async move { Ok::<_, LogError>(one(opened, row, bucket).await) }
        })
        .try_buffer_unordered(CONVERSATIONS)
        .boxed_local();
    while let Some(found) = found.try_next().await? {
        let theirs = files.remove(&found.row.id).unwrap_or_default();
        let stray = objects.as_mut().map(|objects| objects.take(&found.row.id));
        findings.conversation(&found.row);
        if found.row.is_deleted() {
            for name in theirs {
                findings.add(Kind::FileOfDeleted, &name);
            }
            for key in stray.unwrap_or_default() {
                findings.add(Kind::ObjectOfDeleted, &key);
            }
        }
        for (kind, detail) in found.differences {
            findings.add(kind, &format!("{}{detail}", found.row.id));
        }
        for (what, reason) in found.unread {
            findings.unread(format!("{} ({what})", found.row.id), reason);
        }
        progress.at(findings.conversations());
    }
    drop(found);
    if stop.is_cancelled() {
        // What has not been walked over would look as if the log did not have it.
        return Ok(());
    }
    unknown_files(files, findings);
    for key in objects.into_iter().flat_map(Objects::unknown) {
        findings.add(Kind::ObjectUnknown, &key);
    }
    Ok(())
}

fn unknown_files(files: HashMap<ConversationId, Vec<String>>, findings: &mut Findings) {
    let mut names: Vec<_> = files.into_values().flatten().collect();
    names.sort_unstable();
    for name in names.iter().filter(|name| name.ends_with(".json")) {
        findings.add(Kind::FileUnknown, name);
    }
}

/// What was found of one conversation.
struct Found {
    row: CatalogueRow,
    differences: Vec<(Kind, String)>,
    /// What could not be read, and why.
    unread: Vec<(&'static str, String)>,
}

impl Found {
    fn differs(&mut self, kind: Kind) {
        self.differences.push((kind, String::new()));
    }
}

async fn one(opened: &Opened, row: CatalogueRow, bucket: Option<objects::Reader>) -> Found {
    let mut found = Found {
        row,
        differences: vec![],
        unread: vec![],
    };
    let rendered = match render(opened, &found.row).await {
        Ok(rendered) => rendered,
        Err(NotRendered::Damaged(reason)) => {
            found
                .differences
                .push((Kind::History, format!(": {reason}")));
            return found;
        }
        Err(NotRendered::Unread(reason)) => {
            found.unread.push(("log", reason));
            return found;
        }
    };
    let Some(rendered) = rendered else {
        return found;
    };
    if (rendered.seq, rendered.incarnation) != (found.row.seq, found.row.incarnation) {
        found.differs(Kind::Catalogue);
    }
    file(opened, &mut found, &rendered).await;
    if let Some(bucket) = bucket {
        match bucket
            .look(&found.row, &rendered, opened.log.log_id())
            .await
        {
            Ok(None) => {}
            Ok(Some(kind)) => found.differs(kind),
            Err(error) => found.unread.push(("bucket", error.to_string())),
        }
    }
    found
}

enum NotRendered {
    Damaged(String),
    Unread(String),
}

/// The document as the log gives it; `None` if the conversation was deleted.
async fn render(opened: &Opened, row: &CatalogueRow) -> Result<Option<Arc<Rendered>>, NotRendered> {
    let loaded = match opened.log.load(row.id.clone()).await {
        Ok(Some(loaded)) => loaded,
        Ok(None) => return Err(NotRendered::Damaged("it has no entries".into())),
        Err(error @ LogError::Corrupt { .. }) => {
            return Err(NotRendered::Damaged(error.to_string()));
        }
        Err(error @ LogError::Unavailable(_)) => {
            return Err(NotRendered::Unread(error.to_string()));
        }
    };
    if row.is_deleted() {
        return Ok(None);
    }
    let renderer = DocumentRenderer {
        log: opened.log.log_id(),
    };
    let id = row.id.clone();
    let rendered = spawn_blocking(move || renderer.render(&id, loaded)).await;
    let rendered = rendered.map_err(|panic| NotRendered::Damaged(panic.to_string()))?;
    let rendered = rendered.map_err(|error| NotRendered::Damaged(error.to_string()))?;
    Ok(Some(Arc::new(rendered)))
}

async fn file(opened: &Opened, found: &mut Found, rendered: &Arc<Rendered>) {
    let log = &opened.log;
    let row = match log
        .mirror_row(json_files::MIRROR, found.row.id.clone())
        .await
    {
        Ok(Some(row)) => row,
        Ok(None) => return found.differs(Kind::Catalogue),
        Err(error) => return found.unread.push(("log", error.to_string())),
    };
    let (directory, log) = (opened.dir.conversations(), log.log_id());
    let rendered = Arc::clone(rendered);
    let state = spawn_blocking(move || compare(&directory, &row, &rendered, log)).await;
    let state = match state {
        Ok(Ok(state)) => state,
        Ok(Err(error)) => return found.unread.push(("file", error.to_string())),
        Err(panic) => return found.unread.push(("file", panic.to_string())),
    };
    match state {
        CopyState::Equal => {}
        CopyState::NotYet | CopyState::Behind => found.differs(Kind::FileBehind),
        CopyState::Missing => found.differs(Kind::FileMissing),
        CopyState::Ahead(_) => found.differs(Kind::FileAhead),
        CopyState::Edited => found.differs(Kind::FileEdited),
        CopyState::Unreadable(reason) => {
            found
                .differences
                .push((Kind::FileUnreadable, format!(": {reason}")));
        }
    }
}
