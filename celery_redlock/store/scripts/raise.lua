-- One of several independent servers: writes the fence of a majority back, and extends the hold.
-- Only while the entry lives here: of one that has lapsed it is not known what a rival was granted.
--
-- KEYS  H of each hold
-- ARGV  1 keep ms, then per hold: token, lease ms (0: only the fence), the majority's fence, the
--       fence that this server had given it ('': not known), name to keep it under over a retry or '',
--       its record from now on or ''
-- Returns per hold: 1 done, 0 gone, or why its token is dead.
local call, fmt, match = redis.call, string.format, string.match
local t = call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local reply = {}
for i = 1, #KEYS do
  local at = 6 * i - 4
  local token, lease, fence = ARGV[at], tonumber(ARGV[at + 1]), ARGV[at + 2]
  local given, keep_as, new_record = ARGV[at + 3], ARGV[at + 4], ARGV[at + 5]
  local value = call('HGET', KEYS[i], 'h:' .. token)
  local d, f, mode, limit, state, kept, record
  if value then
    d, f, mode, limit, state, kept, record =
      match(value, '^(%d+)|(%d+)|(%a)|(%d+)|(%a)|([^|]*)|(.*)$')
  end
  -- A late copy of the ask has another fence: what it was granted is not that hold.
  local same = f and (f == fence or f == given or given == '' and tonumber(f) < tonumber(fence))
  if same and tonumber(d) > now then
    local deadline = math.max(tonumber(d), now + lease)
    if keep_as ~= '' then state, kept = 'k', keep_as end
    if new_record ~= '' then record = new_record end
    call('HSET', KEYS[i], 'h:' .. token,
      fmt('%.0f|%s|%s|%s|%s|%s|%s', deadline, fence, mode, limit, state, kept, record))
    local last = call('HGET', KEYS[i], 'f')
    if not last or tonumber(last) < tonumber(fence) then call('HSET', KEYS[i], 'f', fence) end
    local life = deadline - now + ARGV[1]
    if call('PTTL', KEYS[i]) < life then call('PEXPIRE', KEYS[i], fmt('%.0f', life)) end
    reply[i] = 1
  else
    local tomb = call('HGET', KEYS[i], 'x:' .. token)
    local expiry, why = match(tomb or '0|', '^(%d+)|(.*)$')
    reply[i] = tonumber(expiry) > now and why or 0
  end
end
return reply
