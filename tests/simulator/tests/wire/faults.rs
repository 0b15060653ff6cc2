//! Every fault, as it shows on the wire.

use idol_simulator::{Fault, Script, Simulator, StreamError, reply_text};

use crate::client::{
    self, DEADLINE, End, body, complete, connect, payloads, read_until, send, stream, text,
};

const CHAT: &str = "/api/v1/chat/completions";

#[tokio::test]
async fn a_reset_comes_after_the_tokens_it_was_told() {
    let simulator = Simulator::start().unwrap();
    let reply = stream(&simulator, "sim/tokens=9,fault=reset,after=5").await;
    assert_eq!(reply.end, End::Reset);
    assert!(!reply.chunks().terminated);
    assert_eq!(reply.text(), reply_text(0, 5));
}

#[tokio::test]
async fn a_clean_end_lacks_everything_after_the_tokens() {
    let simulator = Simulator::start().unwrap();
    let reply = stream(&simulator, "sim/tokens=9,fault=end,after=5").await;
    assert_eq!(reply.end, End::Fin);
    assert!(reply.chunks().terminated);
    assert_eq!(reply.text(), reply_text(0, 5));
    assert!(!reply.body().contains("[DONE]") && !reply.body().contains("stop"));
}

#[tokio::test]
async fn a_cut_leaves_the_body_unfinished() {
    let simulator = Simulator::start().unwrap();
    let reply = stream(&simulator, "sim/tokens=9,fault=cut,after=5").await;
    assert_eq!(reply.end, End::Fin);
    assert!(!reply.chunks().terminated);
    assert_eq!(reply.text(), reply_text(0, 5));
}

#[tokio::test]
async fn a_fault_past_the_end_comes_before_the_finish() {
    let simulator = Simulator::start().unwrap();
    let reply = stream(&simulator, "sim/tokens=3,fault=end,after=99").await;
    assert_eq!(reply.text(), reply_text(0, 3));
    assert!(!reply.body().contains("stop"));
    let reply = stream(&simulator, "sim/tokens=3,fault=reset").await;
    assert_eq!((reply.text().as_str(), reply.end), ("", End::Reset));
}

#[tokio::test]
async fn a_stall_lasts_until_the_client_leaves() {
    let simulator = Simulator::start().unwrap();
    let mut socket = connect(simulator.address()).await;
    send(
        &mut socket,
        CHAT,
        &body("sim/tokens=9,fault=stall,after=2", true).to_string(),
    )
    .await;
    let played = simulator.wait_for("fault", |counters| counters.faults_played == 1, DEADLINE);
    assert_eq!(played.await.unwrap().active_streams, 1);
    drop(socket);
    let left = simulator.wait_for(
        "disconnect",
        |counters| counters.open_connections == 0,
        DEADLINE,
    );
    let counters = left.await.unwrap();
    assert_eq!(
        (counters.client_disconnects, counters.active_streams),
        (1, 0)
    );
    assert_eq!(counters.streams_completed, 0);
}

#[tokio::test]
async fn a_stall_with_comments_keeps_talking() {
    let simulator = Simulator::start().unwrap();
    let mut socket = connect(simulator.address()).await;
    let model = "sim/tokens=9,comments=0,beat=1,keepalive=colon,fault=stall_comments,after=1";
    send(&mut socket, CHAT, &body(model, true).to_string()).await;
    let seen = read_until(&mut socket, "3\r\n:\n\n\r\n3\r\n:\n\n\r\n3\r\n:\n\n\r\n").await;
    assert!(!seen.contains("[DONE]"));
}

#[tokio::test]
async fn an_error_object_ends_the_stream() {
    let simulator = Simulator::start().unwrap();
    let reply = stream(&simulator, "sim/tokens=9,fault=error:429,after=3").await;
    let payloads = reply.payloads();
    let last = payloads.last().unwrap();
    assert_eq!(text(&payloads), reply_text(0, 3));
    assert_eq!(last["error"]["code"], 429);
    assert_eq!(
        last["error"]["metadata"]["error_type"],
        "rate_limit_exceeded"
    );
    assert_eq!(last["choices"][0]["finish_reason"], "error");
    assert!(reply.chunks().terminated && !reply.body().contains("[DONE]"));

    let reply = stream(&simulator, "sim/tokens=9,fault=error:server_error,done=yes").await;
    assert_eq!(
        reply.payloads().last().unwrap()["error"]["code"],
        "server_error"
    );
    assert!(reply.body().ends_with("data: [DONE]\n\n"));

    simulator.script(Fault::Error(StreamError::Bare));
    let payloads = stream(&simulator, "m").await.payloads();
    let last = payloads.last().unwrap();
    assert!(last["error"]["message"].is_string() && last["error"].get("code").is_none());
    assert!(last.get("choices").is_none());
}

