//! Who a request comes from, as the gateway and the services behind it decide.

use serde_json::{Value, json};

use super::error::{Service, access_denied, bad_jwt, invalid_request, json_answer};
use super::url;
use crate::http::{Answer, Request};

/// A key that is always known and has no rights: no policy speaks for it.
///
/// Reads with it find nothing, and writes are refused.
pub const ANON_KEY: &str = "sb_publishable_simulator";

/// What the holder of a key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Everything: the service role bypasses policies.
    Service,
    /// Nothing.
    Anon,
}

/// Finds the role of a request, or refuses it.
///
/// `key` is the service key; without one every key but [`ANON_KEY`] is taken for it.
pub(crate) fn role(request: &Request, service: Service, key: Option<&str>) -> Result<Role, Answer> {
    let parameter = || {
        let found = url::query(&request.target).into_iter();
        found.into_iter().find(|(name, _)| name == "apikey")
    };
    let api_key = match request.header("apikey") {
        Some(value) => value.to_owned(),
        None => parameter().map(|(_, value)| value).unwrap_or_default(),
    };
    if api_key.is_empty() {
        return Err(gateway(
            "No API key found in request",
            "No `apikey` request header or url param was found.",
        ));
    }
    let browser = request
        .header("user-agent")
        .is_some_and(|agent| agent.contains("Mozilla/"));
    if browser && api_key.starts_with("sb_secret_") {
        return Err(gateway(
            "Forbidden use of secret API key in browser",
            "Secret API keys can only be used in a protected environment.",
        ));
    }
    // A key that is no JWT is looked up by the gateway; a JWT is left to the services.
    let known = api_key == ANON_KEY || key.is_none_or(|key| key == api_key);
    if api_key.starts_with("sb_") && !known {
        return Err(gateway(
            "Invalid API key",
            "Double check your Supabase `anon` or `service_role` API key.",
        ));
    }
    let Some(authorization) = request.header("authorization") else {
        return match service {
            Service::Storage => Err(invalid_request(
                "headers must have required property 'authorization'",
            )),
            Service::Rest => Ok(Role::Anon),
        };
    };
    let token = match authorization.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim(),
        _ => authorization,
    };
    if token == ANON_KEY {
        return Ok(Role::Anon);
    }
    let expected = key.unwrap_or(&api_key);
    if token == expected && !token.is_empty() {
        return Ok(Role::Service);
    }
    let parts = token.split('.').count();
    Err(match (service, parts) {
        (Service::Storage, 3) => access_denied("signature verification failed"),
        (Service::Storage, _) => access_denied("Invalid Compact JWS"),
        (Service::Rest, 3) => bad_jwt("PGRST301", "JWSError JWSInvalidSignature"),
        (Service::Rest, _) => bad_jwt("PGRST301", &format!("Expected 3 parts in JWT; got {parts}")),
    })
}

fn gateway(message: &str, hint: &str) -> Answer {
    let body: Value = json!({"message": message, "hint": hint});
    json_answer(401, &body)
}
