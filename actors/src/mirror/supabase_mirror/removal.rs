//! Removing what a deleted conversation left: its object, the copies kept beside it, its row.

use uuid::Uuid;

use super::{
    documents::upper_case_key,
    work::{Failed, Outcome, Work, look_at},
};
use crate::{
    log::sqlite::{Look, MirrorRow, Step},
    mirror::{
        MirrorPoint,
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
        let deleted = self.delete_objects().await;
        self.confirmed(begun, deleted)?;
        self.reached(MirrorPoint::Removed);
        self.delete_row().await
    }

    /// Removes everything, for a conversation that lives anew.
    pub(super) async fn remove(&mut self, row: &MirrorRow) -> Result<(), Failed> {
        self.begin_removal(row).await
    }

    /// Records that it is gone.
    pub(super) async fn removed(
        &mut self,
        row: &MirrorRow,
        look: Option<Look>,
    ) -> Result<(), Failed> {
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
        for key in [Some(self.key.clone()), upper_case_key(&self.id)] {
            if let Some(key) = key
                && client.info(&key).await?.is_some()
            {
                return Ok(true);
            }
        }
        Ok(!self.copies().await?.is_empty())
    }

    /// Keys of what was kept of it beside its object.
    async fn copies(&self) -> Result<Vec<String>, SupabaseError> {
        let begin = format!("{}.conflict-", self.id);
        let mut copies = vec![];
        let mut listing = self.tools.client.list(format!("{}.", self.id));
        while let Some(page) = listing.next_page().await? {
            let keys = page.into_iter().map(|object| object.key);
            copies.extend(keys.filter(|key| key.starts_with(&begin)));
        }
        Ok(copies)
    }

    async fn delete_objects(&self) -> Result<(), SupabaseError> {
        let client = &self.tools.client;
        match client.delete(&self.key).await {
            Ok(_) => {}
            // Then it holds none of that name, either.
            Err(error) if error.kind == Kind::RejectedName => return Ok(()),
            Err(error) => return Err(error),
        }
        if let Some(key) = upper_case_key(&self.id) {
            client.delete(&key).await?;
        }
        for copy in self.copies().await? {
            client.delete(&copy).await?;
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
