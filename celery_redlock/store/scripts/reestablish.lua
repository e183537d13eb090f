-- Brings back a hold that the server no longer knows, if nobody needed its place meanwhile.
--
-- KEYS  1 H  2 Q  3 W
-- ARGV  1 token  2 lease ms  3 fence  4 mode  5 limit  6 trusted: 1 if trust ran when it was sent
--       7 grace: server ms, or 0  8 keep ms  9 record
-- Returns 1 it is held again, 0 another was granted the place, or why its token is dead.
--@include resource.lua
H, Q, W = KEYS[1], KEYS[2], KEYS[3]
grace, keep = tonumber(ARGV[7]), tonumber(ARGV[8])
local token, lease, fence = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
load()
if tombs[token] then return tombs[token] end
local own = find(token)
if own then
  -- Another fence: a late copy of the request made another grant of it, after a rival's.
  if own.fence ~= fence then return 0 end
  extend(own, lease)
  return 1
end
-- Restarted empty: who held meanwhile is unknown, but for the grace nobody new did.
if last == 0 and (ARGV[6] ~= '1' or now >= grace) then return 0 end
if last > fence then return 0 end
if not room(ARGV[4], tonumber(ARGV[5]), true) then return 0 end
-- Not f: with a limit above 1, re-established holders would refuse each other.
if fence > revived then call('HSET', H, 'r', int(fence)) end
write({
  token = token, deadline = now + lease, fence = fence, mode = ARGV[4],
  limit = tonumber(ARGV[5]), state = 'c', kept = '', record = ARGV[9],
})
return 1
