//! A data directory that nothing can be written to.

use std::path::PathBuf;

use super::Disk;
use crate::process::{Launch, started::assert_one_sentence};

#[tokio::test]
async fn a_read_only_data_directory_ends_the_start_with_a_sentence() {
    let disk = Disk::mount(2);
    let data = match &disk {
        Some(disk) => {
            let data = disk.path().join("data");
            std::fs::create_dir(&data).unwrap();
            disk.make_read_only();
            data
        }
        // Nobody, not even root, makes a directory there.
        None => PathBuf::from("/proc/data"),
    };
    let launch = Launch::bare().set("DATA_DIR", data.to_str().unwrap());

    let ran = launch.run(&["--port", "0"]).await;

    assert_eq!(ran.code, Some(1));
    assert_one_sentence(&ran, &format!("DATA_DIR {}", data.display()));
    assert_eq!(ran.stdout, "");
}

#[tokio::test]
async fn a_data_directory_that_became_read_only_ends_the_start_and_keeps_what_it_holds() {
    let Some(disk) = Disk::mount(8) else {
        return;
    };
    let launch = Launch::bare()
        .set("DATA_DIR", disk.path().join("data").to_str().unwrap())
        .set("MIN_FREE_MB", "0");
    let process = launch.start().await;
    process.chat("c1", "My name is Alice.").await;
    let document = process.document("c1").await;
    process.kill().await;
    disk.make_read_only();

    let ran = launch.run(&["--port", "0"]).await;

    assert_eq!(ran.code, Some(1));
    assert_one_sentence(&ran, "DATA_DIR");
    super::run("mount", &["-o", "remount,rw"], disk.path()).unwrap();
    let process = launch.start().await;
    assert_eq!(process.document("c1").await, document);
}
