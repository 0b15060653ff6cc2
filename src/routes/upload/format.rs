//! What the transcription provider is told that a file is.

/// The ending and the media type of a file, by its first bytes.
fn sniffed(first: &[u8]) -> Option<(&'static str, &'static str)> {
    let kind = infer::get(first)?;
    Some(match (kind.extension(), kind.mime_type()) {
        // OpenAI takes no `.opus`.
        ("opus", _) => ("ogg", "audio/ogg"),
        // Nothing but its sound counts.
        ("webm", _) => ("webm", "audio/webm"),
        other => other,
    })
}

/// What the provider is told of a file. A wrong ending, as of a browser's `.webm` without a name,
/// would have it decoded as what it is not.
pub(super) fn format_of(name: &str, named_type: Option<String>, first: &[u8]) -> (String, String) {
    let has_ending = name
        .rsplit_once('.')
        .is_some_and(|(before, after)| !before.is_empty() && (2..=5).contains(&after.len()));
    let named_type = named_type.filter(|it| it != "application/octet-stream");
    let sniffed = sniffed(first);
    let content_type = named_type
        .or_else(|| sniffed.map(|(_, media)| media.to_owned()))
        .unwrap_or_else(|| "application/octet-stream".to_owned());
    let name = match (has_ending, sniffed) {
        (true, _) => name.to_owned(),
        (false, Some((ending, _))) => {
            let stem = if name.is_empty() { "audio" } else { name };
            format!("{stem}.{ending}")
        }
        (false, None) => {
            let ending = ending_of(&content_type);
            format!("{}.{ending}", if name.is_empty() { "audio" } else { name })
        }
    };
    (name, content_type)
}

/// How files of a media type end, of those that transcription takes.
fn ending_of(content_type: &str) -> &'static str {
    let media = content_type.split(';').next().unwrap_or_default().trim();
    match media {
        "audio/webm" | "video/webm" => "webm",
        "audio/ogg" => "ogg",
        "audio/wav" | "audio/x-wav" | "audio/wave" => "wav",
        "audio/mp4" | "audio/m4a" | "audio/x-m4a" | "video/mp4" => "m4a",
        "audio/flac" | "audio/x-flac" => "flac",
        _ => "mp3",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_told_as_what_it_is() {
        let webm = [
            0x1A, 0x45, 0xDF, 0xA3, 0x01, 0, 0, 0, 0, 0, 0, 0x1F, 0x42, 0x86, 0x81, 0x01, 0x42,
            0xF7, 0x81, 0x01, 0x42, 0xF2, 0x81, 0x04, 0x42, 0xF3, 0x81, 0x08, 0x42, 0x82, 0x84,
            b'w', b'e', b'b', b'm',
        ];
        let told = |name: &str, kind: Option<&str>, first: &[u8]| {
            let (name, kind) = format_of(name, kind.map(str::to_owned), first);
            format!("{name} {kind}")
        };
        assert_eq!(
            told("a.mp3", Some("audio/mpeg"), b"ID3"),
            "a.mp3 audio/mpeg"
        );
        assert_eq!(
            told("blob", Some("audio/webm;codecs=opus"), b"?"),
            "blob.webm audio/webm;codecs=opus"
        );
        assert_eq!(told("", None, &webm), "audio.webm audio/webm");
        assert_eq!(
            told(
                "x",
                Some("application/octet-stream"),
                b"RIFF\x24\0\0\0WAVEfmt "
            ),
            "x.wav audio/x-wav"
        );
        assert_eq!(
            told("", None, b"what"),
            "audio.mp3 application/octet-stream"
        );
    }
}
