//! `POST /transcribe`: what was said aloud, or given as text, is written down and spoken.

use std::{cell::OnceCell, sync::Arc};

use actix_web::{HttpRequest, HttpResponse, web};
use idol_actors::{
    caller::Caller,
    conversation::command::{KeyedMessage, RequestKey, Started, Took},
    error::EngineError,
    handle::ConversationHandle,
    id::TurnId,
    log::entry::Owed,
    provider::speech::Voice,
    voice::usage::VoiceUsage,
};

use super::{
    body,
    speech::{Form, WHOLE_CHARACTERS_MAX, answer, whole},
    upload::{self, Asker, FormFields, Told, Uploaded, Wanted, wrong},
};
use crate::{
    claims::Claim,
    error::{ApiError, UnspokenText},
    server::Server,
    wire::{
        chat::{ChatRequest, Defaults, Named, OPAQUE_ID_BYTES_MAX, PromptChoice, conversation_of},
        fields::Fields,
        idempotency,
        voice::{OVER_HTTP, voice_of},
    },
};

/// Writes down, keeps, and speaks. No reply is made.
pub(super) async fn transcribe(
    server: web::Data<Server>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let form = Form::of(&request)?;
    let key = idempotency::key_of(request.headers(), &Caller::Anonymous)?;
    // What nobody can speak is not written down either.
    server.voices.speech().map_err(engine)?;
    let asker = FormAsker {
        server: &server,
        key: key.as_deref(),
        claim: OnceCell::new(),
    };
    let uploaded = read(&asker, &request, payload).await?;
    let asked = Asked::of(&server, &uploaded.fields)?;
    let conversation = asked.conversation;
    let handle = conversation
        .as_ref()
        .map(|named| server.conversation(named));
    let account = server.voice_account(handle);
    let (text, given) = match (uploaded.heard, &uploaded.digest) {
        (Some(heard), _) => {
            let seconds = heard.seconds.unwrap_or_default();
            account.count(VoiceUsage::heard(seconds)).await;
            (heard.text, Given::Audio)
        }
        (None, Some(digest)) => {
            let known = asker.known(conversation.as_ref()).await?;
            (same(known, key.as_deref(), digest)?, Given::Audio)
        }
        (None, None) => match uploaded.fields.get("text") {
            Some(text) => (text.trim().to_owned(), Given::Text),
            None => return Err(bad("Either 'file' or 'text' must be provided")),
        },
    };
    if text.chars().count() > WHOLE_CHARACTERS_MAX {
        let msg = format!("String should have at most {WHOLE_CHARACTERS_MAX} characters");
        return Err(wrong("text", "string_too_long", msg).into());
    }
    if text.is_empty() {
        return Err(bad(match given {
            Given::Audio => "No speech was heard in the audio",
            Given::Text => "Empty text provided",
        }));
    }
    let (text, kept) = match &conversation {
        Some(named) => {
            // The same sound may be written down in other words.
            let sent: &[u8] = match &uploaded.digest {
                Some(digest) => digest,
                None => text.as_bytes(),
            };
            let request = key.clone().map(|key| RequestKey::new(key, sent));
            let conversation = server.conversation(named);
            let kept = keep(
                &conversation,
                &text,
                asked.choice,
                &server.defaults,
                request,
            );
            // What was heard was paid for.
            let unkept = |error| unspoken(error, &text, Some(named), None);
            let kept = kept.await.map_err(unkept)?;
            let earlier = match kept.took {
                Took::New => None,
                Took::Repeat => asker.known(Some(named)).await?,
            };
            // What was kept is what was said.
            let text = earlier.map_or(text, |earlier| earlier.text);
            (text, Some(kept))
        }
        None => (text, None),
    };
    let voice = asked.voice;
    let audio = whole(&server, &text, &voice, &account).await;
    let audio =
        audio.map_err(|error| unspoken(error, &text, conversation.as_ref(), kept.as_ref()))?;
    Ok(answer(form, &text, &audio, &voice, conversation.as_ref()))
}

/// What a form asks for, but for the text.
struct Asked {
    conversation: Option<Named>,
    choice: PromptChoice,
    voice: Arc<Voice>,
}

