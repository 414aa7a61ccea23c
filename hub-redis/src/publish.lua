-- Appends a message to the history of a topic, and publishes the message.
--
-- KEYS: the head of the history (a hash), its messages (a stream), the keys of messages (a hash, a list)
-- ARGV: channel, kind, tag, epoch of a new history, count, age of messages in ms, age of the head in ms, message;
--       for a message with a key: this key, the number of keys, their age in ms
--
-- Returns the epoch, the offset and the tag of the message, or of the first message with the same key.
-- Numbers of 64 bits are strings of 8 bytes, as Lua calculates with 53 bits. An offset fits.
local head = redis.call('HMGET', KEYS[1], 'epoch', 'tag')
local epoch, previous = head[1], head[2]
if not epoch then
  epoch, previous = ARGV[4], string.rep('\0', 8)
  redis.call('HSET', KEYS[1], 'epoch', epoch, 'offset', 0)
  redis.call('DEL', KEYS[2], KEYS[3], KEYS[4])
end
if ARGV[9] then
  local first = redis.call('HGET', KEYS[3], ARGV[9])
  if first then
    return {epoch, string.sub(first, 9), string.sub(first, 1, 8)}
  end
end
local offset = string.format('%.0f', redis.call('HINCRBY', KEYS[1], 'offset', 1))
redis.call('HSET', KEYS[1], 'tag', ARGV[3])
local message = ARGV[2] .. epoch .. struct.pack('>I8', tonumber(offset)) .. ARGV[3] .. previous .. ARGV[8]
redis.call('XADD', KEYS[2], 'MAXLEN', ARGV[5], offset .. '-0', 'm', message)
redis.call('PEXPIRE', KEYS[2], ARGV[6])
redis.call('PEXPIRE', KEYS[1], ARGV[7])
if ARGV[9] then
  local count = redis.call('RPUSH', KEYS[4], ARGV[9])
  if count == 1 then
    -- Without their order, which was evicted perhaps, the oldest keys are not found.
    redis.call('DEL', KEYS[3])
  elseif count > tonumber(ARGV[10]) then
    redis.call('HDEL', KEYS[3], redis.call('LPOP', KEYS[4]))
  end
  redis.call('HSET', KEYS[3], ARGV[9], ARGV[3] .. offset)
  redis.call('PEXPIRE', KEYS[3], ARGV[11])
  redis.call('PEXPIRE', KEYS[4], ARGV[11])
end
redis.call('PUBLISH', ARGV[1], message)
return {epoch, offset, ARGV[3]}
