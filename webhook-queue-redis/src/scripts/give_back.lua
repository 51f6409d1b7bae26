for i, key in ipairs(KEYS) do
    local unused, interval, burst = request(i)
    keep(key, math.max(time_spent(key, interval, burst) - interval * unused, 0), interval, burst)
end
