//! A client that speaks up while a reply is spoken to it: what it heard is what was said.

use idol_simulator::{Script, elevenlabs::CHARACTER_MS};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::{
    listening::{audio_end, audio_start, say_aloud},
    sockets::{MS_BYTES, REPLY, aloud, joined, scripted, sentences, words_of, written},
};
use crate::{
    helpers::{DEADLINE, Socket, TestApp, prompt, types, until},
    resume::event_source::EventSource,
};

/// A client that plays what it is told.
struct Player {
    socket: Socket,
    /// Of the first turn.
    turn: Value,
    messages: Vec<Value>,
    pieces: Vec<Piece>,
}

/// A piece of audio.
struct Piece {
    sentence: u64,
    text: String,
    ms: u64,
}

/// So much of a reply: all pieces before one, and milliseconds of it.
type Place = (usize, u64);

impl Player {
    /// Has asked for a spoken reply.
    async fn asking(app: &TestApp, conversation: &str) -> Self {
        Self::saying(app, aloud(conversation, "Tell me a story")).await
    }

    /// Has sent this message.
    async fn saying(app: &TestApp, message: Value) -> Self {
        let mut socket = app.socket().await;
        socket.send(message).await;
        Self {
            socket,
            turn: Value::Null,
            messages: Vec::new(),
            pieces: Vec::new(),
        }
    }

    /// Has been told all of a spoken reply; the next one is a short one.
    async fn told(app: &TestApp, conversation: &str) -> Self {
        app.simulator.script(Script::new().text(REPLY));
        app.simulator.set_default(Script::new().text("All right."));
        let mut player = Self::asking(app, conversation).await;
        player.take_until("audio_complete").await;
        player
    }

    /// Takes the next message of the reply.
    async fn take(&mut self) -> &Value {
        let message = self.socket.next().await;
        if self.turn.is_null() {
            self.turn = message["turn_id"].clone();
        }
        if message["type"] == "audio" {
            let audio = super::decoded(&message["audio_base64"]);
            self.pieces.push(Piece {
                sentence: message["sentence"].as_u64().unwrap(),
                text: message["text"].as_str().unwrap().to_owned(),
                ms: (audio.len() / MS_BYTES) as u64,
            });
        }
        self.messages.push(message);
        self.messages.last().unwrap()
    }

    async fn take_until(&mut self, kind: &str) {
        while self.take().await["type"] != kind {}
    }

    fn has_seen(&self, kind: &str) -> bool {
        types(&self.messages).contains(&kind)
    }

    async fn report(&mut self, (sequence, ms): Place) {
        let turn = &self.turn;
        let report = json!({"type": "played", "turn_id": turn, "sequence": sequence, "ms": ms});
        self.socket.send(report).await;
    }

    /// What of the reply somebody has heard who has played so much: the sentences before, and of
    /// the one that was playing the words of which three quarters have sounded.
    fn heard(&self, (sequence, ms): Place) -> &'static str {
        let mut end = 0;
        let mut texts: Vec<&str> = Vec::new();
        let playing = &self.pieces[sequence];
        for piece in &self.pieces[..=sequence] {
            if usize::try_from(piece.sentence).unwrap() == texts.len() {
                texts.push(&piece.text);
            }
        }
        let (playing_text, before) = texts.split_last().unwrap();
        for text in before {
            end += REPLY[end..].find(text).unwrap() + text.len();
        }
        let start = end + REPLY[end..].find(playing_text).unwrap();
        let earlier = self.pieces[..sequence].iter();
        let earlier = earlier.filter(|it| it.sentence == playing.sentence);
        let played = earlier.map(|it| it.ms).sum::<u64>() + ms.min(playing.ms);
        let mut place = 0;
        for word in playing_text.split(' ') {
            let letters = word.chars().filter(|c| c.is_alphanumeric()).count() as u64;
            let heard = place as u64 * CHARACTER_MS + letters * CHARACTER_MS / 4 * 3;
            if heard > played {
                break;
            }
            end = start + place + word.len();
            place += word.len() + 1;
        }
        &REPLY[..end]
    }

    /// The text of the first turn that was shown.
    fn shown(&self) -> String {
        let chunks = self.messages.iter().filter(|it| it["type"] == "chunk");
        let chunks = chunks.filter(|it| it["turn_id"] == self.turn);
        chunks.map(|it| it["content"].as_str().unwrap()).collect()
    }

    /// Fails if anything of the first turn sounds behind its stop.
    fn assert_silenced(&self) {
        let stop = self
            .messages
            .iter()
            .position(|it| it["type"] == "audio_stop");
        let stop = stop.expect("no audio_stop");
        assert_eq!(self.messages[stop]["turn_id"], self.turn);
        for message in &self.messages[stop + 1..] {
            let sounds = message["type"].as_str().unwrap().starts_with("audio");
            assert!(!sounds || message["turn_id"] != self.turn, "{message}");
        }
    }
}

