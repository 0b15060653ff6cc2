//! The body of a chat request.

use std::borrow::Cow;

use idol_actors::{
    caller::Caller,
    conversation::{
        command::{At, StartTurn},
        message::{Content, Draft, Role},
        prompt::Parameters,
    },
    id::{ConversationId, Origin, TurnId},
    json_text::JsonText,
    log::entry::Owed,
    provider::RawJson,
};
use serde_json::value::RawValue;

use super::fields::{FieldError, Fields, Step};
use crate::error::ApiError;

/// A conversation id, and how the client spelled it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// The id.
    pub id: ConversationId,
    /// The client's spelling, which is echoed.
    pub spelled: String,
    /// Whether anybody can have used it before.
    pub origin: Origin,
}

impl Named {
    /// A new random conversation.
    #[must_use]
    pub fn random() -> Self {
        let id = ConversationId::random();
        Self {
            spelled: id.as_str().to_owned(),
            id,
            origin: Origin::Minted,
        }
    }

    /// Checks a client's spelling.
    pub fn parse(spelled: &str) -> Result<Self, idol_actors::id::InvalidId> {
        Ok(Self {
            id: ConversationId::parse(spelled)?,
            spelled: spelled.to_owned(),
            origin: Origin::Client,
        })
    }
}

/// Longest `user_id` and `character_id`, in bytes.
pub const OPAQUE_ID_BYTES_MAX: usize = 256;

/// Longest name of a model, in bytes: names that clients made up are remembered, too, for a while.
pub const MODEL_BYTES_MAX: usize = 256;

/// The instructions where nobody gives any.
pub const BUILT_IN_SYSTEM_PROMPT: &str = "You are a warm and attentive companion. You remember \
    what the user has told you in this conversation and refer to it naturally. You answer in the \
    user's language, in a few sentences unless more is asked for.";

/// What an operator chose for every chat request.
#[derive(Debug, Clone)]
pub struct Defaults {
    /// Model for requests that name none.
    pub model: String,
    /// Models to ask when it fails, for requests that name none.
    pub fallbacks: Vec<String>,
    /// Instructions for requests that bring none.
    pub system_prompt: JsonText,
    /// Which members the upstream understands.
    pub dialect: Dialect,
}

/// Which members the upstream understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// OpenRouter's own members are sent.
    OpenRouter,
    /// Only OpenAI's are: strict servers refuse others.
    OpenAi,
}

impl Dialect {
    /// Told from the address: OpenRouter, or something that stands in for it under its path.
    #[must_use]
    pub fn of(base_url: &str) -> Self {
        let host = base_url
            .split("://")
            .nth(1)
            .and_then(|rest| rest.split(['/', ':']).next())
            .unwrap_or_default();
        let is_openrouter = host == "openrouter.ai" || host.ends_with(".openrouter.ai");
        if is_openrouter || base_url.trim_end_matches('/').ends_with("/api/v1") {
            Self::OpenRouter
        } else {
            Self::OpenAi
        }
    }
}

/// A chat request, checked.
#[derive(Debug)]
pub struct ChatRequest {
    /// The conversation, if one is named.
    pub conversation: Option<Named>,
    user_id: Option<String>,
    character_id: Option<String>,
    messages: Vec<Draft>,
    system: JsonText,
    model: String,
    fallbacks: Vec<String>,
    max_tokens: u32,
    members: String,
}

/// Numbers passed on as they are.
const NUMBERS: [&str; 7] = [
    "top_p",
    "top_k",
    "min_p",
    "frequency_penalty",
    "presence_penalty",
    "repetition_penalty",
    "seed",
];

/// Other members passed on as they are: name, first bytes that are right, and what is expected.
const OTHERS: [(&str, &str, &str); 4] = [
    ("stop", "\"[", "a string or a list of strings"),
    ("response_format", "{", "an object"),
    ("tools", "[", "a list"),
    ("tool_choice", "\"{", "a string or an object"),
];

/// Members that only OpenRouter understands.
const OPENROUTER_ONLY: [(&str, &str, &str); 4] = [
    ("models", "[", "a list of strings"),
    ("provider", "{", "an object"),
    ("reasoning", "{", "an object"),
    ("plugins", "[", "a list"),
];

