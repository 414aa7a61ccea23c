-- The functions of all scripts about presence. A topic has a hash: each key of somebody, with
--
--   size of the information (4 bytes) | information | nodes with an entry (16 digits each)
--
-- A node has a set of its entries: size of the name of the topic (4 bytes) | name | key. The leases are a
-- sorted set of nodes by the ends of their leases in ms. The end of a lease that is reaped is 0.
local function present_key(topic)
  return 'bowline:' .. topic .. ':present'
end

local function node_key(node)
  return 'bowline:node:' .. node
end

local function pack_entry(topic, key)
  return struct.pack('>I4', #topic) .. topic .. key
end

local function unpack_entry(entry)
  local size = struct.unpack('>I4', entry)
  return string.sub(entry, 5, 4 + size), string.sub(entry, 5 + size)
end

-- Returns the information, and the nodes.
local function unpack_person(person)
  local size = struct.unpack('>I4', person)
  return string.sub(person, 5, 4 + size), string.sub(person, 5 + size)
end

-- Returns the place of a node among nodes, or nil.
local function find(nodes, node)
  for place = 1, #nodes, 16 do
    if string.sub(nodes, place, place + 15) == node then
      return place
    end
  end
end

-- Publishes the information of a key, or its end without information.
local function publish(channel, key, info)
  local state = info and '+' .. info or '-'
  redis.call('PUBLISH', channel, 'p' .. struct.pack('>I4', #key) .. key .. state)
end

-- Removes a node from a key of a topic.
local function remove(channel, topic, node, key)
  local hash = present_key(topic)
  local person = redis.call('HGET', hash, key)
  if not person then
    return
  end
  local info, nodes = unpack_person(person)
  local place = find(nodes, node)
  if not place then
    return
  end
  nodes = string.sub(nodes, 1, place - 1) .. string.sub(nodes, place + 16)
  if nodes == '' then
    redis.call('HDEL', hash, key)
    publish(channel, key)
  else
    redis.call('HSET', hash, key, struct.pack('>I4', #info) .. info .. nodes)
  end
end

local function now()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- The data of another process may be older than that of the node.
local function run()
  return string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
end
