//! What goes wrong inside: a disk that is slow or full, a conversation that panics, memory that is short.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use idol_actors::{
    caller::Caller,
    conversation::command::StartTurn,
    id::{ConversationId, TurnId},
    json_text::JsonText,
    log::sqlite::{Failpoint as LogFailpoint, Injected},
    shared::{Failpoint, Failpoints},
};
use idol_router::wire::chat::{ChatRequest, Defaults, Dialect, PromptChoice};
use tokio::task::JoinHandle;

use crate::helpers::{Setup, TestApp, until, within};

mod appends;
pub mod full_disk;
mod hammer;
mod keeping;
mod lost_end;
pub mod no_room;
mod panics;
mod placement;
mod repeats;
mod retirement;

/// The log's commits, held back and let through by a test. Dropped, it lets all through.
#[derive(Default)]
pub struct Commits(Arc<(Mutex<CommitState>, Condvar)>);

#[derive(Default)]
struct CommitState {
    held: bool,
    /// Held commits that may pass all the same.
    permits: usize,
    /// Commits that wait.
    waiting: usize,
    /// The next commit fails, its outcome unknown.
    fail: bool,
}

impl Commits {
    /// For [`idol_actors::log::sqlite::SqliteOptions`].
    pub fn failpoint(&self) -> LogFailpoint {
        let shared = self.0.clone();
        Arc::new(move || {
            let (state, changed) = &*shared;
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            state.waiting += 1;
            let mut state = changed
                .wait_while(state, |state| state.held && state.permits == 0)
                .unwrap_or_else(PoisonError::into_inner);
            state.waiting -= 1;
            state.permits = state.permits.saturating_sub(1);
            match std::mem::take(&mut state.fail) {
                true => Injected::CommitError,
                false => Injected::Nothing,
            }
        })
    }

    fn change(&self, change: impl FnOnce(&mut CommitState)) {
        change(&mut self.state());
        self.0.1.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, CommitState> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn hold(&self) {
        self.change(|state| state.held = true);
    }

    fn let_one_through(&self) {
        self.change(|state| state.permits += 1);
    }

    /// Lets commits through one by one, until what was waited for has come: the text of a reply
    /// under way may be committed before its end, or not.
    pub async fn let_through_until(&self, what: &str, come: impl Fn() -> bool) {
        until(what, async || {
            let come = come();
            self.change(|state| {
                if !come && state.waiting > 0 && state.permits == 0 {
                    state.permits = 1;
                }
            });
            come.then_some(())
        })
        .await;
    }

    pub fn release(&self) {
        self.change(|state| state.held = false);
    }

    fn fail_next(&self) {
        self.change(|state| state.fail = true);
    }

    /// Waits until a commit waits.
    pub async fn reached(&self) {
        until("a commit to be held", async || {
            (self.state().waiting > 0).then_some(())
        })
        .await;
    }
}

impl Drop for Commits {
    fn drop(&mut self) {
        self.release();
    }
}

/// A server whose commits a test holds back, and whose failpoints it watches.
pub async fn held(commits: &Commits, watch: &Watch) -> TestApp {
    let tuned = Setup::new().tuning(|tuning| {
        tuning.log.before_commit = Some(commits.failpoint());
        tuning.failpoints = Some(watch.failpoints());
    });
    tuned.start().await
}

/// Counts the failpoints that conversations reach, and panics where a test wants it.
#[derive(Clone, Default)]
pub struct Watch(Arc<Mutex<WatchState>>);

#[derive(Default)]
struct WatchState {
    reached: Vec<(Failpoint, String)>,
    panics: Vec<(Failpoint, String, usize)>,
}

impl Watch {
    /// For [`idol_router::application::Tuning`].
    pub fn failpoints(&self) -> Failpoints {
        let watch = self.clone();
        Failpoints::new(move |failpoint, id: &ConversationId| {
            if watch.note(failpoint, id.as_str()) {
                panic!("injected at {failpoint:?} in {id}");
            }
        })
    }

    /// Notes that a failpoint was reached; true if it is to panic.
    fn note(&self, failpoint: Failpoint, id: &str) -> bool {
        let mut state = self.state();
        state.reached.push((failpoint, id.to_owned()));
        let planned = state
            .panics
            .iter_mut()
            .find(|(at, of, left)| *at == failpoint && of == id && *left > 0);
        match planned {
            Some((_, _, left)) => {
                *left -= 1;
                true
            }
            None => false,
        }
    }

    fn state(&self) -> MutexGuard<'_, WatchState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next so many times, the failpoint panics in this conversation.
    pub fn panic_at(&self, failpoint: Failpoint, id: &str, times: usize) {
        self.state().panics.push((failpoint, id.to_owned(), times));
    }

    pub fn count(&self, failpoint: Failpoint, id: &str) -> usize {
        let state = self.state();
        let here = |(at, of): &&(Failpoint, String)| *at == failpoint && of == id;
        state.reached.iter().filter(here).count()
    }

    /// Waits until a failpoint was reached so often in a conversation.
    pub async fn reached(&self, failpoint: Failpoint, id: &str, times: usize) {
        let what = format!("{failpoint:?} in {id}, {times} times");
        until(&what, async || {
            (self.count(failpoint, id) >= times).then_some(())
        })
        .await;
    }
}

/// The command of a session that says something.
fn command(turn: TurnId, text: &str) -> StartTurn {
    let defaults = Defaults {
        model: "sim/tokens=5".into(),
        fallbacks: Vec::new(),
        system_prompt: JsonText::escape("You are a companion."),
        dialect: Dialect::OpenRouter,
    };
    ChatRequest::of_text(text, PromptChoice::default(), &defaults)
        .into_command(Caller::Anonymous, turn)
}

/// Sends a request in the background: it goes on while the test looks elsewhere.
pub fn sent(app: &TestApp, path: &str, body: serde_json::Value) -> JoinHandle<reqwest::Response> {
    let request = app.http.post(app.url(path)).json(&body);
    tokio::spawn(async move { request.send().await.unwrap() })
}

/// The answer to a request that was sent in the background.
pub async fn answered(sent: JoinHandle<reqwest::Response>) -> reqwest::Response {
    within("an answer", sent).await.unwrap()
}

/// The bytes of a document, and its tag.
async fn raw(app: &TestApp, conversation: &str) -> (bytes::Bytes, String) {
    let response = app.get(&format!("/conversation/{conversation}")).await;
    assert_eq!(response.status(), 200, "{conversation}");
    let tag = response.headers()["etag"].to_str().unwrap().to_owned();
    (response.bytes().await.unwrap(), tag)
}

/// Checks a refusal: its status, its code, and that it says when to come back.
pub async fn assert_refused(response: reqwest::Response, status: u16, code: &str) {
    assert_eq!(response.status(), status);
    let wait = response.headers()["retry-after"].to_str().unwrap();
    assert!(wait.parse::<u64>().unwrap() >= 1);
    let body: serde_json::Value = response.json().await.unwrap();
    assert_eq!(body["code"], code);
}

fn user(text: &str) -> (String, String) {
    ("user".to_owned(), text.to_owned())
}

fn assistant(text: &str) -> (String, String) {
    ("assistant".to_owned(), text.to_owned())
}
