//! A gate's numbers, for the `metrics` crate.

use metrics::{Label, counter, gauge};

use super::{AuthHandle, FeedState, Stats};

impl AuthHandle {
    /// Publishes [`stats`](Self::stats) through the application's `metrics` recorder. Only with the feature `metrics`.
    ///
    /// [`background`](crate::TokenAuthLayer::background) does so every 10 s; call it where that does not run, or when a
    /// scrape comes. Names are covered by semantic versioning. All carry two labels, `realm` and `gate` (a number that
    /// tells the gates of a process apart, in the order they were built); none names a token or an owner.
    ///
    /// | `tower_token_auth_…` | kind | what |
    /// |---|---|---|
    /// | `cache_hits_total`, `cache_misses_total`, `cache_negative_hits_total`, `cache_excused_total` | counter | [`CacheStats`](crate::CacheStats) |
    /// | `cache_entries` (`map` = `proved`, `unproved`, `negatives`) | gauge | entries remembered now |
    /// | `cache_evictions_total` (`map` as above) | counter | live entries that had to go |
    /// | `lookups_total`, `lookups_failed_total`, `lookups_joined_total`, `lookups_refused_total`, `lookups_ahead_total` | counter | [`LookupStats`](crate::LookupStats) |
    /// | `lookups_in_flight` (`kind` = `cold`, `refresh`) | gauge | look-ups running or waiting now |
    /// | `hashes_total` (`result` = `proved`, `refuted`, `failed`, `refused`), `hashes_joined_total` | counter | [`HashStats`](crate::HashStats) |
    /// | `hash_waits_timed_out_total` | counter | requests that gave up waiting; their hashes go on, and count above when they are done |
    /// | `hash_jobs` (`state` = `waiting`, `running`) | gauge | jobs of the crew now |
    /// | `audit_events_total` (`result` = `unheard`, `written`, `coalesced`, `sampled`, `lost`) | counter | [`AuditStats`](crate::AuditStats) |
    /// | `audit_queued` | gauge | events that wait to be written |
    /// | `uses_total` (`result` = `noted`, `flushed`, `dropped`), `flushes_failed_total` | counter | [`UpkeepStats`](crate::UpkeepStats) |
    /// | `uses_waiting` | gauge | tokens whose last use waits to be written |
    /// | `rehashes_total` (`result` = `done`, `not_done`), `successors_total` | counter | [`UpkeepStats`](crate::UpkeepStats) |
    /// | `feed_connected` | gauge | 1 where changes arrive, 0 where a feed is interrupted; absent where none is followed |
    pub fn publish_metrics(&self) {
        Labels::of(self).publish(&self.stats());
    }
}

struct Labels {
    realm: Label,
    gate: Label,
}

impl Labels {
    fn of(handle: &AuthHandle) -> Self {
        let core = &handle.0.0;
        Self {
            realm: Label::new("realm", core.realm.clone()),
            gate: Label::new("gate", core.gate.number().to_string()),
        }
    }

    fn both(&self) -> Vec<Label> {
        vec![self.realm.clone(), self.gate.clone()]
    }

    fn and(&self, key: &'static str, value: &'static str) -> Vec<Label> {
        vec![self.realm.clone(), self.gate.clone(), Label::from_static_parts(key, value)]
    }

    fn publish(&self, stats: &Stats) {
        self.publish_cache(stats);
        self.publish_lookups(stats);
        self.publish_hashes(stats);
        self.publish_audit(stats);
        self.publish_upkeep(stats);
        let connected = |is: f64| gauge!("tower_token_auth_feed_connected", self.both()).set(is);
        match stats.feed {
            FeedState::NotFollowed => {}
            FeedState::Interrupted => connected(0.0),
            FeedState::Connected => connected(1.0),
        }
    }

    fn publish_cache(&self, stats: &Stats) {
        let cache = &stats.cache;
        counter!("tower_token_auth_cache_hits_total", self.both()).absolute(cache.hits);
        counter!("tower_token_auth_cache_misses_total", self.both()).absolute(cache.misses);
        counter!("tower_token_auth_cache_negative_hits_total", self.both()).absolute(cache.negative_hits);
        counter!("tower_token_auth_cache_excused_total", self.both()).absolute(cache.excused);
        let maps = [
            ("proved", cache.proved, cache.proved_evicted),
            ("unproved", cache.unproved, cache.unproved_evicted),
            ("negatives", cache.negatives, cache.negatives_evicted),
        ];
        for (map, entries, evicted) in maps {
            gauge!("tower_token_auth_cache_entries", self.and("map", map)).set(entries as f64);
            counter!("tower_token_auth_cache_evictions_total", self.and("map", map)).absolute(evicted);
        }
    }

    fn publish_lookups(&self, stats: &Stats) {
        let lookups = &stats.lookups;
        counter!("tower_token_auth_lookups_total", self.both()).absolute(lookups.calls);
        counter!("tower_token_auth_lookups_failed_total", self.both()).absolute(lookups.failed);
        counter!("tower_token_auth_lookups_joined_total", self.both()).absolute(lookups.joined);
        counter!("tower_token_auth_lookups_refused_total", self.both()).absolute(lookups.refused);
        counter!("tower_token_auth_lookups_ahead_total", self.both()).absolute(lookups.ahead);
        for (kind, flights) in [("cold", lookups.in_flight), ("refresh", lookups.refreshes_in_flight)] {
            gauge!("tower_token_auth_lookups_in_flight", self.and("kind", kind)).set(flights as f64);
        }
    }

    fn publish_hashes(&self, stats: &Stats) {
        let hashes = &stats.hashes;
        let results = [
            ("proved", hashes.proved),
            ("refuted", hashes.refuted),
            ("failed", hashes.failed),
            ("refused", hashes.refused),
        ];
        for (result, number) in results {
            counter!("tower_token_auth_hashes_total", self.and("result", result)).absolute(number);
        }
        counter!("tower_token_auth_hashes_joined_total", self.both()).absolute(hashes.joined);
        counter!("tower_token_auth_hash_waits_timed_out_total", self.both()).absolute(hashes.timed_out);
        for (state, jobs) in [("waiting", hashes.waiting), ("running", hashes.running)] {
            gauge!("tower_token_auth_hash_jobs", self.and("state", state)).set(jobs as f64);
        }
    }

    fn publish_audit(&self, stats: &Stats) {
        let audit = &stats.audit;
        let results = [
            ("unheard", audit.unheard),
            ("written", audit.written),
            ("coalesced", audit.coalesced),
            ("sampled", audit.sampled),
            ("lost", audit.lost),
        ];
        for (result, number) in results {
            counter!("tower_token_auth_audit_events_total", self.and("result", result)).absolute(number);
        }
        gauge!("tower_token_auth_audit_queued", self.both()).set(audit.queued as f64);
    }

    fn publish_upkeep(&self, stats: &Stats) {
        let upkeep = &stats.upkeep;
        for (result, number) in [("noted", upkeep.noted), ("flushed", upkeep.flushed), ("dropped", upkeep.dropped)] {
            counter!("tower_token_auth_uses_total", self.and("result", result)).absolute(number);
        }
        for (result, number) in [("done", upkeep.rehashed), ("not_done", upkeep.not_rehashed)] {
            counter!("tower_token_auth_rehashes_total", self.and("result", result)).absolute(number);
        }
        counter!("tower_token_auth_flushes_failed_total", self.both()).absolute(upkeep.flushes_failed);
        counter!("tower_token_auth_successors_total", self.both()).absolute(upkeep.successors);
        gauge!("tower_token_auth_uses_waiting", self.both()).set(upkeep.waiting as f64);
    }
}
