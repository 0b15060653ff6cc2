//! Sweeps: what the log says that the mirror lacks.

use actix::{ActorFutureExt as _, AsyncContext as _, Context, WrapFuture as _};
use tokio::time::Instant;

use super::{MIRROR, SWEEP_PAGE, SupabaseMirror, standing::Standing, work::look_at};
use crate::{
    log::{
        LogError,
        sqlite::{LaggingCursor, LaggingPage, MirrorRow},
    },
    mirror::schedule::Noted,
};

impl SupabaseMirror {
    /// Asks the log for documents that lack something.
    pub(super) fn look(&mut self, cursor: LaggingCursor, ctx: &mut Context<Self>) {
        self.looking = true;
        let page = self.tools.log.lagging(MIRROR, cursor, SWEEP_PAGE);
        ctx.spawn(page.into_actor(self).map(move |page, actor, ctx| {
            actor.looking = false;
            actor.found(cursor, page);
            actor.pump(ctx);
        }));
    }

    fn found(&mut self, from: LaggingCursor, page: Result<LaggingPage, LogError>) {
        match page {
            Ok(page) => {
                let now = Instant::now();
                for row in page.rows {
                    self.found_row(now, row);
                }
                // A flush that came meanwhile began a sweep of its own.
                if self.sweep == Some(from) {
                    self.sweep = page.next;
                }
                let caught_up = self.sweep.is_none();
                self.report(|state| state.caught_up |= caught_up);
            }
            Err(error) => {
                // The next sweep begins anew.
                self.sweep = None;
                tracing::warn!(%error, "the Supabase mirror cannot look for its backlog");
            }
        }
    }

    fn found_row(&mut self, now: Instant, row: MirrorRow) {
        if !row.is_deleted() && self.is_refused(&row.id, row.seq) {
            return;
        }
        if row.mirrored_seq < row.seq {
            self.rows.changed(&row.id);
        }
        let noted = self.schedule.behind(now, row.id.clone(), row.seq);
        let removed = row.is_deleted() && !row.owes_removal();
        match row.look.filter(|_| removed) {
            Some(look) if noted == Noted::New => {
                self.schedule
                    .hold(&row.id, look_at(look, &self.tools.waits));
                self.standings.set(row.id, Standing::Removed);
            }
            Some(_) => {}
            None if row.is_deleted() => {
                let known = self.standings.get(&row.id).is_some();
                if !known && noted != Noted::NoRoom {
                    self.standings.set(row.id, Standing::Removing);
                }
            }
            None => {
                // It lives anew, and no notice told.
                if self.standings.get(&row.id) == Some(Standing::Removed) {
                    self.schedule.changed(now, row.id, row.seq, 0);
                }
            }
        }
    }
}
