-- member.lua adds ARGV[1] to the set KEYS[1].

local added = redis.call('SADD', KEYS[1], ARGV[1]) == 1
