//! Every fault of Supabase, as it shows to a client and in the store.

use std::time::Duration;

use idol_simulator::Simulator;
use idol_simulator::supabase::{Error, Fault, LateAnswer, Release, Target};
use serde_json::json;
use tokio::net::TcpStream;

use crate::client::{DEADLINE, End, connect, read_reply, read_until};
use crate::supabase_client::{ask, get, info, put, start, write};

/// Begins an upload and does not wait for its answer.
async fn begin_put(simulator: &Simulator, key: &str, body: &str) -> TcpStream {
    let mut socket = connect(simulator.address()).await;
    let target = format!("/storage/v1/object/chats/{key}");
    let headers = [("x-upsert", "true"), ("Connection", "close")];
    write(&mut socket, "POST", &target, &headers, body.as_bytes()).await;
    socket
}

async fn changes(simulator: &Simulator, uploads: u64) {
    let applied = simulator.wait_for("upload", |counters| counters.uploads == uploads, DEADLINE);
    applied.await.unwrap();
}

#[tokio::test]
async fn a_gate_holds_a_request_before_it_is_carried_out() {
    let simulator = start();
    let gate = simulator.gate();
    simulator
        .supabase()
        .fail_times(1, Target::Uploads, Fault::Hold(gate.clone()));
    let mut held = begin_put(&simulator, "a", "1").await;
    gate.reached(1, DEADLINE).await.unwrap();
    assert_eq!(simulator.supabase().object("chats", "a"), None);
    assert_eq!(
        put(&simulator, "b", "2").await,
        200,
        "only one was to be held"
    );
    gate.open();
    assert_eq!(read_reply(&mut held).await.status(), 200);
    assert_eq!(
        simulator.supabase().object("chats", "a").unwrap().bytes,
        "1"
    );
}

#[tokio::test]
async fn a_latency_holds_a_request_until_its_time() {
    let simulator = start();
    let forever = Fault::Latency(Duration::from_secs(3600));
    let slow = simulator
        .supabase()
        .fail(Target::Uploads.key("slow"), forever);
    let socket = begin_put(&simulator, "slow", "1").await;
    slow.reached(1, DEADLINE).await.unwrap();
    assert_eq!(put(&simulator, "quick", "2").await, 200);
    assert_eq!(simulator.supabase().object("chats", "slow"), None);
    drop(socket);
    let left = simulator.wait_for(
        "leaving",
        |counters| counters.client_disconnects == 1,
        DEADLINE,
    );
    left.await.unwrap();
    slow.clear();
    let short = Fault::Latency(Duration::from_millis(1));
    simulator.supabase().fail(Target::All, short);
    assert_eq!(put(&simulator, "slow", "3").await, 200);
}

#[tokio::test]
async fn a_failure_window_answers_every_request_until_it_is_cleared() {
    let simulator = start();
    let supabase = simulator.supabase();
    put(&simulator, "a", "1").await;
    let expected = [
        (Error::Internal, 500, "InternalError", 500, "XX000"),
        (Error::ReadOnly, 400, "DatabaseReadOnly", 503, "PGRST001"),
        (Error::SlowDown, 429, "SlowDown", 503, "53300"),
        (
            Error::DatabaseTimeout,
            544,
            "DatabaseTimeout",
            504,
            "PGRST003",
        ),
        (Error::Expired, 400, "AccessDenied", 401, "PGRST303"),
    ];
    for (error, storage_status, storage_code, rest_status, rest_code) in expected {
        let window = supabase.fail(Target::All, Fault::Error(error));
        assert_eq!(put(&simulator, "a", "2").await, storage_status);
        let reply = get(&simulator, "a").await;
        assert_eq!(
            (reply.status(), reply.json()["code"].as_str()),
            (storage_status, Some(storage_code))
        );
        let reply = ask(&simulator, "GET", "/rest/v1/chats", &[], b"").await;
        assert_eq!(
            (reply.status(), reply.json()["code"].as_str()),
            (rest_status, Some(rest_code))
        );
        assert_eq!(window.met(), 3);
        window.clear();
    }
    assert_eq!(get(&simulator, "a").await.raw, b"1");
    supabase.fail_times(2, Target::Rest, Fault::Error(Error::GatewayTimeout));
    let mut statuses = Vec::new();
    for _ in 0..3 {
        let reply = ask(&simulator, "GET", "/rest/v1/chats", &[], b"").await;
        statuses.push(reply.status());
    }
    assert_eq!(statuses, [504, 504, 200]);
    let window = supabase.fail(Target::All, Fault::Error(Error::Unavailable));
    let head = ask(&simulator, "HEAD", "/storage/v1/object/chats/a", &[], b"").await;
    assert_eq!((head.status(), head.raw.len()), (503, 0));
    window.clear();
    let refused = Error::Other(418, json!({"message": "no"}));
    supabase.fail(Target::Downloads, Fault::Error(refused));
    assert_eq!(get(&simulator, "a").await.status(), 418);
    assert_eq!(info(&simulator, "a").await.status(), 200);
}

