//! `POST /tts`.

use idol_simulator::{Route, Script, reply_text};
use serde_json::{Value, json};

use super::{audio_of, decoded, voiced};
use crate::helpers::{DEADLINE, Setup, TestApp, refused, say, until};

#[tokio::test]
async fn a_reply_is_written_and_spoken_in_the_ancestors_shape() {
    let app = voiced().await;
    let response = app.post("/tts", say("c1", "hi")).await;
    assert_eq!(response.status(), 200);
    let body = response.text().await.unwrap();

    let text = reply_text(0, 5);
    let audio = audio_of(text.trim(), "mp3_44100_128");
    let answer: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(answer["text"], *text);
    assert_eq!(decoded(&answer["audio_base64"]), audio);
    assert_eq!(answer["conversation_id"], "c1");
    assert_eq!(answer["audio_format"], "mp3");
    assert_eq!(answer["audio_size_bytes"], audio.len());
    assert_eq!(answer["speech_model"], "eleven_turbo_v2_5");
    let places = [
        "text",
        "audio_base64",
        "conversation_id",
        "audio_format",
        "audio_size_bytes",
    ]
    .map(|name| body.find(&format!("\"{name}\":")).unwrap());
    assert!(places.is_sorted(), "{places:?}");
    assert_eq!(app.said("c1").await[1].1, text);

    let asked = &app.simulator.requests_on(Route::Speech)[0];
    assert!(
        asked
            .path()
            .contains("/text-to-speech/21m00Tcm4TlvDq8ikWAM/stream")
    );
    assert_eq!(asked.header("xi-api-key"), Some("xi-test"));
    let told: Value = asked.json().unwrap();
    assert_eq!(told["text"], text.trim());
    assert_eq!(told["model_id"], "eleven_turbo_v2_5");
    assert_eq!(
        told["voice_settings"],
        json!({"stability": 0.5, "similarity_boost": 0.75, "style": 0.0, "use_speaker_boost": true})
    );
}

#[tokio::test]
async fn a_voice_may_be_chosen_and_the_file_be_downloaded() {
    let app = voiced().await;
    let mut body = say("c1", "hi");
    body["voice_id"] = json!("another");
    body["stability"] = json!("0.9");
    body["use_speaker_boost"] = json!("no");
    body["output_format"] = json!("pcm_16000");

    let response = app.post("/tts?download=true", body).await;

    let text = reply_text(0, 5);
    let headers = response.headers().clone();
    let header = |name: &str| headers[name].to_str().unwrap();
    assert_eq!(header("content-type"), "audio/pcm;rate=16000");
    assert_eq!(header("x-conversation-id"), "c1");
    assert!(header("content-disposition").starts_with("attachment; filename=\"tts-"));
    assert!(header("content-disposition").contains("filename*=UTF-8''tts-"));
    let audio = audio_of(text.trim(), "pcm_16000");
    assert_eq!(header("content-length"), audio.len().to_string());
    assert_eq!(response.bytes().await.unwrap(), audio);
    let asked = &app.simulator.requests_on(Route::Speech)[0];
    assert!(asked.path().contains("/another/"), "{}", asked.path());
    let told: Value = asked.json().unwrap();
    assert_eq!(told["voice_settings"]["stability"], 0.9);
    assert_eq!(told["voice_settings"]["use_speaker_boost"], false);
}

#[tokio::test]
async fn what_comes_whole_may_take_as_long_as_it_is_made() {
    let setup = Setup::new().voiced();
    let setup = setup.set("ELEVENLABS_FIRST_AUDIO_TIMEOUT_SECS", "1");
    let app = setup.start().await;
    let text = "It takes the provider more than a second to say all of this aloud.";
    app.simulator
        .script(idol_simulator::Script::new().text(text));
    // Characters in a second.
    app.simulator.elevenlabs().set_default("rate=30,batch=5");
    let mut body = say("c1", "hi");
    body["output_format"] = json!("wav_16000");

    let response = app.post("/tts?download=true", body).await;

    assert_eq!(response.status(), 200);
    let audio = response.bytes().await.unwrap();
    assert_eq!(audio, audio_of(text, "wav_16000"));
    assert_eq!(app.simulator.requests_on(Route::Speech).len(), 1);
}

