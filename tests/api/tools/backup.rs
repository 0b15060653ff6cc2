//! `backup`, with the server at work.

use std::fs;

use idol_simulator::Simulator;

use super::{path_text, put_log_back};
use crate::process::Launch;

#[tokio::test]
async fn a_backup_under_load_holds_all_that_was_acknowledged_before_it_and_verifies() {
    let simulator = Simulator::start().unwrap();
    let launch = Launch::with(&simulator);
    let server = launch.start().await;
    for number in 0..20 {
        server.chat(&format!("before{number}"), "Hello").await;
    }
    let copy = launch.beside("copy.sqlite");
    let arguments = ["backup", path_text(&copy)];
    let backup = launch.well(&arguments);
    let load = async {
        for number in 0..40 {
            server.chat(&format!("during{number}"), "Hello").await;
        }
    };
    let (ran, ()) = futures::future::join(backup, load).await;

    let size = fs::metadata(&copy).unwrap().len();
    let said = format!("{}: {size} bytes\n", copy.display());
    assert!(ran.stdout.starts_with(&said), "{}", ran.stdout);
    assert!(ran.stdout.contains("To restore: "), "{}", ran.stdout);
    assert!(!launch.beside("copy.sqlite.part").exists());
    let said = server.said("before7").await;
    server.stop().await;

    let restored = Launch::with(&simulator);
    fs::create_dir(restored.data()).unwrap();
    put_log_back(&restored, &copy);
    let found = restored.differences(&["--deep"]).await;
    // Only the JSON files are not there, whether they were written by then or not.
    let expected = ["file_behind", "file_missing"];
    assert!(
        found.keys().all(|kind| expected.contains(&&**kind)),
        "{found:?}"
    );
    let names: Vec<_> = found.into_values().flatten().collect();
    for number in 0..20 {
        assert!(names.contains(&format!("before{number}")), "{names:?}");
    }
    restored.well(&["reconcile"]).await;
    assert_eq!(restored.differences(&["--deep"]).await.len(), 0);
    let server = restored.start().await;
    assert_eq!(server.said("before7").await, said);
}

#[tokio::test]
async fn nothing_is_overwritten_by_a_backup() {
    let launch = Launch::bare();
    let server = launch.start().await;
    server.chat("c1", "Hello").await;
    let copy = launch.beside("copy");
    fs::write(&copy, "mine").unwrap();
    let ran = launch.run(&["backup", path_text(&copy)]).await;
    assert_eq!(ran.code, Some(1));
    assert_eq!(ran.stdout, "");
    assert!(
        ran.stderr.contains("nothing is overwritten"),
        "{}",
        ran.stderr
    );
    assert_eq!(fs::read(&copy).unwrap(), b"mine");
    server.stop().await;
}
