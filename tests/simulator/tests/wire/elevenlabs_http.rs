//! Speech over HTTP: its bytes, its times, and what it is refused with.

use idol_simulator::elevenlabs::{AudioFormat, CHARACTER_MS, alignment, audio_until, voice_audio};
use idol_simulator::{Route, Script, Simulator};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::audio_client::{TEXT, decoded, get, speak, speak_with};
use crate::client::{DEADLINE, End, Reply, connect, read_reply, read_until};
use crate::supabase_client::render;

fn format(name: &str) -> AudioFormat {
    AudioFormat::named(name).unwrap()
}

/// The code that an error has in `detail.status`, or else in `detail.code`.
fn code(reply: &Reply) -> String {
    let detail = &reply.json()["detail"];
    let code = detail["status"].as_str().or(detail["code"].as_str());
    code.unwrap_or_default().to_owned()
}

/// Walks over MP3 frames by their headers alone, and returns how many there are.
fn count_frames(audio: &[u8], rate: usize, bitrate: usize) -> usize {
    let lsf = rate < 32_000;
    let (bitrates, rates): (&[usize], [usize; 3]) = if lsf {
        (
            &[0, 8, 16, 24, 32, 40, 48, 56, 64],
            [22_050, 24_000, 16_000],
        )
    } else {
        (
            &[0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192],
            [44_100, 48_000, 32_000],
        )
    };
    let (mut at, mut frames) = (0, 0);
    while at < audio.len() {
        let header = &audio[at..at + 4];
        assert_eq!(header[0], 0xFF);
        assert_eq!(
            header[1],
            if lsf { 0xF3 } else { 0xFB },
            "layer III, no CRC"
        );
        assert_eq!(bitrates[usize::from(header[2] >> 4)], bitrate);
        assert_eq!(rates[usize::from(header[2] >> 2 & 3)], rate);
        assert_eq!(header[3] >> 6, 0b11, "mono");
        let padding = usize::from(header[2] >> 1 & 1);
        let size = if lsf { 72 } else { 144 } * bitrate * 1000 / rate + padding;
        let side = if lsf { 9 } else { 17 };
        assert!(audio[at + 4..at + 4 + side].iter().all(|byte| *byte == 0));
        // Nothing inside a frame looks like the start of one.
        assert!(audio[at + 4..at + size].iter().all(|byte| *byte < 0x80));
        at += size;
        frames += 1;
    }
    assert_eq!(at, audio.len(), "the last frame is whole");
    frames
}

#[tokio::test]
async fn every_format_is_as_long_as_the_text() {
    let simulator = Simulator::start().unwrap();
    let ms = TEXT.chars().count() * CHARACTER_MS as usize;
    let ask = async |name: &str| {
        let reply = speak(&simulator, &format!("?output_format={name}")).await;
        assert_eq!(reply.status(), 200, "{name}");
        assert_eq!(
            reply.header("content-type"),
            Some(format(name).media_type())
        );
        assert_eq!(reply.raw, voice_audio(TEXT, format(name)), "{name}");
        reply.raw
    };
    for (rate, bitrate) in [
        (44_100, 32),
        (44_100, 128),
        (44_100, 192),
        (22_050, 32),
        (24_000, 48),
    ] {
        let audio = ask(&format!("mp3_{rate}_{bitrate}")).await;
        let samples = if rate < 32_000 { 576 } else { 1152 };
        let frames = count_frames(&audio, rate, bitrate);
        assert_eq!(frames, (ms * rate).div_ceil(samples * 1000));
    }
    for rate in [8_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000] {
        let pcm = ask(&format!("pcm_{rate}")).await;
        assert_eq!(pcm.len(), ms * rate / 1000 * 2);
        let wav = ask(&format!("wav_{rate}")).await;
        assert_eq!(&wav[44..], pcm);
        assert_eq!(wav[40..44], (pcm.len() as u32).to_le_bytes());
    }
    for name in ["ulaw_8000", "alaw_8000"] {
        assert_eq!(ask(name).await.len(), ms * 8);
    }
}

