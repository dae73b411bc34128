-- Load without end: each token of the file TOKENS once. Then most requests have one of the first OFTEN tokens, and each
-- SELDOM-th the next of the others, which are so many that each is evicted before its next turn.
local OFTEN, SELDOM = 2000, 8

local requests, sent, seldom = {}, 0, 0

function init()
  for token in io.lines(os.getenv("TOKENS")) do
    requests[#requests + 1] = wrk.format("GET", "/", { ["x-amzn-oidc-data"] = token, ["accept"] = "*/*", ["user-agent"] = "bench" })
  end
end

function request()
  sent = sent + 1
  if sent <= #requests then return requests[sent] end
  if sent % SELDOM > 0 then return requests[sent % OFTEN + 1] end
  seldom = seldom % (#requests - OFTEN) + 1
  return requests[OFTEN + seldom]
end

function done(summary, latency)
  local errors = summary.errors
  -- Slow requests do not count: the machine may be busy.
  io.write(string.format("FAILED %d\n", errors.connect + errors.read + errors.write + errors.status))
end
