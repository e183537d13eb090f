-- One of several independent servers: takes back what a try was granted that came to nothing.
-- Only that: a late copy finds what a later try was granted with another fence. Wakes nobody.
--
-- KEYS  1 H
-- ARGV  1 token  2 fence
-- Returns 1 taken back, 0 not there
local field = 'h:' .. ARGV[1]
local value = redis.call('HGET', KEYS[1], field)
if value and string.match(value, '^%d+|(%d+)|') == ARGV[2] then
  return redis.call('HDEL', KEYS[1], field)
end
return 0
