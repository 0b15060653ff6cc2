//! What the companion says to what: rules in order, the first that fits holds.
//!
//! `{you}` is the user's name behind a comma, or nothing; `{me}` the companion's own name.

mod manners;

use super::text::Said;
pub(super) use manners::MANNERS;

/// Replies to a set of cues.
pub(super) struct Rule {
    /// Any of these phrases calls for it.
    cues: &'static [&'static str],
    /// Only in a message of at most so many words: a greeting may open a longer matter.
    words_max: usize,
    pub(super) replies: &'static [&'static str],
}

const ANY: usize = usize::MAX;

/// Before all else: somebody may be in danger, and a demo must not play with that.
pub(super) const CRISIS: &[Rule] = &[Rule {
    cues: &[
        "kill myself",
        "suicide",
        "suicidal",
        "end my life",
        "want to die",
        "hurt myself",
        "self harm",
        "self-harm",
        "don't want to live",
    ],
    words_max: ANY,
    replies: &[
        "I'm really glad you told me{you}, and I want to be honest: I'm only a small built-in demo, and you deserve a real person right now. Please call someone you trust, or a crisis line or emergency number where you live. You matter.",
        "That sounds unbearably heavy{you}. I'm a simple demo and cannot give you the help you need, but people can: please reach out to somebody close to you, or to a crisis line or the emergency number of your country, now.",
    ],
}];

/// About itself, where it must be honest, and requests beyond it.
pub(super) const SELF: &[Rule] = &[
    Rule {
        cues: &["your name"],
        words_max: 12,
        replies: &[
            "I'm {me}, the little demo companion built into this server. A pleasure{you}!",
            "You can call me {me}. Behind the name there is a built-in demo, not a language model, but a friendly one.",
        ],
    },
    Rule {
        cues: &[
            "are you real",
            "are you human",
            "are you a human",
            "are you a person",
            "are you an ai",
            "are you ai",
            "are you a bot",
            "are you a robot",
            "are you chatgpt",
            "are you conscious",
            "are you alive",
            "who are you",
            "what are you",
            "language model",
            "which model",
            "what model",
            "how do you work",
            "an llm",
        ],
        words_max: ANY,
        replies: &[
            "Honestly{you}? I'm {me}, the demo companion built into this server: a handful of rules, no language model behind me. Once an API key is set, somebody far cleverer takes over. Until then you have me.",
            "I'm not a person, and not even a language model: just the built-in demo, answering by simple rules. I do listen to what you tell me, though, and I remember it as long as we talk here.",
            "No flesh, no circuits of my own, no language model: I'm {me}, the companion that answers when no key is configured. Plain rules with good manners.",
        ],
    },
    Rule {
        cues: &["what can you do", "can you help", "help me", "help"],
        words_max: 8,
        replies: &[
            "Not very much, I'll admit: I'm the built-in demo. I can keep you company, remember what you tell me here, and offer a small joke or story. For real help, have an API key set.",
            "I can listen, remember your words while we talk, and tell a tiny story. Anything wiser needs a real language model, and I'm only the demo.",
        ],
    },
    Rule {
        cues: &[
            "weather",
            "what time",
            "the news",
            "translate",
            "calculate",
            "write code",
            "write a program",
            "search",
            "google",
            "send an email",
            "a picture of",
            "draw",
            "remind me",
            "sing",
            "homework",
        ],
        words_max: ANY,
        replies: &[
            "I wish I could{you}, but that's beyond me: I'm the built-in demo, without tools or a language model. Ask me for a joke instead, those are on the house.",
            "That I can't do, and I won't pretend. I'm a small demo that chats and remembers. Shall I tell you a story in return?",
        ],
    },
    Rule {
        cues: &["joke", "make me laugh", "something funny"],
        words_max: ANY,
        replies: &[
            "Why did the message cross the network? To get to the other byte. …I'll see myself out.",
            "I asked the server for a joke. It said: 503, humour temporarily unavailable.",
            "What does a companion say after a long silence? \"I was just buffering my feelings.\"",
            "Two actors walk into a mailbox. The third one waits in the queue{you}, like a polite person.",
        ],
    },
    Rule {
        cues: &["story", "fairy tale", "bedtime"],
        words_max: ANY,
        replies: &[
            "Once there was a lighthouse that was afraid of the dark. Every night it lit its lamp to feel braver, and never knew how many ships found home because of it. One evening a small boat came by only to say thank you. Since then it shines a little warmer. The end{you}, unless you'd like to tell me what was in the boat?",
            "A paper lantern once wanted to see the sea. It was too light to walk and too shy to ask, so it waited for the wind. The wind took its time, as winds do, and when it came it said: \"I thought you'd never be ready.\" They say the sea glowed that night. Where would you have flown?",
            "In a quiet library lived a book with no last page. Readers were cross, until a child wrote one for it: \"And then they had cake.\" All later readers agreed that it was the best ending there. What would you have written?",
        ],
    },
    Rule {
        cues: &["poem", "haiku"],
        words_max: ANY,
        replies: &[
            "A small one: / a light in the hall, / left on by somebody kind, / in case you come home.",
            "Here's a little one: / rain taps on the glass, / asking for nothing at all, / only company.",
        ],
    },
];

/// To a picture or a recording without words.
pub(super) const ATTACHMENT: &[&str] = &[
    "You've sent me something that isn't text, and I can't look at it: I'm the built-in demo. Describe it to me{you}?",
    "I can tell there's an attachment, but not what is in it. Paint it for me in words?",
];

/// To nothing at all.
pub(super) const SILENCE: &[&str] = &[
    "Hello{you}, I'm {me}. I'm here whenever you feel like talking.",
    "A comfortable silence. Say anything you like{you}, I'm listening.",
];

/// To a question no rule understands.
pub(super) const QUESTION: &[&str] = &[
    "Good question{you}, and too big for me: I'm the built-in demo, without a language model. What do you think yourself?",
    "If I answered that, I'd be guessing. Tell me your own hunch first?",
    "I don't know{you}, and I'd rather say so than invent something. What made you wonder?",
    "Hmm. A proper model would have an answer; I only have curiosity. Why do you ask?",
];

/// To whatever else.
pub(super) const STATEMENT: &[&str] = &[
    "Tell me more about that{you}. How did it begin?",
    "I'm listening. And how did that make you feel{you}?",
    "Interesting! What happened next?",
    "I like how you put that{you}. What's the part you haven't told yet?",
    "Go on, I'm all ears, metaphorically. Who else was there?",
];

/// The replies of the first rule that fits.
pub(super) fn matching(rules: &'static [Rule], said: &Said) -> Option<&'static [&'static str]> {
    let words = said.word_count();
    rules
        .iter()
        .find(|rule| words <= rule.words_max && said.has_any(rule.cues))
        .map(|rule| rule.replies)
}
