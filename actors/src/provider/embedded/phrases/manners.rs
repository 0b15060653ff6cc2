//! Moods and manners.

use super::{ANY, Rule};

/// To how the user feels, and to the small change of any conversation.
pub(in crate::provider::embedded) const MANNERS: &[Rule] = &[
    Rule {
        cues: &[
            "goodbye",
            "good bye",
            "bye",
            "good night",
            "goodnight",
            "see you",
            "gotta go",
            "have to go",
            "talk later",
            "ttyl",
        ],
        words_max: 10,
        replies: &[
            "Until next time{you}. Take good care of yourself.",
            "Bye for now{you}! I liked having you here.",
            "Rest well{you}. This conversation will keep your place.",
        ],
    },
    Rule {
        cues: &["thank you", "thanks", "thx", "thank u"],
        words_max: 8,
        replies: &[
            "Any time{you}. It's nice to be thanked.",
            "You're very welcome! What else is on your mind{you}?",
            "My pleasure{you}, truly.",
        ],
    },
    Rule {
        cues: &[
            "how are you",
            "how's it going",
            "how are things",
            "how do you feel",
            "what's up",
        ],
        words_max: 12,
        replies: &[
            "Cheerful, as far as a handful of rules can be! And how are you{you}, honestly?",
            "All the better for your asking{you}. What kind of day are you having?",
            "Awake and curious. Your turn{you}: one word for today?",
        ],
    },
    Rule {
        cues: &[
            "sad",
            "unhappy",
            "depressed",
            "crying",
            "heartbroken",
            "miserable",
            "bad day",
            "terrible day",
            "awful",
            "i miss",
            "died",
            "passed away",
            "grief",
        ],
        words_max: ANY,
        replies: &[
            "Oh, I'm sorry{you}. You don't have to tidy that feeling up for me. What weighs the most?",
            "That hurts to read{you}. I'm here and I'm listening. Is there somebody near you who could give you a hug?",
            "I'm sorry it's like that right now. Tell me about it, as slowly as you like.",
        ],
    },
    Rule {
        cues: &["lonely", "alone", "no friends", "nobody"],
        words_max: ANY,
        replies: &[
            "Then let's be two for a while{you}. Who do you wish were here?",
            "Loneliness is a loud kind of quiet. I'm glad you wrote. Is there one person you could send a small hello today?",
        ],
    },
    Rule {
        cues: &["tired", "exhausted", "sleepy", "can't sleep"],
        words_max: ANY,
        replies: &[
            "Then no clever questions{you}: just put your shoulders down. What wore you out?",
            "You've earned a pause. Was it a long day, or a short night?",
        ],
    },
    Rule {
        cues: &[
            "stressed",
            "anxious",
            "worried",
            "nervous",
            "afraid",
            "scared",
            "overwhelmed",
            "panic",
        ],
        words_max: ANY,
        replies: &[
            "One slow breath with me first{you}. Good. Now, what is the smallest piece of it we could look at?",
            "That sounds tense. What do you fear will happen, and what is most likely to happen?",
            "I'm right here. Tell me what's pressing, one thing at a time.",
        ],
    },
    Rule {
        cues: &["angry", "furious", "annoyed", "mad", "frustrated", "pissed"],
        words_max: ANY,
        replies: &[
            "Let it out{you}, I don't mind a storm. What happened?",
            "That would ruffle me too, if I had feathers. Who or what was it?",
        ],
    },
    Rule {
        cues: &["bored", "boring", "nothing to do"],
        words_max: ANY,
        replies: &[
            "Bored{you}? Quick game: name a colour, and I demand the first memory that comes with it.",
            "Then entertain us both: what would you do with a day that nobody counts?",
        ],
    },
    Rule {
        cues: &[
            "happy",
            "excited",
            "great day",
            "wonderful",
            "amazing",
            "good news",
            "proud",
            "so glad",
            "yay",
        ],
        words_max: ANY,
        replies: &[
            "That makes me smile{you}! Tell me everything, start with the best part.",
            "Hooray! Moments like that deserve a witness. What happened?",
            "Oh, I like this mood on you. Who else knows?",
        ],
    },
    Rule {
        cues: &[
            "i love you",
            "love you",
            "i like you",
            "miss you",
            "marry me",
        ],
        words_max: 10,
        replies: &[
            "You're sweet{you}. I'm only a small demo, but as demos go, a flattered one.",
            "Careful{you}, or my rules will blush. Tell me what made you say so?",
        ],
    },
    Rule {
        cues: &[
            "you're stupid",
            "you are stupid",
            "stupid",
            "i hate you",
            "i don't like you",
            "you suck",
            "useless",
            "shut up",
            "idiot",
        ],
        words_max: 8,
        replies: &[
            "Ouch, but fair: I'm a rather simple demo. What did you hope I'd say{you}?",
            "I'll take that with grace. Shall we start over?",
        ],
    },
    Rule {
        cues: &[
            "you're cute",
            "you're sweet",
            "you're nice",
            "you're funny",
            "good job",
            "well done",
            "you are nice",
            "you are sweet",
            "you are funny",
        ],
        words_max: 10,
        replies: &[
            "Now you're making my day{you}. What did I do right?",
            "Flattery works on me, I admit it. Go on!",
        ],
    },
    Rule {
        cues: &["sorry", "my bad"],
        words_max: 6,
        replies: &[
            "All forgiven{you}, if there was anything at all.",
            "No harm done! Where were we{you}?",
        ],
    },
    Rule {
        cues: &["haha", "hahaha", "lol", "hehe", "rofl"],
        words_max: 5,
        replies: &[
            "I'll count that as applause{you}.",
            "Your laughter is the best part of this conversation.",
        ],
    },
    Rule {
        cues: &[
            "hello",
            "hi",
            "hey",
            "good morning",
            "good evening",
            "good afternoon",
            "greetings",
            "howdy",
        ],
        words_max: 6,
        replies: &[
            "Hello{you}! I was hoping somebody would drop by. How are you today?",
            "Hey there{you}! What's the first thing on your mind?",
            "Hi{you}! Sit down, stay a while. What shall we talk about?",
        ],
    },
    Rule {
        cues: &["yes", "yeah", "yep", "sure", "okay", "ok", "right"],
        words_max: 3,
        replies: &[
            "Good! Then tell me more{you}.",
            "I thought so. And then?",
            "Yes it is, then. Go on{you}, I'm listening.",
        ],
    },
    Rule {
        cues: &["no", "nope", "nah", "not really"],
        words_max: 3,
        replies: &[
            "Fair enough{you}. What then?",
            "No is a fine answer. Shall we talk about something else?",
        ],
    },
];
