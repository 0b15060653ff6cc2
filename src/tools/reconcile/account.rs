//! What was done, and what could not be.

use idol_actors::{
    id::ConversationId,
    importing::{Act, Regained},
};

use super::Trouble;
use crate::tools::{Report, Status};

/// Where something was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    File,
    Object,
}

impl Source {
    fn name(self) -> &'static str {
        match self {
            Self::File => "its JSON file",
            Self::Object => "its object",
        }
    }
}

pub(super) struct Account {
    act: Act,
    lines: String,
    messages: usize,
    conversations: usize,
    written: u64,
    set_aside: u64,
    /// Objects uploaded, and those of other hands that were copied aside; none without a bucket.
    objects: Option<(u64, u64)>,
    failed: usize,
}

impl Account {
    pub(super) fn new(act: Act) -> Self {
        Self {
            act,
            lines: String::new(),
            messages: 0,
            conversations: 0,
            written: 0,
            set_aside: 0,
            objects: None,
            failed: 0,
        }
    }

    pub(super) fn deeds(&mut self, id: &ConversationId, deeds: Vec<(Source, Regained)>) {
        for (source, regained) in deeds {
            let source = source.name();
            match regained {
                Regained::Nothing => {}
                Regained::Foreign => {
                    let line = format!("left {id}: {source} has another history\n");
                    self.lines.push_str(&line);
                }
                Regained::Messages(messages) => self.took_back(id, messages, source),
            }
        }
    }

    fn took_back(&mut self, id: &ConversationId, messages: usize, source: &str) {
        self.messages += messages;
        self.conversations += 1;
        let verb = self.verb();
        let line = format!("{verb} {id}: {messages} messages from {source}\n");
        self.lines.push_str(&line);
    }

    fn verb(&self) -> &'static str {
        match self.act {
            Act::Look => "would take back",
            Act::Do => "took back",
        }
    }

    /// A conversation that the log did not have; `Ok(None)`: nor should it.
    pub(super) fn begun(
        &mut self,
        id: &ConversationId,
        source: Source,
        done: Result<Option<usize>, Trouble>,
    ) {
        match done {
            Ok(Some(0)) => {}
            Ok(Some(messages)) => self.took_back(id, messages, source.name()),
            Ok(None) => {
                let source = source.name();
                let line = format!("left {id}: {source} is not of this log; `import` takes it\n");
                self.lines.push_str(&line);
            }
            Err(trouble) => self.trouble(id.as_str(), &trouble),
        }
    }

    pub(super) fn trouble(&mut self, what: &str, why: &dyn std::fmt::Display) {
        self.failed += 1;
        self.lines.push_str(&format!("failed {what}: {why}\n"));
    }

    /// Turns stay open, since it is not known whether a copy holds their end.
    pub(super) fn left_open(&mut self) {
        self.lines.push_str(
            "left open turns as they are: a copy that may hold their end was not read; \
             a server that starts before it was ends them as interrupted\n",
        );
    }

    /// A mirror has written so many copies, and kept so many of other hands aside.
    pub(super) fn mirrored(&mut self, written: u64, set_aside: u64) {
        self.written += written;
        self.set_aside += set_aside;
    }

    /// The bucket was given so many objects, and kept so many of other hands aside.
    pub(super) fn uploaded(&mut self, objects: u64, kept: u64) {
        self.objects = Some((objects, kept));
    }

    pub(super) fn report(self) -> Report {
        let mut text = self.lines.clone();
        let (verb, messages, conversations) = (self.verb(), self.messages, self.conversations);
        text.push_str(&format!(
            "{verb} {messages} messages of {conversations} conversations"
        ));
        if self.act == Act::Do {
            text.push_str(&format!(
                "; brought {} JSON files up to date, set {} aside",
                self.written, self.set_aside
            ));
        }
        if let Some((objects, kept)) = self.objects {
            text.push_str(&format!(
                "; brought {objects} objects up to date, kept {kept} of other hands aside"
            ));
        }
        text.push_str(&format!("; {} failed\n", self.failed));
        let status = match self.failed {
            0 => Status::Well,
            _ => Status::Failed,
        };
        Report { text, status }
    }
}
