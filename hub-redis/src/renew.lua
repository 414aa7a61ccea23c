-- KEYS and ARGV: as in begin.lua
--
-- Returns 1 if the lease is held, or else 0.
local ends = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not ends or tonumber(ends) == 0 or redis.call('HGET', KEYS[2], ARGV[1]) ~= run() then
  return 0
end
-- A script that has written may go on without memory: a full Redis must not let leases end.
redis.call('PERSIST', KEYS[1])
redis.call('ZADD', KEYS[1], string.format('%.0f', now() + ARGV[2]), ARGV[1])
return 1
