//! The process: kills, signals, exit codes, and what an operator reads on standard error.

use std::{
    net::SocketAddr,
    path::PathBuf,
    process::{ExitStatus, Stdio},
};

use idol_simulator::Simulator;
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    process::{Child, Command},
    sync::watch,
};

use crate::{
    failpoints,
    helpers::{Events, Socket, client, mirrored, say, until, within},
};

mod killed;
mod leaks;
mod slow_readers;
pub mod started;
mod stopped;

/// A working directory, and the environment of the processes that run in it: what is set, no more.
pub struct Launch {
    pub directory: TempDir,
    pub settings: Vec<(String, String)>,
    /// Beyond so many blocks of 512 bytes, no file can be written.
    pub file_blocks_max: Option<u32>,
    /// Where the server ends itself, if it is to: see [`crate::failpoints`].
    pub dies_at: Option<String>,
}

impl Launch {
    /// Without a single variable: the demo.
    pub fn bare() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            settings: Vec::new(),
            file_blocks_max: None,
            dies_at: None,
        }
    }

    /// With the simulator upstream.
    pub fn with(simulator: &Simulator) -> Self {
        Self::bare()
            .set("OPENROUTER_BASE_URL", &simulator.base_url())
            .set("OPENROUTER_API_KEY", "sk-or-test")
            .set("DEFAULT_MODEL", "sim/tokens=5")
            .set("SHUTDOWN_GRACE_SECS", "20")
    }

    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Where the process keeps everything, as long as nobody chose another place.
    pub fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// The mirrored document of a conversation.
    pub fn json_file(&self, conversation: &str) -> Value {
        let path = self
            .data()
            .join("conversations")
            .join(format!("{conversation}.json"));
        mirrored(&std::fs::read(path).unwrap())
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let server = env!("CARGO_BIN_EXE_idol-router");
        if let Some(place) = &self.dies_at {
            let mut command = failpoints::server_that_dies_at(place);
            self.prepare(&mut command);
            return command;
        }
        let mut command = match self.file_blocks_max {
            None => Command::new(server),
            Some(blocks) => {
                let mut shell = Command::new("/bin/sh");
                let limited = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
                shell.args(["-c", &limited, server]);
                shell
            }
        };
        command.args(arguments).env_clear();
        self.prepare(&mut command);
        command
    }

    fn prepare(&self, command: &mut Command) {
        command
            .envs(self.settings.iter().map(|(name, value)| (name, value)))
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
    }

    /// Runs the server until it listens, on a free port.
    pub async fn start(&self) -> Process {
        self.start_on("0").await
    }

    /// The same, on this port.
    pub async fn start_on(&self, port: &str) -> Process {
        let mut child = self.command(&["--port", port]).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (said, mut heard) = watch::channel(String::new());
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                said.send_modify(|text| {
                    text.push_str(&line);
                    text.push('\n');
                });
            }
        });
        let listens = heard.wait_for(|text| address_in(text).is_some());
        let listens = within("the line that says where it listens", listens).await;
        let address = listens.ok().and_then(|text| address_in(&text));
        let Some(address) = address else {
            panic!("the process ended: {}", *heard.borrow());
        };
        Process {
            child,
            heard,
            address,
            http: client(),
        }
    }

    /// Runs a process that is to end by itself.
    pub async fn run(&self, arguments: &[&str]) -> Ran {
        let mut child = self.command(arguments).spawn().unwrap();
        let (mut stdout, mut stderr) = (String::new(), String::new());
        let mut out = child.stdout.take().unwrap();
        let mut err = child.stderr.take().unwrap();
        let all = async {
            out.read_to_string(&mut stdout).await.unwrap();
            err.read_to_string(&mut stderr).await.unwrap();
            child.wait().await.unwrap().code()
        };
        let code = within("the end of a process that cannot serve", all).await;
        Ran {
            code,
            stdout,
            stderr,
        }
    }
}

pub fn address_in(stderr: &str) -> Option<SocketAddr> {
    let address = stderr
        .lines()
        .find_map(|line| line.strip_prefix("listening on http://"))?;
    Some(address.parse().unwrap())
}

