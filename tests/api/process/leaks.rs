//! What clients that come and go leave behind: nothing.

use idol_simulator::{Script, Simulator};

use super::{Launch, Process};
use crate::helpers::{client, until};

/// Entries of a directory under `/proc/<pid>`.
fn count(process: &Process, what: &str) -> usize {
    let path = format!("/proc/{}/{what}", process.id());
    std::fs::read_dir(path).unwrap().count()
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn clients_that_leave_in_the_midst_of_replies_leave_no_file_and_no_socket_open() {
    let simulator = Simulator::start().unwrap();
    let launch = Launch::with(&simulator);
    let mut process = launch.start().await;
    let round = async |process: &mut Process, name: &str| {
        let gate = simulator.gate();
        let mut clients = Vec::new();
        for number in 0..20 {
            let id = format!("{name}-{number}");
            simulator.script(Script::from("tokens=6").hold_at(2, &gate));
            clients.push(process.stream(&id, "I am Alice").await);
            process.socket().await;
        }
        drop(clients);
        process.http = client();
        gate.open();
        let done = simulator.wait_for(
            "the end of every upstream call",
            |counters| counters.active_requests == 0,
            crate::helpers::DEADLINE,
        );
        done.await.unwrap();
    };
    // The first round makes what is kept: connections to the upstream, threads that read files.
    round(&mut process, "first").await;
    let quiet = async |process: &mut Process| {
        until("the end of every client's socket", async || {
            let ready: serde_json::Value = process.get("/ready").await.json().await.unwrap();
            (ready["sockets"] == 0).then_some(())
        })
        .await;
        count(process, "fd")
    };
    let before = quiet(&mut process).await;

    for name in ["second", "third"] {
        round(&mut process, name).await;
    }

    until("the files of the clients to be closed", async || {
        (quiet(&mut process).await <= before + 2).then_some(())
    })
    .await;
}
