use super::*;

/// Stopped calls are probed at once.
fn protection(open_longest: Duration) -> Arc<Protection> {
    Arc::new(Protection::new(ProtectionPolicy {
        breaker: BreakerPolicy {
            open_first: Duration::ZERO,
            open_longest,
            ..BreakerPolicy::default()
        },
        ..ProtectionPolicy::default()
    }))
}

async fn admit(protection: &Arc<Protection>, model: &str) -> Result<Call, UpstreamError> {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    protection.admit(&model.into(), deadline).await
}

/// As many calls of a model as open a breaker.
async fn fail(protection: &Arc<Protection>, model: &str, went: Went) {
    let calls = (0..10).map(|_| admit(protection, model));
    for call in futures::future::join_all(calls).await {
        call.unwrap().ended(went);
    }
}

#[tokio::test]
async fn an_upstream_that_answers_can_be_reached_before_its_first_token() {
    let protection = protection(Duration::from_secs(60));
    let unreached = Went {
        reach: CallEnd::Badly,
        model: CallEnd::Neither,
    };
    fail(&protection, "a", unreached).await;
    let probe = admit(&protection, "a").await.unwrap();
    assert!(
        admit(&protection, "b").await.is_err(),
        "one probe at a time"
    );
    probe.reached();
    admit(&protection, "b").await.unwrap();
}

#[tokio::test]
async fn models_that_failed_and_are_asked_no_more_leave_their_places() {
    let protection = protection(Duration::ZERO);
    let ill = Went {
        reach: CallEnd::Well,
        model: CallEnd::Badly,
    };
    for number in 0..=MODELS_MAX {
        fail(&protection, &number.to_string(), ill).await;
    }
    let last = MODELS_MAX.to_string();
    assert!(protection.lock().models.contains_key(last.as_str()));
    assert_eq!(protection.state().stopped, []);
}