/// Largest `max_tokens`: beyond any model's.
const MAX_TOKENS_MAX: i64 = 10_000_000;

impl ChatRequest {
    /// Reads and checks a body.
    pub fn parse(body: &[u8], defaults: &Defaults) -> Result<Self, ApiError> {
        let mut fields = Fields::of_body(body)?;
        let conversation = conversation_of(&mut fields)?;
        let (messages, system_texts) = messages_of(&mut fields);
        let request = Self::read(fields, messages, system_texts, defaults)?;
        Ok(Self {
            conversation,
            ..request
        })
    }

    /// A request with these messages; everything else as a chat request's body says it.
    pub fn with_messages(
        fields: Fields<'_>,
        messages: Vec<Draft>,
        defaults: &Defaults,
    ) -> Result<Self, ApiError> {
        Self::read(fields, messages, Vec::new(), defaults)
    }

    fn read(
        mut fields: Fields<'_>,
        messages: Vec<Draft>,
        system_texts: Vec<SystemText>,
        defaults: &Defaults,
    ) -> Result<Self, ApiError> {
        let system_prompt = fields.filled("system_prompt");
        let system = system_of(system_texts, system_prompt, defaults);
        let models = models_of(&mut fields);
        let request = Self {
            conversation: None,
            user_id: fields.bounded("user_id", OPAQUE_ID_BYTES_MAX),
            character_id: fields.bounded("character_id", OPAQUE_ID_BYTES_MAX),
            messages,
            system,
            model: fields
                .bounded("model", MODEL_BYTES_MAX)
                .or_else(|| models.first().cloned())
                .unwrap_or_else(|| defaults.model.clone()),
            fallbacks: match models.is_empty() {
                true => defaults.fallbacks.clone(),
                false => models,
            },
            max_tokens: 0,
            members: String::new(),
        };
        let temperature = fields.number("temperature", 0.0, 2.0).unwrap_or(0.7);
        let max_tokens = fields
            .integer("max_tokens", 1, MAX_TOKENS_MAX)
            .unwrap_or(1_000);
        let members = passed_on(&mut fields, temperature, max_tokens, defaults.dialect);
        let max_tokens = u32::try_from(max_tokens).unwrap_or(u32::MAX);
        Ok(fields.finish(Self {
            max_tokens,
            members,
            ..request
        })?)
    }

    /// The command, for a turn of this id.
    #[must_use]
    pub fn into_command(self, caller: Caller, turn: TurnId) -> StartTurn {
        StartTurn {
            caller,
            turn,
            at: At::End,
            messages: self.messages,
            owed: Owed::Reply,
            parameters: Parameters {
                model: self.model,
                fallbacks: self.fallbacks,
                system: self.system,
                max_tokens: self.max_tokens,
                members: self.members,
            },
            user_id: self.user_id,
            character_id: self.character_id,
            key: None,
            seen: None,
        }
    }

    /// A request that holds one user message, with everything else at its default.
    #[must_use]
    pub fn of_text(text: &str, prompt: PromptChoice, defaults: &Defaults) -> Self {
        Self {
            messages: vec![said(text)],
            ..Self::of_choice(prompt, defaults)
        }
    }

    /// A request without messages, with everything else at its default.
    #[must_use]
    pub fn of_choice(prompt: PromptChoice, defaults: &Defaults) -> Self {
        Self {
            conversation: None,
            user_id: prompt.user_id,
            character_id: prompt.character_id,
            messages: Vec::new(),
            system: system_of(Vec::new(), prompt.system_prompt, defaults),
            model: prompt.model.unwrap_or_else(|| defaults.model.clone()),
            fallbacks: defaults.fallbacks.clone(),
            max_tokens: 1_000,
            members: "\"temperature\":0.7,\"max_tokens\":1000".into(),
        }
    }
}

