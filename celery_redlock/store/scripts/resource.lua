-- One resource as the scripts see it. Included below the fast paths; defines no global.
--
-- KEYS   H hash  f          the last fence issued by a grant
--                r          the greatest fence of a re-established hold
--                h:<token>  deadline|fence|mode|limit|state|kept|record
--                x:<token>  expiry|why: a tombstone
--        Q zset  token -> seq: the line
--        W hash  token -> deadline|mode|limit|grant_ms|inbox|record: its waiters
-- mode   x exclusive, s shared
-- state  g granted by another's release and not yet confirmed, c confirmed, k kept over a retry
--
-- A holder past its deadline is a ghost: it blocks nobody but stays until a grant needs its room.
-- Holders and ghosts together always satisfy everybody's limit and mode, so that reviving a ghost
-- is always safe. Times are ms of this server's clock; fences are below 2^53 until the year 2255.
local call, fmt, match = redis.call, string.format, string.match
local clock = call('TIME')
local now_us = clock[1] * 1000000 + clock[2]
local now = math.floor(now_us / 1000)

local H, Q, W       -- the resource's keys
local keep, grace   -- ms that H outlives its last deadline; when a restarted server may grant
local last, revived -- f and r
local holders       -- list of {token, deadline, fence, mode, limit, state, kept, record}
local tombs         -- token -> why
local horizon       -- the latest deadline or tombstone
local told_head     -- who knows that it is the head of the line; without Q there is no line

local function int(number) return fmt('%.0f', number) end

local function load(found)
  last, revived, holders, tombs, horizon = 0, 0, {}, {}, 0
  told_head = Q and call('ZRANGE', Q, 0, 0)[1]
  found = found or call('HGETALL', H)
  for i = 1, #found, 2 do
    local field, value = found[i], found[i + 1]
    local kind = string.sub(field, 1, 1)
    if kind == 'f' then
      last = tonumber(value)
    elseif kind == 'r' then
      revived = tonumber(value)
    elseif kind == 'h' then
      local d, f, mode, limit, state, kept, record =
        match(value, '^(%d+)|(%d+)|(%a)|(%d+)|(%a)|([^|]*)|(.*)$')
      local deadline = tonumber(d)
      if deadline > horizon then horizon = deadline end
      holders[#holders + 1] = {
        token = string.sub(field, 3), deadline = deadline, fence = tonumber(f), mode = mode,
        limit = tonumber(limit), state = state, kept = kept, record = record,
      }
    elseif kind == 'x' then
      local d, why = match(value, '^(%d+)|(.*)$')
      local expiry = tonumber(d)
      if expiry <= now then
        call('HDEL', H, field)
      else
        tombs[string.sub(field, 3)] = why
        if expiry > horizon then horizon = expiry end
      end
    end
  end
end

local function expire()
  local left = horizon - now
  call('PEXPIRE', H, int((left > 0 and left or 0) + keep))
end

local function find(token)
  for i = 1, #holders do
    if holders[i].token == token then return holders[i], i end
  end
end

local function write(h)
  if h.deadline > horizon then horizon = h.deadline end
  call('HSET', H, 'h:' .. h.token, fmt('%.0f|%.0f|%s|%.0f|%s|%s|%s',
    h.deadline, h.fence, h.mode, h.limit, h.state, h.kept, h.record))
  expire()
end

local function remove(token)
  local h, i = find(token)
  if h then
    table.remove(holders, i)
    call('HDEL', H, 'h:' .. token)
  end
  return h
end

-- Extends a holder, never shortens it: a late short renewal must not cut a long lease.
local function extend(h, lease)
  if now + lease > h.deadline then h.deadline = now + lease end
  if h.state == 'g' then h.state = 'c' end
  write(h)
end