/// How a client speaks up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Up {
    Writes,
    WritesAndListens,
    Cancels,
    Speaks,
}

const WAYS: [Up; 4] = [Up::Writes, Up::WritesAndListens, Up::Cancels, Up::Speaks];

/// Speaks up; returns once the next reply is told and there is a next prompt.
async fn speak_up(player: &mut Player, way: Up, conversation: &str) {
    let socket = &mut player.socket;
    match way {
        Up::Writes => socket.send(written(conversation, "next")).await,
        Up::WritesAndListens => socket.send(aloud(conversation, "next")).await,
        Up::Cancels => {
            socket
                .send(json!({"type": "cancel", "conversation_id": conversation}))
                .await;
            player.take_until("audio_stop").await;
            if !player.has_seen("response_complete") {
                player.take_until("response_complete").await;
            }
            player.socket.send(written(conversation, "next")).await;
        }
        Up::Speaks => {
            socket.send(audio_start(conversation)).await;
            say_aloud(socket, &[7; 3_000]).await;
            socket.send(audio_end()).await;
        }
    }
    let last = match way {
        Up::WritesAndListens => "audio_complete",
        Up::Writes | Up::Cancels | Up::Speaks => "response_complete",
    };
    loop {
        let turn = player.turn.clone();
        let message = player.take().await;
        if message["type"] == last && message["turn_id"] != turn {
            return;
        }
    }
}

/// What the last prompt says that the companion has said.
fn remembered(app: &TestApp) -> String {
    let prompt = prompt(app.simulator.chat_requests().last().unwrap());
    let said = prompt.iter().filter(|it| it["role"] == "assistant");
    said.map(|it| it["content"].as_str().unwrap()).collect()
}

/// The first turn's reply, as it is stored: nothing where it was stopped before its first word.
async fn stored(app: &TestApp, conversation: &str, turn: &Value) -> (String, Option<String>) {
    let document = app.document(conversation).await;
    let messages = document["messages"].as_array().unwrap();
    let is_its = |it: &&Value| it["role"] == "assistant" && it["turn_id"] == *turn;
    let Some(reply) = messages.iter().find(is_its) else {
        return (String::new(), None);
    };
    let unsaid = reply["unsaid"].as_str().map(str::to_owned);
    (reply["content"].as_str().unwrap().to_owned(), unsaid)
}

/// Nothing is asked of any upstream any more.
async fn assert_upstreams_rest(app: &TestApp) {
    let rest = app.simulator.wait_for(
        "the end of every upstream call",
        |counters| counters.active_requests == 0 && counters.active_generations == 0,
        DEADLINE,
    );
    rest.await.unwrap();
}

#[tokio::test]
async fn who_speaks_up_stops_both_upstreams_and_leaves_what_was_heard() {
    for way in WAYS {
        let app = scripted().await;
        let (written_on, spoken_on) = (app.simulator.gate(), app.simulator.gate());
        let script = Script::new().text(REPLY);
        app.simulator
            .script(script.hold_at(words_of(2), &written_on));
        app.simulator
            .elevenlabs()
            .script(Script::new().hold_at(40, &spoken_on));
        app.simulator.set_default(Script::new().text("All right."));
        let mut player = Player::asking(&app, "c1").await;
        written_on.reached(1, DEADLINE).await.unwrap();
        spoken_on.reached(1, DEADLINE).await.unwrap();
        let shown: String = REPLY.split_inclusive(' ').take(words_of(2)).collect();
        while player.pieces.iter().map(|it| it.ms).sum::<u64>() < 40 * CHARACTER_MS
            || player.shown().trim_end() != shown.trim_end()
        {
            player.take().await;
        }
        // Within the fourth word: of that the half.
        let place = (0, 17 * CHARACTER_MS + 3 * CHARACTER_MS);
        let place = if place.1 <= player.pieces[0].ms {
            place
        } else {
            (0, player.pieces[0].ms)
        };
        player.report(place).await;
        let heard = player.heard(place).to_owned();

        speak_up(&mut player, way, "c1").await;

        // Neither gate was opened.
        assert_upstreams_rest(&app).await;
        player.assert_silenced();
        let (said, unsaid) = stored(&app, "c1", &player.turn).await;
        assert_eq!(said.trim_end(), heard.trim_end(), "{way:?}");
        let unsaid = unsaid.unwrap_or_default();
        assert_eq!(format!("{said}{unsaid}").trim_end(), shown.trim_end());
        assert_eq!(remembered(&app).trim_end(), heard.trim_end(), "{way:?}");
    }
}

