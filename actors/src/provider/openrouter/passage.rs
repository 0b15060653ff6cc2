//! What of all that the requests for one reply bring goes on to its listener. Pure.
//!
//! However many requests there are, the listener sees one reply: text without repetitions, a mark
//! where a continuation begins, one finish reason and one usage.

use std::sync::Arc;

use serde_json::{Map, Number, Value, value::RawValue};

use crate::{
    json_text::{JsonText, unescape},
    provider::{
        Delta, RawJson, ReplyHead,
        attempts::{MidstreamRepair, Reached},
        seam::{self, Restarted, Seam},
    },
};

/// The way of one reply.
#[derive(Debug)]
pub(super) struct Passage {
    repair: MidstreamRepair,
    /// Text that was passed on, escaped; kept only where it may have to be continued.
    accepted: JsonText,
    reached: Reached,
    /// Bytes that were passed on.
    bytes: usize,
    usages: Vec<RawJson>,
    request: Request,
}

/// What belongs to the request under way.
#[derive(Debug, Default)]
struct Request {
    model: Arc<str>,
    /// It goes on with a reply that was begun; `None` for text: it may be passed on as it is.
    continues: Continues,
    seam: Option<Seam>,
    head: Option<Arc<ReplyHead>>,
    finish: Option<Delta>,
    usage: Option<RawJson>,
    /// Whether it added anything.
    added: bool,
    answered: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Continues {
    #[default]
    Nothing,
    /// Nothing of it was passed on: when it is, a seam comes first.
    Unmarked,
    Marked,
}

impl Passage {
    pub(super) fn new(repair: MidstreamRepair) -> Self {
        Self {
            repair,
            accepted: JsonText::default(),
            reached: Reached::Nothing,
            bytes: 0,
            usages: Vec::new(),
            request: Request::default(),
        }
    }

    /// How far the reply has come.
    pub(super) fn reached(&self) -> Reached {
        self.reached
    }

    /// Whether the request under way has brought a piece of the reply.
    pub(super) fn is_answered(&self) -> bool {
        self.request.answered
    }

    /// Bytes that the reply may still have.
    pub(super) fn room(&self, most: usize) -> usize {
        most.saturating_sub(self.bytes)
    }

    /// What a continuation must begin with, escaped; none: the reply is asked for anew.
    pub(super) fn prefix(&self) -> Option<JsonText> {
        if self.reached != Reached::Text {
            return None;
        }
        let plain = unescape(self.accepted.as_escaped());
        let prefix = seam::prefix(&plain);
        (!prefix.is_empty()).then(|| JsonText::escape(prefix))
    }

    /// A request of this model goes out.
    pub(super) fn begin(&mut self, model: Arc<str>) {
        let (continues, seam) = match self.reached {
            Reached::Nothing => (Continues::Nothing, None),
            Reached::Reasoning => (Continues::Unmarked, None),
            Reached::Text | Reached::Unrepeatable => {
                let seam = Seam::new(unescape(self.accepted.as_escaped()));
                (Continues::Unmarked, Some(seam))
            }
        };
        self.request = Request {
            model,
            continues,
            seam,
            ..Request::default()
        };
    }

    /// What of these deltas goes on.
    pub(super) fn pass(&mut self, deltas: Vec<Delta>) -> Result<Vec<Delta>, Restarted> {
        if self.request.continues == Continues::Nothing && !deltas.iter().any(is_special) {
            deltas.iter().for_each(|delta| self.note(delta));
            return Ok(deltas);
        }
        let mut out = Vec::with_capacity(deltas.len());
        for delta in deltas {
            self.pass_one(delta, &mut out)?;
        }
        Ok(out)
    }

    fn pass_one(&mut self, delta: Delta, out: &mut Vec<Delta>) -> Result<(), Restarted> {
        match delta {
            Delta::Head(head) => {
                let head = self.named(head);
                if self.request.continues == Continues::Unmarked {
                    self.request.head = Some(head);
                } else {
                    out.push(Delta::Head(head));
                }
            }
            Delta::Text(text) => {
                self.request.answered = true;
                let text = match self.request.seam.as_mut().filter(|it| !it.is_decided()) {
                    None => text,
                    Some(seam) => JsonText::escape(&seam.push(&unescape(text.as_escaped()))?),
                };
                if !text.is_empty() {
                    self.emit(Delta::Text(text), out);
                }
            }
            Delta::Usage(usage) => self.request.usage = Some(usage),
            Delta::Finish { .. } => {
                self.flush(out)?;
                if self.request.continues == Continues::Nothing || self.request.added {
                    self.emit(delta, out);
                } else {
                    // Whether the continuation is one is known at its end.
                    self.request.finish = Some(delta);
                }
            }
            Delta::ToolCalls(_) => {
                self.flush(out)?;
                self.emit(delta, out);
            }
            Delta::Reasoning(_) | Delta::Other(_) => self.emit(delta, out),
            Delta::Seam { .. } => {}
        }
        Ok(())
    }

