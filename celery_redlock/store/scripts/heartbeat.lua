-- Refreshes waiters that exist, adds none, and lets every line move: heals lost wake-ups and lapses.
--
-- KEYS  H, Q, W of each resource
-- ARGV  1 waiter ms  2 grace: server ms, or 0  3 keep ms, then per resource: count, tokens...
-- Returns per token: {1} granted, confirm it        {0, seq, rank, next ms, now ms, holders...} in line
--                    {2} unknown, join again        {-1, why} this token is dead
--                    Told at the head are all holders: token, fence, state, record; and to the
--                    first token of each resource the longest.
--@include resource.lua
local waiter_ms, reply, at = tonumber(ARGV[1]), {}, 4
grace, keep = tonumber(ARGV[2]), tonumber(ARGV[3])
for i = 1, #KEYS, 3 do
  H, Q, W = KEYS[i], KEYS[i + 1], KEYS[i + 2]
  local first, final = at + 1, at + tonumber(ARGV[at])
  local deadline = int(now + waiter_ms)
  for j = first, final do
    local waiter = call('HGET', W, ARGV[j])
    if waiter then call('HSET', W, ARGV[j], (string.gsub(waiter, '^%d+', deadline, 1))) end
  end
  keep_line(waiter_ms)
  load()
  pump()
  for j = first, final do
    local token = ARGV[j]
    local rank = call('ZRANK', Q, token)
    if find(token) then
      reply[#reply + 1] = {1}
    elseif rank then
      local place = {0, tonumber(call('ZSCORE', Q, token)), rank, next_ms(), now}
      -- The head may have to prove that one of them is dead; another, if the head is dead as well.
      if rank == 0 or j == first then tell_holders(place, rank == 0 and 1000 or 1) end
      reply[#reply + 1] = place
    elseif tombs[token] then
      reply[#reply + 1] = {-1, tombs[token]}
    else
      reply[#reply + 1] = {2}
    end
  end
  at = final + 1
end
return reply
