//! Steering the simulated Supabase from another process.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use idol_simulator::Simulator;
use idol_simulator::supabase::Target;
use serde_json::{Value, json};

use crate::client::{DEADLINE, Reply};
use crate::supabase_client::{KEY, get, put, raw, start};

async fn admin(simulator: &Simulator, method: &str, route: &str, body: &str) -> Reply {
    let target = format!("/_sim/supabase/{route}");
    let headers = [("Connection", "close")];
    raw(simulator, method, &target, &headers, body.as_bytes()).await
}

async fn told(simulator: &Simulator, method: &str, route: &str, body: &str) -> Value {
    let reply = admin(simulator, method, route, body).await;
    assert_eq!(reply.status(), 200, "{route} {body}");
    reply.json()
}

#[tokio::test]
async fn faults_are_planned_cleared_and_released_over_http() {
    let simulator = start();
    let fault = "fault=error:slow_down,target=uploads,key=a.json,times=1";
    told(&simulator, "POST", "fault", fault).await;
    assert_eq!(put(&simulator, "b.json", "1").await, 200);
    assert_eq!(put(&simulator, "a.json", "1").await, 429);
    assert_eq!(put(&simulator, "a.json", "1").await, 200);
    let late = "target=uploads,fault=late:release,answer=gateway_timeout";
    let id = told(&simulator, "POST", "fault", late).await["id"].to_string();
    assert_eq!(put(&simulator, "a.json", "22").await, 504);
    assert_eq!(get(&simulator, "a.json").await.raw, b"1");
    let released = told(&simulator, "POST", "release", &id).await;
    assert_eq!(released, json!({"released": 1}));
    assert_eq!(get(&simulator, "a.json").await.raw, b"22");
    told(&simulator, "POST", "clear", &id).await;
    assert_eq!(put(&simulator, "a.json", "333").await, 200);
    told(&simulator, "POST", "fault", "fault=error:internal").await;
    assert_eq!(put(&simulator, "a.json", "4").await, 500);
    told(&simulator, "POST", "clear", "").await;
    assert_eq!(put(&simulator, "a.json", "4").await, 200);
}

#[tokio::test]
async fn the_store_is_seeded_and_read_over_http() {
    let simulator = start();
    told(&simulator, "POST", "bucket", "other,limit=2").await;
    assert_eq!(simulator.supabase().buckets(), ["chats", "other"]);
    told(&simulator, "PUT", "object/chats/dir/a%20b", "{}").await;
    let objects = told(&simulator, "GET", "objects?bucket=chats", "").await;
    assert_eq!(
        (
            &objects[0]["key"],
            &objects[0]["text"],
            &objects[0]["metadata"]
        ),
        (&json!("dir/a b"), &json!("{}"), &Value::Null)
    );
    let deleted = told(&simulator, "DELETE", "object/chats/dir/a%20b", "").await;
    assert_eq!(deleted, json!({"deleted": true}));
    simulator.supabase().put_row(&json!({})).unwrap();
    let rows = told(&simulator, "GET", "rows", "").await;
    assert_eq!(rows, json!(simulator.supabase().rows("chats")));
    put(&simulator, "a", "12").await;
    let counts = told(&simulator, "GET", "counts", "").await;
    assert_eq!(
        counts["uploads_by_key"]["chats/a"],
        json!({"count": 1, "bytes": 2})
    );
    told(&simulator, "POST", "reset", "").await;
    assert_eq!(simulator.supabase().requests(Target::All), 0);
    told(&simulator, "POST", "key", "another").await;
    assert_eq!(put(&simulator, "a", "12").await, 400);
    told(&simulator, "POST", "key", KEY).await;
    assert_eq!(put(&simulator, "a", "12").await, 200);
}

#[tokio::test]
async fn a_mistake_is_named() {
    let simulator = start();
    for (method, route, body, named) in [
        ("POST", "fault", "fault=explode", "explode"),
        ("POST", "clear", "x", "no id"),
        ("POST", "bucket", "b,limit=x", "no limit"),
        ("GET", "objects", "", "bucket"),
        ("GET", "nothing", "", "no such"),
    ] {
        let reply = admin(&simulator, method, route, body).await;
        let mistake = reply.json()["error"].as_str().unwrap().to_owned();
        assert_eq!(reply.status(), 400);
        assert!(mistake.contains(named), "{mistake}");
    }
}

#[tokio::test]
async fn the_binary_has_buckets_and_a_service_key() {
    let mut process = Command::new(env!("CARGO_BIN_EXE_idol-simulator"))
        .args(["--quiet", "--bucket", "chats", "--service-key", KEY])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(process.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let base = line.trim().strip_prefix("listening on ").unwrap();
    let url = base.replace("/api/v1", "/storage/v1/object/chats/a");
    let ask = async |key: &'static str| {
        let request = reqwest::Client::new().put(&url).body("1").timeout(DEADLINE);
        let request = request.header("apikey", key).bearer_auth(key);
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!(ask("an.other.key").await, 400);
    assert_eq!(ask(KEY).await, 200);
    process.kill().unwrap();
    process.wait().unwrap();
}
