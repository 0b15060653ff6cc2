//! The administrative routes of the simulated Supabase, all below `/_sim/supabase/`.
//!
//! - `POST fault`: the body is an option list; the answer tells the id of the fault.
//! - `POST clear`, `release`, `forget`: the body is such an id, or empty for all.
//! - `GET counts`, `POST reset`: the counts, and setting them to zero.
//! - `GET objects?bucket=ID`, `GET rows`: what is stored, the bytes as text.
//! - `PUT`, `DELETE object/BUCKET/KEY`: writes the body as an object, or deletes one.
//! - `POST bucket`: the body is an id, or `ID,limit=BYTES` or `ID,limit=none`.
//! - `POST key`: the body is the service key, or empty for none.
//! - `POST table`: the body is `hide` or `show`.
//! - `POST forget_user`, `know_user`: the body is a user's id.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::runtime::Handle;

use super::fault::{Fault, LateAnswer, Matcher, Target};
use super::handle::{StoredObject, Supabase};
use super::url;
use crate::http::{Answer, Request};
use crate::server::Shared;

/// What the paths of these routes begin with.
pub(crate) const PREFIX: &str = "/_sim/supabase/";

pub(crate) fn respond(shared: &Arc<Shared>, request: &Request) -> Answer {
    let supabase = Supabase::new(Arc::clone(shared), Handle::current());
    let body = String::from_utf8_lossy(&request.body);
    let route = request.path().strip_prefix(PREFIX).unwrap_or_default();
    match act(&supabase, request, route, body.trim()) {
        Ok(answer) => Answer::json(200, &answer),
        Err(mistake) => Answer::json(400, &json!({"error": mistake})),
    }
}

fn act(supabase: &Supabase, request: &Request, route: &str, body: &str) -> Result<Value, String> {
    let done = json!({"ok": true});
    let id = || match body {
        "" => Ok(None),
        body => body
            .parse()
            .map(Some)
            .map_err(|_| format!("{body:?} is no id")),
    };
    match (request.method.as_str(), route) {
        ("POST", "fault") => {
            let (matcher, fault, times) = read_fault(body)?;
            return Ok(json!({"id": supabase.plan(matcher, fault, times).id()}));
        }
        ("POST", "clear") => match id()? {
            Some(id) => supabase.planned(id).clear(),
            None => supabase.clear_faults(),
        },
        ("POST", "release") => {
            let released = match id()? {
                Some(id) => supabase.planned(id).release(),
                None => supabase.release_late(),
            };
            return Ok(json!({"released": released}));
        }
        ("POST", "forget") => match id()? {
            Some(id) => supabase.planned(id).forget(),
            None => supabase.forget_late(),
        },
        ("GET", "counts") => return Ok(json!(supabase.counts())),
        ("POST", "reset") => supabase.reset_counts(),
        ("GET", "objects") => {
            let query = url::query(&request.target);
            let bucket = query.iter().find(|(name, _)| name == "bucket");
            let (_, bucket) = bucket.ok_or("a bucket is missing")?;
            let objects = supabase.objects(bucket);
            return Ok(objects.iter().map(describe).collect());
        }
        ("GET", "rows") => return Ok(json!(supabase.rows("chats"))),
        ("POST", "bucket") => make_bucket(supabase, body)?,
        ("POST", "key") => supabase.require_key(Some(body).filter(|key| !key.is_empty())),
        ("POST", "table") if body == "hide" => supabase.hide_table(),
        ("POST", "table") if body == "show" => supabase.show_table(),
        ("POST", "forget_user") => supabase.forget_user(body),
        ("POST", "know_user") => supabase.know_user(body),
        ("PUT" | "DELETE", route) => {
            let place = route.strip_prefix("object/").and_then(url::decode);
            let place = place.ok_or("no such administrative route")?;
            let (bucket, key) = place.split_once('/').ok_or("a key is missing")?;
            if request.method == "PUT" {
                supabase.put_object(bucket, key, request.body.clone());
            } else {
                let deleted = supabase.delete_object(bucket, key).is_some();
                return Ok(json!({"deleted": deleted}));
            }
        }
        _ => return Err("no such administrative route".to_owned()),
    }
    Ok(done)
}

/// Reads an option list; see the crate's documentation.
fn read_fault(options: &str) -> Result<(Matcher, Fault, Option<u64>), String> {
    let (mut target, mut key, mut times) = (Target::All, None, None);
    let (mut fault, mut answer) = (None, LateAnswer::Never);
    for option in options.split(',') {
        let mistake = || format!("{option:?} is no option of a fault");
        let (name, value) = option.split_once('=').ok_or_else(mistake)?;
        match name {
            "target" => target = Target::parse(value).ok_or_else(mistake)?,
            "key" => key = Some(value.to_owned()),
            "times" => times = Some(value.parse().map_err(|_| mistake())?),
            "fault" => fault = Some((option, value)),
            "answer" if value == "never" => answer = LateAnswer::Never,
            "answer" if value == "reset" => answer = LateAnswer::Reset,
            "answer" => answer = LateAnswer::Error(value.parse().map_err(|_| mistake())?),
            _ => return Err(mistake()),
        }
    }
    let (option, value) = fault.ok_or("a fault is missing")?;
    let fault = Fault::parse(value, answer);
    let fault = fault.ok_or_else(|| format!("{option:?} is no option of a fault"))?;
    let matcher = match key {
        Some(key) => target.key(key),
        None => target.into(),
    };
    Ok((matcher, fault, times))
}

fn make_bucket(supabase: &Supabase, body: &str) -> Result<(), String> {
    let (id, options) = body.split_once(',').unwrap_or((body, ""));
    supabase.create_bucket(id);
    let limit = match options.strip_prefix("limit=") {
        None if options.is_empty() => return Ok(()),
        Some("none") => None,
        Some(limit) => Some(
            limit
                .parse()
                .map_err(|_| format!("{limit:?} is no limit"))?,
        ),
        None => return Err(format!("{options:?} is no option of a bucket")),
    };
    supabase.set_file_size_limit(id, limit);
    Ok(())
}

fn describe(object: &StoredObject) -> Value {
    json!({
        "key": object.key,
        "text": String::from_utf8_lossy(&object.bytes),
        "metadata": object.metadata,
        "content_type": object.content_type,
        "cache_control": object.cache_control,
        "id": object.id,
        "version": object.version,
        "etag": object.etag,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_in_a_fault_is_named() {
        let mistakes = [
            ("", "\"\""),
            ("target=uploads", "a fault is missing"),
            ("fault=explode", "explode"),
            ("fault=hang,target=moon", "moon"),
            ("fault=hang,times=x", "times=x"),
        ];
        for (options, named) in mistakes {
            let mistake = read_fault(options).unwrap_err();
            assert!(mistake.contains(named), "{options}: {mistake}");
        }
    }

    #[test]
    fn the_order_of_options_does_not_matter() {
        for options in [
            "fault=late:release,answer=gateway_timeout,times=2,key=a",
            "key=a,times=2,answer=gateway_timeout,fault=late:release",
        ] {
            let (matcher, fault, times) = read_fault(options).unwrap();
            assert_eq!((matcher, times), (Target::All.key("a"), Some(2)));
            assert!(matches!(fault, Fault::Late(LateAnswer::Error(_), _)));
        }
    }
}
