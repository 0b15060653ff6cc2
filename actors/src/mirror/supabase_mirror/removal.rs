//! Removing what a deleted conversation left: its object, the copies kept beside it, its row.

use uuid::Uuid;

use super::{
    documents::upper_case_key,
    work::{Failed, Outcome, Work, look_at},
};
use crate::{
    log::{
        Log as _,
        sqlite::{Look, MirrorRow, Step},
    },
    mirror::{
        MirrorPoint,
        lives::{Life, is_of_before, set_aside_at},
        supabase::{SupabaseError, SupabaseErrorKind as Kind},
    },
    time::Timestamp,
};

impl Work {
    /// Removes it; or looks whether it came back, if it is time for that.
    pub(super) async fn removal(&mut self, row: &MirrorRow) -> Result<Outcome, Failed> {
        let seq = row.deleted_seq;
        if row.owes_removal() {
            self.begin_removal(row).await?;
            let look = self.next_look(0);
            self.removed(row, look).await?;
            return Ok(Outcome::Removed { seq, look });
        }
        let Some(look) = row.look else {
            return Ok(Outcome::Removed { seq, look: None });
        };
        if look_at(look, &self.tools.waits) > tokio::time::Instant::now() {
            return Ok(Outcome::Removed {
                seq,
                look: Some(look),
            });
        }
        if self.came_back().await? {
            tracing::warn!(conversation = %self.id, "a deleted document came back to the bucket; it is removed again");
            self.begin_removal(row).await?;
        } else {
            // A row that was being written while it was deleted may be back as well.
            self.delete_row().await?;
        }
        let look = self.next_look(look.step + 1);
        self.removed(row, look).await?;
        Ok(Outcome::Removed { seq, look })
    }

    async fn begin_removal(&mut self, row: &MirrorRow) -> Result<(), Failed> {
        // A deletion without an answer may be carried out late, too, and hit what comes after it.
        let begun = self.begin(row).await?;
        let deleted = self.delete_all(self.own_keys(), |_| true).await;
        self.confirmed(begun, deleted)?;
        self.reached(MirrorPoint::Removed);
        self.delete_row().await
    }

    /// Removes what an earlier life of the id left, for a conversation that lives anew.
    pub(super) async fn remove_earlier(&mut self, row: &MirrorRow) -> Result<(), Failed> {
        let life = Life::of(row, self.log_id());
        let loaded = self.tools.log.load(self.id.clone()).await?;
        // It may have been deleted again since the row was read.
        let Some(began) = loaded.and_then(|loaded| life.began(&loaded)) else {
            return Err(Failed::Postponed);
        };
        let (mut gone, mut stays) = (Vec::new(), false);
        for key in self.own_keys() {
            match self.is_of_before(&key, life, began).await? {
                Some(true) => gone.push(key),
                Some(false) => stays |= key == self.key,
                None => {}
            }
        }
        let begin = self.copies_begin();
        let earlier = |key: &str| set_aside_at(key, &begin).is_none_or(|at| at < began);
        let begun = self.begin(row).await?;
        let deleted = self.delete_all(gone, earlier).await;
        self.confirmed(begun, deleted)?;
        self.reached(MirrorPoint::Removed);
        if !stays {
            self.delete_row().await?;
        }
        self.removed(row, None).await?;
        // What stays is looked at before it is written over.
        self.checked = !stays;
        Ok(())
    }

    /// Whether an object is what an earlier life left; `None`: there is none.
    async fn is_of_before(
        &self,
        key: &str,
        life: Life,
        began: Timestamp,
    ) -> Result<Option<bool>, Failed> {
        let info = match self.tools.client.info(key).await {
            Ok(info) => info,
            // Then it holds none of that name, either.
            Err(error) if error.kind == Kind::RejectedName => None,
            Err(error) => return Err(error.into()),
        };
        let Some(info) = info else {
            return Ok(None);
        };
        let writer = match info.metadata {
            Some(it) => Some(life.writer(it.log, it.incarnation, it.seq)),
            None => match self.read(key).await? {
                Some((document, _)) => document.and_then(|it| life.writer_of(&it)),
                None => return Ok(None),
            },
        };
        Ok(Some(is_of_before(writer, info.last_modified, began)))
    }

    /// Records that it is gone.
    async fn removed(&mut self, row: &MirrorRow, look: Option<Look>) -> Result<(), Failed> {
        let seq = row.deleted_seq;
        self.record(row, Step::Removed { seq, look }).await
    }

    fn next_look(&self, step: u32) -> Option<Look> {
        let wait = self.tools.waits.looks.get(usize::try_from(step).ok()?)?;
        let wait = i64::try_from(wait.as_micros()).unwrap_or(i64::MAX);
        let at = Timestamp::from_micros(Timestamp::now().micros().saturating_add(wait));
        Some(Look { at, step })
    }

    /// Whether any object of it is there.
    async fn came_back(&self) -> Result<bool, SupabaseError> {
        let client = &self.tools.client;
        for key in self.own_keys() {
            if client.info(&key).await?.is_some() {
                return Ok(true);
            }
        }
        Ok(!self.copies().await?.is_empty())
    }

    /// Keys of its object, and of the one that the FastAPI service may have named in upper case.
    fn own_keys(&self) -> Vec<String> {
        let keys = [Some(self.key.clone()), upper_case_key(&self.id)];
        keys.into_iter().flatten().collect()
    }

    fn copies_begin(&self) -> String {
        format!("{}.conflict-", self.id)
    }

    /// Keys of what was kept of it beside its object.
    async fn copies(&self) -> Result<Vec<String>, SupabaseError> {
        let begin = self.copies_begin();
        let mut copies = vec![];
        let mut listing = self.tools.client.list(format!("{}.", self.id));
        while let Some(page) = listing.next_page().await? {
            let keys = page.into_iter().map(|object| object.key);
            copies.extend(keys.filter(|key| key.starts_with(&begin)));
        }
        Ok(copies)
    }

    /// Deletes these objects, and those copies that are to go.
    async fn delete_all(
        &self,
        keys: Vec<String>,
        goes: impl Fn(&str) -> bool,
    ) -> Result<(), SupabaseError> {
        self.delete_objects(&keys).await?;
        let mut copies = self.copies().await?;
        copies.retain(|key| goes(key));
        self.delete_objects(&copies).await
    }

    async fn delete_objects(&self, keys: &[String]) -> Result<(), SupabaseError> {
        for key in keys {
            match self.tools.client.delete(key).await {
                Ok(_) => {}
                // Then it holds none of that name, nor one beside it.
                Err(error) if error.kind == Kind::RejectedName => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn delete_row(&mut self) -> Result<(), Failed> {
        if Uuid::try_parse(self.id.as_str()).is_err() {
            return Ok(());
        }
        match self.tools.client.delete_row(self.id.as_str()).await {
            Ok(_) => Ok(()),
            // No table, no row. Whether there is one will not be asked for ever.
            Err(error) if matches!(error.kind, Kind::MissingTable | Kind::NoRoute) => Ok(()),
            // What refers to the row is the app's; so is the decision.
            Err(error)
                if matches!(
                    error.kind,
                    Kind::ForeignKey | Kind::Forbidden | Kind::BadUuid | Kind::Rejected
                ) =>
            {
                self.row_kept = Some(error);
                Ok(())
            }
            Err(error) => Err(Failed::Row(error)),
        }
    }
}
