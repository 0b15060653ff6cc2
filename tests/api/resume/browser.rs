//! A real browser's own `EventSource`, whose server is killed and stopped.

use std::process::Stdio;

use idol_simulator::{Script, Simulator, reply_text};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

use super::Picture;
use crate::{
    helpers::{say, within},
    process::{Launch, Process},
};

/// Tells all that its `EventSource` tells it, in order.
const PAGE: &str = r#"<!doctype html><title>Events</title><script>
const source = new EventSource(EVENTS);
let told = Promise.resolve();
const tell = (body) => { told = told.then(() => fetch("/seen", { method: "POST", body })); };
source.onmessage = ({ data }) => tell(data);
source.onerror = () => { if (source.readyState === EventSource.CLOSED) tell('{"type":"closed"}'); };
</script>"#;

/// A headless browser on that page.
struct Browser {
    process: tokio::process::Child,
    _profile: tempfile::TempDir,
    told: mpsc::UnboundedReceiver<Value>,
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It has children, which outlive it otherwise.
        if let Some(group) = self.process.id().and_then(|id| i32::try_from(id).ok()) {
            signal_group(group);
        }
    }
}

fn signal_group(group: i32) {
    let killed = std::process::Command::new("kill")
        .args(["-KILL", "--", &format!("-{group}")])
        .status();
    assert!(killed.is_ok_and(|status| status.success()), "kill {group}");
}

impl Browser {
    async fn open(events: &str) -> Self {
        let page = PAGE.replace("EVENTS", &format!("{events:?}"));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let (tell, told) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, page.clone(), tell.clone()));
            }
        });
        let profile = tempfile::tempdir().unwrap();
        let program = std::env::var("CHROMIUM").unwrap_or_else(|_| "chromium".to_owned());
        let process = tokio::process::Command::new(&program)
            .args(["--headless=new", "--no-sandbox", "--disable-gpu"])
            .args(["--disable-dev-shm-usage", "--no-first-run"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg(url)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("{program}: {error}: CHROMIUM names a browser"));
        Self {
            process,
            _profile: profile,
            told,
        }
    }

    async fn next(&mut self) -> Value {
        let told = within("the browser to tell an event", self.told.recv());
        let told = told.await.unwrap();
        assert_ne!(told["type"], "closed", "the browser has given up");
        told
    }

    /// Takes what is told until that is the document.
    async fn until_whole(&mut self, process: &Process, picture: &mut Picture) {
        let said = process.said("c1").await;
        while picture.said() != said {
            picture.take(&self.next().await);
        }
    }

    /// Takes what is told until it is this, and the picture is so.
    async fn until(&mut self, kind: &str, picture: &mut Picture, so: impl Fn(&Picture) -> bool) {
        loop {
            let told = self.next().await;
            picture.take(&told);
            if told["type"] == kind && so(picture) {
                return;
            }
        }
    }
}

/// Answers the page's requests on one connection.
async fn serve(stream: TcpStream, page: String, tell: mpsc::UnboundedSender<Value>) {
    let mut stream = BufReader::new(stream);
    loop {
        let (mut head, mut length) = (String::new(), 0);
        loop {
            let start = head.len();
            if stream.read_line(&mut head).await.unwrap_or_default() == 0 {
                return;
            }
            let line = head[start..].trim().to_ascii_lowercase();
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.unwrap();
        let answer = if head.starts_with("POST /seen") {
            tell.send(serde_json::from_slice(&body).unwrap()).ok();
            "HTTP/1.1 204 No Content\r\n\r\n".to_owned()
        } else {
            let length = page.len();
            format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {length}\r\n\r\n{page}"
            )
        };
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// One that is free now, and on which a server can start again.
fn free_port() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port().to_string()
}

#[tokio::test]
async fn a_browser_goes_on_by_itself_when_its_server_is_killed_or_stops() {
    let simulator = Simulator::start().unwrap();
    let port = free_port();
    let launch = Launch::with(&simulator).set("ALLOWED_ORIGINS", "*");
    let process = launch.start_on(&port).await;
    process.chat("c1", "first").await;
    let mut browser = Browser::open(&process.url("/conversation/c1/events")).await;
    let mut picture = Picture::default();
    browser.until_whole(&process, &mut picture).await;

    // It is killed in the midst of a reply.
    let gate = simulator.gate();
    simulator.script(Script::from("tokens=20").hold_at(12, &gate));
    let request = process.http.post(process.url("/chat"));
    let _lost = tokio::spawn(request.json(&say("c1", "second")).send());
    let seen = reply_text(0, 12);
    let has_seen = |picture: &Picture| picture.said().last().is_some_and(|it| it.1 == seen);
    browser.until("chunk", &mut picture, has_seen).await;
    process.kill().await;
    gate.open();
    let process = launch.start_on(&port).await;
    process.chat("c1", "third").await;
    browser.until_whole(&process, &mut picture).await;

    // And stopped in order.
    process.stop().await;
    let process = launch.start_on(&port).await;
    process.chat("c1", "fourth").await;
    browser.until_whole(&process, &mut picture).await;
    process.stop().await;
}
