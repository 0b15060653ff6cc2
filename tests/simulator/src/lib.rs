//! A test double for the upstream providers.
//!
//! Nothing here serves anyone but tests and load tests: a [`Simulator`] is a real HTTP server on
//! loopback that behaves as OpenRouter, ElevenLabs, OpenAI's transcription and Supabase do on the wire, and that goes wrong on demand,
//! exactly where it is told to. It imports nothing of the project it tests.
//!
//! ```
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//! use idol_simulator::{Script, Simulator, reply_text};
//!
//! let simulator = Simulator::start()?;
//! let gate = simulator.gate();
//! simulator.script(Script::from("tokens=9,fault=reset,after=5").hold_at(3, &gate));
//! // Point the program under test at `simulator.base_url()` and let it ask for a reply.
//! let deadline = Duration::from_secs(5);
//! gate.reached(1, deadline).await?; // three tokens are on the wire: `reply_text(0, 3)`
//! gate.open();
//! simulator.wait_for("fault", |counters| counters.faults_played == 1, deadline).await?;
//! assert_eq!(simulator.requests()[0].json()?["stream"], true);
//! # Ok(()) }
//! ```
//!
//! # How a behaviour is chosen
//!
//! 1. a script queued with [`Simulator::script`], for one request (see `fail` for more than one);
//! 2. a model name that begins with `sim/`: its rest is an option list, so
//!    `sim/tokens=64,first=50,gap=10` needs no side channel;
//! 3. the default, [`Simulator::set_default`].
//!
//! # Options
//!
//! A list is separated by commas, without spaces. A list with a mistake is answered with 400 and
//! the mistake. A time is in milliseconds, or has `us`, `ms` or `s` after it.
//!
//! A *delta* is a chunk of reasoning, of text or of a tool call; in a replay it is one piece.
//!
//! | Reply | |
//! |---|---|
//! | `tokens=N` | the text is [`reply_text`]`(seed, N)`; 16, or 0 with `tools` |
//! | `seed=N` | the seed of the text and of the reasoning; 0 |
//! | `size=BYTES` | each token has this size: the text is [`sized_reply_text`] |
//! | `text=TEXT` | the text, one word a delta; without commas, see [`Script::text`] for any |
//! | `echo` | the text is the last user message, one word a delta |
//! | `prefix=HOW` | what is made of a last message of the assistant, which begins the reply: `ignore` tells the whole reply; `continue` goes on behind it; `repeat:BYTES` the same, but tells so much of it again; `finish` adds nothing |
//! | `replay=NAME` | the body is a recorded stream, see [`recorded_stream`] |
//! | `reasoning=N` | [`reasoning_text`]`(seed, N)` precedes the text |
//! | `tools=N` | so many tool calls follow the text, in four deltas each |
//! | `finish=REASON` | the finish reason; `none` sends no finish chunk |
//! | `prompt=N`, `cost=USD` | the prompt tokens and the cost in the usage |
//! | `key=ANY` | no effect: makes model names differ, whose requests are counted apart |
//!
//! | Pace | |
//! |---|---|
//! | `headers=TIME` | before the first byte of the answer |
//! | `upload=BYTES` | of a transcription request, how much has come when the answer begins; all of it |
//! | `first=TIME` | between the head and the first delta |
//! | `gap=TIME` | between two writes, kept on schedule |
//! | `batch=N` | deltas in one write; 1, or 10 characters of speech |
//! | `rate=N` | deltas a second, in place of `gap` |
//! | `comments=N` | keep-alive comments at the start; 1 |
//! | `between=N` | a comment after every so many deltas |
//! | `beat=TIME` | a comment this often during `first`, and in `stall_comments` (20) |
//!
//! | Form on the wire | |
//! |---|---|
//! | `usage=choice` | usage on a chunk of its own that has a choice; or `empty`: on one with `choices:[]`; `every`: on every chunk; `none` |
//! | `role=every` | the role on every delta; or `first`: on the first alone |
//! | `eol=lf` | line ends; or `crlf`, `cr` |
//! | `space=yes` | `data: {`; or `no`: `data:{` |
//! | `keepalive=openrouter` | `: OPENROUTER PROCESSING`; or `colon`: a bare `:`; `data`: an empty data line |
//! | `done=yes` | `[DONE]` at the end (after a mid-stream error the default is `no`); or `bare`: without the blank line after it |
//! | `framing=chunked` | or `close`: the end of the connection ends the body |
//! | `split=whole` | or cuts within writes: `every:BYTES`, `utf8` (inside characters), `frame` (inside frames and line ends), `at:OFFSET:OFFSET`, `random:SEED`; see [`Split`] |
//! | `newlines=N` | blank lines before the JSON of an answer that is not streamed |
//!
//! | Faults | |
//! |---|---|
//! | `fault=FAULT` | see below; several may be given |
//! | `after=N` | the deltas before the fault named last, and before those named later; 0 |
//! | `fail=N` | only the first N requests of this model name (or of the default) fail; a queued script serves N failures and one success |
//! | `nth=N` | only each Nth request of this model name (or of the default) fails |
//! | `retry_after=VALUE`, `retry_after_ms=VALUE` | the response headers of these names |
//!
//! | Fault in place of the answer | |
//! |---|---|
//! | `no_headers` | nothing is ever answered |
//! | `half_headers` | half the headers, then nothing |
//! | `reset_early`, `close_early` | RST or FIN before any byte |
//! | `status:CODE`, `status:NAME` | an error with a real body; [`ErrorCase::known`] lists the names |
//! | `elevenlabs:NAME`, `openai:NAME`, `speaches:NAME`, `whispercpp:NAME` | the same for an audio API; `elevenlabs:quota_exceeded`, `openai:rate_limit` |
//! | `ok_error`, `choice_error` | 200 with an error and no choices, or inside the choice |
//! | `html`, `html:STATUS` | a page of HTML; 502 |
//!
//! | Fault in the body | |
//! |---|---|
//! | `reset` | RST |
//! | `end` | the body ends in order, with no finish and no `[DONE]` |
//! | `cut` | FIN, the body unfinished |
//! | `stall`, `stall_comments` | nothing more, or nothing but comments, until the client leaves |
//! | `error:CODE`, `error:WORD`, `error:bare` | an error object with a number (502), a word or no code; the stream ends |
//! | `garbage` | a line that is not JSON; the stream goes on |
//! | `long_line:BYTES`, `long_comment:BYTES` | a delta or a comment with a line of this length (4 MiB); the stream goes on |
//!
//! In an answer that is not streamed, errors included, a fault in the body takes place after half
//! of it: `garbage` leaves the half as all there is, `error` puts `choice_error` in its place, and
//! the long ones put so many spaces before it.
//!
//! # Speech and transcription
//!
//! The same port serves ElevenLabs at [`Simulator::elevenlabs_url`], OpenAI's transcription at
//! [`Simulator::whisper_url`], and whisper.cpp's `/inference`. They take the same scripts, through
//! [`Simulator::script_on`] or their handles, [`Simulator::elevenlabs`] and [`Simulator::whisper`].
//!
//! In speech a delta is a character: `after=N` and [`Script::hold_at`] count characters, `rate=N`
//! is characters a second, and each takes [`elevenlabs::CHARACTER_MS`] of
//! [`elevenlabs::voice_audio`], which has the same bytes in every answer. A model `sim/…` steers
//! here too. `garbage` puts bytes that are no audio in its place and goes on; an error in
//! mid-stream is the end of the body, for HTTP has no way to tell one.
//!
//! ```
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//! use idol_simulator::elevenlabs::{AudioFormat, audio_until};
//! use idol_simulator::{Script, Simulator};
//!
//! let simulator = Simulator::start()?;
//! let gate = simulator.gate();
//! simulator.elevenlabs().limit_generations(Some(2));
//! simulator.elevenlabs().script("fault=elevenlabs:system_busy");
//! simulator.elevenlabs().script(Script::from("fault=reset,after=9").hold_at(4, &gate));
//! // Let the program under test speak "Good morning." in MP3, fail, and try again.
//! gate.reached(1, Duration::from_secs(5)).await?;
//! let _bytes_on_the_wire = audio_until("Good morning.", AudioFormat::DEFAULT, 4);
//! gate.open();
//!
//! simulator.whisper().script(Script::new().text(" Hello there.\n"));
//! // Let it have a file transcribed.
//! assert_eq!(simulator.whisper().uploads()[0].field("language"), Some("en"));
//! # Ok(()) }
//! ```
//!
//! Sockets take their scripts from [`elevenlabs::ElevenLabs::script_socket`], one for each; its
//! deltas are the characters that the socket speaks, over all of its contexts. Faults of the head
//! and `status:` take the place of the handshake. In mid-sentence `reset` and `cut` end the
//! connection, `end` closes in order without a last frame, `error:NUMBER` closes with this code,
//! `error:WORD` tells the word first and closes with 1008, `error:quota_exceeded` closes with 1008
//! and tells nothing, `garbage` and the long ones are messages among the others. A frame carries
//! `batch` characters and times that begin with it; all audio of a context joined is
//! [`elevenlabs::voice_audio`] of all its text. Text waits for the schedule, for `flush`, for the
//! end, for at least 50 characters with `try_trigger_generation`, or with `auto_mode` not at all;
//! a lone space is not spoken. A context that is closed leaves unsaid what still waits, and its
//! last frame says `is_final` for the first, third and so on of a socket, else `isFinal`, for
//! documents disagree.
//!
//! A transcription is answered whole, so faults in its body take place after half of it. That an
//! upload has begun, and how much of it has come, is told by [`Counters`] while it comes.
//!
//! Not simulated: Opus, voices that do not exist, the formats and voices that plans allow, what
//! things cost, and stitching of requests; `srt`, `vtt`, word times and streamed transcripts.
//! Where no document says it, an unknown format is refused with 422, as other values are; the
//! times of `/stream/with-timestamps` run on from line to line; a socket past the limit of
//! generations, with a wrong key in its first message or for `eleven_v3` is told an error and
//! closed with 1008.
//!
//! # Supabase
//!
//! The same port serves storage below `/storage/v1` and PostgREST below `/rest/v1`:
//! [`Simulator::supabase_url`] is what an operator would configure. It answers as recorded servers
//! did, with a store in memory; [`Simulator::supabase`] seeds it, inspects it, counts, and tells
//! requests to meet a [`Fault`](supabase::Fault).
//!
//! ```
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//! use idol_simulator::Simulator;
//! use idol_simulator::supabase::{Error, Fault, Target};
//!
//! let simulator = Simulator::start()?;
//! simulator.require_service_key(Some("sb_secret_of_a_test"));
//! let supabase = simulator.supabase();
//! supabase.create_bucket("chats");
//! supabase.fail_times(3, Target::Downloads.key("a.json"), Fault::Error(Error::SlowDown));
//! let late = supabase.fail_times(1, Target::Uploads, Fault::late());
//! // Let the program under test upload an object, and time out.
//! let deadline = Duration::from_secs(5);
//! late.reached(1, deadline).await?;
//! late.release(); // now it lands
//! simulator.wait_for("upload", |counters| counters.uploads == 1, deadline).await?;
//! # Ok(()) }
//! ```
//!
//! A bucket is there once it was made; the table `chats` always is, with the columns `id` (a uuid
//! and the primary key), `user_id` and `character_id` (uuids), `created_at` and `updated_at`.
//! Every request needs the service key in both `apikey` and `Authorization: Bearer`, and
//! [`supabase::ANON_KEY`] has no rights.
//!
//! A refused upload spoils its connection as it does on a real server: a duplicate, an invalid
//! key or a missing right is answered before the body is read, and when the body is longer than
//! 192 KiB nothing is ever answered on this connection again, unless the client asked for its
//! end. Past 3 MiB the body is not even read, so a client that leaves then is noticed late.
//!
//! Not simulated: multipart bodies, signed URLs, resumable uploads, image transforms, `download=`,
//! the order of version 2 lists other than by name, and races but for one: whether a key is free is
//! asked when an upload's head arrives, so of two at once that may only create both succeed;
//! policies other than all or nothing; of PostgREST, other tables, embedding,
//! `or`, `not`, `Range` headers, `PUT`, functions and strict preferences. The caches of a CDN are
//! [`Fault::Stale`](supabase::Fault::Stale). What the gateway answers is known from documents
//! alone.
//!
//! | Fault | In an option list |
//! |---|---|
//! | a delay before the request is carried out | `fault=latency:TIME` |
//! | an error in place of the answer | `fault=error:NAME`, see [`supabase::Error`]; `internal`, `read_only`, `lock_timeout`, `locked`, `slow_down`, `database_timeout`, `no_such_key`, `no_such_bucket`, `access_denied`, `expired`, `bad_gateway`, `unavailable`, `gateway_timeout` |
//! | FIN or RST in place of the answer | `fault=close`, `fault=reset` |
//! | no answer until it is cleared | `fault=hang` |
//! | the version before the last overwrite | `fault=stale` |
//! | taken now, carried out later | `fault=late` after 5 s, `fault=late:TIME`, `fault=late:release` |
//! | what a late one is told | `answer=never`, `answer=reset`, or `answer=NAME` of an error |
//! | which requests | `target=all`, or `storage`, `uploads`, `downloads`, `info`, `deletes`, `lists`, `moves`, `buckets`, `rest`; `key=TEXT` within path, query or the names in a body |
//! | how many of them | `times=N`; without it until it is cleared |
//!
//! # From another process
//!
//! The binary `idol-simulator` prints `listening on URL` and serves until SIGTERM or Ctrl-C. It is
//! steered by model names, and by `GET /_sim/counters`, `GET /_sim/requests`, and
//! `POST /_sim/default` and `POST /_sim/script` with an option list as the body; both may name a
//! route behind a slash: `chat`, `models`, `key`, `speech`, `speech_socket`, `speech_models`,
//! `voices` or `transcription`. `POST /_sim/elevenlabs/key` and `POST /_sim/whisper/key` set a
//! key, `POST /_sim/elevenlabs/limit` the most generations at once; an empty body takes it away.
//! For Supabase:
//!
//! | Below `/_sim/supabase/` | Body | Answer |
//! |---|---|---|
//! | `POST fault` | an option list, as above | `{"id":N}` |
//! | `POST clear`, `POST forget` | an id, or nothing for all | `{"ok":true}` |
//! | `POST release` | an id, or nothing for all | `{"released":N}` |
//! | `GET counts` | | requests by target, uploads and bytes by key |
//! | `POST reset` | | sets the counts to zero |
//! | `GET objects?bucket=ID` | | a list of objects, their bytes as text |
//! | `GET rows` | | the rows of `chats` |
//! | `PUT object/BUCKET/KEY` | the object | writes it without metadata |
//! | `DELETE object/BUCKET/KEY` | | `{"deleted":BOOLEAN}` |
//! | `POST bucket` | `ID`, `ID,limit=BYTES` or `ID,limit=none` | makes it, sets its limit |
//! | `POST key` | the service key, or nothing for none | |
//! | `POST table` | `hide` or `show` | |
//! | `POST forget_user`, `POST know_user` | a user's id | |
//!
//! A mistake is answered with 400 and `{"error":TEXT}`.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod admin;
mod counters;
pub mod elevenlabs;
mod gate;
mod http;
mod log;
mod openrouter;
mod server;
mod simulator;
pub mod supabase;
pub mod whisper;

pub use counters::{Counters, WaitError};
pub use gate::Gate;
pub use http::{Request, Split};
pub use openrouter::{
    ErrorCase, Fault, MODEL_PREFIX, ModelCard, OptionError, Route, Script, StreamError, ToolCall,
    reasoning_text, recorded_stream, reply_text, sized_reply_text,
};
pub use simulator::{Options, Simulator};
