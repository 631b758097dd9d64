//! What has to happen at once, in Lua.
//!
//! A script that fails in the middle leaves what it has done until then. So the change is announced first: an
//! announcement of nothing costs a look-up, a change that nobody hears of would be believed until the TTL.

use std::sync::LazyLock;

use redis::Script;

/// `announce(stream, counter, kept, …)`: tells the feed, in an entry that carries its number.
const ANNOUNCE: &str = r"
local function announce(stream, counter, kept, ...)
  redis.call('XADD', stream, 'MAXLEN', '~', kept, '*', 'n', redis.call('INCR', counter), ...)
end
";

fn announcing(text: &str) -> Script {
    Script::new(&format!("{ANNOUNCE}{text}"))
}

/// Keys: token, barred. Answers whether the owner is barred, and the fields.
pub(super) static FIND: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local owner = redis.call('HGET', KEYS[1], 'owner')
local barred = owner and redis.call('SISMEMBER', KEYS[2], owner) or 0
return {barred, redis.call('HGETALL', KEYS[1])}
",
    )
});

/// Keys: token, ids, owner's ids, changes, count. Arguments: id, kept, revision, fields. Answers whether it is new.
pub(super) static INSERT: LazyLock<Script> = LazyLock::new(|| {
    announcing(
        r"
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
announce(KEYS[4], KEYS[5], ARGV[2], 'id', ARGV[1], 'revision', ARGV[3])
redis.call('HSET', KEYS[1], unpack(ARGV, 4))
redis.call('ZADD', KEYS[2], 0, ARGV[1])
redis.call('ZADD', KEYS[3], 0, ARGV[1])
return 1
",
    )
});

/// Keys: token, barred, changes, count. Arguments: id, kept, expected revision, next revision, how many of the following
/// set fields, those, the fields to be removed.
pub(super) static UPDATE: LazyLock<Script> = LazyLock::new(|| {
    announcing(
        r"
local revision = redis.call('HGET', KEYS[1], 'revision')
if not revision then return 'missing' end
if revision ~= ARGV[3] then return 'conflict' end
announce(KEYS[3], KEYS[4], ARGV[2], 'id', ARGV[1], 'revision', ARGV[4])
local last = 5 + ARGV[5]
redis.call('HSET', KEYS[1], unpack(ARGV, 6, last))
if ARGV[last + 1] then redis.call('HDEL', KEYS[1], unpack(ARGV, last + 1)) end
local barred = redis.call('SISMEMBER', KEYS[2], redis.call('HGET', KEYS[1], 'owner'))
return barred == 1 and 'barred' or 'changed'
",
    )
});

/// Keys: index, barred. Arguments: beginning of a token's key, first id, how many. Answers as [`FIND`], for each id.
pub(super) static LIST: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local page = {}
for _, id in ipairs(redis.call('ZRANGEBYLEX', KEYS[1], ARGV[2], '+', 'LIMIT', 0, ARGV[3])) do
  local owner = redis.call('HGET', ARGV[1] .. id, 'owner')
  local barred = owner and redis.call('SISMEMBER', KEYS[2], owner) or 0
  table.insert(page, {id, barred, redis.call('HGETALL', ARGV[1] .. id)})
end
return page
",
    )
});

/// Keys: tokens. Arguments: for each its time, its address or nothing, `+` and its agent or nothing, its last write or
/// nothing. Loaded by hand, as it runs in a pipeline.
pub(super) const TOUCH: &str = r"
for i, key in ipairs(KEYS) do
  local at, address, agent, write = unpack(ARGV, i * 4 - 3, i * 4)
  if redis.call('HEXISTS', key, 'revision') == 1 then
    local known = redis.call('HMGET', key, 'used_at', 'used_write')
    if tonumber(at) >= (tonumber(known[1] or 0) or 0) then
      redis.call('HSET', key, 'used_at', at, 'used_address', address, 'used_agent', string.sub(agent, 2))
      if address == '' then redis.call('HDEL', key, 'used_address') end
      if agent == '' then redis.call('HDEL', key, 'used_agent') end
    end
    if write ~= '' and tonumber(write) >= (tonumber(known[2] or 0) or 0) then
      redis.call('HSET', key, 'used_write', write)
    end
  end
end
";

/// The name that Redis knows [`TOUCH`] by.
pub(super) static TOUCH_HASH: LazyLock<String> = LazyLock::new(|| Script::new(TOUCH).get_hash().to_owned());

/// Keys: barred, changes, count. Arguments: owner, kept, `SADD` or `SREM`.
pub(super) static BAR: LazyLock<Script> = LazyLock::new(|| {
    announcing(
        r"
announce(KEYS[2], KEYS[3], ARGV[2], 'owner', ARGV[1])
return redis.call(ARGV[3], KEYS[1], ARGV[1])
",
    )
});

/// Keys: ids. Arguments: beginnings of a token's and an owner's keys, then ids and the revisions they are expected to
/// have. Answers how many are forgotten.
pub(super) static FORGET: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local forgotten = 0
for i = 3, #ARGV, 2 do
  local known = redis.call('HMGET', ARGV[1] .. ARGV[i], 'revision', 'owner')
  if known[1] == ARGV[i + 1] then
    redis.call('ZREM', KEYS[1], ARGV[i])
    redis.call('ZREM', ARGV[2] .. known[2], ARGV[i])
    forgotten = forgotten + redis.call('DEL', ARGV[1] .. ARGV[i])
  end
end
return forgotten
",
    )
});
