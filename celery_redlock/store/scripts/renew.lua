-- Extends holds, each identified by token and fence. Creates none, shortens none.
--
-- KEYS  H of each hold
-- ARGV  1 keep ms, then per hold: token, lease ms, fence, name to keep it under over a retry
--       or '', new record or ''
-- Returns per hold: 1 extended, 0 gone, or why its token is dead.
local call, fmt, match = redis.call, string.format, string.match
local t = call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local reply = {}
for i = 1, #KEYS do
  local at = 5 * i - 3
  local token, lease, fence = ARGV[at], tonumber(ARGV[at + 1]), ARGV[at + 2]
  local keep_as, new_record = ARGV[at + 3], ARGV[at + 4]
  local value = call('HGET', KEYS[i], 'h:' .. token)
  local d, f, mode, limit, state, kept, record
  if value then
    d, f, mode, limit, state, kept, record =
      match(value, '^(%d+)|(%d+)|(%a)|(%d+)|(%a)|([^|]*)|(.*)$')
  end
  if f == fence then
    local deadline = math.max(tonumber(d), now + lease)
    if keep_as ~= '' then
      state, kept = 'k', keep_as
    elseif state == 'g' then
      state = 'c'
    end
    if new_record ~= '' then record = new_record end
    call('HSET', KEYS[i], 'h:' .. token,
      fmt('%.0f|%s|%s|%s|%s|%s|%s', deadline, f, mode, limit, state, kept, record))
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
