-- Appends a message to the history of a topic, and publishes the message.
--
-- KEYS: the head of the history (a hash), its messages (a stream)
-- ARGV: channel, kind, tag, epoch of a new history, count, age of messages in ms, age of the head in ms, message
--
-- Numbers of 64 bits are strings of 8 bytes, as Lua calculates with 53 bits. An offset fits.
local head = redis.call('HMGET', KEYS[1], 'epoch', 'tag')
local epoch, previous = head[1], head[2]
if not epoch then
  epoch, previous = ARGV[4], string.rep('\0', 8)
  redis.call('HSET', KEYS[1], 'epoch', epoch, 'offset', 0)
  redis.call('DEL', KEYS[2])
end
local offset = redis.call('HINCRBY', KEYS[1], 'offset', 1)
redis.call('HSET', KEYS[1], 'tag', ARGV[3])
local message = ARGV[2] .. epoch .. struct.pack('>I8', offset) .. ARGV[3] .. previous .. ARGV[8]
redis.call('XADD', KEYS[2], 'MAXLEN', ARGV[5], string.format('%.0f-0', offset), 'm', message)
redis.call('PEXPIRE', KEYS[2], ARGV[6])
redis.call('PEXPIRE', KEYS[1], ARGV[7])
redis.call('PUBLISH', ARGV[1], message)
return {epoch, string.format('%.0f', offset)}
