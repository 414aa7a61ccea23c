-- Reads the history of a topic, which begins if there is none.
--
-- KEYS: the head of the history (a hash), its messages (a stream), the keys of messages (a hash, a list)
-- ARGV: epoch of a new history, offset after which to read, number of messages, age of the head in ms
--
-- Returns the epoch, the offset and the tag of the top, the tag at the offset if it is known, and messages.
local head = redis.call('HMGET', KEYS[1], 'epoch', 'offset', 'tag')
local epoch, offset, tag = head[1], head[2], head[3]
if not epoch then
  epoch, offset, tag = ARGV[1], '0', string.rep('\0', 8)
  redis.call('HSET', KEYS[1], 'epoch', epoch, 'offset', offset, 'tag', tag)
  redis.call('DEL', KEYS[2], KEYS[3], KEYS[4])
end
redis.call('PEXPIRE', KEYS[1], ARGV[4])
local after, top = tonumber(ARGV[2]), tonumber(offset)
local anchor, messages = '', {}
if after == top then
  anchor = tag
elseif after < top then
  local start = string.format('%.0f-0', after + 1)
  local entries = redis.call('XRANGE', KEYS[2], start, '+', 'COUNT', math.max(1, tonumber(ARGV[3])))
  if entries[1] and entries[1][1] == start then
    -- The tag of the predecessor is in the message, after kind, epoch, offset and tag.
    anchor = string.sub(entries[1][2][2], 26, 33)
    for number = 1, math.min(#entries, tonumber(ARGV[3])) do
      messages[number] = entries[number][2][2]
    end
  end
end
return {epoch, offset, tag, anchor, messages}
