//! A configuration that cannot work fails when it is built, with a sentence that says what to change.

use std::time::Duration;

use tower_token_auth::test_util::RecordingSink;
use tower_token_auth::{
    CacheConfig, IssuePolicy, LookupLimits, MemoryStore, NoAudit, OnAuditFailure, OnMissing, TokenAuthBuilder,
    TokenAuthLayer, TokenIssuer, TracingSink, VerifyLimits,
};

fn builder() -> TokenAuthBuilder {
    TokenAuthLayer::builder(MemoryStore::new())
}

#[track_caller]
fn assert_fails(builder: TokenAuthBuilder, sentence: &str) {
    let error = builder.build().expect_err("it cannot work").to_string();
    assert!(error.contains(sentence), "{error:?} does not say {sentence:?}");
}

#[track_caller]
fn assert_works(builder: TokenAuthBuilder) {
    assert!(builder.build().is_ok());
}

#[test]
fn the_defaults_work() {
    assert_works(builder());
}

#[test]
fn a_realm_that_cannot_stand_in_a_challenge() {
    let long = "x".repeat(129);
    for realm in ["", "a \"quoted\" realm", "back\\slash", "line\nfeed", "ümlaut", &long] {
        assert_fails(builder().realm(realm), "use 1 to 128 printable ASCII characters");
    }
    assert_works(builder().realm("x".repeat(128)));
    assert_works(builder().realm("a realm, with a comma"));
}

#[test]
fn an_illegal_prefix() {
    for prefix in ["", "a", "Acme", "acme_", "a-b", "abcdefghijklmnopq"] {
        assert_fails(builder().prefix(prefix), "use 2 to 16 characters of a-z, 0-9 and _");
        assert_fails(builder().accept_prefix(prefix), "use 2 to 16 characters of a-z, 0-9 and _");
    }
    assert_works(builder().prefix("acme").accept_prefix("old_acme"));
}

#[test]
fn a_prefix_that_is_accepted_twice() {
    assert_fails(builder().accept_prefix("tta"), "remove one `accept_prefix`");
    assert_fails(builder().prefix("new").accept_prefix("old").accept_prefix("old"), "remove one `accept_prefix`");
    let accepting = |others: u16| (0..others).fold(builder(), |all, at| all.accept_prefix(format!("old{at}")));
    assert_works(accepting(255));
    assert_fails(accepting(256), "more than 256 token prefixes");
}

#[test]
fn requests_do_not_pass_where_nothing_tells_which_had_a_token() {
    assert_works(builder().on_missing(OnMissing::Pass));
    assert_works(builder().without_extension());
    assert_fails(builder().on_missing(OnMissing::Pass).without_extension(), "remove one of them");
}

#[test]
fn a_time_of_zero() {
    let (lookup, verify) = (LookupLimits::default(), VerifyLimits::default());
    let instant = Duration::from_millis(1);
    for (option, wrong, right) in [
        (
            "LookupLimits::timeout",
            builder().lookup(lookup.timeout(Duration::ZERO)),
            builder().lookup(lookup.timeout(instant)),
        ),
        (
            "VerifyLimits::wait",
            builder().verification(verify.wait(Duration::ZERO)),
            builder().verification(verify.wait(instant)),
        ),
    ] {
        assert_fails(wrong, &format!("{option} is zero; set it to more than zero"));
        assert_works(right);
    }
}

#[test]
fn a_refresh_ahead_of_the_record_itself() {
    let cache = CacheConfig::default().ttl(Duration::from_secs(10));
    let sentence = "CacheConfig::refresh_ahead is not less than the TTL; set it to a part of CacheConfig::ttl";
    assert_fails(builder().cache(cache.refresh_ahead(Duration::from_secs(10))), sentence);
    assert_works(builder().cache(cache.refresh_ahead(Duration::from_secs(9))));
    assert_works(builder().cache(cache.refresh_ahead(Duration::ZERO).ttl(Duration::ZERO)));
}

#[test]
fn a_bound_of_zero() {
    let cache = CacheConfig::default();
    let lookup = LookupLimits::default();
    let verify = VerifyLimits::default();
    for (builder, option) in [
        (builder().cache(cache.proved(0)), "CacheConfig::proved"),
        (builder().cache(cache.unproved(0)), "CacheConfig::unproved"),
        (builder().cache(cache.negatives(0)), "CacheConfig::negatives"),
        (builder().lookup(lookup.in_flight(0)), "LookupLimits::in_flight"),
        (builder().lookup(lookup.refreshes(0)), "LookupLimits::refreshes"),
        (builder().verification(verify.ids(0)), "VerifyLimits::ids"),
        (builder().verification(verify.per_id(0)), "VerifyLimits::per_id"),
        (builder().verification(verify.own_workers(0)), "VerifyLimits::own_workers"),
    ] {
        assert_fails(builder, &format!("{option} is zero; set it to at least 1"));
    }
    assert_works(builder().cache(cache.proved(1).unproved(1).negatives(1).ttl(Duration::ZERO)));
    assert_works(builder().lookup(lookup.in_flight(1).refreshes(1).waiting(0)));
    assert_works(builder().verification(verify.ids(1).per_id(1).own_workers(1)));
}

#[test]
fn a_time_beyond_a_day() {
    let long = Duration::from_secs(24 * 60 * 60 + 1);
    for (builder, option) in [
        (builder().cache(CacheConfig::default().ttl(long)), "CacheConfig::ttl"),
        (builder().cache(CacheConfig::default().negative_ttl(long)), "CacheConfig::negative_ttl"),
        (builder().lookup(LookupLimits::default().timeout(long)), "LookupLimits::timeout"),
        (builder().verification(VerifyLimits::default().wait(long)), "VerifyLimits::wait"),
        (builder().flush_last_used(long), "TokenAuthBuilder::flush_last_used"),
    ] {
        assert_fails(builder, &format!("{option} is longer than a day; set it to at most 24 hours"));
    }
    assert_works(builder().cache(CacheConfig::default().ttl(long - Duration::from_secs(1))));
}

#[test]
fn too_many_workers() {
    let limits = VerifyLimits::default();
    assert_fails(builder().verification(limits.own_workers(65)), "set it to about half the number of cores");
    assert_works(builder().verification(limits.own_workers(64)));
}

#[test]
fn recording_required_of_a_sink_that_cannot_fail() {
    let required = || builder().on_audit_failure(OnAuditFailure::Refuse);
    assert_fails(required(), "set another sink or OnAuditFailure::Continue");
    assert_fails(required().audit(NoAudit::new()), "set another sink or OnAuditFailure::Continue");
    assert_works(required().audit(RecordingSink::new()));
    assert_works(builder().audit(TracingSink::new()));
}

#[test]
fn a_desk_without_a_gate_is_judged_alike() {
    let desk = || TokenIssuer::builder(MemoryStore::new(), IssuePolicy::default());
    let says = |error: tower_token_auth::BuildError, sentence: &str| assert!(error.to_string().contains(sentence));
    says(desk().prefix("A").build().expect_err("illegal"), "use 2 to 16 characters");
    says(desk().verification(VerifyLimits::default().ids(0)).build().expect_err("zero"), "at least 1");
    says(desk().on_audit_failure(OnAuditFailure::Refuse).build().expect_err("deaf"), "set another sink");
    assert!(desk().prefix("acme").build().is_ok());
}