impl Asked {
    fn of(server: &Server, fields: &FormFields) -> Result<Self, ApiError> {
        // A form's values are all text, which the fields of a body may be, too.
        let json = serde_json::to_vec(fields).map_err(|_unwritable| ApiError::Internal)?;
        let mut fields = Fields::of_body(&json)?;
        let conversation = conversation_of(&mut fields)?;
        let choice = PromptChoice {
            user_id: fields.bounded("user_id", OPAQUE_ID_BYTES_MAX),
            character_id: fields.bounded("character_id", OPAQUE_ID_BYTES_MAX),
            ..PromptChoice::default()
        };
        let voice = voice_of(&mut fields, OVER_HTTP, &server.voices.defaults);
        let voice = fields.finish(voice)?;
        Ok(Self {
            conversation,
            choice,
            voice,
        })
    }
}

/// What a text came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Given {
    Audio,
    Text,
}

/// Who asks by a form, perhaps again.
struct FormAsker<'a> {
    server: &'a Server,
    key: Option<&'a str>,
    /// Held from before the file is passed on until all is answered.
    claim: OnceCell<Claim>,
}

impl FormAsker<'_> {
    /// What was kept of an earlier request with the same key.
    async fn known(&self, named: Option<&Named>) -> Result<Option<KeyedMessage>, ApiError> {
        let (Some(named), Some(key)) = (named, self.key) else {
            return Ok(None);
        };
        let conversation = self.server.conversation(named);
        let known = conversation.keyed(Caller::Anonymous, key).await;
        known.map_err(|error| ApiError::of(error, &named.spelled))
    }
}

impl Asker for FormAsker<'_> {
    fn check(&self, fields: &FormFields) -> Result<(), ApiError> {
        // What is asked for wrongly is not written down either, which costs money.
        Asked::of(self.server, fields).map(drop)
    }

    async fn wants(&self, fields: &FormFields) -> Result<Wanted, ApiError> {
        let asked = Asked::of(self.server, fields)?;
        let named = asked.conversation.as_ref();
        if let (Some(named), Some(key)) = (named, self.key) {
            // One that comes again while it is heard would be paid for twice.
            let claim = self.server.claims.claim(&named.id, key);
            let claim = claim.ok_or_else(|| ApiError::of(EngineError::Busy, &named.spelled))?;
            self.claim.get_or_init(|| claim);
        }
        Ok(match self.known(named).await? {
            Some(_) => Wanted::Digest,
            None => Wanted::Transcript,
        })
    }
}

/// The text that was kept with a key, if it came with the same file.
fn same(known: Option<KeyedMessage>, key: Option<&str>, digest: &[u8]) -> Result<String, ApiError> {
    // It was deleted while it was sent again.
    let known = known.ok_or(engine(EngineError::NotFound))?;
    let request = RequestKey::new(key.unwrap_or_default().to_owned(), digest);
    match known.request == request.request {
        true => Ok(known.text),
        false => Err(engine(EngineError::KeyReused)),
    }
}

/// The fields of a form of either kind, and what is heard in its file.
async fn read(
    asker: &FormAsker<'_>,
    request: &HttpRequest,
    payload: web::Payload,
) -> Result<Uploaded, ApiError> {
    let server = asker.server;
    if upload::is_multipart(request) {
        let form = upload::form(server, request, payload)?;
        return upload::read(server, form, Told::AllButFormat, asker).await;
    }
    let body = body::read(payload, server.limits.body_bytes).await?;
    let fields: FormFields = url::form_urlencoded::parse(&body)
        .into_owned()
        .filter(|(_, value)| !value.is_empty())
        .collect();
    Ok(Uploaded {
        fields,
        heard: None,
        digest: None,
    })
}

/// Keeps a text as a message of the user, to which no reply is made.
async fn keep(
    conversation: &ConversationHandle,
    text: &str,
    choice: PromptChoice,
    defaults: &Defaults,
    key: Option<RequestKey>,
) -> Result<Started, EngineError> {
    let chat = ChatRequest::of_text(text, choice, defaults);
    let mut command = chat.into_command(Caller::Anonymous, TurnId::now());
    command.owed = Owed::Nothing;
    command.key = key;
    conversation.start_turn(command, None).await
}

/// An error that comes with the text, and with what of it is kept.
fn unspoken(
    error: EngineError,
    text: &str,
    named: Option<&Named>,
    kept: Option<&Started>,
) -> ApiError {
    ApiError::Unspoken {
        error,
        text: Box::new(UnspokenText {
            text: Some(text.to_owned()),
            conversation: named.map(|named| named.spelled.clone()),
            turn: kept.map(|kept| kept.turn),
            message: kept.and_then(|kept| kept.message),
        }),
    }
}

fn engine(error: EngineError) -> ApiError {
    ApiError::Engine {
        error,
        conversation: None,
    }
}

fn bad(sentence: &str) -> ApiError {
    ApiError::BadRequest {
        sentence: sentence.to_owned(),
    }
}
