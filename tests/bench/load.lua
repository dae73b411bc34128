-- The load. The setups of the file PLAN take turns. Each has its own thread, which sends for SENDING of its SLOT and then waits
-- for its last answers until its next slot. A busy machine thus affects all setups alike. A turn with late answers does not count.
-- A plan is `return { processor = FILE, cases = { { port = TEXT, header = TEXT, tokens = FILE, count = NUMBER, sent = NUMBER,
-- process = NUMBER or nil }, ... } }`. Each case gets GETs with the first `count` lines of its file in that header, repeatedly,
-- starting after the first `sent` requests. `process` is a process that works for the case, beside Envoy's worker.
local bit, ffi = require("bit"), require("ffi")
ffi.cdef("struct bench_time { long seconds, nanoseconds; }; int clock_gettime(int clock, struct bench_time *time);")

-- Milliseconds.
local SLOT, SENDING = 240, 160

local plan = dofile(os.getenv("PLAN"))
local time = ffi.new("struct bench_time")
local requests, position, turn = {}, 0, nil
local threads = {}
-- The report of a thread for `done`: one line a turn.
turns = ""

-- The monotonic clock in milliseconds, the same in all threads.
local function now()
  ffi.C.clock_gettime(1, time)
  return tonumber(time.seconds) * 1e3 + tonumber(time.nanoseconds) / 1e6
end

-- The CPU time of all threads of a process, in nanoseconds: the clock of clock_getcpuclockid(3).
local function of_process(id)
  assert(ffi.C.clock_gettime(bit.bor(bit.lshift(bit.bnot(id), 3), 2), time) == 0, "no such process")
  return tonumber(time.seconds) * 1e9 + tonumber(time.nanoseconds)
end

-- The CPU time of Envoy's worker and of the case's other process, in nanoseconds.
local function on_processor()
  local file = assert(io.open(plan.processor))
  local nanoseconds = file:read("*n")
  file:close()
  local process = plan.cases[number].process
  if process then nanoseconds = nanoseconds + of_process(process) end
  return nanoseconds
end

function setup(thread)
  threads[#threads + 1] = thread
  thread:set("number", #threads)
  thread.addr = wrk.lookup("127.0.0.1", plan.cases[#threads].port)[1]
end

function init()
  local case = plan.cases[number]
  for token in io.lines(case.tokens) do
    if #requests >= case.count then break end
    requests[#requests + 1] = wrk.format("GET", "/", { [case.header] = token, ["accept"] = "*/*", ["user-agent"] = "bench" })
  end
  position = case.sent % #requests
end

-- The number of slots until this thread's next one; 0 in its own.
local function ahead(slot)
  return (number - 1 - slot) % #plan.cases
end

-- Called before each request: the milliseconds until it may be sent.
function delay()
  local time = now()
  local slot = math.floor(time / SLOT)
  local wait = ahead(slot)
  if wait == 0 and time < slot * SLOT + SENDING then return 0 end
  -- An answer of a turn has arrived.
  if turn then turn.ended, turn.used = time, on_processor() - turn.before end
  if wait == 0 then wait = #plan.cases end
  -- A timer may be early by less than a millisecond.
  return math.ceil((slot + wait) * SLOT - time) + 1
end

local function report(turn)
  if turn.ended and turn.ended < (turn.slot + 1) * SLOT then
    local round = math.floor(turn.slot / #plan.cases)
    turns = turns .. string.format("TURN %d %d %d %.0f %.0f\n", number, round, turn.requests, (turn.ended - turn.began) * 1e6, turn.used)
  end
end

function request()
  local time = now()
  local slot = math.floor(time / SLOT)
  -- Outside its slots are the very first request, which wrk only parses, and late ones of a stalled machine.
  if ahead(slot) == 0 then
    if not turn or turn.slot ~= slot then
      if turn then report(turn) end
      turn = { slot = slot, began = time, before = on_processor(), requests = 0 }
    end
    turn.requests = turn.requests + 1
  end
  position = position % #requests + 1
  return requests[position]
end

function done(summary, latency)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
  for _, thread in ipairs(threads) do io.write(thread:get("turns")) end
  io.write(string.format("RESULT %d %d %d %d\n", summary.requests, latency:percentile(50), latency:percentile(99), failed))
end
