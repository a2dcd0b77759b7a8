"""Changes of a job record that must be atomic, as Redis scripts. What they mean is said in store.py."""

from __future__ import annotations

CREATE = """
-- KEYS: job, events, jobs, active, idempotency
-- ARGV: id, created_at, fields as JSON, event, idempotency value ('' for none), its seconds
if ARGV[5] ~= '' then
  local earlier = redis.call('GET', KEYS[5])
  if earlier then return earlier end
  redis.call('SET', KEYS[5], ARGV[5], 'EX', ARGV[6])
end
for field, value in pairs(cjson.decode(ARGV[3])) do redis.call('HSET', KEYS[1], field, value) end
redis.call('ZADD', KEYS[3], ARGV[2], ARGV[1])
redis.call('SADD', KEYS[4], ARGV[1])
redis.call('XADD', KEYS[2], '*', 'event', ARGV[4])
return ''
"""

TRANSITION = """
-- KEYS: job, events, lease, active of both queues, then the experience keys
-- ARGV: id, token ('' for none), states it may come from (',a,b,'), new state, reason ('' for none), now, event,
--       most events, seconds the record stays, seconds the experience stays, '1' to count a crash,
--       '1' to pause only while someone wishes it
local state = redis.call('HGET', KEYS[1], 'state')
if not state then return {'missing', ''} end
if ARGV[2] ~= '' and redis.call('GET', KEYS[3]) ~= ARGV[2] then return {'lease', state} end
if not string.find(ARGV[3], ',' .. state .. ',', 1, true) then return {'state', state} end
local to = ARGV[4]
-- Who resumed the job meanwhile took the wish to pause it back.
if ARGV[12] == '1' and redis.call('HEXISTS', KEYS[1], 'pause') == 0 then return {'state', state} end
redis.call('HSET', KEYS[1], 'state', to, 'changed_at', ARGV[6])
if ARGV[5] == '' then redis.call('HDEL', KEYS[1], 'reason') else redis.call('HSET', KEYS[1], 'reason', ARGV[5]) end
if ARGV[11] == '1' then redis.call('HINCRBY', KEYS[1], 'crashes', 1) end
if to == 'running' then
  redis.call('HINCRBY', KEYS[1], 'attempts', 1)
  redis.call('HSETNX', KEYS[1], 'started_at', ARGV[6])
end
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[8], '*', 'event', ARGV[7])
if to == 'succeeded' or to == 'failed' or to == 'cancelled' then
  redis.call('HSET', KEYS[1], 'finished_at', ARGV[6])
  if to == 'succeeded' then redis.call('HSET', KEYS[1], 'step', redis.call('HGET', KEYS[1], 'total_steps')) end
  redis.call('SREM', KEYS[4], ARGV[1])
  redis.call('SREM', KEYS[5], ARGV[1])
  redis.call('EXPIRE', KEYS[1], ARGV[9])
  redis.call('EXPIRE', KEYS[2], ARGV[9])
  for i = 6, #KEYS do redis.call('EXPIRE', KEYS[i], ARGV[10]) end
end
return {'ok', state}
"""
