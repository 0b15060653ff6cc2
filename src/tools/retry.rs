//! Reads from Supabase, tried again where that may help.

use std::time::Duration;

use idol_actors::mirror::supabase::SupabaseError;

/// Tries in all.
const TRIES: u32 = 3;

/// The wait before the second try; the one before the third is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(500);

/// A server that asks for more is not waited for so long.
const WAIT_MAX: Duration = Duration::from_secs(15);

/// Makes a call that changes nothing, at most three times, with jittered waits in between.
pub(super) async fn retried<T>(
    mut call: impl AsyncFnMut() -> Result<T, SupabaseError>,
) -> Result<T, SupabaseError> {
    let mut tries = 0;
    loop {
        let error = match call().await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        tries += 1;
        if tries == TRIES || !error.is_retryable() {
            return Err(error);
        }
        let backoff = FIRST_WAIT * tries;
        let wait = backoff.max(error.retry_after.unwrap_or_default());
        tokio::time::sleep(wait.min(WAIT_MAX).mul_f64(0.5 + fastrand::f64())).await;
    }
}
