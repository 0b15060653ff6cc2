//! Documents to import.

use std::{fs, path::Path};

use serde_json::{Value, json};

use crate::error::LoadError;

/// Writes a document of so many messages.
pub(super) fn write(directory: &Path, id: &str, messages: usize) -> Result<(), LoadError> {
    let said: Vec<Value> = (0..messages)
        .map(|number| {
            json!({"role": if number % 2 == 0 { "user" } else { "assistant" },
                "content": format!("message {number}: {}", "and so on ".repeat(15)),
                "timestamp": "2026-01-01T00:00:00.000000Z"})
        })
        .collect();
    let document = json!({"id": id, "created_at": "2026-01-01T00:00:00Z",
        "updated_at": "2026-01-01T00:00:00Z", "messages": said});
    let path = directory.join(format!("{id}.json"));
    fs::write(&path, document.to_string()).map_err(LoadError::io(path.display().to_string()))
}
