-- Asks for several resources in their order, as far as they can be had: all of them, or, with a line
-- to wait in, those before the one that it waits for. Otherwise nothing stays granted.
--
-- KEYS  H, Q, W of each resource
-- ARGV  per resource: how many arguments follow, then those of acquire.lua
-- Returns per resource an answer of acquire.lua's, up to the first that is not granted.
--@include resource.lua
--@include ask.lua
local reply, tokens, at = {}, {}, 1
for i = 1, #KEYS, 3 do
  H, Q, W = KEYS[i], KEYS[i + 1], KEYS[i + 2]
  local final = at + tonumber(ARGV[at])
  local answer = ask(at, final, call('HGETALL', H))
  tokens[#tokens + 1], reply[#reply + 1] = ARGV[at + 1], answer
  if answer[1] ~= 1 then
    -- Also what an earlier copy was granted: whoever reads this answer has nothing.
    for j = 1, answer[1] == 0 and 0 or #tokens - 1 do
      H, Q, W = KEYS[3 * j - 2], KEYS[3 * j - 1], KEYS[3 * j]
      load()
      drop(tokens[j])
      pump()
    end
    break
  end
  at = final + 1
end
return reply
