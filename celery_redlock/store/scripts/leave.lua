-- Releases, cancels, passes on a raced grant, replaces a dead holder: drops tokens, then grants.
--
-- KEYS  1 H  2 Q  3 W
-- ARGV  1 tomb ms, 0 for none  2 grace: server ms, or 0  3 keep ms  4 why  5... tokens
--       A why that begins with "forced by " moves the fence past the holders that it drops.
-- Returns for the first token: 1 it held, 2 it waited, 0 neither. All three are definite.
local left
local forced = string.sub(ARGV[4], 1, 10) == 'forced by '
if ARGV[1] == '0' and #ARGV == 5 and not forced then
  -- Nobody waits, or an exclusive lock changes hands: told without the helpers, whose making takes
  -- longer than either.
  local call, fmt, match = redis.call, string.format, string.match
  left = call('HDEL', KEYS[1], 'h:' .. ARGV[5])
  local line = call('ZRANGE', KEYS[2], 0, 1)
  local head, second = line[1], line[2]
  if not head then return left end
  local found, waiter = call('HGETALL', KEYS[1]), call('HGET', KEYS[3], head)
  if left == 1 and #found == 2 and found[1] == 'f' and waiter then
    local clock = call('TIME')
    local now_us = clock[1] * 1000000 + clock[2]
    local now = math.floor(now_us / 1000)
    local d, grant_ms, inbox, record = match(waiter, '^(%d+)|x|1|(%d+)|([^|]*)|(.*)$')
    if d and tonumber(d) > now then
      local fence = fmt('%.0f', math.max(found[2] + 1, now_us))
      call('HSET', KEYS[1], 'f', fence, 'h:' .. head,
        fmt('%.0f|%s|x|1|g||%s', now + grant_ms, fence, record))
      call('PEXPIRE', KEYS[1], fmt('%.0f', grant_ms + ARGV[3]))
      call('ZREM', KEYS[2], head)
      call('HDEL', KEYS[3], head)
      call('PUBLISH', inbox, fmt('G %s %s %.0f', head, fence, now))
      if not second then return left end
      waiter = call('HGET', KEYS[3], second)
      d, inbox = match(waiter or '', '^(%d+)|%a|%d+|%d+|([^|]*)|')
      if d and tonumber(d) > now then
        call('PUBLISH', inbox, 'H ' .. second)
        return left
      end
    end
  end
end
--@include resource.lua
H, Q, W = KEYS[1], KEYS[2], KEYS[3]
grace, keep = tonumber(ARGV[2]), tonumber(ARGV[3])
local tomb = tonumber(ARGV[1])
load()
local ousted = false
for i = 5, #ARGV do
  local what = drop(ARGV[i])
  if i == 5 and left ~= 1 then left = what end
  ousted = ousted or forced and what == 1
  -- Also when nothing was found: the release may have overtaken the request.
  if tomb > 0 and not tombs[ARGV[i]] then bury(ARGV[i], tomb, ARGV[4]) end
end
if ousted then
  -- Whoever guards a resource by its fence can refuse the old holder before there is a new one.
  last = math.max(last + 1, revived + 1, now_us)
  call('HSET', H, 'f', int(last))
  expire()
end
pump()
return left
