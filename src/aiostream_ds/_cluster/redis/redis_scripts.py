"""The engine's operations as Lua scripts: each one is atomic, and replicated as a whole.

Keys of a channel, all in one slot (see `channel_keys`):

    state   hash: node (owner; none after a resignation), term, taken_after (the last entry before
            the term), hello (hash of the term's first payload), last (id of the last entry),
            total (bytes of all entries ever), base (`total` before the oldest entry), schema
    log     stream: entries `<term>-<number>` with before (id of the previous entry), total, payload
    nodes   sorted set: nodes with subscribers; 0, or since when they have been without a lease

and of a partition:

    leases    hash: node → time of the renewal and duration, in milliseconds
    channels  sorted set: channels by the time when they were last seen in use
    kept      sorted set: channels that nobody uses any more by the time when their keys expire

A lease is compared with the server's clock, and is over as well when its start is in the future by
more than its duration: a clock that is set back must not make the leases of dead nodes longer.

A term is the time of the server in microseconds, or higher: one that the server has lost with the
rest of its data is not made again.

Neither of these has a time to live while it is in use, so that no policy `volatile-*` evicts it.
"""

import hashlib
from typing import NamedTuple

__all__ = ["Scripts"]

_COMMON = """
local function clock()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
local function is_alive(leases, node, now)
  local lease = redis.call('HGET', leases, node)
  if not lease then return false end
  local start, duration = string.match(lease, '(%d+) (%d+)')
  return math.abs(now - start) < tonumber(duration)
end
-- below, KEYS are those of a channel: state, log, nodes, leases, channels, kept
local function is_used(now)
  local state, _, nodes, leases = unpack(KEYS)
  local owner = redis.call('HGET', state, 'node')
  -- also one whose lease is over: it may renew it and go on. The record of a dead one is removed
  if owner and redis.call('HGET', leases, owner) then return true end
  for _, node in ipairs(redis.call('ZRANGE', nodes, 0, -1)) do
    if is_alive(leases, node, now) then return true end
  end
  return false
end
local function keep(channel, now)
  local state, log, nodes, _, channels, kept = unpack(KEYS)
  redis.call('ZADD', channels, now, channel)
  redis.call('ZREM', kept, channel)
  for _, key in ipairs({state, log, nodes}) do redis.call('PERSIST', key) end
end
local function expire_unused(channel, duration)
  local now = clock()
  if is_used(now) then return end
  local state, log, nodes, _, channels, kept = unpack(KEYS)
  redis.call('ZREM', channels, channel)
  for _, key in ipairs(redis.call('ZRANGEBYSCORE', kept, '-inf', now, 'LIMIT', 0, 10)) do
    redis.call('ZREM', kept, key)
  end
  if redis.call('EXISTS', log) == 1 then redis.call('ZADD', kept, now + duration, channel) end
  for _, key in ipairs({state, log, nodes, kept}) do redis.call('PEXPIRE', key, duration) end
end
local function trim(state, log, total, limit)
  -- the newest entry stays; 3/4 of the limit, so that this is seldom
  local start, target = '-', limit
  while true do
    local page = redis.call('XRANGE', log, start, '+', 'COUNT', 64)
    for n, entry in ipairs(page) do
      local base = entry[2][4] - #entry[2][6]
      if total - base <= target or #page < 64 and n == #page then
        redis.call('XTRIM', log, 'MINID', entry[1])
        redis.call('HSET', state, 'base', base)
        return
      end
      target = limit * 0.75
    end
    if #page < 64 then return end
    start = '(' .. page[64][1]
  end
end
local function add(state, log, id, before, payload, total, entries, make)
  local command = {'XADD', log, 'MAXLEN', '~', entries, id,
                   'before', before, 'total', total, 'payload', payload}
  if not make then table.insert(command, 3, 'NOMKSTREAM') end
  return redis.call(unpack(command))
end
local function publish(log, id, before, payload)
  redis.call('PUBLISH', log, 'E' .. id .. ' ' .. before .. ' ' .. payload)
end
"""

_RENEW = """
local leases, node, duration = KEYS[1], ARGV[1], ARGV[2]
redis.call('HSET', leases, node, string.format('%d %d', clock(), duration))
"""

_RELEASE = """
redis.call('HDEL', KEYS[1], ARGV[1])
"""

_NODES = """
-- compared by the caller: the server has less to do, and each node asks several times a second
return {clock(), redis.call('HGETALL', KEYS[1])}
"""

_END_LEASE = """
local leases, node, age = KEYS[1], ARGV[1], tonumber(ARGV[2])
local lease = redis.call('HGET', leases, node)
local start = lease and string.match(lease, '%d+')
-- the record stays: if the node has not crashed it goes on, and its channels are in use
if start and clock() - start >= age then redis.call('HSET', leases, node, start .. ' 0') end
"""

