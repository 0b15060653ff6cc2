use std::{fs, path::Path, sync::Arc};

use tempfile::TempDir;
use uuid::Uuid;

use super::*;
use crate::{
    conversation::message::{Draft, Role, Stamp},
    id::{MessageId, TurnId},
    json_text::JsonText,
    log::{
        data_dir::DataDir,
        entry::{Begun, Owed, TurnAccepted, TurnEnded},
        sqlite::SqliteOptions,
    },
    mirror::Render as _,
    rendering::DocumentRenderer,
};

fn id(number: u32) -> ConversationId {
    ConversationId::parse(&format!("c{number}")).unwrap()
}

fn turn(number: u32) -> TurnId {
    TurnId(Uuid::from_u128(number.into()))
}

fn reply(number: u32) -> MessageId {
    MessageId(Uuid::from_u128(u128::from(number) << 64))
}

fn message(number: u32, id: MessageId, role: Role, text: &str) -> Arc<str> {
    let draft = Draft::text(role, JsonText::escape(text));
    let stamp = Stamp {
        timestamp: Timestamp::from_micros(2),
        id,
        turn: Some(turn(number)),
        model: None,
        finish_reason: (role == Role::Assistant).then_some("stop"),
        models: &[],
    };
    Arc::clone(StoredMessage::new(&draft, &stamp).fragment())
}

/// A conversation with one turn, whose end is owed.
fn begin(number: u32) -> Append {
    let begun = EntryHead::Begun(Begun {
        at: Timestamp::from_micros(1),
        incarnation: 7,
        user_id: None,
        character_id: None,
        imported_updated_at: None,
        voice_usage: None,
        unverified: false,
    });
    let accepted = EntryHead::TurnAccepted(TurnAccepted {
        at: Timestamp::from_micros(2),
        turn: turn(number),
        reply: reply(number),
        user_id: None,
        character_id: None,
        model: String::new(),
        key: None,
        replaces: None,
        owed: Owed::Reply,
    });
    Append {
        id: id(number),
        expected_seq: 0,
        entries: vec![
            Entry {
                head: begun,
                messages: vec![],
            },
            Entry {
                head: accepted,
                messages: vec![message(number, MessageId::now(), Role::User, "hello")],
            },
        ],
    }
}

fn end(number: u32) -> Append {
    let ended = EntryHead::TurnEnded(TurnEnded {
        at: Timestamp::from_micros(3),
        turn: turn(number),
        attempt: 1,
        finish_reason: "stop".to_owned(),
        usage: None,
        error: None,
    });
    Append {
        id: id(number),
        expected_seq: 2,
        entries: vec![Entry {
            head: ended,
            messages: vec![message(
                number,
                reply(number),
                Role::Assistant,
                "the true end",
            )],
        }],
    }
}

/// What would be found if the process were killed now.
fn copy(from: &DataDir, to: &Path) -> (DataDir, Arc<SqliteLog>) {
    fs::create_dir(to).unwrap();
    for name in ["log.sqlite", "log.sqlite-wal"] {
        fs::copy(from.path().join(name), to.join(name)).unwrap();
    }
    let dir = DataDir::lock(to.to_owned()).unwrap();
    let log = SqliteLog::open(&dir, SqliteOptions::default()).unwrap();
    (dir, Arc::new(log))
}

/// A log that has lost what its JSON files show.
struct Lost {
    _temp: TempDir,
    dir: DataDir,
    log: Arc<SqliteLog>,
}

impl Lost {
    /// So many conversations begin; then the log loses what is appended behind.
    async fn after(begun: u32, behind: Vec<Append>) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::lock(temp.path().join("data")).unwrap();
        let log = SqliteLog::open(&dir, SqliteOptions::default()).unwrap();
        for answer in join_all((0..begun).map(|number| log.append(begin(number)))).await {
            answer.unwrap();
        }
        let (older_dir, older) = copy(&dir, &temp.path().join("older"));
        let renderer = DocumentRenderer { log: log.log_id() };
        for append in behind {
            let id = append.id.clone();
            log.append(append).await.unwrap();
            let loaded = log.load(id.clone()).await.unwrap().unwrap();
            let json = renderer.render(&id, loaded).unwrap().json;
            let path = older_dir.conversations().join(format!("{id}.json"));
            fs::write(path, json.concat()).unwrap();
        }
        Self {
            _temp: temp,
            dir: older_dir,
            log: older,
        }
    }

    async fn recover(&self) -> Recovery {
        let files = JsonSource {
            directory: self.dir.conversations(),
            log: Arc::clone(&self.log),
        };
        recover(&self.log, Some(&files)).await.unwrap()
    }

    /// How a conversation's turn ended.
    async fn end_of(&self, number: u32) -> String {
        let loaded = self.log.load(id(number)).await.unwrap().unwrap();
        let mut ends = loaded.entries.into_iter().filter_map(|it| match it.head {
            EntryHead::TurnEnded(end) => Some(end.finish_reason),
            _ => None,
        });
        ends.next().unwrap()
    }
}

#[tokio::test]
async fn more_open_turns_than_one_round_takes_get_their_ends_from_the_json_files() {
    let last = TURNS_PER_ROUND + 19;
    let lost = Lost::after(last + 1, vec![end(0), end(last)]).await;

    let recovery = lost.recover().await;

    assert_eq!(lost.end_of(0).await, "stop");
    assert_eq!(lost.end_of(1).await, "interrupted");
    assert_eq!(lost.end_of(last).await, "stop");
    let expected = Recovery {
        turns_interrupted: u64::from(last) - 1,
        turns_found: 2,
        replies_kept: 0,
    };
    assert_eq!(recovery, expected);
}

#[tokio::test]
async fn a_turn_that_was_owed_no_reply_ends_as_what_it_is() {
    let mut owed_nothing = begin(1);
    if let EntryHead::TurnAccepted(accepted) = &mut owed_nothing.entries[1].head {
        accepted.owed = Owed::Nothing;
    }
    let lost = Lost::after(1, vec![]).await;
    lost.log.append(owed_nothing).await.unwrap();

    lost.recover().await;

    assert_eq!(lost.end_of(0).await, "interrupted");
    assert_eq!(lost.end_of(1).await, "unanswered");
}

#[tokio::test]
async fn a_file_that_goes_on_without_the_end_of_an_open_turn_is_no_reason_not_to_start() {
    let mut behind = begin(1);
    behind.expected_seq = 2;
    behind.id = id(0);
    behind.entries.remove(0);
    let lost = Lost::after(1, vec![behind]).await;

    let recovery = lost.recover().await;

    assert_eq!((recovery.turns_interrupted, recovery.turns_found), (1, 0));
    assert_eq!(lost.end_of(0).await, "interrupted");
    let loaded = lost.log.load(id(0)).await.unwrap().unwrap();
    let messages: usize = loaded.entries.iter().map(|it| it.messages.len()).sum();
    assert_eq!(messages, 2, "what the file had more is lost");
}
