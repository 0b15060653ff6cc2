//! The upstream's form, written while its parts come in.
//!
//! reqwest's own form wants all fields before it is sent; here a file may come before fields that
//! its client sends later.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use crate::provider::hearing::UploadPart;

/// Writes `multipart/form-data` (RFC 7578).
#[derive(Debug)]
pub(super) struct Form {
    boundary: String,
    defaults: Arc<Defaults>,
    seen: Seen,
}

/// What a form says where its client does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Defaults {
    pub(super) model: String,
    /// None: the upstream finds out, or has a default of its own.
    pub(super) language: Option<String>,
}

impl Defaults {
    /// The model for what a client calls one: OpenAI's SDKs name OpenAI's, whoever is behind it.
    fn model_for<'a>(&'a self, named: &'a str) -> &'a str {
        match is_openai(named) && !is_openai(&self.model) {
            true => &self.model,
            false => named,
        }
    }
}

fn is_openai(model: &str) -> bool {
    model == "whisper-1" || model.starts_with("gpt-")
}

/// What of the form came already.
#[derive(Debug, Default)]
struct Seen {
    model: Part,
    format: Part,
    language: Part,
    /// Whether a file is being written, which the next part ends.
    file: Part,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Part {
    #[default]
    No,
    Yes,
}

impl Form {
    /// A form with these defaults.
    pub(super) fn new(defaults: Arc<Defaults>) -> Self {
        Self {
            // Too long to stand in any audio by chance.
            boundary: format!("idol-{:032x}", fastrand::u128(..)),
            defaults,
            seen: Seen::default(),
        }
    }

    /// The value of the `Content-Type` header.
    pub(super) fn content_type(&self) -> String {
        format!("multipart/form-data; boundary={}", self.boundary)
    }

    /// The bytes of a part. Audio goes through as it is.
    pub(super) fn write(&mut self, part: UploadPart) -> Vec<Bytes> {
        let mut head = BytesMut::new();
        match part {
            UploadPart::Audio(bytes) => return vec![bytes],
            UploadPart::Field { name, value } => {
                let defaults = self.defaults.clone();
                let value = match name.as_str() {
                    "model" => {
                        self.seen.model = Part::Yes;
                        defaults.model_for(&value)
                    }
                    "response_format" => {
                        self.seen.format = Part::Yes;
                        &value
                    }
                    "language" | "languages[]" => {
                        self.seen.language = Part::Yes;
                        &value
                    }
                    _ => &value,
                };
                self.field(&mut head, &name, value);
            }
            UploadPart::File { name, content_type } => {
                self.part(&mut head);
                let name = quoted(&name);
                head.put_slice(
                    format!(
                        "Content-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\
                         Content-Type: {content_type}\r\n\r\n"
                    )
                    .as_bytes(),
                );
                self.seen.file = Part::Yes;
            }
            UploadPart::End => {
                let defaults = self.defaults.clone();
                if self.seen.model == Part::No {
                    self.field(&mut head, "model", &defaults.model);
                }
                if let (Part::No, Some(language)) = (self.seen.language, &defaults.language) {
                    self.field(&mut head, "language", language);
                }
                if self.seen.format == Part::No {
                    self.field(&mut head, "response_format", "json");
                }
                self.close(&mut head);
                head.put_slice(format!("--{}--\r\n", self.boundary).as_bytes());
            }
        }
        vec![head.freeze()]
    }

    fn field(&mut self, head: &mut BytesMut, name: &str, value: &str) {
        self.part(head);
        let disposition = format!("Content-Disposition: form-data; name=\"{name}\"\r\n\r\n");
        head.put_slice(disposition.as_bytes());
        head.put_slice(value.as_bytes());
        head.put_slice(b"\r\n");
    }

    fn part(&mut self, head: &mut BytesMut) {
        self.close(head);
        head.put_slice(format!("--{}\r\n", self.boundary).as_bytes());
    }

