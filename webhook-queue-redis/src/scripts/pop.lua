-- Takes the hints that are due first and holds them, or removes them where no time to hold them until is given.
-- KEYS: the hints of one shard. ARGV: due until, held until or '', how many at most.
-- Answers members and due times in turn.
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'WITHSCORES', 'LIMIT', 0, ARGV[3])
local held = ARGV[2]
-- Lua unpacks a few thousand values at most.
for first = 1, #due, 2000 do
    local arguments = {}
    for i = first, math.min(first + 1998, #due), 2 do
        if held ~= '' then
            arguments[#arguments + 1] = held
        end
        arguments[#arguments + 1] = due[i]
    end
    redis.call(held ~= '' and 'ZADD' or 'ZREM', KEYS[1], unpack(arguments))
end
return due
