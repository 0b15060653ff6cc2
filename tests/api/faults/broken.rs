//! Replies that break off, go wrong, or never say that they are whole.

use super::doors::{Failure, Partial, Retry, expect_failures, fails};
use crate::helpers::Setup;

#[rustfmt::skip]
const BROKEN: [Failure; 33] = [
    fails("fault=reset_early", 502, "upstream_failed"),
    fails("fault=close_early", 502, "upstream_failed"),
    fails("fault=reset", 502, "upstream_failed"),
    fails("fault=end", 502, "upstream_failed"),
    fails("fault=cut", 502, "upstream_failed"),
    fails("fault=reset,after=5", 502, "upstream_failed").keeps(Partial::Tokens(5)),
    fails("fault=end,after=5", 502, "upstream_failed").keeps(Partial::Tokens(5)),
    fails("fault=cut,after=5", 502, "upstream_failed").keeps(Partial::Tokens(5)),
    fails("framing=close,fault=cut,after=5", 502, "upstream_failed").keeps(Partial::Tokens(5)),
    fails("framing=close,fault=reset,after=5", 502, "upstream_failed").keeps(Partial::Tokens(5)),
    fails("split=every:1,fault=cut,after=5", 502, "upstream_failed").keeps(Partial::Tokens(5)),
    fails("eol=cr,fault=end,after=9", 502, "upstream_failed").keeps(Partial::Tokens(9)),
    fails("finish=none,done=no", 502, "upstream_failed").keeps(Partial::Tokens(9)),
    fails("finish=none,done=no,framing=close", 502, "upstream_failed").keeps(Partial::Tokens(9)),
    fails("finish=error", 502, "upstream_failed").keeps(Partial::Tokens(9)),
    fails("tokens=0,finish=none,done=no", 502, "upstream_failed"),
    fails("reasoning=3,fault=reset,after=2", 502, "upstream_failed"),
    fails("reasoning=3,fault=error,after=5", 502, "upstream_failed").keeps(Partial::Tokens(2)),
    fails("fault=error", 502, "upstream_failed"),
    fails("fault=error,after=5", 502, "upstream_failed").keeps(Partial::Tokens(5)),
    fails("fault=error,after=5,done=yes", 502, "upstream_failed").keeps(Partial::Tokens(5)),
    fails("fault=error:429,after=5", 429, "upstream_rate_limited").keeps(Partial::Tokens(5)).retry(Retry::Told),
    fails("fault=error:402,after=5", 503, "upstream_credits").keeps(Partial::Tokens(5)),
    fails("fault=error:401,after=5", 502, "upstream_auth").keeps(Partial::Tokens(5)),
    fails("fault=error:400,after=5", 400, "upstream_rejected").keeps(Partial::Tokens(5)).saying("Provider returned error"),
    fails("fault=error:504,after=5", 504, "upstream_timeout").keeps(Partial::Tokens(5)),
    fails("fault=error:server_error,after=5", 502, "upstream_failed").keeps(Partial::Tokens(5)).saying("Provider disconnected"),
    fails("fault=error:rate_limit_exceeded,after=5", 429, "upstream_rate_limited").keeps(Partial::Tokens(5)).retry(Retry::Told),
    fails("fault=error:bare,after=5", 502, "upstream_failed").keeps(Partial::Tokens(5)).saying("Upstream went away"),
    fails("fault=garbage", 502, "upstream_failed"),
    fails("fault=garbage,after=5", 502, "upstream_failed").keeps(Partial::Tokens(5)),
    fails("fault=long_line:8500000,after=5", 502, "upstream_failed").keeps(Partial::Tokens(5)),
    fails("fault=long_comment:8500000,after=5", 502, "upstream_failed").keeps(Partial::Tokens(5)),
];

#[rustfmt::skip]
const RECORDED: [Failure; 8] = [
    fails("replay=midstream_error", 429, "upstream_rate_limited").keeps(Partial::Text("Partial answ")).retry(Retry::Told),
    fails("replay=midstream_error_only", 502, "upstream_failed").saying("Upstream went away"),
    fails("replay=midstream_error_string_code", 502, "upstream_failed").keeps(Partial::Text("Half a sen")),
    fails("replay=no_done", 502, "upstream_failed").keeps(Partial::Text("Cut here")),
    fails("replay=llamacpp_error_line", 502, "upstream_failed").keeps(Partial::Text("Some")).saying("decode failed"),
    fails("replay=vllm_midstream_error", 502, "upstream_failed").keeps(Partial::Text("Pa")).saying("engine died"),
    fails("replay=lmstudio_midstream_error", 502, "upstream_failed").keeps(Partial::Text("He")).saying("The model has crashed"),
    fails("replay=sse_torture", 502, "upstream_failed").keeps(Partial::Text("one two three four five")),
];

#[tokio::test]
async fn a_reply_that_breaks_is_an_error_at_every_door_and_its_text_is_kept() {
    let app = Setup::new().asking_once().start().await;
    expect_failures(&app, &BROKEN).await;
}

#[tokio::test]
async fn recorded_failures_are_errors_at_every_door_and_their_text_is_kept() {
    let app = Setup::new().asking_once().start().await;
    expect_failures(&app, &RECORDED).await;
}
