//! Deaths over a deletion.

use std::fs;

use idol_simulator::Simulator;
use reqwest::StatusCode;

use super::{ID, Mortal, Place, death, files::Files};
use crate::{
    helpers::{client, within},
    process::{Launch, Process, user},
};

async fn deleted(process: &Process) -> reqwest::Result<StatusCode> {
    let url = process.url(&format!("/conversation/{ID}"));
    let sent = process.http.delete(url).send();
    Ok(within("the deletion", sent).await?.status())
}

/// A directory with one conversation in the log, and its file.
async fn mortal(simulator: &Simulator) -> Mortal {
    let launch = Launch::with(simulator).set("MIRROR_IDLE_SECS", "3600");
    let mortal = Mortal::new(launch);
    let process = mortal.start().await;
    process.chat(ID, "a secret").await;
    process.stop().await;
    assert_eq!(Files::of(&mortal.launch).names(), ["c1.json"]);
    mortal
}

/// The next server knows nothing of it, removes its files, and lets the id begin anew.
async fn nothing_is_left(mortal: &Mortal) {
    let files = Files::of(&mortal.launch);
    let process = mortal.start().await;
    let missing = process.get(&format!("/conversation/{ID}")).await;
    assert_eq!(missing.status(), 404);
    process.stop().await;
    assert_eq!(files.names(), [] as [&str; 0]);
    let process = mortal.start().await;
    process.chat(ID, "anew").await;
    assert_eq!(process.said(ID).await[0], user("anew"));
    assert_eq!(process.said(ID).await.len(), 2);
    process.stop().await;
    assert_eq!(files.names(), ["c1.json"]);
}

#[tokio::test]
async fn a_deletion_that_is_in_the_log_holds_though_nobody_was_told() {
    let simulator = Simulator::start().unwrap();
    for place in [Place::Commit(1), Place::Committed(1)] {
        let mut mortal = mortal(&simulator).await;
        let mut process = mortal.start_to_die_at(place).await;
        deleted(&process).await.unwrap_err();
        death(&mut process).await;
        assert_eq!(Files::of(&mortal.launch).names(), ["c1.json"]);

        nothing_is_left(&mortal).await;
    }
}

#[tokio::test]
async fn a_deletion_that_never_came_to_the_log_leaves_everything() {
    let simulator = Simulator::start().unwrap();
    let mut mortal = mortal(&simulator).await;
    let mut process = mortal.start_to_die_at(Place::Append(1)).await;
    deleted(&process).await.unwrap_err();
    death(&mut process).await;

    let process = mortal.start().await;

    assert_eq!(process.said(ID).await[0], user("a secret"));
    assert_eq!(process.said(ID).await.len(), 2);
    assert_eq!(deleted(&process).await.unwrap(), 204);
    process.stop().await;
    nothing_is_left(&mortal).await;
}

/// The conversation is deleted; its server dies once its files are removed, as it stops.
async fn deleted_to_die_over_it(simulator: &Simulator) -> (Mortal, Process) {
    let mut mortal = mortal(simulator).await;
    let files = Files::of(&mortal.launch);
    // What was set aside is of the conversation, too.
    fs::write(files.0.join("c1.edited-earlier.json"), "a secret").unwrap();
    let process = mortal.start_to_die_at(Place::Mirror("FilesRemoved")).await;
    assert_eq!(deleted(&process).await.unwrap(), 204);
    (mortal, process)
}

async fn dies_over_it(mortal: &Mortal, mut process: Process) {
    process.http = client();
    process.signal("TERM");
    death(&mut process).await;
    assert_eq!(Files::of(&mortal.launch).names(), [] as [&str; 0]);
}

#[tokio::test]
async fn a_death_between_the_removal_of_files_and_its_record_leaves_none() {
    let simulator = Simulator::start().unwrap();
    let (mortal, process) = deleted_to_die_over_it(&simulator).await;
    dies_over_it(&mortal, process).await;

    nothing_is_left(&mortal).await;
}

#[tokio::test]
async fn a_death_while_an_earlier_life_is_cleaned_up_leaves_this_one() {
    let simulator = Simulator::start().unwrap();
    let (mortal, process) = deleted_to_die_over_it(&simulator).await;
    process.chat(ID, "anew").await;
    let said = process.said(ID).await;
    dies_over_it(&mortal, process).await;

    let process = mortal.start().await;

    assert_eq!(process.said(ID).await, said);
    process.stop().await;
    let files = Files::of(&mortal.launch);
    assert_eq!(files.names(), ["c1.json"]);
    assert_eq!(files.document().unwrap()["messages"][0]["content"], "anew");
}
