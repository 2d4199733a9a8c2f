-- Send requests with the cookies of a file in rotation; print the result as JSON.
local requests = {}
local index = 0

function init(args)
  local file, target = args[1], args[2] or "/oauth2/auth"
  if file then
    for line in io.lines(file) do
      requests[#requests + 1] = wrk.format("GET", target, {Cookie = line})
    end
  else
    requests[1] = wrk.format("GET", target)
  end
end

function request()
  index = index % #requests + 1
  return requests[index]
end

function done(summary, latency, _)
  local errors = summary.errors
  io.write(string.format(
    '\nRESULT {"requests": %d, "seconds": %f, "p50_ms": %f, "p99_ms": %f, "errors": %d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3,
    latency:percentile(99) / 1e3,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
