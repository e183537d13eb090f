-- Releases, cancels, passes on a raced grant, replaces a dead holder: drops tokens, then grants.
--
-- KEYS  1 H  2 Q  3 W
-- ARGV  1 tomb ms, 0 for none  2 grace: server ms, or 0  3 keep ms  4 why  5... tokens
--       A why that begins with "forced by " moves the fence past the holders that it drops.
-- Returns for the first token: 1 it held, 2 it waited, 0 neither. All three are definite.
local left
local forced = string.sub(ARGV[4], 1, 10) == 'forced by '
if ARGV[1] == '0' and #ARGV == 5 and not forced then
  left = redis.call('HDEL', KEYS[1], 'h:' .. ARGV[5])
  if redis.call('EXISTS', KEYS[2]) == 0 then return left end
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
