//! Starting, and what keeps a process from it.

use std::net::TcpListener;

use idol_router::config::variable::GROUPS;
use idol_simulator::{Script, Simulator};

use super::{Launch, Ran, assistant, user};
use crate::helpers::client;

pub fn assert_one_sentence(ran: &Ran, about: &str) {
    let lines: Vec<_> = ran.stderr.trim_end().lines().collect();
    assert_eq!(lines.len(), 1, "{}", ran.stderr);
    assert!(lines[0].starts_with("idol-router: "), "{}", ran.stderr);
    assert!(lines[0].contains(about), "{}", ran.stderr);
}

#[tokio::test]
async fn a_second_process_is_kept_out_of_the_data_directory_until_the_first_is_gone() {
    let simulator = Simulator::start().unwrap();
    let launch = Launch::with(&simulator);
    let first = launch.start().await;
    first.chat("c1", "before").await;

    let second = launch.run(&["--port", "0"]).await;

    assert_eq!(second.code, Some(1));
    assert_one_sentence(&second, "another process uses DATA_DIR ./data");
    assert_eq!(second.stdout, "");
    first.chat("c1", "after").await;
    let document = first.document("c1").await;
    assert_eq!(document["messages"].as_array().unwrap().len(), 4);
    first.stop().await;
    let second = launch.start().await;
    assert_eq!(second.document("c1").await, document);
}

#[tokio::test]
async fn a_value_that_cannot_be_used_is_named_and_nothing_is_touched() {
    for (name, value) in [
        ("PORT", "65536"),
        ("SHUTDOWN_GRACE_SECS", "soon"),
        ("OPENROUTER_BASE_URL", "ftp://example.org"),
        ("LOG_LEVEL", "much=of=it"),
        ("TIMESTAMPS", "local"),
    ] {
        let launch = Launch::bare().set(name, value);
        let ran = launch.run(&[]).await;
        assert_eq!(ran.code, Some(2), "{name}");
        assert_one_sentence(&ran, name);
        let left = std::fs::read_dir(launch.directory.path()).unwrap().count();
        assert_eq!(left, 0, "{name}: something was made");
    }
}

#[tokio::test]
async fn an_env_file_that_cannot_be_read_is_named() {
    let launch = Launch::bare();
    std::fs::write(launch.directory.path().join(".env"), "PORT=0\nwhat is this").unwrap();
    let ran = launch.run(&[]).await;
    assert_eq!(ran.code, Some(2));
    assert_one_sentence(&ran, ".env, line 2");
}

#[tokio::test]
async fn a_port_in_use_ends_the_start_with_a_sentence() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let launch = Launch::bare().set("PORT", &port).set("LOG_LEVEL", "error");
    let ran = launch.run(&[]).await;
    assert_eq!(ran.code, Some(1));
    assert_one_sentence(&ran, "PORT");
    assert!(ran.stderr.contains(&port), "{}", ran.stderr);
    drop(taken);
    launch.start().await;
}

#[tokio::test]
async fn a_data_directory_that_cannot_be_made_ends_the_start_with_a_sentence() {
    let launch = Launch::bare();
    std::fs::write(launch.data(), "a file in the way").unwrap();
    let ran = launch.run(&["--port", "0"]).await;
    assert_eq!(ran.code, Some(1));
    assert_one_sentence(&ran, "DATA_DIR ./data");
}

#[tokio::test]
async fn the_help_lists_every_variable() {
    let ran = Launch::bare().run(&["--help"]).await;
    assert_eq!(ran.code, Some(0));
    assert_eq!(ran.stderr, "");
    for variable in GROUPS.iter().flat_map(|group| group.variables) {
        let line = ran
            .stdout
            .lines()
            .find(|line| line.split_whitespace().next() == Some(variable.name));
        let line = line.unwrap_or_else(|| panic!("{} is not listed", variable.name));
        assert!(line.contains(variable.default), "{line}");
    }
}

#[tokio::test]
async fn keys_and_what_is_said_never_show_in_the_log_lines() {
    const KEY: &str = "sk-or-v1-6b1e5f0c";
    const OTHER: &str = "sb-secret-94d1c7a2";
    const SAID: &str = "my diary says plumeria";
    let simulator = Simulator::start().unwrap();
    simulator.require_key(Some(KEY));
    let launch = Launch::with(&simulator)
        .set("OPENROUTER_API_KEY", KEY)
        .set("SUPABASE_URL", &simulator.supabase_url())
        .set("SUPABASE_SERVICE_ROLE_KEY", OTHER)
        .set("ELEVENLABS_API_KEY", OTHER)
        .set("OPENAI_API_KEY", OTHER)
        .set("LOG_LEVEL", "debug");
    let mut process = launch.start().await;
    process.chat("c1", SAID).await;
    let simulated = [
        "fault=status:401",
        "fault=status:500",
        "fault=reset,after=1",
    ];
    for script in simulated {
        simulator.script(Script::from(script));
        let mut events = process.stream("c1", SAID).await;
        while events.next().await.is_some() {}
    }
    process.http = client();
    process.signal("TERM");
    assert_eq!(process.end().await.code(), Some(0));

    let lines = process.stderr();
    assert!(lines.contains("DEBUG"), "{lines}");
    for secret in [KEY, OTHER, SAID] {
        assert!(!lines.contains(secret), "{secret} in {lines}");
    }
}

#[tokio::test]
async fn without_any_variable_a_companion_answers_and_remembers_across_a_restart() {
    let launch = Launch::bare();
    let process = launch.start().await;
    assert!(
        process.stderr().contains("demo mode:"),
        "{}",
        process.stderr()
    );
    let health: serde_json::Value = process.get("/health").await.json().await.unwrap();
    assert_eq!(health["mode"], "demo");
    assert_eq!(health["status"], "healthy");
    let reply = process.chat("c1", "My name is Alice.").await;
    assert!(!reply.is_empty());
    process.stop().await;

    let process = launch.start().await;
    let answer = process.chat("c1", "What is my name?").await;

    assert!(answer.contains("Alice"), "{answer}");
    assert_eq!(
        process.said("c1").await,
        [
            user("My name is Alice."),
            assistant(&reply),
            user("What is my name?"),
            assistant(&answer),
        ]
    );
    let document = process.document("c1").await;
    assert_eq!(document["messages"][1]["model"], "embedded/companion");
}