-- The ghosts to evict before one more fits, or nil if it does not fit. strict: nobody is evicted.
-- The smallest limit among the holders and the requester counts.
local function room(mode, limit, strict)
  local live, ghosts, evicted, smallest = 0, {}, {}, limit
  for i = 1, #holders do
    local h = holders[i]
    if h.deadline > now then
      if h.mode ~= mode then return nil end
      live = live + 1
      if h.limit < smallest then smallest = h.limit end
    elseif h.mode == mode then
      ghosts[#ghosts + 1] = h
    else
      evicted[#evicted + 1] = h
    end
  end
  if mode == 'x' then
    if live >= smallest then return nil end
    table.sort(ghosts, function(a, b)
      return a.deadline > b.deadline or a.deadline == b.deadline and a.fence > b.fence
    end)
    local kept = 0
    for i = 1, #ghosts do
      local least = ghosts[i].limit < smallest and ghosts[i].limit or smallest
      if live + kept + 2 <= least and #evicted == 0 then
        kept, smallest = kept + 1, least
      else
        evicted[#evicted + 1] = ghosts[i]
      end
    end
  end
  if strict and #evicted > 0 then return nil end
  return evicted
end

-- Makes token a holder and returns its fence, or nil.
local function grant(token, mode, limit, lease, state, record)
  -- Restarted empty: old holders come first.
  if last == 0 and now < grace then return nil end
  local evicted = room(mode, limit)
  if not evicted then return nil end
  for i = 1, #evicted do remove(evicted[i].token) end
  last = math.max(last + 1, revived + 1, now_us)
  call('HSET', H, 'f', int(last))
  local h = {
    token = token, deadline = now + lease, fence = last, mode = mode, limit = limit,
    state = state, kept = '', record = record,
  }
  holders[#holders + 1] = h
  write(h)
  return last
end

-- Q and W live for twice a waiter's silence; never less than before: another waits longer.
local function keep_line(waiter_ms)
  local life = waiter_ms * 2
  if call('PTTL', Q) < life then
    call('PEXPIRE', Q, life)
    call('PEXPIRE', W, life)
  end
end

local function leave_line(token)
  call('HDEL', W, token)
  return call('ZREM', Q, token) == 1
end

-- Lets the line move: its head is granted while it fits. Strict order, nobody is skipped. Who is
-- granted is told all that he needs to begin; who is the head from now on, that he is.
local function pump()
  while true do
    local head = call('ZRANGE', Q, 0, 0)[1]
    if not head then return end
    local waiter = call('HGET', W, head)
    local d, mode, limit, grant_ms, inbox, record
    if waiter then
      d, mode, limit, grant_ms, inbox, record =
        match(waiter, '^(%d+)|(%a)|(%d+)|(%d+)|([^|]*)|(.*)$')
    end
    if not waiter or tonumber(d) <= now then
      leave_line(head)
    else
      local fence = grant(head, mode, tonumber(limit), tonumber(grant_ms), 'g', record)
      if not fence then
        if head ~= told_head then call('PUBLISH', inbox, 'H ' .. head) end
        told_head = head
        return
      end
      leave_line(head)
      call('PUBLISH', inbox, fmt('G %s %.0f %.0f', head, fence, now))
    end
  end
end

-- Removes token wherever it is: 1 it held, 2 it waited, 0 neither.
local function drop(token)
  local held = remove(token)
  local waited = leave_line(token)
  return held and 1 or waited and 2 or 0
end

-- A tombstone: a late copy of a request with this token will do nothing.
local function bury(token, ms, why)
  local expiry = now + ms
  if expiry > horizon then horizon = expiry end
  tombs[token] = why
  call('HSET', H, 'x:' .. token, int(expiry) .. '|' .. why)
  expire()
end

-- Why a waiter was dropped for a newcomer. Of a record only the task id is read: it is written as
-- JSON, so that no other field can look like it.
local WAITER_RECORD = '^%d+|%a|%d+|%d+|[^|]*|(.*)$'
local function overflow_by(record)
  local id = match(record or '', '"id":"([^"\\]*)"')
  return id and 'overflow by ' .. id or 'overflow'
end

-- ms until the earliest lease of a holder ends, or until a restarted server may grant.
local function next_ms()
  local first
  for i = 1, #holders do
    local left = holders[i].deadline - now
    if left > 0 and (not first or left < first) then first = left end
  end
  return first or math.max(0, grace - now)
end

-- Appends token, fence, state and record of the live holders, the longest first, at most `most`.
local function tell_holders(reply, most)
  local live = {}
  for i = 1, #holders do
    if holders[i].deadline > now then live[#live + 1] = holders[i] end
  end
  table.sort(live, function(a, b) return a.fence < b.fence end)
  for i = 1, math.min(#live, most) do
    local h = live[i]
    for _, value in ipairs({h.token, h.fence, h.state, h.record}) do reply[#reply + 1] = value end
  end
  return reply
end
