-- One of several independent servers: drops tokens and wakes whoever has waited longest.
-- Grants nothing: a vote given away here could be one that no majority goes with.
--
-- KEYS  1 H  2 zset token -> since: who is to be woken  3 hash token -> as in resource.lua's W
-- ARGV  1 tomb ms, 0 for none  2 keep ms  3 why  4... tokens
--       A why that begins with "forced by " moves the fence past the holders that it drops.
-- Returns for the first token: 1 it held, 2 it waited, 0 neither. All three are definite.
local call, fmt, match = redis.call, string.format, string.match
if ARGV[1] == '0' and ARGV[3] == 'left' and #ARGV == 4 and call('EXISTS', KEYS[2]) == 0 then
  return call('HDEL', KEYS[1], 'h:' .. ARGV[4])
end
local t = call('TIME')
local now_us = t[1] * 1000000 + t[2]
local now = math.floor(now_us / 1000)
local tomb, why = tonumber(ARGV[1]), ARGV[3]
local first, freed = 0, false
for i = 4, #ARGV do
  local held = call('HDEL', KEYS[1], 'h:' .. ARGV[i])
  local waited = call('ZREM', KEYS[2], ARGV[i])
  if waited == 1 then call('HDEL', KEYS[3], ARGV[i]) end
  if i == 4 then first = held == 1 and 1 or waited == 1 and 2 or 0 end
  freed = freed or held == 1
  if tomb > 0 then
    if not call('HGET', KEYS[1], 'x:' .. ARGV[i]) then
      call('HSET', KEYS[1], 'x:' .. ARGV[i], fmt('%.0f|%s', now + tomb, why))
    end
    local life = tomb + ARGV[2]
    if call('PTTL', KEYS[1]) < life then call('PEXPIRE', KEYS[1], fmt('%.0f', life)) end
  end
end
if freed and string.sub(why, 1, 10) == 'forced by ' then
  -- Whoever guards a resource by its fence can refuse the old holder before there is a new one.
  local last = tonumber(call('HGET', KEYS[1], 'f') or '0')
  call('HSET', KEYS[1], 'f', fmt('%.0f', math.max(last + 1, now_us)))
end
while freed do
  local head = call('ZRANGE', KEYS[2], 0, 0)[1]
  if not head then break end
  local waiter = call('HGET', KEYS[3], head)
  call('ZREM', KEYS[2], head)
  call('HDEL', KEYS[3], head)
  local d, inbox = match(waiter or '0|x|1|0||', '^(%d+)|%a|%d+|%d+|([^|]*)|')
  if tonumber(d) > now then
    -- It stands here again with its old place if it is refused once more.
    call('PUBLISH', inbox, 'G ' .. head)
    break
  end
end
return first
