-- Asks authproxy about every request, for HAProxy 2.5 or later (see haproxy.cfg).
--
--   http-request lua.forward_auth http://127.0.0.1:4180/oauth2/forward_auth
--   http-response lua.forward_auth_cookies
--
-- A 2xx lets the request pass, with the identity headers of the answer. Any other answer
-- goes to the client as it is: a redirect to the login, or 401 for a script. Without an
-- answer nobody passes.

-- What the application may believe. All of them: what is not listed here, a client could
-- send itself.
local IDENTITY = {
  "x-auth-request-user", "x-auth-request-email", "x-auth-request-preferred-username",
  "x-auth-request-groups", "x-auth-request-access-token", "authorization",
}
local TIMEOUT = 30000 -- milliseconds

-- Fields about one connection, about the body, or about who asks: not for the check.
local DROPPED = {
  ["connection"] = true, ["content-length"] = true, ["content-type"] = true,
  ["expect"] = true, ["forwarded"] = true, ["host"] = true, ["keep-alive"] = true,
  ["proxy-connection"] = true, ["te"] = true, ["trailer"] = true,
  ["transfer-encoding"] = true, ["x-envoy-original-path"] = true, ["x-real-ip"] = true,
}
local NOT_ANSWERED = { ["connection"] = true, ["content-length"] = true,
  ["keep-alive"] = true, ["transfer-encoding"] = true }

-- How a name arrives where "-", "_" and "." are one.
local function folded(name)
  return (name:lower():gsub("[_.]", "-"))
end

local function is_identity(name)
  for _, one in ipairs(IDENTITY) do
    if folded(name) == one then return true end
  end
  return false
end

local function told_by_us(name)
  return DROPPED[name] or name:find("^x%-forwarded%-") or name:find("^x%-original%-")
end

local function in_order(values) -- HAProxy counts some of these from 0
  local list, first = {}, values[0] ~= nil and 0 or 1
  for index = first, first + 1000 do
    if values[index] == nil then break end
    list[#list + 1] = values[index]
  end
  return list
end

local function questions(txn)
  local asked = {}
  for name, values in pairs(txn.http:req_get_headers()) do
    if not told_by_us(folded(name)) then asked[name] = in_order(values) end
  end
  local host = txn.f:req_hdr("host") or ""
  asked["host"] = { host }
  asked["x-forwarded-host"] = { host }
  asked["x-forwarded-method"] = { txn.f:method() }
  asked["x-forwarded-proto"] = { txn.f:ssl_fc() == 1 and "https" or "http" }
  asked["x-forwarded-uri"] = { txn.f:pathq() }
  asked["x-real-ip"] = { tostring(txn.f:src()) }
  return asked
end

local function refuse(txn, answer)
  local reply = txn:reply({ status = answer.status, reason = answer.reason })
  for name, values in pairs(answer.headers) do
    if not NOT_ANSWERED[name:lower()] then
      for _, value in ipairs(in_order(values)) do reply:add_header(name, value) end
    end
  end
  reply:set_body(txn.f:method() ~= "HEAD" and answer.body or "")
  txn:done(reply)
end

local function identify(txn, answer)
  for name in pairs(txn.http:req_get_headers()) do
    if is_identity(name) then txn.http:req_del_header(name) end
  end
  for _, name in ipairs(IDENTITY) do
    for _, value in ipairs(in_order(answer.headers[name] or {})) do
      txn.http:req_add_header(name, value)
    end
  end
  -- A session that was renewed: its cookies are for the browser.
  txn:set_priv(in_order(answer.headers["set-cookie"] or {}))
end

core.register_action("forward_auth", { "http-req" }, function(txn, address)
  local answer = core.httpclient():get({
    url = address, headers = questions(txn), timeout = TIMEOUT,
  })
  if answer.status == nil or answer.status < 200 then
    txn:done(txn:reply({ status = 503 }))
  elseif answer.status < 300 then
    identify(txn, answer)
  else
    refuse(txn, answer)
  end
end, 1)

core.register_action("forward_auth_cookies", { "http-res" }, function(txn)
  for _, cookie in ipairs(txn:get_priv() or {}) do
    txn.http:res_add_header("set-cookie", cookie)
  end
end, 0)