#[tokio::test]
async fn a_refused_connection_carries_nothing_out() {
    let simulator = start();
    let supabase = simulator.supabase();
    for (fault, end) in [(Fault::Close, End::Fin), (Fault::Reset, End::Reset)] {
        let down = supabase.fail(Target::All, fault);
        let mut socket = begin_put(&simulator, "a", "1").await;
        let reply = read_reply(&mut socket).await;
        assert_eq!((reply.head.as_str(), reply.end), ("", end));
        down.clear();
    }
    assert!(supabase.objects("chats").is_empty());
    assert_eq!(put(&simulator, "a", "1").await, 200);
}

#[tokio::test]
async fn what_hangs_is_carried_out_once_the_fault_is_cleared() {
    let simulator = start();
    let hang = simulator.supabase().fail(Target::Storage, Fault::Hang);
    let abandoned = begin_put(&simulator, "abandoned", "1").await;
    let mut patient = begin_put(&simulator, "patient", "2").await;
    hang.reached(2, DEADLINE).await.unwrap();
    drop(abandoned);
    let left = simulator.wait_for(
        "leaving",
        |counters| counters.client_disconnects == 1,
        DEADLINE,
    );
    left.await.unwrap();
    let rows = ask(&simulator, "GET", "/rest/v1/chats", &[], b"").await;
    assert_eq!(rows.status(), 200, "the fault concerns storage alone");
    hang.clear();
    assert_eq!(read_reply(&mut patient).await.status(), 200);
    let objects = simulator.supabase().objects("chats");
    assert_eq!(objects.len(), 1);
    assert_eq!(objects[0].key, "patient");
}

#[tokio::test]
async fn a_stale_read_gives_what_was_overwritten() {
    let simulator = start();
    let supabase = simulator.supabase();
    supabase.put_object("chats", "new", "1");
    supabase.put_object_with_metadata("chats", "a", "old", json!({"seq": 1}));
    supabase.put_object_with_metadata("chats", "a", "present", json!({"seq": 2}));
    let stale = supabase.fail_times(2, Target::All, Fault::Stale);
    assert_eq!(
        get(&simulator, "new").await.raw,
        b"1",
        "it was never overwritten"
    );
    let told = info(&simulator, "a").await.json();
    assert_eq!(
        (&told["metadata"], &told["size"]),
        (&json!({"seq": 1}), &json!(3))
    );
    assert_eq!(get(&simulator, "a").await.raw, b"old");
    assert_eq!(get(&simulator, "a").await.raw, b"present");
    assert_eq!(stale.met(), 2);
    supabase.fail(Target::Info, Fault::Stale);
    assert_eq!(info(&simulator, "a").await.json()["metadata"]["seq"], 1);
    assert_eq!(get(&simulator, "a").await.raw, b"present");
    supabase.clear_faults();
    assert_eq!(info(&simulator, "a").await.json()["metadata"]["seq"], 2);
}

#[tokio::test]
async fn a_late_upload_is_never_answered_and_lands_when_it_is_released() {
    let simulator = start();
    let supabase = simulator.supabase();
    let late = supabase.fail_times(1, Target::Uploads, Fault::late());
    let socket = begin_put(&simulator, "a", "late").await;
    let held = simulator.wait_for("held", |counters| counters.held_writes == 1, DEADLINE);
    assert_eq!(held.await.unwrap().uploads, 0);
    drop(socket);
    assert_eq!(put(&simulator, "a", "later but first").await, 200);
    assert_eq!(late.release(), 1);
    assert_eq!(supabase.object("chats", "a").unwrap().bytes, "late");
    let counters = simulator.counters();
    assert_eq!((counters.uploads, counters.held_writes), (2, 0));
    assert_eq!(late.release(), 0);
}

