//! A process that dies exactly where a crash could tear two things apart.
//!
//! Each test starts a server that ends itself, at once and without a word to anybody, at a named
//! place; sees it die; starts an ordinary server on the same directory, and checks what it finds.
//! The server that dies is this test program itself, run again for one test: only there can the
//! hooks be set.

use std::{
    future::pending,
    os::unix::process::ExitStatusExt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use idol_actors::{
    log::sqlite::Injected,
    mirror::MirrorHook,
    shared::{Failpoint, Failpoints},
};
use idol_router::{
    application::{Application, Tuning},
    config::Config,
    telemetry,
};
use reqwest::RequestBuilder;
use serde_json::Value;
use tokio::process::Command;

use crate::{
    helpers::within,
    process::{Launch, Process},
};

mod deleted;
mod files;
mod log;
mod objects;

/// Names the place where a server under test dies: see [`Place::parse`].
const DIES_AT: &str = "IDOL_TEST_DIES_AT";

/// The conversation whose server dies.
pub const ID: &str = "c1";

/// A client's key, the same for a request and its repeats.
const KEY: &str = "the-key-of-one-request";

/// Where a server under test dies. All of it concerns the conversation [`ID`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Before so many-th of its appends.
    Append(usize),
    /// After the log's commit of its so many-th append, before anybody is told.
    Commit(usize),
    /// After the log told of it, before the conversation acts on it.
    Committed(usize),
    /// After so many pieces of its reply are in the log.
    Kept(usize),
    /// In the mirror of JSON files, at the point of this name.
    Mirror(&'static str),
}

impl Place {
    fn spell(self) -> String {
        match self {
            Self::Append(nth) => format!("append {nth}"),
            Self::Commit(nth) => format!("commit {nth}"),
            Self::Committed(nth) => format!("committed {nth}"),
            Self::Kept(nth) => format!("kept {nth}"),
            Self::Mirror(point) => format!("mirror {point}"),
        }
    }

    /// The hooks of a server that dies there.
    fn tuning(spelled: &str) -> Tuning {
        let (kind, place) = spelled.split_once(' ').expect("a kind and a place");
        let (kind, place) = (kind.to_owned(), place.to_owned());
        let nth = place.parse().unwrap_or(usize::MAX);
        let count = Arc::new([const { AtomicUsize::new(0) }; 3]);
        let armed = Arc::new(AtomicBool::new(false));
        let mut tuning = Tuning::default();
        let arm = armed.clone();
        let of = kind.clone();
        tuning.failpoints = Some(Failpoints::new(move |failpoint, id| {
            let (name, count) = match failpoint {
                Failpoint::BeforeAppend => ("append", &count[0]),
                Failpoint::Committed => ("committed", &count[1]),
                Failpoint::Kept => ("kept", &count[2]),
                Failpoint::Progress | Failpoint::Withheld => return,
            };
            if id.as_str() != ID {
                return;
            }
            let reached = count.fetch_add(1, Ordering::SeqCst) + 1;
            eprintln!("{}", told(name, reached));
            if of == name && reached == nth {
                std::process::abort();
            }
            if of == "commit" && name == "append" && reached == nth {
                arm.store(true, Ordering::SeqCst);
            }
        }));
        // No other commit is under way in these tests: the mirrors wait, and no piece of a reply is.
        tuning.log.after_commit = Some(Arc::new(move || {
            if armed.load(Ordering::SeqCst) {
                std::process::abort();
            }
            Injected::Nothing
        }));
        tuning.mirror = Some(MirrorHook::new(move |point, id| {
            if kind == "mirror" && id.as_str() == ID && place == format!("{point:?}") {
                std::process::abort();
            }
        }));
        tuning
    }
}

fn told(name: &str, times: usize) -> String {
    format!("{name} {times} of {ID}")
}

/// This program, to be run as a server that dies at a place.
pub fn server_that_dies_at(place: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([
            "--exact",
            "failpoints::a_server_dies_where_it_is_told_to",
            "--nocapture",
        ])
        .env_clear()
        .env(DIES_AT, place)
        .env("PORT", "0");
    command
}

/// Nothing but the process that the tests below start: without the variable there is nothing to do.
#[test]
fn a_server_dies_where_it_is_told_to() {
    let Ok(place) = std::env::var(DIES_AT) else {
        return;
    };
    let config = Config::from_lookup(&|name| std::env::var(name).ok()).unwrap();
    telemetry::init(&config.log).unwrap();
    actix_web::rt::System::new().block_on(async {
        let tuning = Place::tuning(&place);
        let application = Application::build(config, tuning).await.unwrap();
        eprintln!("\nlistening on http://{}", application.address());
        let terminated = async {
            use tokio::signal::unix::{SignalKind, signal};
            match signal(SignalKind::terminate()) {
                Ok(mut terminate) => drop(terminate.recv().await),
                Err(_) => pending().await,
            }
        };
        application.run_until(terminated).await.unwrap();
    });
    panic!("it did not come to: {place}");
}

/// The same directory, for a server that dies at a place, and for ordinary ones.
pub struct Mortal {
    launch: Launch,
}

impl Mortal {
    pub fn new(launch: Launch) -> Self {
        Self { launch }
    }

    pub async fn start_to_die_at(&mut self, place: Place) -> Process {
        self.launch.dies_at = Some(place.spell());
        let process = self.launch.start().await;
        self.launch.dies_at = None;
        process
    }

    pub async fn start(&self) -> Process {
        self.launch.start().await
    }
}

/// Waits for the death of a server, by its own hand.
pub async fn death(process: &mut Process) {
    let status = process.end().await;
    let signal = status.signal();
    assert_eq!(signal, Some(libc::SIGABRT), "{}", process.stderr());
}

/// Waits until a server has passed a place.
pub async fn passed(process: &Process, name: &str, times: usize) {
    let mut heard = process.heard.clone();
    let line = told(name, times);
    let said = heard.wait_for(|text| text.lines().any(|it| it == line));
    within(&line, said).await.unwrap();
}

/// `POST` with the key of all requests here.
fn keyed(process: &Process, path: &str, body: &Value) -> RequestBuilder {
    let request = process.http.post(process.url(path)).json(body);
    request.header("Idempotency-Key", KEY)
}

/// The messages of the document.
async fn messages(process: &Process) -> Vec<Value> {
    let document = process.document(ID).await;
    document["messages"].as_array().unwrap().clone()
}