    /// Ends the file that is being written.
    fn close(&mut self, head: &mut BytesMut) {
        if self.seen.file == Part::Yes {
            self.seen.file = Part::No;
            head.put_slice(b"\r\n");
        }
    }
}

/// A file name within quotes, as browsers escape it (WHATWG's form data).
fn quoted(name: &str) -> String {
    let mut quoted = String::with_capacity(name.len());
    for character in name.chars() {
        match character {
            '"' => quoted.push_str("%22"),
            '\r' | '\n' => quoted.push_str("%0D%0A"),
            other => quoted.push(other),
        }
    }
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(parts: Vec<UploadPart>) -> String {
        written_with("whisper-1", None, parts)
    }

    fn written_with(model: &str, language: Option<&str>, parts: Vec<UploadPart>) -> String {
        let defaults = Defaults {
            model: model.to_owned(),
            language: language.map(str::to_owned),
        };
        let mut form = Form::new(Arc::new(defaults));
        let boundary = form.boundary.clone();
        let pieces = parts.into_iter().flat_map(|part| form.write(part));
        let bytes: Vec<u8> = pieces.flat_map(|piece| piece.to_vec()).collect();
        String::from_utf8(bytes).unwrap().replace(&boundary, "B")
    }

    fn field(name: &str, value: &str) -> UploadPart {
        UploadPart::Field {
            name: name.to_owned(),
            value: value.to_owned(),
        }
    }

    #[test]
    fn fields_may_come_before_and_behind_the_file() {
        let file = UploadPart::File {
            name: "a\"b.webm".to_owned(),
            content_type: "audio/webm".to_owned(),
        };
        let audio = |text: &'static str| UploadPart::Audio(Bytes::from_static(text.as_bytes()));
        let parts = vec![
            field("language", "de"),
            file,
            audio("so"),
            audio("und"),
            field("model", "mine"),
            UploadPart::End,
        ];
        assert_eq!(
            written(parts),
            "--B\r\nContent-Disposition: form-data; name=\"language\"\r\n\r\nde\r\n\
             --B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a%22b.webm\"\r\n\
             Content-Type: audio/webm\r\n\r\nsound\r\n\
             --B\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nmine\r\n\
             --B\r\nContent-Disposition: form-data; name=\"response_format\"\r\n\r\njson\r\n\
             --B--\r\n"
        );
    }

    #[test]
    fn what_no_field_names_has_its_default() {
        let written = written(vec![field("response_format", "text"), UploadPart::End]);
        assert!(
            written.contains("name=\"model\"\r\n\r\nwhisper-1\r\n"),
            "{written}"
        );
        assert_eq!(written.matches("response_format").count(), 1);
    }

    #[test]
    fn the_configured_language_is_told_unless_a_client_tells_one() {
        let told = |parts| {
            let written = written_with("m", Some("auto"), parts);
            let mut values = written.split("name=\"language\"\r\n\r\n").skip(1);
            let value = values
                .next()
                .map(|it| it.lines().next().unwrap().to_owned());
            assert_eq!(values.next(), None);
            value
        };
        assert_eq!(told(vec![UploadPart::End]).as_deref(), Some("auto"));
        let parts = vec![field("language", "de"), UploadPart::End];
        assert_eq!(told(parts).as_deref(), Some("de"));
        assert!(!written(vec![UploadPart::End]).contains("language"));
    }

    #[test]
    fn openais_models_are_the_configured_one_elsewhere() {
        for (configured, named, told) in [
            ("Systran/small", "whisper-1", "Systran/small"),
            ("Systran/small", "gpt-4o-transcribe", "Systran/small"),
            ("Systran/small", "Systran/large", "Systran/large"),
            ("whisper-1", "gpt-4o-transcribe", "gpt-4o-transcribe"),
        ] {
            let written = written_with(configured, None, vec![field("model", named)]);
            let expected = format!("name=\"model\"\r\n\r\n{told}\r\n");
            assert!(written.contains(&expected), "{written}");
        }
    }
}
