//! PostgREST: the table `chats`.
//!
//! `fixtures/supabase_rest.jsonl` holds what PostgREST 12.0.3 answered to requests of the same
//! kind on another table: its status, `Content-Range`, error code, hint and number of rows.

use idol_simulator::Simulator;
use idol_simulator::supabase::ANON_KEY;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::client::Reply;
use crate::supabase_client::{KEY, ask, raw, start};

const RECORDED: &str = include_str!("../../fixtures/supabase_rest.jsonl");
const CHATS: &str = "/rest/v1/chats";
const REPRESENTATION: (&str, &str) = ("Prefer", "return=representation");
const MERGE: (&str, &str) = ("Prefer", "resolution=merge-duplicates");
const MERGE_SHOWN: (&str, &str) = (
    "Prefer",
    "resolution=merge-duplicates,return=representation",
);
const IGNORE: (&str, &str) = (
    "Prefer",
    "resolution=ignore-duplicates,return=representation",
);
const SINGLE: (&str, &str) = ("Accept", "application/vnd.pgrst.object+json");

#[derive(Debug, Deserialize)]
struct Recorded {
    id: String,
    status: u16,
    range: Option<String>,
    rows: Option<usize>,
    code: Option<String>,
    hint: Option<String>,
}

/// A uuid that a number names.
fn id(number: u32) -> String {
    format!("00000000-0000-4000-8000-{number:012}")
}

fn row(number: u32, user: u32) -> Value {
    json!({"id": id(number), "user_id": id(user)})
}

/// A request like the recorded one of this name.
fn like(
    name: &str,
) -> (
    &'static str,
    String,
    Vec<(&'static str, &'static str)>,
    Value,
) {
    let by = |number: u32| format!("{CHATS}?id=eq.{}", id(number));
    let cas = |user: u32| format!("{CHATS}?id=eq.{}&user_id=eq.{}", id(1), id(user));
    let on_id = format!("{CHATS}?on_conflict=id");
    let chats = CHATS.to_owned();
    let user = |user: u32| json!({"user_id": id(user)});
    let none = Value::Null;
    match name {
        "rest.insert.minimal" => ("POST", chats, vec![], row(1, 1)),
        "rest.insert.representation" => ("POST", chats, vec![REPRESENTATION], row(2, 2)),
        "rest.insert.duplicate" => ("POST", chats, vec![], row(1, 9)),
        "rest.insert.bulk" => (
            "POST",
            chats,
            vec![REPRESENTATION],
            json!([row(4, 4), row(5, 5)]),
        ),
        "rest.insert.bulk.onebad" => ("POST", chats, vec![], json!([row(6, 4), row(1, 5)])),
        "rest.get.after.onebad" => ("GET", by(6), vec![], none),
        "rest.insert.bulk.mixedkeys" => ("POST", chats, vec![], json!([row(7, 4), {"id": id(8)}])),
        "rest.insert.bulk.mixedkeys.columns" => (
            "POST",
            format!("{CHATS}?columns=id,user_id"),
            vec![("Prefer", "missing=default")],
            json!([row(7, 4), {"id": id(8), "wat": 1}]),
        ),
        "rest.upsert.merge" => ("POST", on_id, vec![MERGE_SHOWN], row(1, 10)),
        "rest.upsert.merge.new" => ("POST", on_id, vec![MERGE], row(10, 10)),
        "rest.upsert.ignore" => ("POST", on_id, vec![IGNORE], row(1, 12)),
        "rest.upsert.ignore.new" => ("POST", on_id, vec![IGNORE], row(12, 12)),
        "rest.upsert.dup_in_batch" => ("POST", on_id, vec![MERGE], json!([row(13, 1), row(13, 2)])),
        "rest.insert.unknowncol" => ("POST", chats, vec![], json!({"id": id(14), "wat": 1})),
        "rest.insert.badtype" => ("POST", chats, vec![], json!({"id": "abc"})),
        "rest.insert.emptyarray" => ("POST", chats, vec![], json!([])),
        "rest.insert.fk" => ("POST", chats, vec![], row(15, 999)),
        "rest.get.eq" => ("GET", format!("{}&select=id,user_id", by(1)), vec![], none),
        "rest.get.none" => ("GET", by(404), vec![], none),
        "rest.get.object" => ("GET", by(1), vec![SINGLE], none),
        "rest.get.object.none" => ("GET", by(404), vec![SINGLE], none),
        "rest.get.in" => (
            "GET",
            format!("{CHATS}?id=in.({},{})&select=id", id(1), id(2)),
            vec![],
            none,
        ),
        "rest.get.in.quoted" => (
            "GET",
            format!(
                "{CHATS}?id=in.(%22{}%22,%22{}%22)&select=id",
                id(1),
                id(404)
            ),
            vec![],
            none,
        ),
        "rest.get.limit" => (
            "GET",
            format!("{CHATS}?select=id&order=id&limit=2&offset=1"),
            vec![],
            none,
        ),
        "rest.get.badop" => ("GET", format!("{CHATS}?id=wat.a"), vec![], none),
        "rest.get.badcol" => ("GET", format!("{CHATS}?nope=eq.1"), vec![], none),
        "rest.get.badselect" => ("GET", format!("{CHATS}?select=nope"), vec![], none),
        "rest.get.badtype" => ("GET", format!("{CHATS}?id=eq.abc"), vec![], none),
        "rest.patch.one" => ("PATCH", by(1), vec![], user(5)),
        "rest.patch.cas.hit" => ("PATCH", cas(5), vec![REPRESENTATION], user(6)),
        "rest.patch.cas.miss" => ("PATCH", cas(5), vec![REPRESENTATION], user(7)),
        "rest.patch.cas.miss.minimal" => ("PATCH", cas(5), vec![], user(7)),
        "rest.patch.cas.miss.object" => ("PATCH", cas(5), vec![REPRESENTATION, SINGLE], user(7)),
        "rest.patch.empty" => ("PATCH", by(1), vec![], json!({})),
        "rest.delete.one" | "rest.delete.again" => ("DELETE", by(5), vec![], none),
        "rest.delete.repr" | "rest.delete.none.repr" => {
            ("DELETE", by(4), vec![REPRESENTATION], none)
        }
        other => panic!("nothing is like {other}"),
    }
}

