//! Every conversation of the log, page by page.

use std::sync::Arc;

use futures::{Stream, TryStreamExt as _, stream};
use idol_actors::log::{
    LogError,
    sqlite::{CatalogueRow, SqliteLog},
};
use tokio_util::sync::CancellationToken;

/// Rows read at once.
const PAGE: usize = 512;

/// Where the walk is.
enum At {
    Begin,
    After(idol_actors::log::sqlite::CatalogueCursor),
    End,
}

/// All conversations, deleted ones too, until `stop`.
///
/// What is appended meanwhile to a conversation not yet walked over is seen.
pub(super) fn walk(
    log: Arc<SqliteLog>,
    stop: CancellationToken,
) -> impl Stream<Item = Result<CatalogueRow, LogError>> {
    let pages = stream::try_unfold(At::Begin, move |at| {
        let (log, stopped) = (log.clone(), stop.is_cancelled());
        async move {
            let after = match at {
                At::End => return Ok(None),
                _ if stopped => return Ok(None),
                At::Begin => None,
                At::After(cursor) => Some(cursor),
            };
            let page = log.catalogue(after, PAGE).await?;
            let next = page.next.map_or(At::End, At::After);
            let rows = stream::iter(page.rows.into_iter().map(Ok));
            Ok::<_, LogError>(Some((rows, next)))
        }
    });
    pages.try_flatten()
}
