-- KEYS: leases
-- ARGV: node, channel, topic, key, information
--
-- Returns 1, or 0 if the node has no lease.
local ends = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not ends or tonumber(ends) == 0 then
  return 0
end
local node, channel, topic, key, info = unpack(ARGV)
redis.call('SADD', node_key(node), pack_entry(topic, key))
local hash, earlier, nodes = present_key(topic), nil, ''
local person = redis.call('HGET', hash, key)
if person then
  earlier, nodes = unpack_person(person)
end
if not find(nodes, node) then
  nodes = nodes .. node
end
redis.call('HSET', hash, key, struct.pack('>I4', #info) .. info .. nodes)
if earlier ~= info then
  publish(channel, key, info)
end
return 1