async fn send(simulator: &Simulator, name: &str) -> Reply {
    match name {
        "rest.insert.badjson" => return ask(simulator, "POST", CHATS, &[JSON], b"{bad").await,
        "rest.insert.noct" => {
            let body = row(16, 1).to_string();
            return ask(simulator, "POST", CHATS, &[], body.as_bytes()).await;
        }
        "rest.insert.text_ct" => {
            let headers = [("Content-Type", "text/plain")];
            return ask(simulator, "POST", CHATS, &headers, b"id=1").await;
        }
        "rest.auth.wrongsig" => {
            let headers = [
                ("apikey", KEY),
                ("Authorization", "Bearer header.other.signature"),
                ("Connection", "close"),
            ];
            return raw(simulator, "GET", CHATS, &headers, b"").await;
        }
        _ => {}
    }
    let (method, target, mut headers, body) = like(name);
    headers.push(JSON);
    let body = match body {
        Value::Null => String::new(),
        body => body.to_string(),
    };
    ask(simulator, method, &target, &headers, body.as_bytes()).await
}

const JSON: (&str, &str) = ("Content-Type", "application/json");

#[tokio::test]
async fn a_table_answers_as_a_recorded_one_did() {
    let simulator = start();
    simulator.supabase().forget_user(&id(999));
    for line in RECORDED.lines() {
        let recorded: Recorded = serde_json::from_str(line).unwrap();
        let name = recorded.id.as_str();
        let reply = send(&simulator, name).await;
        let body: Value = serde_json::from_slice(&reply.raw).unwrap_or_default();
        assert_eq!(reply.status(), recorded.status, "{name}: {body}");
        assert_eq!(
            reply.header("content-range"),
            recorded.range.as_deref(),
            "{name}"
        );
        assert_eq!(body["code"].as_str(), recorded.code.as_deref(), "{name}");
        assert_eq!(body["hint"].as_str(), recorded.hint.as_deref(), "{name}");
        assert_eq!(
            body.as_array().map(Vec::len),
            recorded.rows,
            "{name}: {body}"
        );
    }
    let rows = simulator.supabase().rows("chats");
    let ids: Vec<&str> = rows.iter().filter_map(|row| row["id"].as_str()).collect();
    assert_eq!(ids, [1, 2, 7, 8, 10, 12, 16].map(id));
    assert_eq!(rows[0]["user_id"], id(6), "the one swap that hit");
}

#[tokio::test]
async fn an_upsert_keeps_what_it_does_not_name() {
    let simulator = start();
    let supabase = simulator.supabase();
    let seeded = json!({"id": id(1), "user_id": id(2), "character_id": id(3)});
    supabase.put_row(&seeded).unwrap();
    let before = supabase.rows("chats").remove(0);
    let target = format!("{CHATS}?on_conflict=id");
    let body = json!([{"id": id(1), "updated_at": "2030-01-01T00:00:00Z"}]).to_string();
    let reply = ask(&simulator, "POST", &target, &[MERGE, JSON], body.as_bytes()).await;
    assert_eq!((reply.status(), reply.raw.len()), (200, 0));
    let after = supabase.rows("chats").remove(0);
    assert_eq!(after["character_id"], id(3));
    assert_eq!(after["created_at"], before["created_at"]);
    assert_eq!(after["updated_at"], "2030-01-01T00:00:00.000000+00:00");
    assert_eq!(simulator.counters().rows_written, 1);
}

#[tokio::test]
async fn a_table_can_be_hidden_and_shown() {
    let simulator = start();
    simulator.supabase().hide_table();
    let reply = ask(&simulator, "GET", CHATS, &[], b"").await;
    assert_eq!(
        (reply.status(), reply.json()["code"].as_str()),
        (404, Some("PGRST205"))
    );
    simulator.supabase().show_table();
    assert_eq!(ask(&simulator, "GET", CHATS, &[], b"").await.status(), 200);
    let other = ask(&simulator, "GET", "/rest/v1/others", &[], b"").await;
    assert_eq!(other.status(), 404);
}

#[tokio::test]
async fn the_anonymous_key_sees_and_writes_no_rows() {
    let simulator = start();
    simulator.supabase().put_row(&row(1, 1)).unwrap();
    let bearer = format!("Bearer {ANON_KEY}");
    let headers = [
        ("apikey", ANON_KEY),
        ("Authorization", bearer.as_str()),
        ("Connection", "close"),
    ];
    let read = raw(&simulator, "GET", CHATS, &headers, b"").await;
    assert_eq!((read.status(), read.json()), (200, json!([])));
    let deleted = raw(&simulator, "DELETE", CHATS, &headers, b"").await;
    assert_eq!(deleted.status(), 204);
    let body = row(2, 2).to_string();
    let written = raw(&simulator, "POST", CHATS, &headers, body.as_bytes()).await;
    assert_eq!(
        (written.status(), written.json()["code"].as_str()),
        (401, Some("42501"))
    );
    assert_eq!(simulator.supabase().rows("chats").len(), 1);
}
