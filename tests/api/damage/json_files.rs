//! JSON files that are not what the server wrote.

use std::fs;

use super::{Files, Killed, messages, names};

#[tokio::test]
async fn a_half_written_temporary_is_removed_and_shown_to_nobody() {
    let killed = Killed::with(Files::All).await;
    let directory = killed.launch.data().join("conversations");
    let whole = fs::read(killed.json_file("c0")).unwrap();
    fs::write(directory.join("c0.json.tmp"), &whole[..whole.len() / 2]).unwrap();
    fs::write(directory.join("unknown.json.tmp"), "{").unwrap();

    let process = killed.launch.start().await;

    for (id, document) in &killed.documents {
        assert_eq!(process.document(id).await, *document);
    }
    assert_eq!(process.get("/conversation/unknown").await.status(), 404);
    process.stop().await;
    assert_eq!(names(&directory), ["c0.json", "c1.json", "c2.json"]);
    assert_eq!(fs::read(killed.json_file("c0")).unwrap(), whole);
}

#[tokio::test]
async fn a_file_that_was_edited_cut_or_garbled_is_kept_aside_and_the_log_goes_on() {
    let killed = Killed::with(Files::All).await;
    let damaged = [("c0", "edited"), ("c1", "cut"), ("c2", "garbled")].map(|(id, damage)| {
        let path = killed.json_file(id);
        let mut bytes = fs::read(&path).unwrap();
        match damage {
            "edited" => {
                let text = String::from_utf8(bytes).unwrap();
                bytes = text.replacen("message 0", "massage 0", 1).into_bytes();
            }
            "cut" => bytes.truncate(bytes.len() / 2),
            _ => bytes[100..140].fill(0xFF),
        }
        fs::write(path, &bytes).unwrap();
        (id, bytes)
    });

    let process = killed.launch.start().await;

    for (id, document) in &killed.documents {
        assert_eq!(process.document(id).await, *document, "{id}");
        process.chat(id, "Are you there?").await;
    }
    let mut documents = Vec::new();
    for (id, _) in &damaged {
        documents.push(process.document(id).await);
    }
    process.stop().await;
    let directory = killed.launch.data().join("conversations");
    for ((id, bytes), document) in damaged.iter().zip(documents) {
        assert_eq!(messages(&document).len(), 14);
        assert_eq!(killed.launch.json_file(id), document);
        let aside: Vec<_> = names(&directory)
            .into_iter()
            .filter(|name| name.starts_with(&format!("{id}.edited-")))
            .collect();
        assert_eq!(aside.len(), 1, "{aside:?}");
        assert_eq!(fs::read(directory.join(&aside[0])).unwrap(), *bytes, "{id}");
    }
}
