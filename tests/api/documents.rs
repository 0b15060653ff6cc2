//! `GET /conversation/{id}`, the JSON files, and what the ancestor left behind.

use std::{
    fs,
    path::{Path, PathBuf},
};

use reqwest::header::{ETAG, IF_NONE_MATCH};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::helpers::{Setup, TestApp, prompt, refused, say, until};

/// Documents as the ancestor wrote them.
const ANCESTOR: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/actors/tests/fixtures/ancestor"
);
const TORN: &str = "71d20e34-c2ae-48e1-812b-18cfe7e3c407";

fn ancestors(id: &str) -> PathBuf {
    Path::new(ANCESTOR).join(format!("{id}.json"))
}

/// A data directory as the ancestor leaves it, and a server on it.
async fn after_the_ancestor() -> (TempDir, TestApp) {
    let dir = tempfile::tempdir().unwrap();
    let conversations = dir.path().join("conversations");
    fs::create_dir(&conversations).unwrap();
    for entry in fs::read_dir(ANCESTOR).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, conversations.join(path.file_name().unwrap())).unwrap();
    }
    let setup = Setup::new().set("DEFAULT_CONTEXT_TOKENS", "1000000");
    let app = setup.data_dir(dir.path()).start().await;
    (dir, app)
}

fn read_json(path: &Path) -> Option<Value> {
    let mut document: Value = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    // What the mirror says of the log that it is from; nothing of the conversation.
    document.as_object_mut()?.remove("revision");
    Some(document)
}

/// Waits until the JSON file of a conversation says what the server says.
async fn mirrored(app: &TestApp, id: &str) -> PathBuf {
    let path = app.data_dir().join(format!("conversations/{id}.json"));
    let document = app.document(id).await;
    let written = until("the conversation's JSON file", async || {
        (read_json(&path)? == document).then_some(())
    });
    written.await;
    path
}

async fn get_if_none_match(app: &TestApp, path: &str, tag: &str) -> reqwest::Response {
    let request = app.http.get(app.url(path)).header(IF_NONE_MATCH, tag);
    request.send().await.unwrap()
}

