//! Notices languages other than English, to be gracious about it.

use super::text::Said;

/// A language the companion can apologize in.
struct Language {
    /// Common words that are no English ones.
    words: &'static [&'static str],
    /// A greeting, and that only English is understood.
    sorry: &'static str,
}

const LANGUAGES: &[Language] = &[
    Language {
        words: &[
            "hola", "qué", "que", "cómo", "estás", "gracias", "llamo", "buenos", "días", "por",
            "favor", "soy", "muy", "eres", "quiero", "estoy",
        ],
        sorry: "¡Qué bonito leerte en español! Esta demostración solo entiende inglés, lo siento.",
    },
    Language {
        words: &[
            "ich", "und", "nicht", "hallo", "guten", "danke", "wie", "geht", "dir", "heiße",
            "mein", "ist", "du", "das", "bist",
        ],
        sorry: "Wie schön, von dir zu lesen! Diese Demo versteht leider nur Englisch.",
    },
    Language {
        words: &[
            "bonjour",
            "je",
            "suis",
            "merci",
            "salut",
            "vous",
            "oui",
            "c'est",
            "j'aime",
            "et",
            "est",
            "les",
            "avec",
            "tu",
            "ça",
            "va",
            "m'appelle",
        ],
        sorry: "Quel plaisir de te lire ! Cette démo ne comprend que l'anglais, désolée.",
    },
    Language {
        words: &[
            "olá", "oi", "obrigado", "obrigada", "você", "eu", "não", "tudo", "bem", "bom", "dia",
            "sou", "meu", "estou",
        ],
        sorry: "Que bom ler você! Esta demonstração só entende inglês, desculpe.",
    },
    Language {
        words: &[
            "ciao",
            "grazie",
            "sono",
            "buongiorno",
            "mi",
            "chiamo",
            "che",
            "stai",
            "sei",
            "tutto",
            "bene",
        ],
        sorry: "Che bello leggerti! Questa demo capisce solo l'inglese, mi dispiace.",
    },
    Language {
        words: &[
            "hoi",
            "ik",
            "een",
            "het",
            "niet",
            "dank",
            "goedemorgen",
            "gaat",
            "jij",
            "heet",
        ],
        sorry: "Wat leuk om van je te lezen! Deze demo verstaat helaas alleen Engels.",
    },
];

/// Scripts, by the ranges of their letters.
const SCRIPTS: &[(std::ops::RangeInclusive<char>, &str)] = &[
    (
        '\u{400}'..='\u{52f}',
        "Рада тебя видеть! К сожалению, эта демоверсия понимает только английский.",
    ),
    (
        '\u{3040}'..='\u{30ff}',
        "メッセージをありがとう！ごめんね、このデモは英語しかわかりません。",
    ),
    (
        '\u{4e00}'..='\u{9fff}',
        "很高兴收到你的消息！抱歉，这个演示只懂英语。",
    ),
    (
        '\u{ac00}'..='\u{d7af}',
        "메시지 고마워요! 미안하지만 이 데모는 영어만 이해해요.",
    ),
    (
        '\u{600}'..='\u{6ff}',
        "سعيدة برسالتك! عذرًا، هذا العرض لا يفهم إلا الإنجليزية.",
    ),
    (
        '\u{900}'..='\u{97f}',
        "आपका संदेश पाकर अच्छा लगा! माफ़ कीजिए, यह डेमो केवल अंग्रेज़ी समझता है।",
    ),
];

/// Replies to a message that is not in English; `None` if it seems to be.
pub(super) fn apology(text: &str, said: &Said) -> Option<Vec<String>> {
    let sorry = by_script(text).or_else(|| by_words(said))?;
    Some(vec![
        format!("{sorry} (I only follow English here. Write to me in English, and I'm all yours.)"),
        format!("{sorry} (In English I can keep up, and remember what you tell me.)"),
        format!("{sorry} (Shall we go on in English? Take your time, simple words are fine.)"),
    ])
}

fn by_script(text: &str) -> Option<&'static str> {
    let letters = text.chars().filter(|letter| letter.is_alphabetic());
    let (foreign, all) = letters.fold((0, 0), |(foreign, all), letter| {
        // Beyond Latin and its accents.
        (foreign + usize::from(letter > '\u{24f}'), all + 1)
    });
    if foreign * 2 <= all {
        return None;
    }
    let known = SCRIPTS
        .iter()
        .find(|(range, _)| text.chars().any(|letter| range.contains(&letter)));
    Some(known.map_or("What beautiful letters!", |(_, sorry)| sorry))
}

/// Two telling words, or one in a very short message.
fn by_words(said: &Said) -> Option<&'static str> {
    let count = |language: &Language| {
        let telling = said.words().filter(|word| language.words.contains(word));
        telling.count()
    };
    let (hits, language) = LANGUAGES
        .iter()
        .map(|language| (count(language), language))
        .max_by_key(|(hits, _)| *hits)?;
    let words = said.word_count();
    let enough = if words <= 3 {
        hits >= 1
    } else {
        hits >= 2 && hits * 3 >= words
    };
    enough.then_some(language.sorry)
}
