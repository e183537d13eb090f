-- Asks for a resource; also joins its line, polls a place in it and confirms a grant.
-- Idempotent per token: any number of copies, in any order, grant it once.
--
-- KEYS  1 H  2 Q  3 W
-- ARGV  1 token        2 lease ms   3 mode     4 limit        5 wait: 0 ask once, 1 join the line
--       6 waiter ms    7 grant ms   8 inbox    9 max waiting (0: no bound)
--       10 overflow: skip, drop_oldest         11 seq of an earlier join, or 0
--       12 grace: server ms, or 0              13 keep ms     14 record
--       15 late ms     16 kept name, or ''     17... orphans
-- Returns {1, fence}                                   granted
--         {0, seq, rank, next ms, now ms, holders...}  in line; the longest holder, all at the head
--         {2, next ms, waiting, holders...}            busy; each holder: token, fence, state, record
--         {3, next ms, waiting, holders...}            busy and the line is full
--         {-1, why}                                    this token is dead
local found = redis.call('HGETALL', KEYS[1])
if #ARGV == 16
  and (#found == 0 and ARGV[12] == '0' or #found == 2 and found[1] == 'f')
  and redis.call('EXISTS', KEYS[2]) == 0
then
  local t = redis.call('TIME')
  local fence = t[1] * 1000000 + t[2]
  local deadline = string.format('%.0f', math.floor(fence / 1000) + ARGV[2])
  if found[2] and tonumber(found[2]) >= fence then fence = tonumber(found[2]) + 1 end
  local f = string.format('%.0f', fence)
  redis.call('HSET', KEYS[1], 'f', f, 'h:' .. ARGV[1], deadline .. '|' .. f .. '|' .. ARGV[3]
    .. '|' .. ARGV[4] .. '|c||' .. ARGV[14])
  redis.call('PEXPIRE', KEYS[1], ARGV[2] + ARGV[13])
  return {1, fence}
end
--@include resource.lua
--@include ask.lua
H, Q, W = KEYS[1], KEYS[2], KEYS[3]
return ask(0, #ARGV, found)
