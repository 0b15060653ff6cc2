//! Seeding, inspecting and counting.

use idol_simulator::supabase::{Counts, Target, Uploads};
use serde_json::{Value, json};

use crate::client::DEADLINE;
use crate::supabase_client::{ask, get, info, put, start};

#[tokio::test]
async fn an_upload_is_found_with_its_metadata() {
    let simulator = start();
    // {"seq":3}
    let headers = [
        ("x-metadata", "eyJzZXEiOjN9"),
        ("Content-Type", "application/json"),
        ("Cache-Control", "no-cache"),
    ];
    let target = "/storage/v1/object/chats/dir/a.json";
    let reply = ask(&simulator, "PUT", target, &headers, b"{\"a\":1}").await;
    let stored = simulator.supabase().object("chats", "dir/a.json").unwrap();
    assert_eq!(stored.json().unwrap(), json!({"a": 1}));
    assert_eq!(stored.metadata, Some(json!({"seq": 3})));
    assert_eq!(stored.content_type, "application/json");
    assert_eq!(stored.id, reply.json()["Id"]);
    let told = info(&simulator, "dir/a.json").await.json();
    assert_eq!(told["version"], stored.version);
    assert_eq!(told["etag"], stored.etag);
    assert_eq!(told["metadata"], json!({"seq": 3}));
    assert_eq!(put(&simulator, "dir/a.json", "{}").await, 200);
    let overwritten = simulator.supabase().object("chats", "dir/a.json").unwrap();
    assert_eq!((overwritten.id, overwritten.metadata), (stored.id, None));
    assert_ne!(overwritten.version, stored.version);
}

#[tokio::test]
async fn a_seeded_object_has_no_metadata_and_is_no_upload() {
    let simulator = start();
    let supabase = simulator.supabase();
    supabase.put_object("other", "a.json", "{}");
    assert_eq!(supabase.buckets(), ["chats", "other"]);
    let seeded = supabase.object("other", "a.json").unwrap();
    assert_eq!(seeded.metadata, None);
    assert_eq!(simulator.counters().uploads, 0);
    assert_eq!(supabase.delete_object("other", "a.json"), Some(seeded));
    assert_eq!(supabase.delete_object("other", "a.json"), None);
}

#[tokio::test]
async fn requests_and_uploads_are_counted_until_a_reset() {
    let simulator = start();
    let supabase = simulator.supabase();
    put(&simulator, "a", "12345").await;
    put(&simulator, "a", "123").await;
    put(&simulator, "b", "1").await;
    get(&simulator, "none").await;
    ask(&simulator, "GET", "/rest/v1/chats", &[], b"").await;
    let uploads = |count, bytes| Uploads { count, bytes };
    let counts = supabase.counts();
    assert_eq!(counts.uploads, uploads(3, 9));
    assert_eq!(counts.uploads_by_key["chats/a"], uploads(2, 8));
    assert_eq!(counts.uploads_by_key["chats/b"], uploads(1, 1));
    let counted = [
        (Target::All, 5),
        (Target::Storage, 4),
        (Target::Uploads, 3),
        (Target::Downloads, 1),
        (Target::Rest, 1),
        (Target::Info, 0),
    ];
    for (target, requests) in counted {
        assert_eq!(supabase.requests(target), requests, "{target:?}");
    }
    let counters = simulator.counters();
    assert_eq!((counters.supabase_requests, counters.requests), (5, 5));
    assert_eq!((counters.uploads, counters.uploaded_bytes), (3, 9));
    assert_eq!(simulator.supabase_requests().len(), 5);
    supabase.reset_counts();
    assert_eq!(supabase.counts(), Counts::default());
    assert_eq!(simulator.counters().uploads, 0);
    put(&simulator, "a", "1").await;
    assert_eq!(supabase.requests(Target::All), 1);
}

#[tokio::test]
async fn every_change_of_the_store_can_be_awaited() {
    let simulator = start();
    let supabase = simulator.supabase();
    let mut seen = simulator.counters().store_changes;
    let changes: [&dyn Fn(); 4] = [
        &|| supabase.put_object("chats", "a", "1"),
        &|| drop(supabase.delete_object("chats", "a")),
        &|| supabase.set_file_size_limit("chats", Some(9)),
        &|| supabase.put_row(&json!({})).unwrap(),
    ];
    for change in changes {
        change();
        let changed = simulator.wait_for("change", |now| now.store_changes > seen, DEADLINE);
        seen = changed.await.unwrap().store_changes;
    }
    put(&simulator, "a", "1").await;
    let target = "/storage/v1/object/chats/a";
    ask(&simulator, "DELETE", target, &[], b"").await;
    let changed = simulator.wait_for("two", |now| now.store_changes == seen + 2, DEADLINE);
    assert_eq!(changed.await.unwrap().deletes, 1);
}

#[tokio::test]
async fn a_list_has_pages_of_a_hundred_and_skips_placeholders() {
    let simulator = start();
    let supabase = simulator.supabase();
    for index in 0..105 {
        supabase.put_object("chats", &format!("many/{index:03}"), "1");
    }
    supabase.put_object("chats", "many/.emptyFolderPlaceholder", "");
    let list = async |body: Value| {
        let headers = [("Content-Type", "application/json")];
        let target = "/storage/v1/object/list/chats";
        let reply = ask(
            &simulator,
            "POST",
            target,
            &headers,
            body.to_string().as_bytes(),
        )
        .await;
        reply.json().as_array().unwrap().len()
    };
    assert_eq!(list(json!({"prefix": "many"})).await, 100);
    assert_eq!(list(json!({"prefix": "MANY/", "offset": 100})).await, 5);
    assert_eq!(list(json!({"prefix": "many/0"})).await, 0);
    assert_eq!(list(json!({"prefix": "many", "search": "00"})).await, 10);
}

#[tokio::test]
async fn a_second_list_goes_on_where_its_cursor_ended() {
    let simulator = start();
    for key in ["B", "a", "dir/x", "dir/y", "dir2/z", "e"] {
        simulator.supabase().put_object("chats", key, "1");
    }
    for (delimited, expected) in [
        (false, vec!["B", "a", "dir/x", "dir/y", "dir2/z", "e"]),
        (true, vec!["B", "a", "dir/", "dir2/", "e"]),
    ] {
        let mut names = Vec::new();
        let mut cursor = Value::Null;
        loop {
            let mut body = json!({"prefix": "", "limit": 2, "with_delimiter": delimited});
            if cursor.is_string() {
                body["cursor"] = cursor;
            }
            let headers = [("Content-Type", "application/json")];
            let target = "/storage/v1/object/list-v2/chats";
            let body = body.to_string();
            let page = ask(&simulator, "POST", target, &headers, body.as_bytes()).await;
            let page = page.json();
            let entries = [&page["folders"], &page["objects"]];
            let entries = entries
                .into_iter()
                .flat_map(|part| part.as_array().unwrap());
            let before = names.len();
            names.extend(entries.map(|entry| entry["name"].as_str().unwrap().to_owned()));
            assert!((1..=2).contains(&(names.len() - before)), "{page}");
            if page["hasNext"] == false {
                break;
            }
            cursor = page["nextCursor"].clone();
        }
        names.sort_unstable();
        assert_eq!(names, expected);
    }
}