    /// The request ended well: what was held back. Its end is the reply's.
    pub(super) fn close(&mut self) -> Result<Vec<Delta>, Restarted> {
        let mut out = Vec::new();
        self.flush(&mut out)?;
        if let Some(finish) = self.request.finish.take() {
            self.emit(finish, &mut out);
        }
        Ok(out)
    }

    /// Whether the request was to continue the reply, and had nothing to add to its text.
    pub(super) fn is_empty_continuation(&self) -> bool {
        self.request.seam.is_some() && !self.request.added
    }

    /// The request is over; what it cost is kept.
    pub(super) fn end_request(&mut self) {
        self.usages.extend(self.request.usage.take());
    }

    /// What all requests cost that told.
    pub(super) fn usage(&mut self) -> Option<RawJson> {
        summed(std::mem::take(&mut self.usages))
    }

    fn flush(&mut self, out: &mut Vec<Delta>) -> Result<(), Restarted> {
        if let Some(seam) = &mut self.request.seam {
            let text = seam.finish()?;
            if !text.is_empty() {
                self.emit(Delta::Text(JsonText::escape(&text)), out);
            }
        }
        Ok(())
    }

    fn emit(&mut self, delta: Delta, out: &mut Vec<Delta>) {
        if self.request.continues == Continues::Unmarked {
            self.request.continues = Continues::Marked;
            let head = self.request.head.take();
            let model = match &head {
                Some(head) => head.model.as_str().into(),
                None => self.request.model.clone(),
            };
            out.push(Delta::Seam { model });
            out.extend(head.map(Delta::Head));
        }
        self.note(&delta);
        out.push(delta);
    }

    /// Keeps count of what is passed on.
    fn note(&mut self, delta: &Delta) {
        let (bytes, reached) = match delta {
            Delta::Text(text) => {
                if self.repair == MidstreamRepair::On {
                    self.accepted.push(text);
                }
                self.request.added = true;
                (text.as_escaped().len(), Reached::Text)
            }
            Delta::Reasoning(text) => (text.as_escaped().len(), Reached::Reasoning),
            Delta::ToolCalls(raw) => (raw.get().len(), Reached::Unrepeatable),
            // A listener has it: asked for anew, the reply shows it behind a seam.
            Delta::Other(raw) => (raw.get().len(), Reached::Reasoning),
            Delta::Finish { .. } => (0, Reached::Unrepeatable),
            Delta::Head(_) | Delta::Usage(_) | Delta::Seam { .. } => (0, Reached::Nothing),
        };
        self.bytes += bytes;
        self.reached = self.reached.max(reached);
        let is_other = matches!(delta, Delta::Other(_));
        self.request.answered |= reached > Reached::Nothing && !is_other;
    }

