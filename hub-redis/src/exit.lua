-- ARGV: node, channel, topic, key
-- The first command writes, so that the script may go on without memory.
local node, channel, topic, key = unpack(ARGV)
redis.call('SREM', node_key(node), pack_entry(topic, key))
remove(channel, topic, node, key)