/// A process that has ended.
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// A process that serves. Killed when it is dropped.
pub struct Process {
    pub child: Child,
    pub heard: watch::Receiver<String>,
    pub address: SocketAddr,
    pub http: reqwest::Client,
}

impl Process {
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn id(&self) -> u32 {
        self.child.id().unwrap()
    }

    pub async fn get(&self, path: &str) -> reqwest::Response {
        let request = self.http.get(self.url(path));
        within("an answer", request.send()).await.unwrap()
    }

    pub async fn post(&self, path: &str, body: &Value) -> reqwest::Response {
        let request = self.http.post(self.url(path)).json(body);
        within("an answer", request.send()).await.unwrap()
    }

    /// `POST /chat` with one user message; the reply's text.
    pub async fn chat(&self, conversation: &str, text: &str) -> String {
        let response = self.post("/chat", &say(conversation, text)).await;
        assert_eq!(response.status(), 200);
        let answer: Value = response.json().await.unwrap();
        answer["choices"][0]["message"]["content"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// `POST /chat/stream` with one user message, up to and including `conversation_start`.
    pub async fn stream(&self, conversation: &str, text: &str) -> Events {
        let response = self.post("/chat/stream", &say(conversation, text)).await;
        assert_eq!(response.status(), 200);
        let mut events = Events::of(response);
        assert_eq!(events.next().await.unwrap()["type"], "conversation_start");
        events
    }

    /// The document; none if nobody is there to be asked.
    pub async fn document_if_there(&self, conversation: &str) -> Option<Value> {
        let url = self.url(&format!("/conversation/{conversation}"));
        let response = within("an answer", self.http.get(url).send()).await.ok()?;
        response.json().await.ok()
    }

    pub async fn document(&self, conversation: &str) -> Value {
        let response = self.get(&format!("/conversation/{conversation}")).await;
        assert_eq!(response.status(), 200);
        response.json().await.unwrap()
    }

    /// Role and content of every message of the document.
    pub async fn said(&self, conversation: &str) -> Vec<(String, String)> {
        said_in(&self.document(conversation).await)
    }

    pub async fn socket(&self) -> Socket {
        Socket::connect(self.address).await
    }

    /// What it has written to standard error so far.
    pub fn stderr(&self) -> String {
        self.heard.borrow().clone()
    }

    pub fn signal(&self, name: &str) {
        signal(self.id(), name);
    }

    /// Waits until it refuses new turns.
    pub async fn drains(&self) {
        until("the readiness page to say that it drains", async || {
            let ready = self.get("/ready").await;
            (ready.status() == 503).then_some(())
        })
        .await;
    }

    /// Waits for its end and for the last of its lines.
    pub async fn end(&mut self) -> ExitStatus {
        let status = within("the end of the process", self.child.wait()).await;
        let last = self.heard.wait_for(|_| false);
        within("the end of its standard error", last).await.ok();
        status.unwrap()
    }

    /// Ends it as a power cut does, as far as the process can tell.
    pub async fn kill(mut self) {
        self.signal("KILL");
        assert_eq!(self.end().await.code(), None);
    }

    /// Stops it as an operator does.
    pub async fn stop(mut self) {
        // Idle connections are kept for some seconds; the process waits for them.
        self.http = client();
        self.signal("TERM");
        assert_eq!(self.end().await.code(), Some(0), "{}", self.stderr());
    }
}

pub fn signal(process: u32, name: &str) {
    let mut kill = std::process::Command::new("kill");
    let kill = kill.args(["-s", name, &process.to_string()]);
    assert!(kill.status().unwrap().success());
}

pub fn said_in(document: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let messages = document["messages"].as_array().unwrap();
    messages
        .iter()
        .map(|message| (text(&message["role"]), text(&message["content"])))
        .collect()
}

pub fn user(text: &str) -> (String, String) {
    ("user".to_owned(), text.to_owned())
}

pub fn assistant(text: &str) -> (String, String) {
    ("assistant".to_owned(), text.to_owned())
}
