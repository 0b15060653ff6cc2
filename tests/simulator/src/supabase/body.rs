//! The JSON bodies of requests to storage, refused as its framework does.

use serde_json::{Map, Value, json};

use super::error::{invalid_request, json_answer, storage, unparsable};
use crate::http::{Answer, Request};

/// Returns the JSON object that a request's body has to be.
pub(crate) fn object(request: &Request) -> Result<Map<String, Value>, Answer> {
    if is_json(request) {
        if request.body.is_empty() {
            return Err(empty_json());
        }
        let value = serde_json::from_slice(&request.body).map_err(|_| {
            unparsable("Body is not valid JSON but content-type is set to 'application/json'")
        })?;
        if let Value::Object(fields) = value {
            return Ok(fields);
        }
    }
    Err(invalid_request("body must be object"))
}

/// Refuses a body that is said to be JSON and is empty.
pub(crate) fn empty_json() -> Answer {
    unparsable("Body cannot be empty when content-type is set to 'application/json'")
}

/// Whether a request says that its body is JSON.
pub(crate) fn is_json(request: &Request) -> bool {
    let media_type = request.header("content-type").unwrap_or_default();
    media_type.starts_with("application/json")
}

/// Answers a route that does not exist.
pub(crate) fn no_route(request: &Request) -> Answer {
    let body = json!({
        "message": route_message(request), "error": "Not Found", "statusCode": 404,
    });
    json_answer(404, &body)
}

/// Answers a route below `/object` that does not exist; its shape is another.
pub(crate) fn no_object_route(request: &Request) -> Answer {
    let mut answer = storage(404, "InvalidRequest", "Not Found", &route_message(request));
    answer.status = 404;
    answer.header("Content-Type", "application/json")
}

/// Answers a path that is not valid percent-encoded UTF-8.
pub(crate) fn bad_url(request: &Request) -> Answer {
    let path = strip(request.path());
    let message = format!("'{path}' is not a valid url component");
    let body = json!({
        "error": "Bad Request", "code": "FST_ERR_BAD_URL", "message": message, "statusCode": 400,
    });
    Answer::json(400, &body)
}

fn route_message(request: &Request) -> String {
    format!(
        "Route {}:{} not found",
        request.method,
        strip(request.path())
    )
}

/// Returns a path as storage sees it, behind the gateway.
fn strip(path: &str) -> &str {
    path.strip_prefix(super::call::STORAGE).unwrap_or(path)
}
