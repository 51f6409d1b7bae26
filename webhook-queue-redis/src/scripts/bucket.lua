-- A bucket is the text "ms ns interval burst": it is full again ns nanoseconds after the millisecond ms, as reckoned by
-- a limit of one token in interval nanoseconds and so many at once. A bucket without a key is full.
-- ARGV[1] is the time now in milliseconds; three arguments for each key follow: how many tokens, interval, burst.

-- Calls may come this much out of the order of their times and still be counted exactly.
local MAX_SKEW = 1e9
-- A key outlives its bucket by so many milliseconds: clocks need not agree with that of Redis.
local KEPT = 10000

local now = tonumber(ARGV[1])

local function request(i)
    return tonumber(ARGV[3 * i - 1]), tonumber(ARGV[3 * i]), tonumber(ARGV[3 * i + 1])
end

-- The time that the tokens spent take to come back, under the limit of this request.
local function time_spent(key, interval, burst)
    local stored = redis.call('GET', key)
    if not stored then
        return 0
    end
    local ms, ns, old_interval, old_burst = string.match(stored, '^(%S+) (%S+) (%S+) (%S+)$')
    local spent = math.max((tonumber(ms) - now) * 1e6 + tonumber(ns), 0)
    local depth = interval * burst
    if tonumber(old_interval) == interval and tonumber(old_burst) == burst and spent <= depth + MAX_SKEW then
        return spent
    end
    -- The limit changed, or a clock was set back: as many tokens as before, but no longer a wait than for all.
    return math.min(math.ceil(spent * interval / tonumber(old_interval)), depth)
end

local function keep(key, spent, interval, burst)
    if spent == 0 then
        redis.call('DEL', key)
        return
    end
    local ms = math.floor(spent / 1e6)
    local bucket = string.format('%.17g %.17g %.17g %.17g', now + ms, spent - ms * 1e6, interval, burst)
    redis.call('SET', key, bucket, 'PX', string.format('%.0f', ms + KEPT))
end