#[tokio::test]
async fn at_any_moment_what_was_heard_is_what_was_said() {
    const MOMENTS: usize = 200;
    let given = std::env::var("BARGE_IN_SEED").ok();
    let seed = given.map_or_else(|| fastrand::u64(..1_000_000), |seed| seed.parse().unwrap());
    println!("BARGE_IN_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let app = scripted().await;
    for moment in 0..MOMENTS {
        let conversation = format!("c{moment}");
        let way = WAYS[random.usize(..WAYS.len())];
        let (gap, rate) = (random.u64(..3), [300, 1_000, 5_000][random.usize(..3)]);
        // Every second reply has no end of its own: only the interruption ends it.
        let words: Vec<_> = REPLY.split_inclusive(' ').collect();
        // One that is interrupted before it is asked for would leave its script to the next.
        let held = (moment % 2 == 0).then(|| random.usize(2..words.len()));
        let gate = app.simulator.gate();
        let script = Script::new().text(REPLY).with(&format!("gap={gap}"));
        app.simulator.script(match held {
            Some(words) => script.hold_at(words, &gate),
            None => script,
        });
        // The last of them may come with what is behind it.
        let until_held = held.map_or(usize::MAX, |held| {
            words[..held - 1].concat().trim_end().len()
        });
        app.simulator.set_default(Script::new().text("All right."));
        app.simulator
            .elevenlabs()
            .set_default(&*format!("first={},rate={rate},batch=5", random.u64(..20)));
        let mut player = Player::asking(&app, &conversation).await;
        let messages = random.usize(held.map_or(0, |_| 4)..90);
        while player.messages.len() < messages
            && !player.has_seen("audio_complete")
            && player.shown().trim_end().len() < until_held
        {
            player.take().await;
        }
        let mut played: Option<Place> = None;
        let reports = random.usize(..4).min(player.pieces.len() * 4);
        for _ in 0..reports {
            let sequence = random.usize(..player.pieces.len());
            // Not the very end: who has heard all interrupts nothing.
            let most = player.pieces[sequence].ms.saturating_sub(51);
            let place = (sequence, random.u64(..=most));
            player.report(place).await;
            played = played.max(Some(place));
        }
        let heard = played.map(|place| player.heard(place).to_owned());
        let was_complete = player.has_seen("response_complete");
        let context = format!(
            "moment {moment}, {way:?}, {played:?} after {} messages, held at {held:?}",
            player.messages.len()
        );
        println!("{context}");

        speak_up(&mut player, way, &conversation).await;

        player.assert_silenced();
        let (said, unsaid) = stored(&app, &conversation, &player.turn).await;
        let whole = format!("{said}{}", unsaid.as_deref().unwrap_or_default());
        assert!(REPLY.starts_with(whole.trim_end()), "{context}: {whole:?}");
        if was_complete {
            assert_eq!(whole, REPLY, "{context}");
        }
        match heard {
            Some(heard) => assert_eq!(said.trim_end(), heard.trim_end(), "{context}"),
            None => {
                assert_eq!(unsaid, None, "{context}");
                assert_eq!(said, player.shown(), "{context}");
            }
        }
        assert_eq!(remembered(&app).trim_end(), said.trim_end(), "{context}");
        // While the client is there.
        assert_upstreams_rest(&app).await;
        drop(player);
        app.simulator.take_requests();
    }
    app.assert_nothing_left().await;
}

/// A message whose repeats are known.
fn keyed(conversation: &str) -> Value {
    let mut message = aloud(conversation, "Tell me a story");
    message["client_message_id"] = json!(format!("the-story-of-{conversation}"));
    message
}

#[tokio::test]
async fn a_repeat_leaves_what_was_heard_as_it_is() {
    let app = scripted().await;
    for number in 0..10 {
        let conversation = format!("c{number}");
        app.simulator.script(Script::new().text(REPLY));
        app.simulator.set_default(Script::new().text("All right."));
        let mut player = Player::saying(&app, keyed(&conversation)).await;
        player.take_until("audio_complete").await;
        let place = (player.pieces.len() / 2, 100);
        player.report(place).await;
        speak_up(&mut player, Up::Cancels, &conversation).await;
        let cut = stored(&app, &conversation, &player.turn).await;
        assert!(cut.1.is_some());

        // On a connection that is known to report.
        let played = player.messages.len();
        player.socket.send(keyed(&conversation)).await;
        player.take_until("response_complete").await;
        player.take_until("audio_complete").await;

        let told = types(&player.messages[played..]);
        assert!(!told.contains(&"audio_stop"), "{told:?}");
        assert_eq!(stored(&app, &conversation, &player.turn).await, cut);
    }
}

#[tokio::test]
async fn a_repeat_does_not_interrupt_its_own_reply() {
    let app = scripted().await;
    let gate = app.simulator.gate();
    app.simulator
        .script(Script::new().text(REPLY).hold_at(25, &gate));
    let mut player = Player::saying(&app, keyed("c1")).await;
    player.take_until("audio").await;

    player.socket.send(keyed("c1")).await;
    player.socket.send(json!({"type": "ping"})).await;
    player.take_until("pong").await;
    gate.open();
    player.take_until("audio_complete").await;

    assert!(!player.has_seen("audio_stop"));
    assert_eq!(
        stored(&app, "c1", &player.turn).await,
        (REPLY.to_owned(), None)
    );
    assert_eq!(app.simulator.chat_requests().len(), 1);
    assert_eq!(joined(&sentences(&player.messages)), REPLY, "once");
}

#[tokio::test]
async fn who_has_played_all_interrupts_nothing() {
    let app = scripted().await;
    for (number, way) in WAYS.into_iter().enumerate() {
        let conversation = format!("c{number}");
        let mut player = Player::asking(&app, &conversation).await;
        player.take_until("audio_complete").await;
        let last = player.pieces.len() - 1;
        player.report((last, player.pieces[last].ms)).await;
        if way == Up::Cancels {
            let cancel = json!({"type": "cancel", "conversation_id": conversation});
            player.socket.send(cancel).await;
            player.socket.send(json!({"type": "ping"})).await;
            player.take_until("pong").await;
        } else {
            speak_up(&mut player, way, &conversation).await;
        }
        assert!(!player.has_seen("audio_stop"), "{way:?}");
        assert_eq!(
            stored(&app, &conversation, &player.turn).await,
            (REPLY.to_owned(), None)
        );
    }
}

#[tokio::test]
async fn a_whole_reply_that_was_heard_in_part_is_cut_to_it() {
    let app = scripted().await;
    let mut player = Player::told(&app, "c1").await;
    let place = (player.pieces.len() / 2, 100);
    player.report(place).await;

    speak_up(&mut player, Up::Writes, "c1").await;

    player.assert_silenced();
    let heard = player.heard(place).trim_end();
    let (said, unsaid) = stored(&app, "c1", &player.turn).await;
    assert_eq!(said.trim_end(), heard);
    assert_eq!(format!("{said}{}", unsaid.unwrap()), REPLY);
    assert_eq!(remembered(&app).trim_end(), heard);
    // What comes late changes nothing.
    player.report((player.pieces.len() - 1, 9_000)).await;
    player.socket.send(json!({"type": "ping"})).await;
    player.take_until("pong").await;
    assert_eq!(stored(&app, "c1", &player.turn).await.0, said);
    // Nor does what was cut come back.
    app.chat("c1", "and then?").await;
    assert!(!remembered(&app).contains("I would rather stay for a while longer"));
}

#[tokio::test]
async fn who_never_reports_has_read_what_was_shown() {
    let app = scripted().await;
    let mut player = Player::told(&app, "c1").await;

    speak_up(&mut player, Up::Writes, "c1").await;

    player.assert_silenced();
    assert_eq!(
        stored(&app, "c1", &player.turn).await,
        (REPLY.to_owned(), None)
    );
    assert_eq!(remembered(&app), REPLY);
}

#[tokio::test]
async fn a_reply_that_is_read_is_never_interrupted() {
    let app = scripted().await;
    for (number, way) in [Up::Writes, Up::WritesAndListens, Up::Speaks]
        .into_iter()
        .enumerate()
    {
        let conversation = format!("c{number}");
        let gate = app.simulator.gate();
        app.simulator
            .script(Script::new().text(REPLY).hold_at(5, &gate));
        app.simulator.set_default(Script::new().text("All right."));
        let mut player = Player {
            socket: app.socket().await,
            turn: Value::Null,
            messages: Vec::new(),
            pieces: Vec::new(),
        };
        player.socket.send(written(&conversation, "hi")).await;
        player.take_until("chunk").await;
        gate.reached(1, DEADLINE).await.unwrap();
        let open = gate.clone();
        let opens = async {
            // What interrupts would have done so by then.
            let uploads = app.simulator.counters().transcription_requests;
            if way == Up::Speaks {
                let heard = app.simulator.wait_for(
                    "the transcription",
                    |counters| counters.transcription_requests > uploads,
                    DEADLINE,
                );
                heard.await.unwrap();
            }
            open.open();
        };

        futures::join!(speak_up(&mut player, way, &conversation), opens);

        assert!(!player.has_seen("audio_stop"), "{way:?}");
        assert_eq!(player.shown(), REPLY);
        assert_eq!(
            stored(&app, &conversation, &player.turn).await,
            (REPLY.to_owned(), None)
        );
    }
}

#[tokio::test]
async fn a_socket_has_one_mouth() {
    let app = scripted().await;
    let mut player = Player::asking(&app, "c1").await;
    player.take_until("audio_complete").await;
    player.report((0, 0)).await;

    speak_up(&mut player, Up::WritesAndListens, "c2").await;

    player.assert_silenced();
    let (said, unsaid) = stored(&app, "c1", &player.turn).await;
    assert_eq!((said.as_str(), unsaid.as_deref()), ("", Some(REPLY)));
    let turn = player.turn.clone();
    let of_next = player.messages.iter().filter(|it| it["turn_id"] != turn);
    let of_next: Vec<_> = of_next.cloned().collect();
    assert_eq!(joined(&sentences(&of_next)), REPLY);
    assert_eq!(app.said("c2").await[1].1, REPLY);
}

#[tokio::test]
async fn of_what_is_asked_in_a_row_the_last_is_answered_aloud() {
    let app = scripted().await;
    let mut socket = app.socket().await;
    for text in ["one", "two", "three"] {
        socket.send(aloud("c1", text)).await;
    }

    let messages = socket.until("audio_complete").await;

    let turn = messages.last().unwrap()["turn_id"].clone();
    let stops = messages.iter().filter(|it| it["type"] == "audio_stop");
    let stops: Vec<_> = stops.map(|it| it["turn_id"].clone()).collect();
    assert_eq!(stops.len(), 2);
    assert!(!stops.contains(&turn) && stops[0] != stops[1]);
    let audio = messages.iter().filter(|it| it["type"] == "audio");
    let audio: Vec<_> = audio.filter(|it| it["turn_id"] == turn).cloned().collect();
    assert_eq!(joined(&sentences(&audio)), REPLY);
    for stop in stops {
        // Whatever had sounded by then.
        let at = |kind: &str| {
            let of = |it: &Value| it["type"] == kind && it["turn_id"] == stop;
            messages.iter().rposition(of)
        };
        assert!(at("audio") < at("audio_stop"));
    }
    app.chat("c1", "four").await;
    let prompt = prompt(app.simulator.chat_requests().last().unwrap());
    let asked = prompt.iter().filter(|it| it["role"] == "user");
    assert_eq!(asked.count(), 4);
}

#[tokio::test]
async fn who_reports_has_heard_nothing_of_what_it_has_not_reported() {
    let app = scripted().await;
    let mut player = Player::asking(&app, "c1").await;
    player.take_until("audio_complete").await;
    let last = player.pieces.len() - 1;
    player.report((last, player.pieces[last].ms)).await;
    let first = player.turn.clone();
    player.socket.send(aloud("c1", "once more")).await;
    player.turn = Value::Null;
    player.pieces.clear();
    player.messages.clear();
    player.take_until("audio_complete").await;
    assert_ne!(player.turn, first);

    speak_up(&mut player, Up::Writes, "c1").await;

    player.assert_silenced();
    let (said, unsaid) = stored(&app, "c1", &player.turn).await;
    assert_eq!((said.as_str(), unsaid.as_deref()), ("", Some(REPLY)));
    assert_eq!(
        stored(&app, "c1", &first).await,
        (REPLY.to_owned(), None),
        "the one before was heard"
    );
    assert_eq!(remembered(&app), REPLY, "once");
}

#[tokio::test]
async fn a_report_of_more_than_was_told_is_of_what_was_told() {
    let app = scripted().await;
    let (written_on, spoken_on) = (app.simulator.gate(), app.simulator.gate());
    let script = Script::new().text(REPLY);
    app.simulator
        .script(script.hold_at(words_of(1), &written_on));
    app.simulator
        .elevenlabs()
        .script(Script::new().hold_at(20, &spoken_on));
    app.simulator.set_default(Script::new().text("All right."));
    let mut player = Player::asking(&app, "c1").await;
    spoken_on.reached(1, DEADLINE).await.unwrap();
    while player.pieces.iter().map(|it| it.ms).sum::<u64>() < 20 * CHARACTER_MS {
        player.take().await;
    }
    let last = player.pieces.len() - 1;
    player.report((last, 600_000)).await;
    let heard = player.heard((last, player.pieces[last].ms)).to_owned();

    speak_up(&mut player, Up::Writes, "c1").await;

    let (said, _) = stored(&app, "c1", &player.turn).await;
    assert_eq!(said.trim_end(), heard.trim_end());
    assert!(heard.len() < 30, "{heard}");
}

#[tokio::test]
async fn whoever_cancels_silences_the_voice_too() {
    let app = scripted().await;
    let (written_on, spoken_on) = (app.simulator.gate(), app.simulator.gate());
    let script = Script::new().text(REPLY);
    app.simulator
        .script(script.hold_at(words_of(1) + 1, &written_on));
    app.simulator
        .elevenlabs()
        .script(Script::new().hold_at(20, &spoken_on));
    app.simulator.set_default(Script::new().text("All right."));
    let mut player = Player::asking(&app, "c1").await;
    spoken_on.reached(1, DEADLINE).await.unwrap();
    player.take_until("audio").await;
    player.report((0, 0)).await;

    let response = app.post("/conversation/c1/cancel", json!({})).await;

    assert_eq!(response.status(), 200);
    player.take_until("response_complete").await;
    player.assert_silenced();
    assert_upstreams_rest(&app).await;
    let (said, unsaid) = stored(&app, "c1", &player.turn).await;
    assert!(said.is_empty() || unsaid.is_none(), "{said:?} {unsaid:?}");
    speak_up(&mut player, Up::Writes, "c1").await;
    assert_eq!(remembered(&app), "", "nothing of it was heard");
}

/// A socket that watches a conversation.
async fn watcher(app: &TestApp, conversation: &str) -> Socket {
    let mut socket = app.socket().await;
    socket
        .send(json!({
            "type": "start_conversation", "conversation_id": conversation,
            "character_id": "luna", "watch": true,
        }))
        .await;
    socket.until("conversation_started").await;
    socket
}

#[tokio::test]
async fn who_watches_is_told_what_was_cut_of_a_reply() {
    let app = scripted().await;
    app.simulator.script(Script::new().text(REPLY));
    app.simulator.set_default(Script::new().text("All right."));
    let mut watcher = watcher(&app, "c1").await;
    let url = app.url("/conversation/c1/events");
    let mut events = EventSource::connect(&app.http, &url, None).await;
    let mut player = Player::asking(&app, "c1").await;
    player.take_until("audio_complete").await;
    let ended = watcher.until("response_complete").await.pop().unwrap();
    assert_eq!((ended.get("offset"), ended.get("unsaid")), (None, None));
    player.report((player.pieces.len() / 2, 100)).await;
    // It watches itself, too, and goes on with another reply.
    let watch = json!({"type": "resume", "conversation_id": "c1"});
    player.socket.send(watch).await;
    player.take_until("resumed").await;

    player.socket.send(json!({"type": "cancel"})).await;
    player.take_until("response_cut").await;
    speak_up(&mut player, Up::Writes, "c1").await;

    let (said, unsaid) = stored(&app, "c1", &player.turn).await;
    let told = watcher.until("response_cut").await.pop().unwrap();
    let cut = json!({
        "type": "response_cut", "conversation_id": "c1", "turn_id": player.turn,
        "message_id": ended["message_id"], "offset": said.len(), "unsaid": unsaid.unwrap(),
    });
    assert_eq!(told, cut);
    let next = watcher.until("response_complete").await;
    assert_eq!(types(&next)[0], "user_message");
    assert!(!types(&next).contains(&"response_cut"));
    // An `EventSource` is told it without a place: it goes on where it was.
    events.until("response_complete").await;
    let place = events.last_event_id.clone();
    assert!(place.is_some());
    assert_eq!(events.next().await.unwrap(), cut);
    assert_eq!(events.last_event_id, place);
}

#[tokio::test]
async fn the_end_of_a_reply_that_is_interrupted_tells_what_was_heard_of_it() {
    let app = scripted().await;
    let gate = app.simulator.gate();
    let script = Script::new().text(REPLY);
    app.simulator.script(script.hold_at(words_of(2), &gate));
    app.simulator.set_default(Script::new().text("All right."));
    let mut watcher = watcher(&app, "c1").await;
    let mut player = Player::asking(&app, "c1").await;
    player.take_until("audio").await;
    gate.reached(1, DEADLINE).await.unwrap();
    player.report((0, 17 * CHARACTER_MS)).await;

    speak_up(&mut player, Up::Writes, "c1").await;

    let (said, unsaid) = stored(&app, "c1", &player.turn).await;
    let ended = watcher.until("response_complete").await.pop().unwrap();
    assert_eq!(ended["turn_id"], player.turn);
    assert_eq!(ended["finish_reason"], "cancelled");
    assert_eq!(ended["offset"], said.len());
    assert_eq!(ended["unsaid"].as_str(), unsaid.as_deref());
}

#[tokio::test]
async fn whoever_cancels_silences_a_reply_that_is_written_to_its_end() {
    let app = scripted().await;
    let mut player = Player::told(&app, "c1").await;
    let place = (player.pieces.len() / 2, 100);
    player.report(place).await;
    let heard = player.heard(place).to_owned();
    // The report has come.
    player.socket.send(json!({"type": "ping"})).await;
    player.take_until("pong").await;

    let other = json!({"turn_id": "0198c0de-0000-7000-8000-000000000000"});
    app.post("/conversation/c1/cancel", other).await;
    player.socket.send(json!({"type": "ping"})).await;
    player.take_until("pong").await;
    assert!(!player.has_seen("audio_stop"), "another turn's");
    let response = app.post("/conversation/c1/cancel", json!({})).await;

    assert_eq!(response.status(), 200);
    player.take_until("audio_stop").await;
    until("the reply as it was heard", async || {
        let (said, _) = stored(&app, "c1", &player.turn).await;
        (said.trim_end() == heard.trim_end()).then_some(())
    })
    .await;
    speak_up(&mut player, Up::Writes, "c1").await;
    player.assert_silenced();
    assert_eq!(remembered(&app).trim_end(), heard.trim_end());
}

#[tokio::test]
async fn what_is_asked_behind_a_cancellation_knows_what_was_heard() {
    let app = scripted().await;
    for round in 0..8 {
        let conversation = format!("c{round}");
        let mut player = Player::told(&app, &conversation).await;
        let place = (player.pieces.len() / 2, 100);
        player.report(place).await;
        let heard = player.heard(place).to_owned();
        player.socket.send(json!({"type": "ping"})).await;
        player.take_until("pong").await;

        // Both from elsewhere.
        let path = format!("/conversation/{conversation}/cancel");
        app.post(&path, json!({})).await;
        app.chat(&conversation, "next").await;

        assert_eq!(remembered(&app).trim_end(), heard.trim_end());
    }
}

#[tokio::test]
async fn who_interrupts_and_leaves_has_interrupted() {
    let app = scripted().await;
    for round in 0..8 {
        let conversation = format!("c{round}");
        let gate = app.simulator.gate();
        let script = Script::new().text(REPLY);
        app.simulator.script(script.hold_at(words_of(2), &gate));
        app.simulator.set_default(Script::new().text("All right."));
        let mut player = Player::asking(&app, &conversation).await;
        player.take_until("audio").await;
        gate.reached(1, DEADLINE).await.unwrap();
        let place = (0, 5 * CHARACTER_MS);
        player.report(place).await;
        let heard = player.heard(place).to_owned();

        let cancel = json!({"type": "cancel"}).to_string();
        let frames = [Message::text(cancel), Message::Close(None)];
        player.socket.send_together(frames).await;

        // The gate was not opened.
        assert_upstreams_rest(&app).await;
        until("the reply as it was heard", async || {
            let (said, _) = stored(&app, &conversation, &player.turn).await;
            (said.trim_end() == heard.trim_end()).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_reply_that_is_spoken_once_more_is_not_cut() {
    let app = scripted().await;
    app.simulator.script(Script::new().text(REPLY));
    app.simulator.set_default(Script::new().text("All right."));
    let mut message = aloud("c1", "Tell me a story");
    message["client_message_id"] = json!("a-message-of-mine-1");
    let mut first = app.socket().await;
    first.send(message.clone()).await;
    first.until("audio_complete").await;
    drop(first);
    let mut player = Player {
        socket: app.socket().await,
        turn: Value::Null,
        messages: Vec::new(),
        pieces: Vec::new(),
    };
    player.socket.send(message).await;
    player.take_until("audio_complete").await;
    player.report((0, 100)).await;

    speak_up(&mut player, Up::Writes, "c1").await;

    player.assert_silenced();
    let whole = (REPLY.to_owned(), None);
    assert_eq!(stored(&app, "c1", &player.turn).await, whole);
}

#[tokio::test]
async fn a_voice_that_fails_for_good_is_over_once_its_reply_is_cancelled() {
    let app = scripted().await;
    let gate = app.simulator.gate();
    let script = Script::new().text(REPLY);
    app.simulator.script(script.hold_at(words_of(1) + 1, &gate));
    app.simulator
        .elevenlabs()
        .set_default("fault=elevenlabs:quota_exceeded");
    let mut player = Player::asking(&app, "c1").await;
    player.take_until("audio_error").await;

    player.socket.send(json!({"type": "cancel"})).await;

    player.take_until("audio_complete").await;
    assert!(player.has_seen("response_complete"));
    assert!(!player.has_seen("audio_stop"));
}

#[tokio::test]
async fn an_utterance_that_is_refused_interrupts_nothing() {
    let app = scripted().await;
    let mut player = Player::told(&app, "c1").await;
    player.report((0, 0)).await;
    let mut refused = audio_start("c1");
    refused["format"] = json!("ulaw_8000");

    player.socket.send(refused).await;

    player.take_until("error").await;
    player.socket.send(json!({"type": "ping"})).await;
    player.take_until("pong").await;
    assert!(!player.has_seen("audio_stop"));
    speak_up(&mut player, Up::Speaks, "c1").await;
    player.assert_silenced();
}

#[tokio::test]
async fn a_voice_that_fails_for_good_leaves_a_reply_that_is_read() {
    let app = scripted().await;
    let gate = app.simulator.gate();
    let script = Script::new().text(REPLY);
    app.simulator.script(script.hold_at(words_of(1) + 1, &gate));
    app.simulator
        .elevenlabs()
        .set_default("fault=elevenlabs:quota_exceeded");
    let mut player = Player::asking(&app, "c1").await;
    player.take_until("audio_error").await;

    player.socket.send(written("c1", "next")).await;
    player.socket.send(json!({"type": "ping"})).await;
    player.take_until("pong").await;
    gate.open();
    player.take_until("audio_complete").await;
    player.take_until("response_complete").await;

    assert!(!player.has_seen("audio_stop"));
    assert_eq!(
        stored(&app, "c1", &player.turn).await,
        (REPLY.to_owned(), None)
    );
}
