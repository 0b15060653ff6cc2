//! The server's own mirrors, run until nothing is pending.

use std::{sync::Arc, time::Duration};

use actix::{Actor, Addr, Handler, dev::ToEnvelope};
use futures::{FutureExt as _, future::BoxFuture};
use idol_actors::{
    id::ConversationId,
    importing::{Imported, import_document},
    log::sqlite::SqliteLog,
    mirror::{
        AdoptError, Adopted, Adopter, Flush,
        imported::ImportedDocument,
        json_files::{JsonFiles, JsonFilesOptions},
        supabase::SupabaseClient,
        supabase_mirror::{SupabaseMirror, SupabaseOptions, Waits},
    },
    rendering::DocumentRenderer,
};
use tokio_util::sync::CancellationToken;

use super::account::Account;
use crate::tools::{Opened, bucket::DEADLINES, progress::Progress};

/// The wait for one answer. Short, so that a signal is heard.
const ROUND: Duration = Duration::from_secs(5);

/// Rounds without a document written after which there is no use in going on.
const VAIN_ROUNDS_MAX: u32 = 3;

/// Brings every mirror up to date with the log, as far as it can be.
pub(super) async fn bring_up_to_date(
    opened: &Opened,
    client: Option<&SupabaseClient>,
    stop: &CancellationToken,
    account: &mut Account,
) {
    json_files(opened, stop, account).await;
    if let Some(client) = client {
        objects(opened, client, stop, account).await;
    }
}

fn renderer(opened: &Opened) -> Arc<DocumentRenderer> {
    Arc::new(DocumentRenderer {
        log: opened.log.log_id(),
    })
}

async fn json_files(opened: &Opened, stop: &CancellationToken, account: &mut Account) {
    let mirror = JsonFiles::run(
        opened.log.clone(),
        renderer(opened),
        JsonFilesOptions {
            dir: opened.dir.conversations(),
            hook: None,
            idle: Duration::ZERO,
            space: None,
        },
    );
    mirror.connect(Arc::new(Owner(opened.log.clone())));
    let standing = || {
        let state = mirror.state.borrow();
        Standing {
            written: state.written,
            caught_up: state.caught_up,
            trouble: state.trouble.clone(),
        }
    };
    run_out("JSON files", &mirror.address, standing, stop, account).await;
    let state = mirror.state.borrow().clone();
    account.mirrored(state.written, state.set_aside);
    mirror.stop();
}

async fn objects(
    opened: &Opened,
    client: &SupabaseClient,
    stop: &CancellationToken,
    account: &mut Account,
) {
    let mirror = SupabaseMirror::run(
        opened.log.clone(),
        renderer(opened),
        SupabaseOptions {
            client: client.clone(),
            idle: Duration::ZERO,
            waits: Waits {
                // As in the server: a write may be with Supabase for as long as we wait for its
                // answer, and some more.
                unconfirmed: DEADLINES.request * 2,
                ..Waits::default()
            },
            hook: None,
        },
    );
    mirror.connect(Arc::new(Owner(opened.log.clone())));
    let standing = || {
        let state = mirror.state.borrow();
        Standing {
            written: state.uploads,
            caught_up: state.caught_up,
            trouble: state.trouble.clone(),
        }
    };
    run_out("objects", &mirror.address, standing, stop, account).await;
    let state = mirror.state.borrow().clone();
    account.uploaded(state.uploads, state.conflicts);
    mirror.stop();
}

/// Where a mirror is.
struct Standing {
    written: u64,
    caught_up: bool,
    trouble: Option<Arc<str>>,
}

/// Flushes a mirror again and again until it lacks nothing, or nothing more comes of it.
async fn run_out<M>(
    what: &'static str,
    mirror: &Addr<M>,
    standing: impl Fn() -> Standing,
    stop: &CancellationToken,
    account: &mut Account,
) where
    M: Actor + Handler<Flush>,
    M::Context: ToEnvelope<M, Flush>,
{
    let mut progress = Progress::new(what, None);
    let (mut vain, mut written) = (0, 0);
    while !stop.is_cancelled() {
        let left = mirror.send(Flush { deadline: ROUND }).await;
        let now = standing();
        progress.at(now.written);
        vain = match now.written > written {
            true => 0,
            false => vain + 1,
        };
        written = now.written;
        match left {
            Ok(0) if now.caught_up => return,
            Ok(left) if vain >= VAIN_ROUNDS_MAX => {
                let why = now.trouble.as_deref().unwrap_or("see the log lines");
                account.trouble(&format!("{left} {what}"), &why);
                return;
            }
            // A mirror that is away answers at once: a round is a round all the same.
            Ok(_) => {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = tokio::time::sleep(PAUSE) => {}
                }
            }
            Err(error) => {
                account.trouble(what, &error);
                return;
            }
        }
    }
}

/// Between two rounds of which the first left something.
const PAUSE: Duration = Duration::from_secs(1);

/// Owns all conversations, since no actor does: takes over what only a copy holds.
#[derive(Debug)]
struct Owner(Arc<SqliteLog>);

impl Adopter for Owner {
    fn adopt(
        &self,
        id: ConversationId,
        document: ImportedDocument,
    ) -> BoxFuture<'static, Result<Adopted, AdoptError>> {
        let log = self.0.clone();
        async move {
            match import_document(&*log, &id, &document).await {
                Ok(Imported::AlreadyThere) => Ok(Adopted::Nothing),
                Ok(Imported::Continued { messages } | Imported::Begun { messages, .. }) => {
                    Ok(Adopted::Messages(messages))
                }
                Ok(Imported::Parted | Imported::Deleted) => Err(AdoptError::Parted),
                Err(error) => Err(AdoptError::Unavailable(error.to_string().into())),
            }
        }
        .boxed()
    }
}