/// What a socket's message may choose.
#[derive(Debug, Clone, Default)]
pub struct PromptChoice {
    /// Owner of the conversation.
    pub user_id: Option<String>,
    /// Companion of the conversation.
    pub character_id: Option<String>,
    /// Instructions for this message.
    pub system_prompt: Option<String>,
    /// Model for this message.
    pub model: Option<String>,
}

/// A message of the user.
#[must_use]
pub fn said(text: &str) -> Draft {
    Draft::text(Role::User, JsonText::escape(text))
}

/// The `conversation_id` of a request; empty and `null` mean absent.
pub fn conversation_of(fields: &mut Fields<'_>) -> Result<Option<Named>, ApiError> {
    let Some(spelled) = fields.filled("conversation_id") else {
        return Ok(None);
    };
    match Named::parse(&spelled) {
        Ok(named) => Ok(Some(named)),
        Err(error) => {
            fields.wrong("conversation_id", "invalid_id", error.to_string());
            Err(ApiError::InvalidId(std::mem::take(&mut fields.errors)))
        }
    }
}

/// The `models` of a request: those to ask in turn.
fn models_of(fields: &mut Fields<'_>) -> Vec<String> {
    // What is no list at all is named where it is passed on.
    let Some(raw) = fields
        .raw("models")
        .filter(|raw| raw.get().starts_with('['))
    else {
        return Vec::new();
    };
    match serde_json::from_str::<Vec<String>>(raw.get()) {
        Ok(models) if models.iter().any(|model| model.len() > MODEL_BYTES_MAX) => {
            let msg = format!("Each string should have at most {MODEL_BYTES_MAX} bytes");
            fields.wrong("models", "string_too_long", msg);
            Vec::new()
        }
        Ok(models) => models,
        Err(_no_strings) => {
            fields.wrong("models", "list_type", "Input should be a list of strings");
            Vec::new()
        }
    }
}

fn system_of(
    mut texts: Vec<SystemText>,
    system_prompt: Option<String>,
    defaults: &Defaults,
) -> JsonText {
    let first_is_system = texts.first().is_some_and(|text| text.index == 0);
    let mut system = if first_is_system {
        JsonText::escape(&texts.remove(0).text)
    } else {
        match system_prompt {
            Some(given) => JsonText::escape(&given),
            None => defaults.system_prompt.clone(),
        }
    };
    for text in texts {
        system.push_plain("\n\n");
        system.push_plain(&text.text);
    }
    system
}

/// A system or developer message of a request.
struct SystemText {
    index: usize,
    text: String,
}

fn messages_of(fields: &mut Fields<'_>) -> (Vec<Draft>, Vec<SystemText>) {
    let (mut drafts, mut system) = (Vec::new(), Vec::new());
    let path = fields.path_to("messages");
    let Some(raw) = fields.raw("messages") else {
        fields.wrong("messages", "missing", "Field required");
        return (drafts, system);
    };
    let Ok(list) = serde_json::from_str::<Vec<&RawValue>>(raw.get()) else {
        fields.wrong("messages", "list_type", "Input should be a valid list");
        return (drafts, system);
    };
    for (index, raw) in list.into_iter().enumerate() {
        let mut path = path.clone();
        path.push(Step::Index(index));
        match message_of(raw, path) {
            Ok(Message::Said(draft)) => drafts.push(draft),
            Ok(Message::System(text)) => system.push(SystemText { index, text }),
            Err(errors) => fields.errors.extend(errors),
        }
    }
    (drafts, system)
}

enum Message {
    Said(Draft),
    System(String),
}

