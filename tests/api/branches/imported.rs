//! Conversations that come from elsewhere, and copies of those in which something was replaced.

use std::fs;

use idol_simulator::Script;
use serde_json::{Value, json};

use super::{edit, others, regenerate, talk, texts};
use crate::helpers::{Setup, refused, until};

fn document_of(messages: &[(&str, &str)]) -> Value {
    let messages: Vec<_> = messages
        .iter()
        .map(|(role, text)| {
            json!({"role": role, "content": text, "timestamp": "2026-01-02T03:04:05.000006"})
        })
        .collect();
    json!({"id": "c1", "created_at": "2026-01-02T03:04:05", "messages": messages})
}

#[tokio::test]
async fn a_conversation_of_the_ancestor_is_regenerated_and_edited() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("conversations")).unwrap();
    let document = document_of(&[
        ("system", "Be kind."),
        ("assistant", "Hello!"),
        ("user", "m1"),
        ("assistant", "r1"),
        ("user", "m2"),
        ("assistant", "r2"),
    ]);
    let path = dir.path().join("conversations/c1.json");
    fs::write(&path, document.to_string()).unwrap();
    let app = Setup::new().data_dir(dir.path()).start().await;
    let id = |document: &Value, index: usize| document["messages"][index]["id"].clone();
    let before = app.document("c1").await;
    // Instructions have no reply, and a greeting answers nothing.
    for index in [0, 1] {
        let body = json!({"message_id": id(&before, index)});
        let answer = super::post(&app, "c1", "regenerate", body).await;
        refused(answer, 422, "invalid_request").await;
    }
    app.simulator.script(Script::new().text("r2 again"));

    regenerate(&app, "c1", json!({})).await;

    let document = app.document("c1").await;
    assert_eq!(texts(&document)[4..], ["m2", "r2 again"]);
    assert_eq!(others(&document["messages"][5]), ["r2"]);
    app.simulator.script(Script::new().text("new"));
    edit(&app, "c1", &id(&before, 2), "m1!").await;
    let document = app.document("c1").await;
    assert_eq!(texts(&document), ["Be kind.", "Hello!", "m1!", "new"]);
    assert_eq!(others(&document["messages"][2]), ["m1"]);
}

#[tokio::test]
async fn the_json_file_shows_alternatives_and_another_server_reads_them_back() {
    let app = Setup::new().start().await;
    talk(&app, "c1", 2).await;
    let old = app.document("c1").await["messages"][3]["id"].clone();
    app.simulator.script(Script::new().text("better"));
    regenerate(&app, "c1", json!({})).await;
    let document = app.document("c1").await;
    let path = app.data_dir().join("conversations/c1.json");
    let written = until("the JSON file", async || {
        let mut written: Value = serde_json::from_slice(&fs::read(&path).ok()?).ok()?;
        written.as_object_mut()?.remove("revision")?;
        (written == document).then(|| fs::read(&path).unwrap())
    });
    let written = written.await;
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("conversations")).unwrap();
    fs::write(dir.path().join("conversations/c1.json"), written).unwrap();

    let other = Setup::new().data_dir(dir.path()).start().await;

    assert_eq!(other.document("c1").await, document);
    other.simulator.script(Script::new().text("best"));
    regenerate(&other, "c1", json!({"message_id": old})).await;
    let after = other.document("c1").await;
    assert_eq!(texts(&after), ["m1", "r1", "m2", "best"]);
    assert_eq!(others(&after["messages"][3]), ["r2", "better"]);
    let path = format!("/conversation/c1?after={}", old.as_str().unwrap());
    let page: Value = other.get(&path).await.json().await.unwrap();
    assert_eq!(texts(&page), ["best"]);
    other.stop().await;
    let names = fs::read_dir(dir.path().join("conversations")).unwrap();
    let names: Vec<_> = names.map(|it| it.unwrap().file_name()).collect();
    assert_eq!(names, ["c1.json"], "nothing was set aside");
}