#[tokio::test]
async fn a_stream_is_the_same_audio_in_chunks() {
    let simulator = Simulator::start().unwrap();
    simulator.elevenlabs().script("batch=7");
    let reply = speak(&simulator, "/stream?output_format=pcm_24000").await;
    let chunks = reply.chunks();
    assert!(chunks.terminated);
    let characters = TEXT.chars().count();
    let ends = (0..characters)
        .step_by(7)
        .map(|start| (start + 7).min(characters));
    let ends: Vec<usize> = ends
        .map(|end| audio_until(TEXT, format("pcm_24000"), end))
        .collect();
    let mut sent = 0;
    let told = chunks.pieces.iter().map(|piece| {
        sent += piece.len();
        sent
    });
    assert_eq!(told.collect::<Vec<_>>(), ends);
    assert_eq!(
        chunks.pieces.concat(),
        voice_audio(TEXT, format("pcm_24000"))
    );
    assert_eq!(
        reply.header("character-cost"),
        Some(characters.to_string().as_str())
    );
    assert_eq!(reply.header("request-id").unwrap().len(), 32);
    assert_eq!(simulator.counters().generations_completed, 1);
    assert_eq!(simulator.requests_on(Route::Speech).len(), 1);
}

#[tokio::test]
async fn timestamps_tell_each_character() {
    let simulator = Simulator::start().unwrap();
    let whole = speak(&simulator, "/with-timestamps").await.json();
    let streamed = speak(
        &simulator,
        "/stream/with-timestamps?output_format=mp3_44100_64",
    )
    .await;
    let audio = voice_audio(TEXT, AudioFormat::DEFAULT);
    assert_eq!(decoded(&whole["audio_base64"]), audio);
    let expected = alignment(TEXT);
    let check = |parts: &[Value]| {
        let joined = |key: &str| -> Vec<Value> {
            let lists = parts
                .iter()
                .flat_map(|part| part["alignment"][key].as_array().unwrap());
            lists.cloned().collect()
        };
        let seconds =
            |ms: &[u64]| -> Vec<Value> { ms.iter().map(|ms| json!(*ms as f64 / 1e3)).collect() };
        let characters: Vec<Value> = expected.characters.iter().map(|one| json!(one)).collect();
        assert_eq!(joined("characters"), characters);
        assert_eq!(
            joined("character_start_times_seconds"),
            seconds(&expected.starts_ms)
        );
        assert_eq!(
            joined("character_end_times_seconds"),
            seconds(&expected.ends_ms)
        );
    };
    check(&[whole]);
    let lines = streamed.body();
    let lines: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(lines.len() > 1);
    check(&lines);
    let audio: Vec<u8> = lines
        .iter()
        .flat_map(|line| decoded(&line["audio_base64"]))
        .collect();
    assert_eq!(audio, voice_audio(TEXT, format("mp3_44100_64")));
}

