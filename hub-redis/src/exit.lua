-- ARGV: node, channel, topic, key
local node, channel, topic, key = unpack(ARGV)
redis.call('SREM', node_key(node), pack_entry(topic, key))
remove(channel, topic, node, key)
