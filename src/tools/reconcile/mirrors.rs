//! The server's own mirrors, run until nothing is pending.

use std::{sync::Arc, time::Duration};

use idol_actors::{
    mirror::{
        Flush,
        json_files::{JsonFiles, JsonFilesOptions},
    },
    rendering::DocumentRenderer,
};
use tokio_util::sync::CancellationToken;

use super::account::Account;
use crate::tools::{Opened, progress::Progress};

/// The wait for one answer. Short, so that a signal is heard.
const ROUND: Duration = Duration::from_secs(5);

/// Rounds without a document written after which there is no use in going on.
const VAIN_ROUNDS_MAX: u32 = 3;

/// Brings every mirror up to date with the log, as far as it can be.
pub(super) async fn bring_up_to_date(
    opened: &Opened,
    stop: &CancellationToken,
    account: &mut Account,
) {
    json_files(opened, stop, account).await;
    // The mirror of the bucket joins here, flushed in the same way.
}

async fn json_files(opened: &Opened, stop: &CancellationToken, account: &mut Account) {
    let mirror = JsonFiles::run(
        opened.log.clone(),
        Arc::new(DocumentRenderer {
            log: opened.log.log_id(),
        }),
        JsonFilesOptions {
            dir: opened.dir.conversations(),
            idle: Duration::ZERO,
            space: None,
        },
    );
    let mut progress = Progress::new("JSON files", None);
    let (mut vain, mut written) = (0, 0);
    while !stop.is_cancelled() {
        let left = mirror.address.send(Flush { deadline: ROUND }).await;
        let state = mirror.state.borrow().clone();
        progress.at(state.written);
        vain = match state.written > written {
            true => 0,
            false => vain + 1,
        };
        written = state.written;
        match left {
            Ok(0) if state.caught_up => break,
            Ok(left) if vain >= VAIN_ROUNDS_MAX => {
                let why = state.trouble.as_deref().unwrap_or("see the log lines");
                account.trouble(&format!("{left} JSON files"), &why);
                break;
            }
            Ok(_) => {}
            Err(error) => {
                account.trouble("the JSON files", &error);
                break;
            }
        }
    }
    let state = mirror.state.borrow().clone();
    account.mirrored(state.written, state.set_aside);
    mirror.stop();
}