#[tokio::test]
async fn garbage_stands_among_good_lines() {
    let simulator = Simulator::start().unwrap();
    let body = stream(&simulator, "sim/tokens=4,fault=garbage,after=2")
        .await
        .body();
    let (good, bad): (Vec<&str>, Vec<&str>) = body
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .filter(|data| *data != "[DONE]")
        .partition(|data| serde_json::from_str::<serde_json::Value>(data).is_ok());
    assert_eq!((good.len(), bad.len()), (7, 1));
    let good: String = good.iter().map(|data| format!("data: {data}\n")).collect();
    assert_eq!(text(&payloads(&good)), reply_text(0, 4));
    assert!(body.ends_with("[DONE]\n\n"));
}

#[tokio::test]
async fn a_long_line_has_the_length_it_was_told() {
    let simulator = Simulator::start().unwrap();
    let body = stream(&simulator, "sim/tokens=4,fault=long_line,after=2")
        .await
        .body();
    let longest = body.lines().map(str::len).max().unwrap();
    assert_eq!(longest, 4 * 1024 * 1024);
    assert_eq!(payloads(&body).len(), 8);

    let body = stream(&simulator, "sim/fault=long_comment:70000")
        .await
        .body();
    assert_eq!(body.lines().map(str::len).max().unwrap(), 70_000);
}

#[tokio::test]
async fn bytes_are_split_where_they_were_told() {
    let simulator = Simulator::start().unwrap();
    let whole = stream(&simulator, "sim/tokens=40,comments=0").await.text();

    let reply = stream(&simulator, "sim/tokens=40,split=utf8").await;
    assert_eq!(reply.text(), whole);
    let pieces = reply.chunks().pieces;
    let broken = pieces
        .iter()
        .filter(|piece| std::str::from_utf8(piece).is_err());
    assert!(broken.count() > 10);

    let reply = stream(&simulator, "sim/tokens=40,split=frame,eol=crlf").await;
    assert_eq!(reply.text(), whole);
    let pieces = reply.chunks().pieces;
    assert!(pieces.iter().any(|piece| piece == b"da"));
    assert!(pieces.iter().any(|piece| piece == b"\n"));

    let reply = stream(&simulator, "sim/tokens=40,split=every:1").await;
    assert_eq!(reply.text(), whole);
    assert!(reply.chunks().pieces.iter().all(|piece| piece.len() == 1));

    let reply = stream(&simulator, "sim/tokens=40,split=random:4").await;
    assert_eq!(reply.text(), whole);
    assert!(reply.chunks().pieces.iter().all(|piece| piece.len() <= 64));

    let reply = stream(&simulator, "sim/tokens=40,batch=99,split=at:3:30").await;
    assert_eq!(reply.text(), whole);
    let sizes: Vec<usize> = reply.chunks().pieces.iter().map(Vec::len).collect();
    assert_eq!(sizes[..2], [3, 27]);
}

#[tokio::test]
async fn faults_compose() {
    let simulator = Simulator::start().unwrap();
    let model =
        "sim/tokens=9,batch=2,eol=crlf,split=utf8,fault=long_comment:99,after=1,fault=cut,after=7";
    let reply = stream(&simulator, model).await;
    assert_eq!(reply.text(), reply_text(0, 7));
    assert_eq!((reply.end, reply.chunks().terminated), (End::Fin, false));
    assert_eq!(simulator.counters().faults_played, 2);
}

#[tokio::test]
async fn an_answer_may_end_before_it_begins() {
    let simulator = Simulator::start().unwrap();
    for streamed in [true, false] {
        let close = if streamed {
            stream(&simulator, "sim/fault=close_early").await
        } else {
            complete(&simulator, "sim/fault=close_early").await
        };
        assert_eq!(
            (close.head.as_str(), close.raw.len(), close.end),
            ("", 0, End::Fin)
        );
        let reset = if streamed {
            stream(&simulator, "sim/fault=reset_early").await
        } else {
            complete(&simulator, "sim/fault=reset_early").await
        };
        assert_eq!(
            (reset.head.as_str(), reset.raw.len(), reset.end),
            ("", 0, End::Reset)
        );
    }
}

