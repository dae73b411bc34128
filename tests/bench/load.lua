-- The load: GETs with the first COUNT tokens of the file TOKENS, one after the other, for ever. SENT of them were sent before.
local requests, position = {}, 0

function init()
  local count = tonumber(os.getenv("COUNT"))
  for token in io.lines(os.getenv("TOKENS")) do
    if #requests >= count then break end
    requests[#requests + 1] = wrk.format("GET", "/", { ["x-amzn-oidc-data"] = token, ["accept"] = "*/*", ["user-agent"] = "bench" })
  end
  position = tonumber(os.getenv("SENT")) % #requests
end

function request()
  position = position % #requests + 1
  return requests[position]
end

function done(summary, latency)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
  io.write(string.format("RESULT %d %d %d %d %d\n", summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), failed))
end
