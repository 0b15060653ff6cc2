//! Text under way that is kept in case nobody lives to write its end.

use super::*;

#[test]
fn text_under_way_is_found_until_its_turn_ends() {
    let (temp, dir, log) = open(SqliteOptions::default());
    let begin = vec![begun(), accepted(1, "q")];
    wait("append", log.append(append("a", 0, begin))).unwrap();
    for (offset, text) in [(0, "one "), (4, "two "), (4, "two "), (8, "three")] {
        wait("checkpoint", log.checkpoint(piece(1, offset, text))).unwrap();
    }
    let partials = load(&log, "a").unwrap().unwrap().partials;
    let whole = Partial {
        turn: turn(1),
        text: "one two three".to_owned(),
    };
    assert_eq!(partials, [whole]);
    // Of a crash here the reply is left, as far as it came.
    let (_copy, after) = copy(&temp, &dir);
    let recovery = wait("recovery", recover(&after, None)).unwrap();
    assert_eq!((recovery.turns_interrupted, recovery.replies_kept), (1, 1));
    let end = entries(&after, "a").pop().unwrap();
    let reply: serde_json::Value = serde_json::from_str(&end.messages[0]).unwrap();
    assert_eq!(reply["content"], "one two three");
    assert_eq!(reply["finish_reason"], INTERRUPTED);
    assert_eq!(reply["model"], "some/model");
    assert_eq!(reply["id"], Uuid::from_u128(1).to_string());
    // The end takes the pieces with it, and a late one finds nobody to belong to.
    wait("append", log.append(append("a", 2, vec![ended(1, "r")]))).unwrap();
    wait("checkpoint", log.checkpoint(piece(1, 13, "late"))).unwrap();
    wait("checkpoint", log.checkpoint(piece(2, 0, "nobody's"))).unwrap();
    assert!(load(&log, "a").unwrap().unwrap().partials.is_empty());
    wait("append", log.append(append("a", 3, vec![accepted(2, "q")]))).unwrap();
    assert_eq!(load(&log, "a").unwrap().unwrap().partials[0].text, "");
}

#[test]
fn a_gap_ends_the_text_that_is_recovered() {
    let (_temp, _dir, log) = open(SqliteOptions::default());
    let begin = vec![begun(), accepted(1, "q")];
    wait("append", log.append(append("a", 0, begin))).unwrap();
    wait("checkpoint", log.checkpoint(piece(1, 0, "one "))).unwrap();
    wait("checkpoint", log.checkpoint(piece(1, 8, "three"))).unwrap();
    assert_eq!(load(&log, "a").unwrap().unwrap().partials[0].text, "one ");
}

#[test]
fn text_of_ended_replies_goes_once_no_older_reply_runs() {
    let (_temp, dir, log) = open(SqliteOptions {
        checkpoint_idle: Duration::from_millis(1),
        ..SqliteOptions::default()
    });
    for (name, number) in [("a", 1), ("b", 2)] {
        let begin = vec![begun(), accepted(number, "q")];
        wait("append", log.append(append(name, 0, begin))).unwrap();
        wait("checkpoint", log.checkpoint(piece(number, 0, "text"))).unwrap();
    }
    let count = || -> i64 {
        schema::open_reader(&dir.log_file())
            .unwrap()
            .query_row("SELECT count(*) FROM partials", [], |row| row.get(0))
            .unwrap()
    };
    let await_count = |wanted| {
        let deadline = Instant::now() + Duration::from_secs(20);
        while count() != wanted {
            assert!(Instant::now() < deadline, "there are {} pieces", count());
        }
    };
    wait("append", log.append(append("b", 2, vec![ended(2, "r")]))).unwrap();
    wait("append", log.append(append("c", 0, vec![begun()]))).unwrap();
    assert_eq!(count(), 2, "a's piece is older and needed");
    assert_eq!(load(&log, "a").unwrap().unwrap().partials[0].text, "text");
    wait("append", log.append(append("a", 2, vec![ended(1, "r")]))).unwrap();
    await_count(0);
}
