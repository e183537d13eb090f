-- One resource for people and proofs. Writes nothing.
--
-- KEYS  1 H  2 Q  3 W
-- Returns {TIME, all of H, the line with its seqs, all of W}
return {
  redis.call('TIME'),
  redis.call('HGETALL', KEYS[1]),
  redis.call('ZRANGE', KEYS[2], 0, -1, 'WITHSCORES'),
  redis.call('HGETALL', KEYS[3]),
}