#[tokio::test]
async fn a_document_has_the_ancestors_members_in_its_order_and_adds_its_own_behind() {
    let app = TestApp::start().await;
    let mut body = say("c1", "Grüße \"you\"\n");
    body["user_id"] = json!("u-1");
    body["character_id"] = json!("luna");
    app.simulator
        .script(idol_simulator::Script::new().text("Hello."));
    app.post("/chat", body).await;

    let response = app.get("/conversation/c1").await;

    assert_eq!(response.headers()["content-type"], "application/json");
    assert_eq!(response.headers()["cache-control"], "private, no-cache");
    let text = response.text().await.unwrap();
    let read: Value = serde_json::from_str(&text).unwrap();
    let [said, reply] = [&read["messages"][0], &read["messages"][1]];
    let [created, updated] = [&read["created_at"], &read["updated_at"]];
    let [at, id, turn] = ["timestamp", "id", "turn_id"].map(|member| &said[member]);
    let [reply_at, reply_id] = ["timestamp", "id"].map(|member| &reply[member]);
    let expected = [
        format!(r#"{{"id":"c1","created_at":{created},"updated_at":{updated},"#),
        r#""user_id":"u-1","character_id":"luna","messages":["#.to_owned(),
        format!(r#"{{"role":"user","content":"Grüße \"you\"\n","timestamp":{at},"#),
        format!(r#""id":{id},"turn_id":{turn}}},"#),
        format!(r#"{{"role":"assistant","content":"Hello.","timestamp":{reply_at},"#),
        format!(r#""id":{reply_id},"turn_id":{turn},"#),
        r#""model":"sim/tokens=5","finish_reason":"stop"}]}"#.to_owned(),
    ];
    assert_eq!(text, expected.concat());
    for instant in [created, updated, at, reply_at] {
        let instant = instant.as_str().unwrap();
        assert_eq!(instant.len(), "2026-11-22T11:53:43.779059Z".len());
        assert!(instant.ends_with('Z'), "{instant}");
    }
    for id in [id, turn, reply_id] {
        let id = uuid::Uuid::try_parse(id.as_str().unwrap()).unwrap();
        assert_eq!(id.get_version_num(), 7);
    }
    assert!(created.as_str() <= at.as_str() && at.as_str() < reply_at.as_str());
    assert!(reply_at.as_str() <= updated.as_str());
}

#[tokio::test]
async fn owner_and_companion_are_left_out_where_nobody_named_them_and_stay_once_named() {
    let app = TestApp::start().await;
    app.chat("c1", "hi").await;
    let document = app.document("c1").await;
    assert_eq!(document.get("user_id"), None);
    assert_eq!(document.get("character_id"), None);

    for user in ["first", "second"] {
        let mut body = say("c1", "hi");
        body["user_id"] = json!(user);
        app.post("/chat", body).await;
        assert_eq!(app.document("c1").await["user_id"], "first");
    }
}

#[tokio::test]
async fn a_document_that_did_not_change_is_not_sent_again() {
    let app = TestApp::start().await;
    app.chat("c1", "hi").await;
    let first = app.get("/conversation/c1").await;
    let tag = first.headers()[ETAG].to_str().unwrap().to_owned();
    assert!(tag.starts_with('"') && tag.ends_with('"'), "{tag}");
    assert_eq!(app.get("/conversation/c1").await.headers()[ETAG], *tag);
    for given in [&tag, &format!("W/{tag}"), &format!("\"x\", {tag}"), "*"] {
        let response = get_if_none_match(&app, "/conversation/c1", given).await;

        assert_eq!(response.status(), 304, "{given}");
        assert_eq!(response.headers()[ETAG], *tag);
        assert_eq!(response.headers()["cache-control"], "private, no-cache");
        assert_eq!(response.bytes().await.unwrap(), "");
    }

    app.chat("c1", "more").await;

    let changed = get_if_none_match(&app, "/conversation/c1", &tag).await;
    assert_eq!(changed.status(), 200);
    assert_ne!(changed.headers()[ETAG], *tag);
    let document: Value = changed.json().await.unwrap();
    assert_eq!(document["messages"].as_array().unwrap().len(), 4);
}

#[tokio::test]
async fn each_step_of_a_turn_changes_the_tag() {
    let app = TestApp::start().await;
    let gate = app.simulator.gate();
    app.simulator
        .script(idol_simulator::Script::new().hold_headers(&gate));
    let mut stream = app.stream(say("c1", "hi")).await;
    stream.next().await.unwrap();
    let waiting = app.get("/conversation/c1").await.headers()[ETAG].clone();
    gate.open();
    stream.all().await;
    let answered = app.get("/conversation/c1").await.headers()[ETAG].clone();
    assert_ne!(waiting, answered);
}

#[tokio::test]
async fn two_conversations_of_the_same_length_have_different_tags() {
    let app = TestApp::start().await;
    app.chat("c1", "hi").await;
    app.chat("c2", "hi").await;
    let tags = [
        app.get("/conversation/c1").await.headers()[ETAG].clone(),
        app.get("/conversation/c2").await.headers()[ETAG].clone(),
    ];
    assert_ne!(tags[0], tags[1]);
}

#[tokio::test]
async fn a_conversation_begun_and_still_empty_is_there() {
    let app = TestApp::start().await;
    let mut socket = app.socket().await;
    let start =
        json!({"type": "start_conversation", "character_id": "luna", "conversation_id": "c1"});
    socket.send(start).await;
    socket.until("conversation_started").await;

    let document = app.document("c1").await;

    assert_eq!(document["messages"], json!([]));
    assert_eq!(document["character_id"], "luna");
}

#[tokio::test]
async fn what_is_no_conversation_is_not_found_as_the_ancestor_said_it() {
    let app = TestApp::start().await;
    for (path, id) in [
        ("nobody", "nobody"),
        (
            "71D20E34-C2AE-48E1-812B-18CFE7E3C401",
            "71D20E34-C2AE-48E1-812B-18CFE7E3C401",
        ),
        ("a%20b", "a b"),
        ("a.json", "a.json"),
        ("%C3%A9", "é"),
        ("%22%5C", "\"\\"),
        (&"x".repeat(129), &"x".repeat(129)),
    ] {
        let response = app.get(&format!("/conversation/{path}")).await;

        let body = refused(response, 404, "conversation_not_found").await;
        let detail = json!({"error": "Conversation not found", "conversation_id": id});
        assert_eq!(body["detail"], detail);
        assert_eq!(body["error"], "Conversation not found");
        assert_eq!(body["conversation_id"], id);
    }
}

#[tokio::test]
async fn asking_for_a_conversation_does_not_begin_it() {
    let app = TestApp::start().await;

    app.get("/conversation/c1").await;

    assert_eq!(app.get("/conversation/c1").await.status(), 404);
    assert_eq!(
        fs::read_dir(app.data_dir().join("conversations"))
            .unwrap()
            .count(),
        0
    );
}

#[tokio::test]
async fn timestamps_are_naive_where_the_operator_wants_the_ancestors_form() {
    let (dir, app) = after_the_ancestor().await;
    app.stop().await;
    let setup = Setup::new().set("TIMESTAMPS", "naive").data_dir(dir.path());
    let app = setup.start().await;
    app.chat("c1", "hi").await;

    let id = "71d20e34-c2ae-48e1-812b-18cfe7e3c401";
    let document = app.document(id).await;

    let ancestors = read_json(&ancestors(id)).unwrap();
    assert_eq!(document["created_at"], ancestors["created_at"]);
    assert_eq!(document["updated_at"], ancestors["updated_at"]);
    let own = app.document("c1").await;
    for index in 0..4 {
        let at = |document: &Value| document["messages"][index]["timestamp"].clone();
        assert_eq!(at(&document), at(&ancestors));
    }
    for instant in [&own["created_at"], &own["messages"][1]["timestamp"]] {
        let instant = instant.as_str().unwrap();
        assert!(!instant.ends_with('Z') && instant.len() <= 26, "{instant}");
    }
}

#[tokio::test]
async fn the_ancestors_conversations_are_there_word_for_word_and_go_on() {
    let (_dir, app) = after_the_ancestor().await;
    for number in [401, 402, 403, 404, 405, 406] {
        let id = format!("71d20e34-c2ae-48e1-812b-18cfe7e3c{number}");
        let old = read_json(&ancestors(&id)).unwrap();

        let document = app.document(&id).await;
        app.chat(&id, "Do you remember?").await;

        let (old, new) = (
            old["messages"].as_array().unwrap(),
            document["messages"].as_array().unwrap(),
        );
        assert_eq!(old.len(), new.len(), "{id}");
        for (old, new) in old.iter().zip(new) {
            assert_eq!(
                [&old["role"], &old["content"]],
                [&new["role"], &new["content"]]
            );
            // Python leaves out a fraction of zero.
            let at = old["timestamp"].as_str().unwrap();
            let fraction = if at.contains('.') { "" } else { ".000000" };
            assert_eq!(new["timestamp"], format!("{at}{fraction}Z"));
            assert!(uuid::Uuid::try_parse(new["id"].as_str().unwrap()).is_ok());
        }
        let requests = app.simulator.chat_requests();
        let sent = prompt(requests.last().unwrap());
        let expected: Vec<_> = old
            .iter()
            .map(|message| json!({"role": message["role"], "content": message["content"]}))
            .chain([json!({"role": "user", "content": "Do you remember?"})])
            .collect();
        assert_eq!(sent, expected, "{id}");
        let after = app.document(&id).await;
        let after = after["messages"].as_array().unwrap();
        assert_eq!(after[..new.len()], new[..], "{id}");
        assert_eq!(after.len(), new.len() + 2);
    }
}

#[tokio::test]
async fn the_ancestors_ids_are_the_same_after_each_reading() {
    let (_one, first) = after_the_ancestor().await;
    let (_other, second) = after_the_ancestor().await;
    let id = "71d20e34-c2ae-48e1-812b-18cfe7e3c401";
    assert_eq!(
        first.document(id).await["messages"],
        second.document(id).await["messages"]
    );
}

#[tokio::test]
async fn the_ancestors_file_is_replaced_by_the_longer_document_and_not_set_aside() {
    let (dir, app) = after_the_ancestor().await;
    let id = "71d20e34-c2ae-48e1-812b-18cfe7e3c401";
    app.chat(id, "Do you remember?").await;

    mirrored(&app, id).await;

    let names: Vec<_> = fs::read_dir(dir.path().join("conversations"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with(id))
        .collect();
    assert_eq!(names, [format!("{id}.json")]);
}

#[tokio::test]
async fn a_torn_document_is_an_error_and_nothing_is_written_over_it() {
    let (dir, app) = after_the_ancestor().await;
    let bytes = fs::read(ancestors(TORN)).unwrap();
    let path = format!("/conversation/{TORN}");

    for _ in 0..2 {
        let body = refused(app.get(&path).await, 500, "conversation_unreadable").await;
        let directory = app.data_dir();
        assert!(!body.to_string().contains(directory.to_str().unwrap()));
        assert_eq!(body["conversation_id"], TORN);
        for door in ["/chat", "/chat/stream"] {
            let response = app.post(door, say(TORN, "hi")).await;
            refused(response, 500, "conversation_unreadable").await;
        }
    }

    app.chat("c1", "hi").await;
    mirrored(&app, "c1").await;
    let kept: Vec<_> = fs::read_dir(dir.path().join("conversations"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            name.starts_with(TORN)
        })
        .collect();
    let [kept] = &kept[..] else {
        panic!("{kept:?}");
    };
    assert_ne!(kept.file_stem().unwrap(), TORN);
    assert_eq!(fs::read(kept).unwrap(), bytes);
    assert_eq!(app.simulator.chat_requests().len(), 1, "only c1's");
    app.stop().await;
    let app = Setup::new().data_dir(dir.path()).start().await;
    refused(app.get(&path).await, 500, "conversation_unreadable").await;
    assert_eq!(fs::read(kept).unwrap(), bytes);
}

#[tokio::test]
async fn a_document_that_an_operator_has_repaired_is_read_without_a_restart() {
    let (dir, app) = after_the_ancestor().await;
    let path = format!("/conversation/{TORN}");
    refused(app.get(&path).await, 500, "conversation_unreadable").await;
    let good = json!({"id": TORN, "messages": [{"role": "user", "content": "mended"}]});

    let place = dir.path().join(format!("conversations/{TORN}.json"));
    fs::write(place, good.to_string()).unwrap();

    let said = app.said(TORN).await;
    assert_eq!(said, [("user".to_owned(), "mended".to_owned())]);
}

#[tokio::test]
async fn after_a_turn_the_json_file_is_the_document() {
    let app = TestApp::start().await;
    let mut body = say("c1", "Grüße \"you\"\n");
    body["user_id"] = json!("u \"1\"");
    app.post("/chat", body).await;
    mirrored(&app, "c1").await;

    app.chat("c1", "more").await;

    let path = mirrored(&app, "c1").await;
    let messages = read_json(&path).unwrap()["messages"].clone();
    assert_eq!(messages.as_array().unwrap().len(), 4);
}

#[tokio::test]
async fn a_file_edited_by_hand_is_kept_beside_the_new_one() {
    let app = TestApp::start().await;
    app.chat("c1", "hi").await;
    let path = mirrored(&app, "c1").await;
    let edited = fs::read_to_string(&path).unwrap() + "\n\n<!-- mine -->";
    fs::write(&path, &edited).unwrap();

    app.chat("c1", "more").await;

    mirrored(&app, "c1").await;
    let beside: Vec<_> = fs::read_dir(path.parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|other| *other != path)
        .collect();
    let [beside] = &beside[..] else {
        panic!("{beside:?}");
    };
    assert_eq!(fs::read_to_string(beside).unwrap(), edited);
    assert_eq!(
        app.said("c1").await.len(),
        4,
        "the log is the truth, not the file"
    );
}

#[tokio::test]
async fn a_file_that_says_more_than_a_conversation_takes_over_is_kept_beside_the_new_one() {
    let said = json!({"role": "user", "content": "My name is Alice."});
    let with_mood = json!({"role": "user", "content": "My name is Alice.", "mood": "calm"});
    for says_more in [
        json!({"id": "c1", "mood": "calm", "messages": [said]}),
        json!({"id": "c1", "messages": [with_mood]}),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let conversations = dir.path().join("conversations");
        fs::create_dir(&conversations).unwrap();
        fs::write(conversations.join("c1.json"), says_more.to_string()).unwrap();
        let app = Setup::new().data_dir(dir.path()).start().await;

        app.chat("c1", "What is my name?").await;

        let path = mirrored(&app, "c1").await;
        let beside: Vec<_> = fs::read_dir(&conversations)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|other| *other != path)
            .collect();
        let [beside] = &beside[..] else {
            panic!("{says_more} is lost: {beside:?}");
        };
        assert_eq!(read_json(beside), Some(says_more));
        assert_eq!(app.said("c1").await.len(), 3);
    }
}

#[tokio::test]
async fn conversations_are_the_same_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let app = Setup::new().data_dir(dir.path()).start().await;
    app.simulator
        .script(idol_simulator::Script::from("tokens=3,tools=1").reasoning(["x"]));
    app.chat("c1", "hi").await;
    app.chat("c1", "more").await;
    let read = async |app: &TestApp| {
        let response = app.get("/conversation/c1").await;
        let tag = response.headers()[ETAG].clone();
        (tag, response.text().await.unwrap())
    };
    let before = read(&app).await;
    app.stop().await;

    let app = Setup::new().data_dir(dir.path()).start().await;

    assert_eq!(read(&app).await, before);
    app.chat("c1", "still there?").await;
    let sent = prompt(&app.simulator.chat_requests()[0]);
    assert_eq!(sent.len(), 5, "{sent:?}");
}
