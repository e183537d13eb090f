-- One ask for the resource of H, Q and W. Included below resource.lua.
--
-- at, final  its arguments are ARGV[at + 1] to ARGV[final], as acquire.lua lists them
-- found      all of H
-- Returns an answer of acquire.lua's.
local function ask(at, final, found)
  grace, keep = tonumber(ARGV[at + 12]), tonumber(ARGV[at + 13])
  local token, lease = ARGV[at + 1], tonumber(ARGV[at + 2])
  local mode, limit = ARGV[at + 3], tonumber(ARGV[at + 4])
  local late, kept, record = tonumber(ARGV[at + 15]), ARGV[at + 16], ARGV[at + 14]
  load(found)

  -- What this process left behind. The room goes to the line first, else to the caller.
  for i = at + 17, final do
    drop(ARGV[i])
    bury(ARGV[i], late, 'replaced')
  end

  if tombs[token] then
    pump()
    return {-1, tombs[token]}
  end

  local new_holder = false
  if kept ~= '' and not find(token) then
    for i = 1, #holders do
      local h = holders[i]
      if h.state == 'k' and h.kept == kept then
        remove(h.token)
        leave_line(token)
        holders[#holders + 1] = h
        h.token, h.state, h.kept, h.record = token, 'c', '', record
        -- The head of the line is to know him.
        new_holder, told_head = true, nil
        break
      end
    end
  end

  local own = find(token)
  if own then
    extend(own, lease)
    -- A fitting head would otherwise wait for a heartbeat.
    if limit > 1 or mode == 's' or final > at + 16 or new_holder then pump() end
    return {1, own.fence}
  end

  local seq = call('ZSCORE', Q, token)
  local waiter = int(now + ARGV[at + 6]) .. '|' .. mode .. '|' .. ARGV[at + 4] .. '|'
    .. ARGV[at + 7] .. '|' .. ARGV[at + 8] .. '|' .. record
  -- Before the pump: a waiter that is just asking is alive. Not by a late copy that asked once: it
  -- knows no inbox.
  if seq and ARGV[at + 5] == '1' then call('HSET', W, token, waiter) end
  pump()
  own = find(token)
  if own then
    extend(own, lease)
    return {1, own.fence}
  end
  if call('EXISTS', Q) == 0 then
    local fence = grant(token, mode, limit, lease, 'c', record)
    if fence then return {1, fence} end
  end

  local function place(given)
    keep_line(tonumber(ARGV[at + 6]))
    local rank = call('ZRANK', Q, token)
    -- The head may have to prove that one of them is dead.
    return tell_holders({0, given, rank, next_ms(), now}, rank == 0 and 1000 or 1)
  end

  seq = call('ZSCORE', Q, token)
  if seq then return place(tonumber(seq)) end
  if ARGV[at + 5] == '0' then
    return tell_holders({2, next_ms(), call('ZCARD', Q)}, 1000)
  end

  local dropped = false
  local most = tonumber(ARGV[at + 9])
  seq = tonumber(ARGV[at + 11])
  -- Who comes back to an earlier place is no newcomer, and is not refused for want of one.
  local bounded = most > 0 and not (seq > 0 and ARGV[at + 10] == 'skip')
  if bounded and call('ZCARD', Q) >= most then
    local waiters = call('HGETALL', W)
    for i = 1, #waiters, 2 do
      if tonumber(match(waiters[i + 1], '^(%d+)')) <= now then leave_line(waiters[i]) end
    end
    while call('ZCARD', Q) >= most do
      if ARGV[at + 10] == 'skip' then
        return tell_holders({3, next_ms(), call('ZCARD', Q)}, 1000)
      end
      local oldest = call('ZRANGE', Q, 0, 0, 'WITHSCORES')
      if seq > 0 and seq <= tonumber(oldest[2]) then
        -- Newer ones have come meanwhile: it is the oldest itself.
        local newest = call('ZRANGE', Q, -1, -1)[1]
        bury(token, late, overflow_by(match(call('HGET', W, newest) or '', WAITER_RECORD)))
        pump()
        return {-1, tombs[token]}
      end
      oldest = oldest[1]
      local entry = call('HGET', W, oldest)
      leave_line(oldest)
      bury(oldest, late, overflow_by(record))
      dropped = true
      if entry then
        call('PUBLISH', match(entry, '^%d+|%a|%d+|%d+|([^|]*)|'), 'O ' .. oldest)
      end
    end
  end

  if seq == 0 then
    local tail = call('ZRANGE', Q, -1, -1, 'WITHSCORES')
    seq = now_us
    if tail[2] and tonumber(tail[2]) >= seq then seq = tail[2] + 1 end
  end
  call('ZADD', Q, int(seq), token)
  call('HSET', W, token, waiter)
  if dropped or call('ZCARD', Q) > 1 and call('ZRANK', Q, token) == 0 then
    -- The head that did not fit is no longer the head.
    pump()
    own = find(token)
    if own then
      extend(own, lease)
      return {1, own.fence}
    end
  end
  return place(seq)
end