#[tokio::test]
async fn a_late_delete_may_be_answered_with_a_timeout() {
    let simulator = start();
    let supabase = simulator.supabase();
    supabase.put_object("chats", "a", "1");
    supabase.put_object("chats", "b", "1");
    let timeout = LateAnswer::Error(Error::GatewayTimeout);
    let late = Fault::Late(timeout, Release::ByTest);
    supabase.fail(Target::Deletes.key("\"a\""), late);
    let delete = async |key: &str| {
        let body = json!({"prefixes": [key]}).to_string();
        let headers = [("Content-Type", "application/json")];
        let target = "/storage/v1/object/chats";
        let reply = ask(&simulator, "DELETE", target, &headers, body.as_bytes()).await;
        reply.status()
    };
    assert_eq!(delete("a").await, 504);
    assert_eq!(delete("b").await, 200);
    assert_eq!(supabase.objects("chats").len(), 1);
    assert_eq!(supabase.release_late(), 1);
    assert!(supabase.objects("chats").is_empty());
    assert_eq!(simulator.counters().deletes, 2);
}

#[tokio::test]
async fn a_late_write_lands_by_itself_after_its_time_and_never_once_forgotten() {
    let simulator = start();
    let supabase = simulator.supabase();
    let soon = Release::After(Duration::from_millis(1));
    let late = supabase.fail_times(1, Target::Uploads, Fault::Late(LateAnswer::Never, soon));
    let soon = begin_put(&simulator, "soon", "1").await;
    changes(&simulator, 1).await;
    assert_eq!(late.met(), 1);
    assert_eq!(supabase.object("chats", "soon").unwrap().bytes, "1");
    drop(soon);
    let never = supabase.fail(Target::Uploads, Fault::late());
    let forgotten = begin_put(&simulator, "never", "1").await;
    never.reached(1, DEADLINE).await.unwrap();
    let held = simulator.wait_for("held", |counters| counters.held_writes == 1, DEADLINE);
    held.await.unwrap();
    never.forget();
    assert_eq!(
        (supabase.release_late(), supabase.objects("chats").len()),
        (0, 1)
    );
    drop(forgotten);
}

#[tokio::test]
async fn an_answer_can_be_lost_after_the_write() {
    let simulator = start();
    let lost = Fault::Late(LateAnswer::Reset, Release::After(Duration::ZERO));
    simulator.supabase().fail_times(1, Target::Uploads, lost);
    let mut socket = begin_put(&simulator, "a", "1").await;
    let reply = read_reply(&mut socket).await;
    assert_eq!((reply.head.as_str(), reply.end), ("", End::Reset));
    changes(&simulator, 1).await;
    assert_eq!(get(&simulator, "a").await.raw, b"1");
}

#[tokio::test]
async fn a_late_write_that_is_refused_is_told_so_at_once() {
    let simulator = start();
    put(&simulator, "a", "1").await;
    let late = simulator.supabase().fail(Target::Uploads, Fault::late());
    let target = "/storage/v1/object/chats/a";
    let refused = ask(&simulator, "POST", target, &[], b"2").await;
    assert_eq!(refused.json()["code"], "KeyAlreadyExists");
    assert_eq!(late.release(), 0);
}

#[tokio::test]
async fn of_two_uploads_at_once_that_may_only_create_both_succeed() {
    let simulator = start();
    let gate = simulator.gate();
    let hold = Fault::Hold(gate.clone());
    let held = simulator.supabase().fail(Target::Uploads, hold);
    let target = "/storage/v1/object/chats/a";
    let upload = async |body: &'static [u8]| ask(&simulator, "POST", target, &[], body).await;
    let opened = async {
        held.reached(2, DEADLINE).await.unwrap();
        gate.open();
    };
    let (one, other, ()) = tokio::join!(upload(b"1"), upload(b"2"), opened);
    assert_eq!((one.status(), other.status()), (200, 200));
    assert_eq!(one.json()["Id"], other.json()["Id"]);
    assert_eq!(upload(b"3").await.json()["code"], "KeyAlreadyExists");
}

#[tokio::test]
async fn faults_add_up_in_the_order_they_were_planned() {
    let simulator = start();
    let supabase = simulator.supabase();
    let gate = simulator.gate();
    let held = supabase.fail(Target::Uploads, Fault::Hold(gate.clone()));
    let refused = supabase.fail(Target::Uploads, Fault::Error(Error::Internal));
    let unmet = supabase.fail(Target::Uploads, Fault::Close);
    let mut socket = begin_put(&simulator, "a", "1").await;
    gate.reached(1, DEADLINE).await.unwrap();
    gate.open();
    read_until(&mut socket, "InternalError").await;
    assert_eq!([held.met(), refused.met(), unmet.met()], [1, 1, 0]);
    assert_eq!(simulator.counters().faults_played, 2);
}