#[tokio::test]
async fn a_schema_comes_before_the_key_and_the_key_before_the_text() {
    let simulator = Simulator::start().unwrap();
    simulator.elevenlabs().require_key(Some("k"));
    let long = json!({"text": "a".repeat(10_001)}).to_string();
    let ask = async |rest: &str, headers: &[(&str, &str)], body: &str| {
        let reply = speak_with(&simulator, rest, headers, body).await;
        let detail = reply.json()["detail"].clone();
        let kind = detail[0]["type"].as_str().map(str::to_owned);
        (reply.status(), kind.unwrap_or_else(|| code(&reply)))
    };
    let key = ("xi-api-key", "k");
    let text = r#"{"text":"Hi."}"#;
    let stability = r#"{"text":"Hi.","voice_settings":{"stability":2}}"#;
    for (expected, rest, headers, body) in [
        ((422, "value_error.missing"), "", &[][..], "{}"),
        ((422, "json_invalid"), "", &[], "{"),
        ((422, "less_than_equal"), "", &[], stability),
        ((422, "enum"), "?output_format=tape_1", &[], text),
        ((422, "enum"), "/stream?output_format=wav_8000", &[], text),
        ((401, "invalid_api_key"), "", &[], &long),
        ((401, "invalid_api_key"), "", &[("xi-api-key", "x")], text),
        (
            (401, "invalid_authorization_header"),
            "",
            &[("Authorization", "Bearer k")],
            text,
        ),
        ((400, "max_character_limit_exceeded"), "", &[key], &long),
        ((400, "invalid_request"), "", &[key], r#"{"text":" "}"#),
        ((404, ""), "/nothing", &[key], text),
    ] {
        let (status, kind) = ask(rest, headers, body).await;
        assert_eq!((status, kind.as_str()), expected, "{rest} {body:.40}");
    }
    let good = speak_with(&simulator, "", &[key], text).await;
    assert_eq!(good.raw, voice_audio("Hi.", AudioFormat::DEFAULT));
}

#[tokio::test]
async fn models_and_voices() {
    let simulator = Simulator::start().unwrap();
    simulator.elevenlabs().require_key(Some("k"));
    let reply = get(&simulator, "/elevenlabs/v1/models", &[]).await;
    assert_eq!(
        (reply.status(), code(&reply).as_str()),
        (404, "workspace_not_found")
    );
    let key = [("xi-api-key", "k")];
    let models = get(&simulator, "/elevenlabs/v1/models", &key).await.json();
    assert_eq!(models[0]["maximum_text_length_per_request"], 5_000);
    let voices = get(&simulator, "/elevenlabs/v1/voices", &key).await.json();
    assert!(voices["voices"][0]["voice_id"].is_string());
    assert_eq!(
        get(&simulator, "/elevenlabs/v1/voices", &[]).await.status(),
        401
    );
    simulator.script_on(Route::Voices, "fault=status:503");
    assert_eq!(
        get(&simulator, "/elevenlabs/v1/voices", &key)
            .await
            .status(),
        503
    );
}

#[tokio::test]
async fn every_error_has_its_real_shape() {
    let simulator = Simulator::start().unwrap();
    for (fault, status, told) in [
        ("elevenlabs:quota_exceeded", 401, "quota_exceeded"),
        ("elevenlabs:insufficient_credits", 402, "quota_exceeded"),
        (
            "elevenlabs:too_many_concurrent_requests",
            429,
            "too_many_concurrent_requests",
        ),
        ("elevenlabs:system_busy", 429, "system_busy"),
        ("elevenlabs:voice_not_found", 400, "voice_not_found"),
        ("elevenlabs:voice_not_found_new", 404, "voice_not_found"),
        ("elevenlabs:ok_json", 200, "something_went_wrong"),
        ("status:503", 503, "service_unavailable"),
        ("status:418", 418, "status_418"),
    ] {
        simulator
            .elevenlabs()
            .script(Script::from(&*format!("fault={fault}")));
        let reply = speak(&simulator, "/stream").await;
        assert_eq!(
            (reply.status(), code(&reply).as_str()),
            (status, told),
            "{fault}"
        );
        assert_eq!(reply.header("request-id"), None);
    }
    simulator.elevenlabs().script("fault=html:200");
    let page = speak(&simulator, "").await;
    assert_eq!(
        (page.status(), page.header("content-type")),
        (200, Some("text/html"))
    );
    // The model's name steers as well.
    let body = r#"{"text":"Hi.","model_id":"sim/fault=elevenlabs:system_busy"}"#;
    assert_eq!(speak_with(&simulator, "", &[], body).await.status(), 429);
}

#[tokio::test]
async fn audio_breaks_where_it_is_told() {
    let simulator = Simulator::start().unwrap();
    let format = format("ulaw_8000");
    let six = &voice_audio(TEXT, format)[..audio_until(TEXT, format, 6)];
    for (fault, end) in [("reset", End::Reset), ("cut", End::Fin), ("end", End::Fin)] {
        for rest in ["", "/stream"] {
            let script = format!("fault={fault},after=6,batch=4");
            simulator.elevenlabs().script(Script::from(&*script));
            let reply = speak(&simulator, &format!("{rest}?output_format=ulaw_8000")).await;
            let (audio, terminated) = if rest.is_empty() {
                (reply.raw.clone(), false)
            } else {
                let chunks = reply.chunks();
                (chunks.pieces.concat(), chunks.terminated)
            };
            assert_eq!((audio.as_slice(), reply.end), (six, end), "{fault} {rest}");
            assert_eq!(terminated, fault == "end" && rest == "/stream");
        }
    }
    simulator.elevenlabs().script("fault=garbage,after=1");
    let reply = speak(&simulator, "/stream/with-timestamps").await;
    let lines = reply.body();
    assert!(serde_json::from_str::<Value>(lines.lines().nth(1).unwrap()).is_err());
    assert_eq!(simulator.counters().faults_played, 7);
}

#[tokio::test]
async fn audio_waits_at_a_gate_and_a_client_may_leave() {
    let simulator = Simulator::start().unwrap();
    let gate = simulator.gate();
    simulator
        .elevenlabs()
        .script(Script::new().hold_at(5, &gate));
    simulator.elevenlabs().script("fault=stall,after=3");
    let asked = speak(&simulator, "/stream?output_format=pcm_8000");
    let opened = async {
        gate.reached(1, DEADLINE).await.unwrap();
        assert_eq!(simulator.counters().active_generations, 1);
        gate.open();
    };
    let (reply, ()) = tokio::join!(asked, opened);
    let pieces = reply.chunks().pieces;
    assert_eq!(pieces[0].len(), audio_until(TEXT, format("pcm_8000"), 5));
    assert_eq!(pieces.concat(), voice_audio(TEXT, format("pcm_8000")));

    let mut leaving = connect(simulator.address()).await;
    let body = json!({"text": TEXT}).to_string();
    let target = "/elevenlabs/v1/text-to-speech/voice/stream";
    let request = render("POST", target, &[], body.as_bytes());
    leaving.write_all(&request).await.unwrap();
    read_until(&mut leaving, "\r\n\r\n").await;
    drop(leaving);
    let over = simulator.wait_for(
        "the end of the generation",
        |counters| counters.client_disconnects == 1 && counters.active_generations == 0,
        DEADLINE,
    );
    assert_eq!(over.await.unwrap().generations_completed, 1);
}

#[tokio::test]
async fn generations_at_once_have_a_limit() {
    let simulator = Simulator::start().unwrap();
    let elevenlabs = simulator.elevenlabs();
    elevenlabs.limit_generations(Some(2));
    let gate = simulator.gate();
    elevenlabs.script(Script::new().hold_headers(&gate));
    elevenlabs.script(Script::new().hold_at(2, &gate));
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut socket = connect(simulator.address()).await;
        let target = "/elevenlabs/v1/text-to-speech/voice/stream";
        let headers = [("Connection", "close")];
        let request = render("POST", target, &headers, br#"{"text":"Hello."}"#);
        socket.write_all(&request).await.unwrap();
        held.push(socket);
    }
    gate.reached(2, DEADLINE).await.unwrap();
    let refused = speak(&simulator, "").await;
    assert_eq!(
        (refused.status(), code(&refused).as_str()),
        (429, "concurrent_limit_exceeded")
    );
    gate.open();
    for mut socket in held {
        assert_eq!(read_reply(&mut socket).await.status(), 200);
    }
    let over = |counters: &idol_simulator::Counters| counters.active_generations == 0;
    let counters = simulator.wait_for("the end", over, DEADLINE).await.unwrap();
    assert_eq!(counters.most_generations, 2);
    assert_eq!(speak(&simulator, "").await.status(), 200);
}
