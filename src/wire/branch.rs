//! Requests that replace something of the history: regenerate and edit.

use idol_actors::{
    caller::Caller,
    conversation::command::{At, StartTurn},
    id::{MessageId, TurnId},
};
use uuid::Uuid;

use super::{
    chat::{ChatRequest, Defaults, said},
    fields::Fields,
};
use crate::error::ApiError;

/// The body of `POST /conversation/{id}/regenerate`, for a turn of this id. An empty one means the
/// newest reply.
pub fn regenerate(
    body: &[u8],
    caller: Caller,
    turn: TurnId,
    defaults: &Defaults,
) -> Result<StartTurn, ApiError> {
    let blank = body.iter().all(u8::is_ascii_whitespace);
    let mut fields = Fields::of_body(if blank { b"{}" } else { body })?;
    let at = At::Reply(message_id(&mut fields));
    let request = ChatRequest::with_messages(fields, Vec::new(), defaults)?;
    Ok(StartTurn {
        at,
        ..request.into_command(caller, turn)
    })
}

/// The body of `POST /conversation/{id}/edit`, for a turn of this id.
pub fn edit(
    body: &[u8],
    caller: Caller,
    turn: TurnId,
    defaults: &Defaults,
) -> Result<StartTurn, ApiError> {
    let mut fields = Fields::of_body(body)?;
    let replaced = required_message_id(&mut fields);
    let text = fields.filled("message");
    if text.is_none() && fields.errors.iter().all(|error| !error.is_at("message")) {
        fields.wrong("message", "missing", "Field required");
    }
    let messages = text.iter().map(|text| said(text)).collect();
    let request = ChatRequest::with_messages(fields, messages, defaults)?;
    let command = request.into_command(caller, turn);
    // What is missing was an error.
    let at = replaced.map_or(At::End, At::Message);
    Ok(StartTurn { at, ..command })
}

/// The message that a request names.
pub fn message_id(fields: &mut Fields<'_>) -> Option<MessageId> {
    let text = fields.filled("message_id")?;
    let id = Uuid::try_parse(&text);
    if id.is_err() {
        fields.wrong("message_id", "uuid_parsing", "Input should be a valid UUID");
    }
    id.ok().map(MessageId)
}

/// The message that a request has to name.
pub fn required_message_id(fields: &mut Fields<'_>) -> Option<MessageId> {
    let id = message_id(fields);
    if id.is_none() && fields.errors.iter().all(|error| !error.is_at("message_id")) {
        fields.wrong("message_id", "missing", "Field required");
    }
    id
}