#[tokio::test]
async fn a_bad_voice_is_named_before_anything_is_asked() {
    let app = voiced().await;
    for (name, value) in [
        ("stability", json!(2)),
        ("voice_id", json!("../x")),
        ("output_format", json!("mp3")),
        ("use_speaker_boost", json!("perhaps")),
    ] {
        let mut body = say("c1", "hi");
        body[name] = value;
        let response = app.post("/tts", body).await;
        assert_eq!(response.status(), 422, "{name}");
        let error: Value = response.json().await.unwrap();
        assert_eq!(error["detail"][0]["loc"], json!(["body", name]));
    }
    assert_eq!(app.get("/conversation/c1").await.status(), 404);
    assert!(app.simulator.chat_requests().is_empty());
}

/// What `/tts` answers when its voice fails like this.
async fn failed(app: &TestApp, fault: &str) -> (u16, Value) {
    app.simulator
        .elevenlabs()
        .set_default(&*format!("fault={fault}"));
    let response = app.post("/tts", say("c1", "hi")).await;
    (response.status().as_u16(), response.json().await.unwrap())
}

#[tokio::test]
async fn a_voice_that_fails_loses_nothing_that_was_paid_for() {
    for (fault, status, code, asked) in [
        ("elevenlabs:invalid_api_key", 502, "upstream_auth", 1),
        ("elevenlabs:quota_exceeded", 503, "upstream_credits", 1),
        (
            "elevenlabs:insufficient_credits",
            503,
            "upstream_credits",
            1,
        ),
        ("elevenlabs:voice_not_found", 400, "upstream_rejected", 1),
        (
            "elevenlabs:max_character_limit_exceeded",
            400,
            "upstream_rejected",
            1,
        ),
        ("elevenlabs:paid_plan_required", 400, "upstream_rejected", 1),
        ("elevenlabs:only_for_creator+", 400, "upstream_rejected", 1),
        ("elevenlabs:missing_text", 400, "upstream_rejected", 1),
        ("elevenlabs:not_found", 400, "upstream_rejected", 1),
        ("elevenlabs:system_busy", 429, "upstream_rate_limited", 3),
        (
            "elevenlabs:rate_limit_exceeded",
            429,
            "upstream_rate_limited",
            1,
        ),
        ("status:500", 502, "upstream_failed", 3),
        ("reset_early", 502, "upstream_failed", 3),
        ("html:200", 502, "upstream_failed", 3),
        ("cut,after=4", 502, "upstream_failed", 1),
    ] {
        let setup = Setup::new().voiced().set("OPENROUTER_BREAKER_PERCENT", "0");
        let app = setup.start().await;
        let (answered, error) = failed(&app, fault).await;
        assert_eq!(
            (answered, error["code"].as_str()),
            (status, Some(code)),
            "{fault}: {error}"
        );
        let document = app.document("c1").await;
        let reply = &document["messages"][1];
        assert_eq!(error["text"], reply["content"], "{fault}");
        assert_eq!(error["message_id"], reply["id"]);
        assert_eq!(error["turn_id"], reply["turn_id"]);
        assert_eq!(error["conversation_id"], "c1");
        assert_eq!(
            app.simulator.requests_on(Route::Speech).len(),
            asked,
            "{fault}"
        );
        let sentence = error["error"].as_str().unwrap();
        assert!(!sentence.contains("xi-test"), "{sentence}");
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_said_in_the_providers_own_words() {
    let setup = Setup::new().voiced().set("OPENROUTER_BREAKER_PERCENT", "0");
    let app = setup.start().await;
    for (fault, words) in [
        // An object, a list and a string.
        ("elevenlabs:voice_not_found", "Voice was not found"),
        ("elevenlabs:missing_text", "field required"),
        ("elevenlabs:not_found", "Not Found"),
        (
            "elevenlabs:paid_plan_required",
            "A paid plan is required for this voice",
        ),
        (
            "elevenlabs:only_for_creator+",
            "This output format needs the Creator plan or above",
        ),
    ] {
        let (status, error) = failed(&app, fault).await;
        assert_eq!((status, error["error"].as_str()), (400, Some(words)));
    }
}

#[tokio::test]
async fn all_users_share_the_room_for_syntheses() {
    let setup = Setup::new().voiced().set("ELEVENLABS_MAX_CONCURRENCY", "2");
    let app = setup.start().await;
    let gate = app.simulator.gate();
    let held = Script::new().hold_headers(&gate);
    app.simulator.elevenlabs().set_default(held);
    let requests = (0..6).map(|number| app.post("/tts", say(&format!("c{number}"), "hi")));
    let answers = futures::future::join_all(requests);
    let watch = async {
        until("four that wait for room", async || {
            let ready: Value = app.get("/ready").await.json().await.unwrap();
            (ready["elevenlabs"]["waiting"] == 4).then_some(())
        })
        .await;
        let begun = app.simulator.counters().speech_requests;
        gate.open();
        begun
    };

    let (answers, begun) = futures::join!(answers, watch);

    assert_eq!(begun, 2, "those that wait have asked for nothing");
    for answer in answers {
        assert_eq!(answer.status(), 200);
    }
    assert_eq!(app.simulator.counters().most_generations, 2);
}

#[tokio::test]
async fn past_the_queues_bound_and_deadline_a_speech_is_refused() {
    for (name, value) in [
        ("ELEVENLABS_QUEUE_MAX", "0"),
        ("ELEVENLABS_QUEUE_TIMEOUT_SECS", "1"),
    ] {
        let setup = Setup::new()
            .voiced()
            .set("ELEVENLABS_MAX_CONCURRENCY", "1")
            .set(name, value);
        let app = setup.start().await;
        let gate = app.simulator.gate();
        let held = Script::new().hold_headers(&gate);
        app.simulator.elevenlabs().set_default(held);
        let first = app.post("/tts", say("c1", "hi"));
        let second = async {
            gate.reached(1, DEADLINE).await.unwrap();
            let second = app.post("/tts", say("c2", "hi")).await;
            gate.open();
            second
        };

        let (first, second) = futures::join!(first, second);

        assert_eq!(first.status(), 200, "{name}");
        assert!(second.headers().contains_key("retry-after"), "{name}");
        let error = refused(second, 503, "upstream_unavailable").await;
        assert!(!error["text"].as_str().unwrap().is_empty(), "{name}");
        assert_eq!(error["conversation_id"], "c2", "{name}");
        assert_eq!(app.said("c2").await.len(), 2, "{name}");
    }
}

#[tokio::test]
async fn a_voice_that_keeps_failing_is_left_alone_and_text_goes_on() {
    let setup = Setup::new().voiced().set("ELEVENLABS_ATTEMPTS", "1");
    let app = setup.start().await;
    let failing = "fault=status:500";
    app.simulator.elevenlabs().set_default(failing);
    let mut asked = 0;
    let left_alone = loop {
        let error: Value = app
            .post("/tts", say("c1", "hi"))
            .await
            .json()
            .await
            .unwrap();
        let requests = app.simulator.counters().speech_requests;
        if requests == asked {
            break error;
        }
        asked = requests;
        assert!(asked < 200, "it is asked for ever");
    };

    assert_eq!(left_alone["code"], "upstream_unavailable", "{left_alone}");
    assert!(!left_alone["text"].as_str().unwrap().is_empty());
    app.chat("c1", "still there?").await;
}

#[tokio::test]
async fn markdown_and_stage_directions_of_a_reply_are_shown_and_not_spoken() {
    let app = voiced().await;
    for (reply, spoken) in [
        ("*smiles* **Hello** there.", "Hello there."),
        // There is nothing else of it.
        ("*nods*", "*nods*"),
    ] {
        app.simulator.script(Script::new().text(reply));
        let answer: Value = app
            .post("/tts", say("c1", "hi"))
            .await
            .json()
            .await
            .unwrap();
        assert_eq!(answer["text"], reply);
        let requests = app.simulator.take_requests();
        let request = requests
            .iter()
            .find(|it| it.path().contains("/text-to-speech/"));
        assert_eq!(request.unwrap().json().unwrap()["text"], spoken);
    }
}

#[tokio::test]
async fn requests_past_the_plans_limit_wait_for_room() {
    let setup = Setup::new().voiced().set("ELEVENLABS_MAX_CONCURRENCY", "3");
    let app = setup.start().await;
    // Somebody else speaks with the same account.
    app.simulator.elevenlabs().limit_generations(Some(2));
    app.simulator.elevenlabs().set_default("first=50");
    let requests = (0..8).map(|number| app.post("/tts", say(&format!("c{number}"), "hi")));

    for response in futures::future::join_all(requests).await {
        assert_eq!(response.status(), 200);
    }

    assert_eq!(app.simulator.counters().most_generations, 2);
}

#[tokio::test]
async fn without_a_speech_provider_no_reply_is_asked_for() {
    let app = TestApp::start().await;
    let response = app.post("/tts", say("c1", "hi")).await;
    assert_eq!(response.status(), 503);
    let error: Value = response.json().await.unwrap();
    assert_eq!(error["code"], "provider_not_configured");
    assert!(
        error["error"]
            .as_str()
            .unwrap()
            .contains("ELEVENLABS_API_KEY")
    );
    assert!(app.simulator.chat_requests().is_empty());
}
