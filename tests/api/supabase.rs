//! The copy in Supabase follows the log, whatever Supabase does.

use idol_actors::{
    caller::Caller, conversation::command::Delete, id::ConversationId,
    mirror::supabase_mirror::SupabaseState,
};
use idol_simulator::{Simulator, supabase::StoredObject};
use serde_json::Value;

use crate::helpers::{BUCKET, SERVICE_KEY, Setup, TestApp, until, within};

mod deletions;
mod found_late;
mod late;
mod lineage;
mod outages;
mod rows;
mod uploads;

/// A Supabase that takes one key alone.
fn remote() -> Simulator {
    let remote = Simulator::start().unwrap();
    remote.require_service_key(Some(SERVICE_KEY));
    remote
}

async fn mirrored(remote: &Simulator) -> TestApp {
    Setup::new().supabase(remote).start().await
}

/// Waits until the mirror says this of itself.
pub async fn state(
    app: &TestApp,
    what: &str,
    is: impl Fn(&SupabaseState) -> bool,
) -> SupabaseState {
    let mut states = app.supabase.clone().unwrap();
    let reached = states.wait_for(|state| is(state));
    within(what, reached).await.unwrap().clone()
}

pub fn stored(remote: &Simulator, id: &str) -> Option<StoredObject> {
    remote.supabase().object(BUCKET, &format!("{id}.json"))
}

/// Waits until the object is, byte for byte, the JSON file, and shows so many messages.
pub async fn same_as_file(app: &TestApp, remote: &Simulator, id: &str, messages: usize) -> Value {
    like_its_file(app, remote, id, |shown| shown.len() == messages).await
}

/// Waits until the object is, byte for byte, the JSON file, and its messages are as they should be.
async fn like_its_file(
    app: &TestApp,
    remote: &Simulator,
    id: &str,
    expected: impl Fn(&[Value]) -> bool,
) -> Value {
    let file = app.data_dir().join(format!("conversations/{id}.json"));
    until(&format!("the object of {id}, like its file"), async || {
        let (file, object) = (std::fs::read(&file).ok()?, stored(remote, id)?);
        let document: Value = serde_json::from_slice(&file).unwrap();
        let reached = expected(document["messages"].as_array()?);
        (reached && object.bytes == file).then_some(document)
    })
    .await
}

/// Waits until both show the life that began with these words: for a moment after a deletion, both
/// may still show the life before it.
async fn lives_anew(app: &TestApp, remote: &Simulator, id: &str, words: &str) {
    like_its_file(app, remote, id, |shown| {
        shown.len() == 2 && shown[0]["content"] == words
    })
    .await;
}

async fn delete(app: &TestApp, id: &str) {
    let conversation = ConversationId::parse(id).unwrap();
    let conversation = app.engine.conversation(conversation, None);
    let command = Delete {
        caller: Caller::Anonymous,
    };
    within("the deletion", conversation.delete(command))
        .await
        .unwrap();
}

/// Keys of the objects beside a conversation's own.
fn conflicts(remote: &Simulator, id: &str) -> Vec<StoredObject> {
    let copies = format!("{id}.conflict-");
    let mut objects = remote.supabase().objects(BUCKET);
    objects.retain(|object| object.key.starts_with(&copies));
    objects
}
