-- Send requests with the cookies of a file in rotation; print the result as JSON.
local requests = {}
local index = 0

function init(args)
  local file, target = args[1], args[2]
  if args[3] == "close" then wrk.headers["Connection"] = "close" end
  if file == "" then
    requests[1] = wrk.format("GET", target)
    return
  end
  for line in io.lines(file) do
    wrk.headers["Cookie"] = line
    requests[#requests + 1] = wrk.format("GET", target)
  end
end

function request()
  index = index % #requests + 1
  return requests[index]
end

function done(summary, latency, _)
  local errors = summary.errors
  io.write(string.format(
    '\nRESULT {"requests": %d, "seconds": %f, "p50_ms": %f, "p99_ms": %f, "errors": %d, "error_statuses": %d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3,
    latency:percentile(99) / 1e3,
    errors.connect + errors.read + errors.write + errors.timeout, errors.status))
end
