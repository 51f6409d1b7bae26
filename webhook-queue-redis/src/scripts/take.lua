-- Answers for each key how many tokens were taken, and the millisecond at which the next one after these is there.
local grants = {}
for i, key in ipairs(KEYS) do
    local want, interval, burst = request(i)
    local depth = interval * burst
    local spent = time_spent(key, interval, burst)
    local tokens = math.min(math.floor(math.max(depth - spent, 0) / interval), want)
    spent = spent + interval * tokens
    keep(key, spent, interval, burst)
    grants[2 * i - 1] = tokens
    grants[2 * i] = now + math.ceil(math.max(spent + interval - depth, 0) / 1e6)
end
return grants
