//! The table `chats`.

use idol_simulator::{Simulator, supabase::Target};
use serde_json::{Value, json};

use super::{mirrored, remote, same_as_file, state};
use crate::helpers::{Setup, TestApp, until};

const USER: &str = "00000000-0000-4000-8000-000000000001";
const CHARACTER: &str = "00000000-0000-4000-8000-000000000002";

fn id(number: usize) -> String {
    format!("71d20e34-c2ae-48e1-812b-{number:012}")
}

async fn chat_as(app: &TestApp, id: &str, user: &str) {
    let body = json!({"conversation_id": id, "user_id": user, "character_id": CHARACTER,
        "messages": [{"role": "user", "content": "hi"}]});
    assert_eq!(app.post("/chat", body).await.status(), 200);
}

async fn rows(remote: &Simulator, what: &str, are: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    until(what, async || {
        let rows = remote.supabase().rows("chats");
        are(&rows).then_some(rows)
    })
    .await
}

#[tokio::test]
async fn every_conversation_of_known_people_has_a_row_with_its_time() {
    let remote = remote();
    let app = mirrored(&remote).await;
    for number in 0..5 {
        chat_as(&app, &id(number), USER).await;
    }
    // Neither an id nor an owner that a row could have.
    chat_as(&app, "room", USER).await;
    chat_as(&app, &id(9), "alice").await;
    for number in 0..5 {
        let document = same_as_file(&app, &remote, &id(number), 2).await;
        let time = document["updated_at"].as_str().unwrap();
        let time = chrono::DateTime::parse_from_rfc3339(time).unwrap();
        rows(&remote, "the row with its last time", |rows| {
            rows.iter().any(|row| {
                let updated = row["updated_at"].as_str().unwrap_or_default();
                row["id"] == id(number).as_str()
                    && row["user_id"] == USER
                    && row["character_id"] == CHARACTER
                    && chrono::DateTime::parse_from_rfc3339(updated).ok() == Some(time)
            })
        })
        .await;
    }
    assert_eq!(remote.supabase().rows("chats").len(), 5);
}

#[tokio::test]
async fn a_row_of_an_owner_who_is_no_uuid_has_its_time_set_and_nothing_else() {
    let remote = remote();
    let row = json!({"id": id(1), "user_id": USER, "updated_at": "2020-01-01T00:00:00Z"});
    remote.supabase().put_row(&row).unwrap();
    let app = mirrored(&remote).await;
    chat_as(&app, &id(1), "alice").await;
    let rows = rows(&remote, "a new time", |rows| {
        !rows[0]["updated_at"].as_str().unwrap().starts_with("2020")
    })
    .await;
    assert_eq!((rows.len(), &rows[0]["user_id"]), (1, &USER.into()));
}

#[tokio::test]
async fn a_conversation_without_a_message_has_its_row_and_its_object() {
    let remote = remote();
    let app = mirrored(&remote).await;
    let mut socket = app.socket().await;
    socket
        .send(
            json!({"type": "start_conversation", "conversation_id": id(1),
            "user_id": USER, "character_id": CHARACTER}),
        )
        .await;
    socket.until("conversation_started").await;
    rows(&remote, "the row", |rows| rows.len() == 1).await;
    same_as_file(&app, &remote, &id(1), 0).await;
}

#[tokio::test]
async fn a_missing_table_holds_up_no_document_and_is_used_once_it_is_there() {
    let remote = remote();
    remote.supabase().hide_table();
    let app = mirrored(&remote).await;
    for number in 0..3 {
        chat_as(&app, &id(number), USER).await;
        same_as_file(&app, &remote, &id(number), 2).await;
    }
    let known = state(&app, "trouble with rows", |state| {
        state.rows_trouble.is_some() && state.backlog == 0
    })
    .await;
    assert_eq!(known.trouble, None);
    remote.supabase().show_table();
    rows(&remote, "all rows", |rows| rows.len() == 3).await;
    state(&app, "no trouble", |state| {
        state.rows_trouble.is_none() && state.rows_backlog == 0
    })
    .await;
}

#[tokio::test]
async fn rows_that_a_run_could_not_write_are_written_by_the_next_without_a_new_turn() {
    let (remote, directory) = (remote(), tempfile::tempdir().unwrap());
    let setup = || Setup::new().supabase(&remote).data_dir(directory.path());
    remote.supabase().hide_table();
    let app = setup().start().await;
    for number in 0..3 {
        chat_as(&app, &id(number), USER).await;
        same_as_file(&app, &remote, &id(number), 2).await;
    }
    chat_as(&app, "room", USER).await;
    same_as_file(&app, &remote, "room", 2).await;
    state(&app, "trouble with rows", |state| {
        state.rows_trouble.is_some() && state.backlog == 0
    })
    .await;
    app.stop().await;
    remote.supabase().show_table();
    let app = setup().start().await;
    rows(&remote, "all rows", |rows| rows.len() == 3).await;
    app.stop().await;
    // What is written is known to be. A run ends only after it looked for what lacks a row.
    let written = remote.supabase().requests(Target::Rest);
    setup().start().await.stop().await;
    assert_eq!(remote.supabase().requests(Target::Rest), written);
}

#[tokio::test]
async fn a_row_of_an_unknown_user_holds_up_no_other() {
    const STRANGER: &str = "00000000-0000-4000-8000-00000000000f";
    let remote = remote();
    remote.supabase().forget_user(STRANGER);
    // All rows in one batch: they are sent when the table can be reached.
    let outage = remote.supabase().fail(
        Target::Rest,
        idol_simulator::supabase::Fault::Error(idol_simulator::supabase::Error::Unavailable),
    );
    let app = mirrored(&remote).await;
    for number in 0..12 {
        let user = if number % 5 == 3 { STRANGER } else { USER };
        chat_as(&app, &id(number), user).await;
    }
    outage.clear();
    rows(&remote, "all other rows", |rows| rows.len() == 10).await;
    for number in 0..12 {
        same_as_file(&app, &remote, &id(number), 2).await;
    }
    state(&app, "no row left", |state| state.rows_backlog == 0).await;
    assert_eq!(remote.supabase().rows("chats").len(), 10);
}
