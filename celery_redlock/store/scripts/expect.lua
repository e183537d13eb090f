-- One of several independent servers: whoever was refused says that it wants to be woken.
--
-- KEYS  1 H  2 zset token -> since: who is to be woken  3 hash token -> as in resource.lua's W
-- ARGV  1 token  2 since: microseconds  3 waiter ms  4 inbox  5 record
-- Returns 0
local call = redis.call
local t = call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local held = call('HGETALL', KEYS[1])
local taken = false
for i = 1, #held, 2 do
  local d = string.sub(held[i], 1, 2) == 'h:' and string.match(held[i + 1], '^(%d+)')
  taken = taken or d and tonumber(d) > now
end
if not taken then
  -- Released between the refusal and this: nobody else would wake it.
  call('PUBLISH', ARGV[4], 'G ' .. ARGV[1])
end
call('ZADD', KEYS[2], ARGV[2], ARGV[1])
call('HSET', KEYS[3], ARGV[1], string.format('%.0f', now + ARGV[3]) .. '|x|1|0|' .. ARGV[4]
  .. '|' .. ARGV[5])
local life = ARGV[3] * 2
if call('PTTL', KEYS[2]) < life then
  call('PEXPIRE', KEYS[2], life)
  call('PEXPIRE', KEYS[3], life)
end
return 0
