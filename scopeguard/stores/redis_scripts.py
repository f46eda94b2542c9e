"""The scripts of the store in Redis. Each runs as one atomic operation, on keys with one hash tag."""

from __future__ import annotations

from typing import Final

# Three sorted sets: the proofs of a key, the proofs of all keys, and those of a holder of tokens. Scores are the times
# in milliseconds at which proofs expire, by the clock of Redis. A member of the second set is a proof together with the
# attempt that has claimed it: the script is sent again if the connection breaks before the answer, and then the first
# execution may have claimed the proof for this very attempt.
# Each call removes up to a hundred expired members, more than it adds, so that none takes long. Expired members are not
# counted. The expiry of a set is that of its last member: other APIs may remember proofs for other times.
CLAIM: Final = """
local owner, all, holder = KEYS[1], KEYS[2], KEYS[3]
local proof, attempt, lifetime = ARGV[1], ARGV[2], tonumber(ARGV[3])
local total, per_owner, per_holder = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local clock = redis.call("TIME")
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local function forget_expired(name)
  local gone = redis.call("ZRANGE", name, "-inf", now, "BYSCORE", "LIMIT", 0, 100)
  if #gone > 0 then redis.call("ZREM", name, unpack(gone)) end
end
local function count(name)
  return redis.call("ZCOUNT", name, "(" .. now, "+inf")
end
local expiry = redis.call("ZSCORE", owner, proof)
if expiry and tonumber(expiry) > now then
  return redis.call("ZSCORE", all, proof .. attempt) and 0 or 1
end
forget_expired(owner)
forget_expired(all)
forget_expired(holder)
local taken = count(all)
if taken >= total or count(owner) >= per_owner then return 2 end
if taken * 2 >= total and count(holder) >= per_holder then return 2 end
redis.call("ZADD", owner, now + lifetime, proof)
redis.call("ZADD", all, now + lifetime, proof .. attempt)
redis.call("ZADD", holder, now + lifetime, proof)
for _, name in ipairs(KEYS) do
  if redis.call("PTTL", name) < lifetime then redis.call("PEXPIRE", name, lifetime) end
end
return 0
"""

# Adds an entry to a stream, and drops entries that have expired by the clock of Redis. Entries have different
# lifetimes: a revocation with a time in the future lives longer. So a sorted set has the expiry of each entry, in
# milliseconds, and both keys live as long as the entry that expires last.
# Each call drops up to a hundred entries, more than it adds, so that no call takes long. It also drops an entry that
# never exists, so that a user of Redis without the permission is noticed at once, not when the first entry expires.
APPEND: Final = """
local stream, expiries = KEYS[1], KEYS[2]
local entry, lifetime = ARGV[1], tonumber(ARGV[2])
local clock = redis.call("TIME")
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local gone = redis.call("ZRANGE", expiries, "-inf", now, "BYSCORE", "LIMIT", 0, 100)
redis.call("XDEL", stream, "0-0", unpack(gone))
redis.call("ZREM", expiries, "0-0", unpack(gone))
redis.call("ZADD", expiries, now + lifetime, redis.call("XADD", stream, "*", "entry", entry))
for _, name in ipairs(KEYS) do
  if redis.call("PTTL", name) < lifetime then redis.call("PEXPIRE", name, lifetime) end
end
return 0
"""