_TAKE = """
local state, log, _, leases = unpack(KEYS)
local channel, node, payload, entries, limit = unpack(ARGV)
local owner, term, last, after, hello, total, base =
  unpack(redis.call('HMGET', state,
                    'node', 'term', 'last', 'taken_after', 'hello', 'total', 'base'))
local exists = redis.call('EXISTS', log) == 1
local now = clock()
if owner and owner ~= node and is_alive(leases, owner, now) then
  return {owner, term, 0, exists and last or '0-0'}
end
local hash = redis.sha1hex(payload)
if owner == node and hello == hash and exists then
  return {node, term, 1, after}
end
local time = redis.call('TIME')
local above = math.max(time[1] * 1000000 + time[2], (tonumber(term) or 0) + 1)
total, base, last = tonumber(total) or 0, base or 0, '0-0'
if exists then
  local info, found = redis.call('XINFO', 'STREAM', log), {}
  for n = 1, #info, 2 do found[info[n]] = info[n + 1] end
  last = found['last-generated-id']
  above = math.max(above, string.match(last, '%d+') + 1)
  total = tonumber(found['last-entry'][2][4])
else
  total, base = 0, 0
end
total = total + #payload
term = string.format('%d', above)
local id = term .. '-0'
add(state, log, id, last, payload, total, entries, true)
redis.call('HSET', state, 'node', node, 'term', term, 'last', id, 'taken_after', last,
           'hello', hash, 'total', total, 'base', base)
if total - base > tonumber(limit) then trim(state, log, total, tonumber(limit)) end
keep(channel, now)
publish(log, id, last, payload)
return {node, term, 1, last}
"""

_APPEND = """
local state, log = KEYS[1], KEYS[2]
local term, number, before, payload, entries, limit, hello, schema = unpack(ARGV)
local found = redis.call('HMGET', state, 'term', 'node', 'last', 'total', 'base', 'hello')
local id = term .. '-' .. number
if not found[1] or tonumber(found[1]) < tonumber(term) then return 'LOST' end
if found[1] ~= term or not found[2] then return 'FENCED' end
if hello ~= '' and hello ~= found[6] then return 'FENCED' end
if found[3] ~= before then
  local there = redis.call('XRANGE', log, id, id)[1]
  if there then return there[2][6] == payload and 'OK' or 'FENCED' end
  return 'LOST'
end
local total = found[4] + #payload
if not add(state, log, id, before, payload, total, entries) then return 'LOST' end
redis.call('HSET', state, 'last', id, 'total', total)
if schema then redis.call('HSET', state, 'schema', schema) end
if total - found[5] > tonumber(limit) then trim(state, log, total, tonumber(limit)) end
publish(log, id, before, payload)
return 'OK'
"""

_READ = """
local log, after, limit, bytes = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[3])
if redis.call('EXISTS', log) == 0 then return false end
local info, found = redis.call('XINFO', 'STREAM', log), {}
for n = 1, #info, 2 do found[info[n]] = info[n + 1] end
local first, entries, size = found['first-entry'], {}, 0
for n, entry in ipairs(redis.call('XRANGE', log, '(' .. after, '+', 'COUNT', limit)) do
  entries[n] = entry
  size = size + #entry[2][6]
  if size >= bytes then break end
end
return {first[2][2], found['last-generated-id'], entries}
"""

_SEND = """
redis.call('PUBLISH', KEYS[1], 'S' .. ARGV[1])
"""

_SCHEMA = """
return redis.call('HGET', KEYS[1], 'schema')
"""

_RESIGN = """
local state, log = unpack(KEYS)
local channel, node, term, duration = unpack(ARGV)
local found = redis.call('HMGET', state, 'node', 'term')
if found[1] ~= node or found[2] ~= term then return end
redis.call('HDEL', state, 'node')
redis.call('PUBLISH', log, 'R' .. term)
expire_unused(channel, duration)
"""

_ENTER = """
local channel, node = unpack(ARGV)
redis.call('ZADD', KEYS[3], 0, node)
keep(channel, clock())
"""

_LEAVE = """
local channel, node, duration = unpack(ARGV)
redis.call('ZREM', KEYS[3], node)
expire_unused(channel, duration)
"""

_MEMBERS = """
local nodes, leases = KEYS[1], KEYS[2]
local found, now = {}, clock()
for _, node in ipairs(redis.call('ZRANGE', nodes, 0, -1)) do
  if is_alive(leases, node, now) then table.insert(found, node) end
end
return found
"""

_UNUSED = """
local leases, channels = KEYS[1], KEYS[2]
local kept = tonumber(ARGV[1])
local now = clock()
local found = redis.call('HGETALL', leases)
for n = 1, #found, 2 do
  local start, duration = string.match(found[n + 1], '(%d+) (%d+)')
  if math.abs(now - start) > math.max(kept, duration) then
    redis.call('HDEL', leases, found[n])
  end
end
return redis.call('ZRANGEBYSCORE', channels, '-inf', now - kept, 'LIMIT', 0, 100)
"""

