//! What kind of character something is, as far as speaking it goes.

/// Ends a sentence once a space and another word follow.
pub(super) const fn is_strong_end(c: char) -> bool {
    matches!(
        c,
        '!' | '?'
            | '‽'
            | '‼'
            | '⁇'
            | '⁈'
            | '⁉'
            | '؟'
            | '۔'
            | '।'
            | '॥'
            | '።'
            | '။'
            | '։'
            | '¡'
            | '¿'
    ) && !is_inverted(c)
}

/// Spanish puts these before a question or an exclamation.
const fn is_inverted(c: char) -> bool {
    matches!(c, '¡' | '¿')
}

/// Ends a sentence with no space behind it.
pub(super) const fn is_wide_end(c: char) -> bool {
    matches!(c, '。' | '！' | '？' | '｡' | '．')
}

/// A dot, or dots, that end most sentences they stand behind.
pub(super) const fn is_ellipsis(c: char) -> bool {
    matches!(c, '…' | '⋯')
}

/// Stands behind the mark that ends a sentence and belongs to it.
pub(super) const fn is_closer(c: char) -> bool {
    matches!(
        c,
        '"' | '\''
            | '”'
            | '’'
            | '»'
            | '›'
            | ')'
            | ']'
            | '}'
            | '」'
            | '』'
            | '）'
            | '】'
            | '》'
            | '〉'
            | '“'
    )
}

/// Ends a clause when a space follows.
pub(super) const fn is_clause_end(c: char) -> bool {
    matches!(c, ',' | ';' | ':' | '،' | '؛' | '…') || is_dash(c)
}

/// Parts clauses; a hyphen within a word is none, as no space follows it.
pub(super) const fn is_dash(c: char) -> bool {
    matches!(c, '-' | '–' | '—' | '―')
}

/// Ends a clause with no space behind it.
pub(super) const fn is_wide_clause_end(c: char) -> bool {
    matches!(c, '，' | '、' | '；' | '：' | '—' | '―')
}

/// A pictograph, which no voice should read out.
pub(super) const fn is_emoji(c: char) -> bool {
    matches!(c, '\u{1F000}'..='\u{1FBFF}' | '\u{2600}'..='\u{27BF}' | '\u{2B00}'..='\u{2BFF}')
}

/// Shows nothing and sounds like nothing.
pub(super) const fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{AD}' | '\u{200B}' | '\u{200D}' | '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}'
            | '\u{2060}'..='\u{206F}' | '\u{FE00}'..='\u{FE0F}' | '\u{20E3}' | '\u{FEFF}'
            | '\u{FFFC}' | '\u{FFFD}' | '\u{E0000}'..='\u{E0FFF}'
    )
}

/// Of a script whose words no space parts, and that may be cut before any of its signs without being
/// read wrongly for most words: ideographs and kana, but for what lengthens or changes the one before.
pub(super) const fn is_unspaced(c: char) -> bool {
    matches!(c, '\u{3041}'..='\u{3096}' | '\u{30A1}'..='\u{30FA}' | '\u{3400}'..='\u{4DBF}'
        | '\u{4E00}'..='\u{9FFF}' | '\u{F900}'..='\u{FAFF}' | '\u{20000}'..='\u{3FFFF}')
        && !matches!(
            c,
            'ぁ' | 'ぃ'
                | 'ぅ'
                | 'ぇ'
                | 'ぉ'
                | 'っ'
                | 'ゃ'
                | 'ゅ'
                | 'ょ'
                | 'ァ'
                | 'ィ'
                | 'ゥ'
                | 'ェ'
                | 'ォ'
                | 'ッ'
                | 'ャ'
                | 'ュ'
                | 'ョ'
        )
}

/// Ends a line.
pub(super) const fn is_newline(c: char) -> bool {
    matches!(c, '\n' | '\u{2028}' | '\u{2029}')
}

/// How much of a voice's time it takes, in Latin letters: an ideograph is a syllable or two.
pub(super) const fn weight(c: char) -> usize {
    match c {
        '\u{2E80}'..='\u{9FFF}'
        | '\u{AC00}'..='\u{D7AF}'
        | '\u{F900}'..='\u{FAFF}'
        | '\u{20000}'..='\u{3FFFF}' => 3,
        _ => 1,
    }
}