fn message_of(raw: &RawValue, path: Vec<Step>) -> Result<Message, Vec<FieldError>> {
    let mut fields = Fields::of(raw, path).map_err(|error| vec![error])?;
    let role = match fields.string("role").as_deref() {
        Some("user") => Some(Role::User),
        Some("assistant") => Some(Role::Assistant),
        Some("tool") => Some(Role::Tool),
        Some("system" | "developer") => Some(Role::System),
        Some(_) => {
            let expected = "Input should be 'user', 'assistant', 'system', 'developer' or 'tool'";
            fields.wrong("role", "literal_error", expected);
            None
        }
        None => {
            if fields.raw("role").is_none() {
                fields.wrong("role", "missing", "Field required");
            }
            None
        }
    };
    let tool_calls = fields
        .of_kind("tool_calls", "[", "a valid list")
        .map(|calls| RawJson(calls.to_owned()));
    let content = content_of(&mut fields, tool_calls.is_some());
    let name = fields.filled("name").map(|name| JsonText::escape(&name));
    let tool_call_id = fields
        .filled("tool_call_id")
        .map(|id| JsonText::escape(&id));
    let (Some(role), Some(content)) = (role, content) else {
        return Err(fields.errors);
    };
    if role == Role::System {
        return fields.finish(Message::System(plain_text(&content)));
    }
    fields.finish(Message::Said(Draft {
        role,
        content,
        name,
        tool_call_id,
        tool_calls,
    }))
}

fn content_of(fields: &mut Fields<'_>, has_tool_calls: bool) -> Option<Content> {
    let Some(raw) = fields.raw("content") else {
        if has_tool_calls {
            return Some(Content::Null);
        }
        fields.wrong("content", "missing", "Field required");
        return None;
    };
    if raw.get().starts_with('[') {
        let parts = fields.of_kind("content", "[", "a list of content parts")?;
        return Some(Content::Parts(RawJson(parts.to_owned())));
    }
    match serde_json::from_str::<Cow<'_, str>>(raw.get()) {
        Ok(text) => Some(Content::Text(JsonText::escape(&text))),
        Err(_not_a_string) => {
            let expected = "Input should be a valid string or a list of content parts";
            fields.wrong("content", "string_type", expected);
            None
        }
    }
}

/// The text of a message; of content parts, those that are text.
fn plain_text(content: &Content) -> String {
    #[derive(serde::Deserialize)]
    struct Part<'a> {
        #[serde(borrow)]
        text: Option<Cow<'a, str>>,
    }
    match content {
        Content::Text(text) => idol_actors::json_text::unescape(text.as_escaped()),
        Content::Null => String::new(),
        Content::Parts(parts) => {
            let parts: Vec<Part<'_>> = serde_json::from_str(parts.get()).unwrap_or_default();
            let texts: Vec<_> = parts.into_iter().filter_map(|part| part.text).collect();
            texts.join("\n")
        }
    }
}

fn passed_on(
    fields: &mut Fields<'_>,
    temperature: f64,
    max_tokens: i64,
    dialect: Dialect,
) -> String {
    let mut members = format!("\"temperature\":{temperature},\"max_tokens\":{max_tokens}");
    let mut add = |name: &str, json: &str| {
        members.push_str(",\"");
        members.push_str(name);
        members.push_str("\":");
        members.push_str(json);
    };
    for name in NUMBERS {
        if let Some(number) = fields.number(name, f64::MIN, f64::MAX) {
            // A number goes on as it was written: a double would round a long seed.
            match fields.raw(name).filter(|raw| !raw.get().starts_with('"')) {
                Some(raw) => add(name, raw.get()),
                None => add(name, &number.to_string()),
            }
        }
    }
    for (name, kinds, expected) in OTHERS {
        if let Some(raw) = fields.of_kind(name, kinds, expected) {
            add(name, raw.get());
        }
    }
    for (name, kinds, expected) in OPENROUTER_ONLY {
        if let Some(raw) = fields.of_kind(name, kinds, expected)
            && dialect == Dialect::OpenRouter
        {
            add(name, raw.get());
        }
    }
    members
}

#[cfg(test)]
mod tests {
    use super::*;

    fn defaults() -> Defaults {
        Defaults {
            model: "default/model".into(),
            fallbacks: vec!["fallback/model".into()],
            system_prompt: JsonText::escape("built in"),
            dialect: Dialect::OpenRouter,
        }
    }

    fn parse(body: &str) -> Result<StartTurn, ApiError> {
        let request = ChatRequest::parse(body.as_bytes(), &defaults())?;
        Ok(request.into_command(Caller::Anonymous, TurnId::now()))
    }

