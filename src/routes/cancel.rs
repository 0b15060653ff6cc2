//! `POST /conversation/{id}/cancel`.

use actix_web::{HttpResponse, web};
use idol_actors::{
    caller::Caller,
    conversation::command::{CancelTurn, Cancelled},
    id::TurnId,
};

use super::{body, conversations::Path};
use crate::{
    error::ApiError,
    server::Server,
    wire::{fields::Fields, json::Object},
};

/// Stops one turn, or the one that runs and all that wait.
pub(super) async fn cancel(
    server: web::Data<Server>,
    path: Path,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let body = body::read(payload, server.limits.body_bytes).await?;
    let turn = asked_for(&body)?;
    let command = CancelTurn {
        caller: Caller::Anonymous,
        turn,
    };
    let named = path.named()?;
    let cancelled = server.conversation(&named).cancel(command).await;
    let cancelled = cancelled.map_err(|error| path.error(error))?;
    Ok(super::json(answer(turn, &cancelled)))
}

/// The turn that a body names. An empty body names none.
fn asked_for(body: &[u8]) -> Result<Option<TurnId>, ApiError> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    let mut fields = Fields::of_body(body)?;
    let turn = fields.turn_id();
    Ok(fields.finish(turn)?)
}

fn answer(asked: Option<TurnId>, cancelled: &Cancelled) -> String {
    let turns = &cancelled.turns;
    let turn = turns.first().copied().or(asked);
    let object = Object::with_capacity(96 + 40 * turns.len());
    let object = match turn {
        Some(turn) => object.shown("turn_id", turn),
        None => object.raw("turn_id", "null"),
    };
    let several = Some(turns).filter(|turns| turns.len() > 1);
    object
        .raw("cancelled", if turns.is_empty() { "false" } else { "true" })
        .maybe(several, |it, turns| {
            it.list("turn_ids", turns, |json, turn| {
                json.push_str(&format!("\"{turn}\""));
            })
        })
        .end()
}
