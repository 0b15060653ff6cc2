//! Answers that hold speech.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use idol_actors::{provider::speech::Voice, voice::format::AudioFormat};

use super::json::Object;

/// Characters of a text that the name of its file begins with.
const NAME_CHARACTERS: usize = 50;

/// The answer of `POST /tts` and `/transcribe`; members in the ancestor's order, and the model that
/// spoke.
#[must_use]
pub fn spoken(text: &str, audio: &[u8], voice: &Voice, spelled: Option<&str>) -> Object {
    let object = Object::with_capacity(audio.len() / 3 * 4 + text.len() + 256)
        .string("text", text)
        .escaped("audio_base64", &STANDARD.encode(audio));
    let object = match spelled {
        Some(spelled) => object.string("conversation_id", spelled),
        None => object.raw("conversation_id", "null"),
    };
    object
        .escaped("audio_format", voice.format.extension())
        .number("audio_size_bytes", audio.len())
        .string("speech_model", &voice.model_id)
}

/// The `Content-Disposition` of a download: a name that every client takes (RFC 6266), and behind it
/// the whole one (RFC 5987).
#[must_use]
pub fn disposition(text: &str, format: AudioFormat) -> String {
    let ending = format.extension();
    let start: String = text.trim().chars().take(NAME_CHARACTERS).collect();
    let fits = |character: &char| character.is_ascii_alphanumeric() || " _-".contains(*character);
    let ascii: String = start.chars().filter(fits).collect();
    let ascii = match ascii.trim() {
        "" => "tts-audio".to_owned(),
        ascii => format!("tts-{ascii}"),
    };
    let whole: String = start
        .chars()
        .map(|character| match character {
            '/' | '\\' | ':' | '*' | '?' | '"' | '<' | '>' | '|' => ' ',
            control if control.is_control() => ' ',
            other => other,
        })
        .collect();
    let whole = match whole.trim() {
        "" => "tts-audio".to_owned(),
        whole => format!("tts-{whole}"),
    };
    format!(
        "attachment; filename=\"{ascii}.{ending}\"; filename*=UTF-8''{}",
        percent_encoded(&format!("{whole}.{ending}"))
    )
}

/// All but RFC 5987's `attr-char` as percent signs.
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_download_has_a_name_that_every_client_takes() {
        let mp3 = AudioFormat::MP3_44100_128;
        assert_eq!(
            disposition("Hello, \"you\"!\r\nX: y", mp3),
            "attachment; filename=\"tts-Hello youX y.mp3\"; filename*=UTF-8''tts-Hello%2C%20%20you%20%21%20%20X%20%20y.mp3"
        );
        assert_eq!(
            disposition("あ", mp3),
            "attachment; filename=\"tts-audio.mp3\"; filename*=UTF-8''tts-%E3%81%82.mp3"
        );
        assert_eq!(
            disposition(" ", AudioFormat::PCM_16000),
            "attachment; filename=\"tts-audio.pcm\"; filename*=UTF-8''tts-audio.pcm"
        );
        let long = disposition(&"a".repeat(80), mp3);
        assert!(
            long.contains(&format!("\"tts-{}.mp3\"", "a".repeat(50))),
            "{long}"
        );
    }
}
