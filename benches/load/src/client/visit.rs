//! Reads conversations, so that the server has them in memory.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::http::Http;
use crate::error::LoadError;

/// Readers at once.
const READERS: usize = 16;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Visited {
    /// Bytes of all documents.
    pub(crate) bytes: usize,
}

pub(super) async fn run(
    address: SocketAddr,
    prefix: &str,
    conversations: usize,
) -> Result<Visited, LoadError> {
    let readers = (0..READERS).map(|reader| async move {
        let mut http = Http::connect(&address.into()).await?;
        let mut bytes = 0;
        for number in (reader..conversations).step_by(READERS) {
            let path = format!("/conversation/{prefix}{number}");
            let head = http.ask("GET", &path, "").await?;
            let status = head.status;
            let document = http.rest(head.body).await?;
            if status != 200 {
                let text = String::from_utf8_lossy(&document).into_owned();
                return Err(LoadError::TurnFailed(format!("{path}: {status}: {text}")));
            }
            bytes += document.len();
        }
        Ok(bytes)
    });
    let bytes = futures::future::try_join_all(readers).await?;
    Ok(Visited {
        bytes: bytes.iter().sum(),
    })
}

/// One answer, with its status.
pub(crate) async fn get(address: SocketAddr, path: &str) -> Result<(u16, String), LoadError> {
    let mut http = Http::connect(&address.into()).await?;
    let head = http.ask("GET", path, "").await?;
    let status = head.status;
    let body = http.rest(head.body).await?;
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}
