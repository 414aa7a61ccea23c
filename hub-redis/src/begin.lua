-- KEYS: leases, the runs of Redis in which they began (a hash)
-- ARGV: node, time in ms
-- A script that has written may go on without memory: a full Redis must not let leases end.
redis.call('PERSIST', KEYS[1])
redis.call('ZADD', KEYS[1], string.format('%.0f', now() + ARGV[2]), ARGV[1])
redis.call('HSET', KEYS[2], ARGV[1], run())