    /// A head that says which model answers, if need be the one that was asked.
    fn named(&self, head: Arc<ReplyHead>) -> Arc<ReplyHead> {
        if !head.model.is_empty() {
            return head;
        }
        Arc::new(ReplyHead {
            model: self.request.model.to_string(),
            ..(*head).clone()
        })
    }
}

/// Whether it needs more than being counted, on a first request.
fn is_special(delta: &Delta) -> bool {
    match delta {
        Delta::Head(head) => head.model.is_empty(),
        Delta::Usage(_) | Delta::Seam { .. } => true,
        Delta::Text(_)
        | Delta::Reasoning(_)
        | Delta::ToolCalls(_)
        | Delta::Other(_)
        | Delta::Finish { .. } => false,
    }
}

/// Members that add up over requests; of all others the last request's count.
const SUMMED: [&str; 4] = ["prompt_tokens", "completion_tokens", "total_tokens", "cost"];

/// One usage from those of several requests.
fn summed(mut usages: Vec<RawJson>) -> Option<RawJson> {
    let last = usages.pop()?;
    if usages.is_empty() {
        return Some(last);
    }
    let object = |usage: &RawJson| serde_json::from_str::<Map<String, Value>>(usage.get()).ok();
    let Some(mut sum) = object(&last) else {
        return Some(last);
    };
    for usage in usages.iter().filter_map(object) {
        for member in SUMMED {
            let more = usage.get(member).and_then(Value::as_number);
            let so_far = sum.get(member).and_then(Value::as_number);
            if let Some(total) =
                more.map(|more| so_far.map_or(Some(more.clone()), |so_far| add(more, so_far)))
            {
                sum.extend(total.map(|total| (member.to_owned(), Value::Number(total))));
            }
        }
    }
    let json = serde_json::to_string(&sum).ok()?;
    RawValue::from_string(json).ok().map(RawJson).or(Some(last))
}

fn add(one: &Number, other: &Number) -> Option<Number> {
    match (one.as_u64(), other.as_u64()) {
        (Some(one), Some(other)) => Some(one.saturating_add(other).into()),
        _ => Number::from_f64(one.as_f64()? + other.as_f64()?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Delta {
        Delta::Text(JsonText::escape(text))
    }

    fn usage(json: &str) -> Delta {
        Delta::Usage(raw(json))
    }

    fn raw(json: &str) -> RawJson {
        RawJson(RawValue::from_string(json.to_owned()).unwrap())
    }

    fn head(model: &str) -> Delta {
        Delta::Head(Arc::new(ReplyHead {
            model: model.to_owned(),
            ..ReplyHead::default()
        }))
    }

    fn finish() -> Delta {
        Delta::Finish {
            reason: "stop".into(),
            native: None,
        }
    }

    fn seam(model: &str) -> Delta {
        Delta::Seam {
            model: model.into(),
        }
    }

    fn passage() -> Passage {
        let mut passage = Passage::new(MidstreamRepair::On);
        passage.begin("a".into());
        passage
    }

    #[test]
    fn a_reply_in_one_piece_passes_as_it_is() {
        let mut passage = passage();
        let deltas = vec![head("a"), text("Hello "), text("you"), finish()];
        assert_eq!(passage.pass(deltas.clone()).unwrap(), deltas);
        assert_eq!(passage.pass(vec![usage("{\"x\":1}")]).unwrap(), []);
        passage.end_request();
        assert_eq!(passage.close().unwrap(), []);
        assert_eq!(passage.usage(), Some(raw("{\"x\":1}")));
    }

    #[test]
    fn a_continuation_is_marked_once_and_shown_without_what_repeats() {
        let mut passage = passage();
        passage
            .pass(vec![text("Good morning, my friend, ")])
            .unwrap();
        assert_eq!(passage.reached(), Reached::Text);
        assert_eq!(
            passage.prefix().unwrap().as_escaped(),
            "Good morning, my friend,"
        );
        // One that fails before it says anything leaves no mark.
        passage.begin("a".into());
        passage.pass(vec![head("a")]).unwrap();
        passage.begin("b".into());
        assert_eq!(
            passage.pass(vec![head("b"), text("morning, ")]).unwrap(),
            []
        );
        let shown = passage.pass(vec![text("my friend, how are you"), text("?"), finish()]);
        assert_eq!(
            shown.unwrap(),
            [
                seam("b"),
                head("b"),
                text("how are you"),
                text("?"),
                finish()
            ]
        );
        assert!(!passage.is_empty_continuation());
        assert_eq!(passage.close().unwrap(), []);
    }

    #[test]
    fn what_begins_again_or_adds_nothing_is_noticed() {
        let mut passage = passage();
        let said = "Good morning, dear friend of the river and the stars, who";
        passage.pass(vec![text(said)]).unwrap();
        passage.begin("b".into());
        let again = "Good morning, dear friend of the river and the stars. I";
        assert!(passage.pass(vec![text(again)]).is_err());
        passage.begin("b".into());
        assert_eq!(passage.pass(vec![finish()]).unwrap(), []);
        assert!(passage.is_empty_continuation());
    }

    #[test]
    fn reasoning_alone_is_asked_for_anew_and_tool_calls_never() {
        let mut passage = passage();
        let thought = Delta::Reasoning(JsonText::escape("hm"));
        passage.pass(vec![thought]).unwrap();
        assert_eq!(passage.reached(), Reached::Reasoning);
        assert!(passage.prefix().is_none());
        passage.begin("b".into());
        let shown = passage.pass(vec![text("Hello")]).unwrap();
        assert_eq!(shown, [seam("b"), text("Hello")]);
        passage.pass(vec![Delta::ToolCalls(raw("[]"))]).unwrap();
        assert_eq!(passage.reached(), Reached::Unrepeatable);
    }

    #[test]
    fn other_members_that_were_passed_on_come_behind_a_seam_the_next_time() {
        let mut passage = passage();
        let refusal = Delta::Other(raw("{\"refusal\":\"no\"}"));
        passage.pass(vec![refusal.clone()]).unwrap();
        assert_eq!(passage.reached(), Reached::Reasoning);
        assert!(!passage.is_answered());
        passage.begin("b".into());
        let shown = passage.pass(vec![refusal.clone()]).unwrap();
        assert_eq!(shown, [seam("b"), refusal]);
    }

    #[test]
    fn usages_add_up() {
        let sum = summed(vec![
            raw(r#"{"prompt_tokens":5,"completion_tokens":2,"cost":0.5}"#),
            raw(
                r#"{"prompt_tokens":7,"completion_tokens":4,"total_tokens":11,"cost":0.25,"x":{"y":1}}"#,
            ),
        ]);
        let sum: Value = serde_json::from_str(sum.unwrap().get()).unwrap();
        let expected = serde_json::json!({
            "prompt_tokens": 12, "completion_tokens": 6, "total_tokens": 11, "cost": 0.75, "x": {"y": 1},
        });
        assert_eq!(sum, expected);
        assert_eq!(summed(Vec::new()), None);
    }

    #[test]
    fn the_room_of_a_reply_is_that_of_all_its_requests() {
        let mut passage = passage();
        passage.pass(vec![text("12345")]).unwrap();
        assert_eq!(passage.room(8), 3);
        assert_eq!(passage.room(2), 0);
    }
}
