-- Removes entries of nodes whose leases have ended, and returns their number.
--
-- KEYS: leases, the runs of Redis in which they began (a hash)
-- ARGV: node of the caller, beginning of all channels, largest number of entries
local time, most, reaped = now(), tonumber(ARGV[3]), 0
local own = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not own or tonumber(own) <= time then
  return 0
end
for _, node in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', time, 'LIMIT', 0, most)) do
  local set = node_key(node)
  for _, entry in ipairs(redis.call('SPOP', set, most - reaped)) do
    local topic, key = unpack_entry(entry)
    remove(ARGV[2] .. topic, topic, node, key)
    reaped = reaped + 1
  end
  if redis.call('SCARD', set) == 0 then
    redis.call('ZREM', KEYS[1], node)
    redis.call('HDEL', KEYS[2], node)
  else
    redis.call('ZADD', KEYS[1], 0, node)
  end
  if reaped >= most then
    break
  end
end
return reaped
