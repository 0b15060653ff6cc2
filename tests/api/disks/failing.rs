//! A disk whose sync fails: what is on it is not known, and only a restart can tell.

use std::fs;

use idol_simulator::{Simulator, reply_text};

use super::run;
use crate::{
    helpers::{say, within},
    process::{Launch, assistant, user},
};

/// What the disk kept of what was written before the sync that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    All,
    Nothing,
}

#[tokio::test]
async fn a_sync_that_fails_ends_the_process_and_the_next_start_decides_what_is_there() {
    for kept in [Kept::All, Kept::Nothing] {
        let simulator = Simulator::start().unwrap();
        let launch = Launch::with(&simulator).set("MIRROR_IDLE_SECS", "3600");
        let directory = launch.directory.path();
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/api/disks/failing.c");
        let library = directory.join("failing.so");
        let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
        let flags = ["-shared", "-fPIC", "-o", library.to_str().unwrap()];
        run(&compiler, &flags, source.as_ref()).unwrap();
        let broken = directory.join("broken");
        let launch = launch
            .set("LD_PRELOAD", library.to_str().unwrap())
            .set("IDOL_TEST_BROKEN_DISK", broken.to_str().unwrap());
        let mut process = launch.start().await;
        process.chat("c1", "one").await;
        let wal = launch.data().join("log.sqlite-wal");
        let synced = fs::metadata(&wal).unwrap().len();

        fs::write(&broken, "").unwrap();
        let request = process
            .http
            .post(process.url("/chat"))
            .json(&say("c1", "two"));
        // The connection may end before the answer is out.
        if let Ok(response) = within("an answer", request.send()).await {
            assert_eq!(response.status(), 503);
        }

        let status = process.end().await;
        assert_eq!(status.code(), Some(74), "{}", process.stderr());
        fs::remove_file(&broken).unwrap();
        let written = fs::metadata(&wal).unwrap().len();
        assert!(written > synced, "{written} bytes, {synced} before");
        if kept == Kept::Nothing {
            let wal = fs::File::options().write(true).open(&wal).unwrap();
            wal.set_len(synced).unwrap();
        }
        let process = launch.start().await;
        let one = [user("one"), assistant(&reply_text(0, 5))];
        let said = process.said("c1").await;
        match kept {
            Kept::All => assert_eq!(said, [&one[..], &[user("two")]].concat()),
            Kept::Nothing => assert_eq!(said, one),
        }
        // A client that tries again is answered, and its message is there once.
        process.chat("c1", "two").await;
        let two = [user("two"), assistant(&reply_text(0, 5))];
        assert_eq!(process.said("c1").await, [one, two].concat());
    }
}
