-- One of several independent servers: asks for its vote. Nobody stands in line: one that was granted
-- it unasked would be a vote that its owner does not count.
-- Idempotent per token: any number of copies, in any order, vote once.
--
-- KEYS  1 H
-- ARGV  1 lease ms  2 life ms: the lease and what H outlives it  3 mode  4 limit  5 token  6 record
--       and if there is any of it: 7 late ms  8 kept name, or ''  9... orphans
-- Returns {1, fence}                               voted
--         {2, next ms, 0, holders...}              busy; each holder: token, fence, state, record
--         {-1, why}                                this token is dead
local found = redis.call('HGETALL', KEYS[1])
if #ARGV == 6 and (#found == 0 or #found == 2 and found[1] == 'f') then
  local t = redis.call('TIME')
  local fence = t[1] * 1000000 + t[2]
  local deadline = string.format('%.0f', math.floor(fence / 1000) + ARGV[1])
  if found[2] and tonumber(found[2]) >= fence then fence = tonumber(found[2]) + 1 end
  local f = string.format('%.0f', fence)
  redis.call('HSET', KEYS[1], 'f', f, 'h:' .. ARGV[5], deadline .. '|' .. f .. '|' .. ARGV[3]
    .. '|' .. ARGV[4] .. '|c||' .. ARGV[6])
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  return {1, fence}
end
--@include resource.lua
H, grace, keep = KEYS[1], 0, ARGV[2] - ARGV[1]
local lease, mode, limit = tonumber(ARGV[1]), ARGV[3], tonumber(ARGV[4])
local token, record, kept = ARGV[5], ARGV[6], ARGV[8] or ''
load(found)

-- What this process left behind.
for i = 9, #ARGV do
  remove(ARGV[i])
  bury(ARGV[i], tonumber(ARGV[7]), 'replaced')
end

if tombs[token] then return {-1, tombs[token]} end

local own = find(token)
if not own and kept ~= '' then
  for i = 1, #holders do
    local h = holders[i]
    if h.state == 'k' and h.kept == kept then
      call('HDEL', H, 'h:' .. h.token)
      h.token, h.state, h.kept, h.record = token, 'c', '', record
      own = h
      break
    end
  end
end
if own then
  extend(own, lease)
  return {1, own.fence}
end

local fence = grant(token, mode, limit, lease, 'c', record)
if fence then return {1, fence} end
return tell_holders({2, next_ms(), 0}, 1000)