    #[test]
    fn an_ancestor_front_ends_habits_are_understood() {
        let turn = parse(
            r#"{"messages":[{"role":"user","content":"hi","extra":1}],"conversation_id":"","user_id":null,
                "temperature":"0.3","max_tokens":"50","stream":true,"unknown":{}}"#,
        )
        .unwrap();
        assert_eq!(
            turn.messages,
            [Draft::text(Role::User, JsonText::escape("hi"))]
        );
        assert_eq!(
            turn.parameters.members,
            "\"temperature\":0.3,\"max_tokens\":50"
        );
        assert_eq!(turn.parameters.max_tokens, 50);
        assert_eq!(turn.parameters.model, "default/model");
        assert_eq!(turn.parameters.system.as_escaped(), "built in");
    }

    #[test]
    fn the_first_system_message_wins_over_system_prompt() {
        let body = |first: &str| {
            format!(
                r#"{{"messages":[{first}{{"role":"user","content":"x"}},{{"role":"developer","content":[{{"type":"text","text":"more"}}]}}],"system_prompt":"given"}}"#
            )
        };
        let with = parse(&body(r#"{"role":"system","content":"first"},"#)).unwrap();
        assert_eq!(with.parameters.system.as_escaped(), "first\\n\\nmore");
        let without = parse(&body("")).unwrap();
        assert_eq!(without.parameters.system.as_escaped(), "given\\n\\nmore");
        assert_eq!(with.messages.len(), 1);
    }

    #[test]
    fn every_bad_member_is_named() {
        let error = parse(
            r#"{"messages":[{"role":"wizard","content":"x"},{"role":"user"},7,{"role":"user","content":{}}],
                "temperature":9,"max_tokens":-1,"tools":{}}"#,
        )
        .unwrap_err();
        let ApiError::Invalid(errors) = error else {
            panic!("{error:?}");
        };
        let places: Vec<_> = errors
            .iter()
            .map(|error| serde_json::to_string(&error.loc).unwrap())
            .collect();
        assert_eq!(
            places,
            [
                r#"["body","messages",0,"role"]"#,
                r#"["body","messages",1,"content"]"#,
                r#"["body","messages",2]"#,
                r#"["body","messages",3,"content"]"#,
                r#"["body","temperature"]"#,
                r#"["body","max_tokens"]"#,
                r#"["body","tools"]"#,
            ]
        );
    }

    #[test]
    fn ids_that_leave_the_directory_are_refused() {
        let error = parse(r#"{"messages":[],"conversation_id":"../x"}"#).unwrap_err();
        assert!(matches!(error, ApiError::InvalidId(_)));
    }

    #[test]
    fn the_models_of_a_request_come_before_the_operators() {
        let asked = |body: &str| {
            let parameters = parse(body).unwrap().parameters;
            (parameters.model, parameters.fallbacks)
        };
        let names = |names: &[&str]| names.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            asked(r#"{"messages":[],"model":"a"}"#),
            ("a".into(), names(&["fallback/model"]))
        );
        assert_eq!(
            asked(r#"{"messages":[],"model":"a","models":["b","c"]}"#),
            ("a".into(), names(&["b", "c"]))
        );
        assert_eq!(
            asked(r#"{"messages":[],"models":["b","c"]}"#),
            ("b".into(), names(&["b", "c"]))
        );
        assert!(parse(r#"{"messages":[],"models":[1]}"#).is_err());
    }

    #[test]
    fn openrouters_own_members_go_to_openrouter_only() {
        let body = br#"{"messages":[],"models":["a"],"top_p":"0.9","stop":["x"]}"#;
        let members = |dialect| {
            let defaults = Defaults {
                dialect,
                ..defaults()
            };
            ChatRequest::parse(body, &defaults).unwrap().members
        };
        assert!(
            members(Dialect::OpenRouter).ends_with(r#""top_p":0.9,"stop":["x"],"models":["a"]"#)
        );
        assert!(members(Dialect::OpenAi).ends_with(r#""top_p":0.9,"stop":["x"]"#));
        assert_eq!(
            Dialect::of("https://openrouter.ai/api/v1"),
            Dialect::OpenRouter
        );
        assert_eq!(Dialect::of("http://localhost:11434/v1"), Dialect::OpenAi);
    }
}
