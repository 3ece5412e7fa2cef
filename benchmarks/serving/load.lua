-- wrk script: requests recommendations for users of $HANDSELL_USERS drawn at random; the last line of output is JSON.
local users, threads = {}, {}
for line in io.lines(os.getenv("HANDSELL_USERS")) do users[#users + 1] = line end

function setup(thread)
  thread:set("seed", #threads + 1)
  threads[#threads + 1] = thread
end

function init(args)
  degraded, failed = 0, 0
  math.randomseed(seed)
end

function request()
  return wrk.format("GET", "/v1/users/" .. users[math.random(#users)] .. "/recommendations")
end

function response(status, headers, body)
  if status ~= 200 then
    failed = failed + 1
  elseif not body:find('"degraded":[]', 1, true) then
    degraded = degraded + 1
  end
end

function done(summary, latency, requests)
  local degraded, failed = 0, 0
  for _, thread in ipairs(threads) do
    degraded = degraded + thread:get("degraded")
    failed = failed + thread:get("failed")
  end
  local errors = summary.errors
  failed = failed + errors.connect + errors.read + errors.write + errors.timeout
  io.write(string.format(
    '{"n": %d, "per_second": %.3f, "p50": %.3f, "p95": %.3f, "p99": %.3f, "failed": %d, "degraded": %d}\n',
    summary.requests, (summary.requests - failed) / summary.duration * 1e6, latency:percentile(50) / 1e3,
    latency:percentile(95) / 1e3, latency:percentile(99) / 1e3, failed, degraded))
end