_CLEAN = """
local state, log, nodes, leases, channels = unpack(KEYS)
local channel, kept = ARGV[1], tonumber(ARGV[2])
local now = clock()
local seen = redis.call('ZSCORE', channels, channel)
if not seen or now - seen < kept then return 0 end
if not is_used(now) then
  redis.call('ZREM', channels, channel)
  return redis.call('DEL', state, log, nodes)
end
redis.call('ZADD', channels, now, channel)
local found = redis.call('ZRANGE', nodes, 0, -1, 'WITHSCORES')
for n = 1, #found, 2 do
  local node, since = found[n], tonumber(found[n + 1])
  if is_alive(leases, node, now) then
    if since > 0 then redis.call('ZADD', nodes, 0, node) end
  elseif since == 0 then
    redis.call('ZADD', nodes, now, node)
  elseif now - since > kept then
    redis.call('ZREM', nodes, node)
  end
end
return 0
"""

_PARTITION_OVERVIEW = """
local leases, channels, kept = unpack(KEYS)
local nodes, now = {}, clock()
for n, node in ipairs(redis.call('HGETALL', leases)) do
  if n % 2 == 1 and is_alive(leases, node, now) then table.insert(nodes, node) end
end
return {nodes, redis.call('ZRANGE', channels, 0, -1),
        redis.call('ZRANGEBYSCORE', kept, '(' .. string.format('%d', now), '+inf')}
"""

_CHANNEL_OVERVIEW = """
local state, log, nodes, leases, _, kept = unpack(KEYS)
local owner, term, total, base =
  unpack(redis.call('HMGET', state, 'node', 'term', 'total', 'base'))
local now, subscribed, length = clock(), {}, 0
for _, node in ipairs(redis.call('ZRANGE', nodes, 0, -1)) do
  if is_alive(leases, node, now) then table.insert(subscribed, node) end
end
if redis.call('EXISTS', log) == 1 then length = redis.call('XINFO', 'STREAM', log)[2] end
if not (owner and is_alive(leases, owner, now)) then owner = '' end
local ends = redis.call('ZSCORE', kept, ARGV[1])
return {owner, term or '0', subscribed, length,
        string.format('%d', (total or 0) - (base or 0)), ends and ends - now or -1}
"""

_CHECK = """
local refused = {}
local function try(command, ...)
  local answer = redis.pcall(command, ...)
  if type(answer) == 'table' and answer.err then
    table.insert(refused, command .. ': ' .. answer.err)
  end
end
local hash, stream, set = unpack(KEYS)
try('TIME')
try('HSET', hash, 'a', '1', 'b', '2')
try('HGET', hash, 'a')
try('HMGET', hash, 'a')
try('HGETALL', hash)
try('HDEL', hash, 'b')
try('EXISTS', hash)
try('PERSIST', hash)
try('XADD', stream, 'MAXLEN', '~', 10, '*', 'a', 'b')
try('XADD', stream, 'NOMKSTREAM', 'MAXLEN', '~', 10, '*', 'a', 'b')
try('XRANGE', stream, '(1-0', '+', 'COUNT', 1)
try('XINFO', 'STREAM', stream)
try('XTRIM', stream, 'MINID', '1-0')
try('ZADD', set, 0, 'a')
try('ZRANGE', set, 0, -1)
try('ZRANGEBYSCORE', set, '-inf', 0, 'LIMIT', 0, 1)
try('ZSCORE', set, 'a')
try('ZREM', set, 'a')
try('PUBLISH', stream, '')
for _, key in ipairs(KEYS) do redis.pcall('PEXPIRE', key, 1000) end
try('PEXPIRE', stream, 1000)
try('DEL', unpack(KEYS))
return refused
"""


class Script(NamedTuple):
    """A script, and the hash by which a server knows it."""

    text: str
    hash: str


class Scripts:
    """All scripts. In a cluster of Redis they publish to the subscribers of one server.

    Args:
        sharded: whether the servers are a cluster.
    """

    def __init__(self, *, sharded: bool) -> None:
        def made(text: str) -> Script:
            whole = _COMMON + text
            if sharded:
                whole = whole.replace("'PUBLISH'", "'SPUBLISH'")
            return Script(whole, hashlib.sha1(whole.encode(), usedforsecurity=False).hexdigest())

        self.renew = made(_RENEW)
        self.release = made(_RELEASE)
        self.nodes = made(_NODES)
        self.end_lease = made(_END_LEASE)
        self.take = made(_TAKE)
        self.append = made(_APPEND)
        self.read = made(_READ)
        self.send = made(_SEND)
        self.schema = made(_SCHEMA)
        self.resign = made(_RESIGN)
        self.enter = made(_ENTER)
        self.leave = made(_LEAVE)
        self.members = made(_MEMBERS)
        self.unused = made(_UNUSED)
        self.clean = made(_CLEAN)
        self.partition_overview = made(_PARTITION_OVERVIEW)
        self.channel_overview = made(_CHANNEL_OVERVIEW)
        self.check = made(_CHECK)