#[tokio::test]
async fn headers_may_never_come() {
    let simulator = Simulator::start().unwrap();
    let mut silent = connect(simulator.address()).await;
    send(
        &mut silent,
        CHAT,
        &body("sim/fault=no_headers", true).to_string(),
    )
    .await;
    let mut half = connect(simulator.address()).await;
    send(
        &mut half,
        CHAT,
        &body("sim/fault=half_headers", true).to_string(),
    )
    .await;
    assert!(
        read_until(&mut half, "Content-Type: text/ev")
            .await
            .ends_with("text/ev")
    );
    let both = simulator.wait_for(
        "both faults",
        |counters| counters.faults_played == 2,
        DEADLINE,
    );
    both.await.unwrap();
    let mut byte = [0];
    assert!(
        silent
            .try_read(&mut byte)
            .is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    );
    drop((silent, half));
    let gone = simulator.wait_for("end", |counters| counters.client_disconnects == 2, DEADLINE);
    gone.await.unwrap();
}

#[tokio::test]
async fn headers_wait_at_a_gate() {
    let simulator = Simulator::start().unwrap();
    let gate = simulator.gate();
    simulator.script(Script::new().hold_headers(&gate));
    let asked = stream(&simulator, "m");
    let opened = async {
        gate.reached(1, DEADLINE).await.unwrap();
        assert_eq!(simulator.counters().active_streams, 1);
        gate.open();
    };
    let (reply, ()) = tokio::join!(asked, opened);
    assert_eq!(reply.text(), reply_text(0, 16));
}

#[tokio::test]
async fn a_completion_breaks_in_the_middle() {
    let simulator = Simulator::start().unwrap();
    for (fault, end) in [("reset", End::Reset), ("cut", End::Fin), ("end", End::Fin)] {
        let reply = complete(&simulator, &format!("sim/fault={fault}")).await;
        let announced: usize = reply.header("content-length").unwrap().parse().unwrap();
        assert_eq!((reply.raw.len(), reply.end), (announced / 2, end));
    }
    let reply = complete(&simulator, "sim/fault=error").await;
    assert_eq!(reply.json()["choices"][0]["finish_reason"], "error");
    let reply = complete(&simulator, "sim/fault=garbage").await;
    assert!(serde_json::from_slice::<serde_json::Value>(&reply.raw).is_err());
    let reply = complete(&simulator, "sim/fault=long_line:5000").await;
    assert!(reply.raw.len() > 5000);
    assert_eq!(client::complete(&simulator, "m").await.end, End::Fin);
}

#[tokio::test]
async fn an_http_client_sees_the_pieces_and_the_break() {
    let simulator = Simulator::start().unwrap();
    let url = format!("{}/chat/completions", simulator.base_url());
    let ask = async |model: &'static str| {
        let sent = reqwest::Client::new()
            .post(&url)
            .json(&body(model, true))
            .send()
            .await;
        let mut answer = sent.unwrap();
        let mut pieces = Vec::new();
        loop {
            match answer.chunk().await {
                Ok(Some(piece)) => pieces.push(piece.to_vec()),
                Ok(None) => return (pieces, true),
                Err(_) => return (pieces, false),
            }
        }
    };
    for (model, whole) in [
        ("sim/tokens=9,split=utf8,fault=end,after=8", true),
        ("sim/tokens=9,split=random:3,fault=cut,after=8", false),
        ("sim/tokens=9,split=every:7,fault=reset,after=8", false),
    ] {
        let (seen, ended) = ask(model).await;
        // Only the generation id differs from one reply to the next, and not in its length.
        let sent: Vec<usize> = stream(&simulator, model)
            .await
            .chunks()
            .pieces
            .iter()
            .map(Vec::len)
            .collect();
        assert_eq!(
            seen.iter().map(Vec::len).collect::<Vec<_>>(),
            sent,
            "{model}"
        );
        assert_eq!(ended, whole, "{model}");
        let told = String::from_utf8(seen.concat()).unwrap();
        assert_eq!(text(&payloads(&told)), reply_text(0, 8));
    }
}
