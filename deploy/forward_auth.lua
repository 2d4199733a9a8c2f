-- Forward auth with authproxy for HAProxy 2.5 or later (see haproxy.cfg).
--
--   http-request lua.forward_auth http://127.0.0.1:4180/oauth2/forward_auth
--   http-response lua.forward_auth_cookies
--
-- A 2xx response allows the request and sets its identity headers. Any other response
-- goes to the client: a redirect to the login, or 401 for an API request. If authproxy does
-- not respond, the client gets 503.

-- The identity headers for the application. List all of them: a client could send a header
-- that is not listed.
local IDENTITY = {
  "x-auth-request-user", "x-auth-request-email", "x-auth-request-preferred-username",
  "x-auth-request-groups", "x-auth-request-access-token", "authorization",
}
local TIMEOUT = 30000 -- milliseconds

-- Fields of the connection, the body and the client, which are not part of the check.
local DROPPED = {
  ["connection"] = true, ["content-length"] = true, ["content-type"] = true,
  ["expect"] = true, ["forwarded"] = true, ["host"] = true, ["keep-alive"] = true,
  ["proxy-connection"] = true, ["te"] = true, ["trailer"] = true,
  ["transfer-encoding"] = true, ["x-envoy-original-path"] = true, ["x-real-ip"] = true,
}
local HOP_BY_HOP = { ["connection"] = true, ["content-length"] = true,
  ["keep-alive"] = true, ["transfer-encoding"] = true }

-- The name as seen by servers that treat "-", "_" and "." alike.
local function folded(name)
  return (name:lower():gsub("[_.]", "-"))
end

local function is_identity(name)
  for _, one in ipairs(IDENTITY) do
    if folded(name) == one then return true end
  end
  return false
end

local function is_replaced(name)
  return DROPPED[name] or name:find("^x%-forwarded%-") or name:find("^x%-original%-")
end

-- HAProxy starts the index of some lists at 0.
local function to_list(values)
  local list, first = {}, values[0] ~= nil and 0 or 1
  for index = first, first + 1000 do
    if values[index] == nil then break end
    list[#list + 1] = values[index]
  end
  return list
end

local function check_headers(txn)
  local headers = {}
  for name, values in pairs(txn.http:req_get_headers()) do
    if not is_replaced(folded(name)) then headers[name] = to_list(values) end
  end
  local host = txn.f:req_hdr("host") or ""
  headers["host"] = { host }
  headers["x-forwarded-host"] = { host }
  headers["x-forwarded-method"] = { txn.f:method() }
  headers["x-forwarded-proto"] = { txn.f:ssl_fc() == 1 and "https" or "http" }
  headers["x-forwarded-uri"] = { txn.f:pathq() }
  headers["x-real-ip"] = { tostring(txn.f:src()) }
  return headers
end

local function send_response(txn, response)
  local reply = txn:reply({ status = response.status, reason = response.reason })
  for name, values in pairs(response.headers) do
    if not HOP_BY_HOP[name:lower()] then
      for _, value in ipairs(to_list(values)) do reply:add_header(name, value) end
    end
  end
  reply:set_body(txn.f:method() ~= "HEAD" and response.body or "")
  txn:done(reply)
end

local function set_identity(txn, response)
  for name in pairs(txn.http:req_get_headers()) do
    if is_identity(name) then txn.http:req_del_header(name) end
  end
  for _, name in ipairs(IDENTITY) do
    for _, value in ipairs(to_list(response.headers[name] or {})) do
      txn.http:req_add_header(name, value)
    end
  end
  -- The cookies of a refreshed session, for the browser.
  txn:set_priv(to_list(response.headers["set-cookie"] or {}))
end

core.register_action("forward_auth", { "http-req" }, function(txn, address)
  local response = core.httpclient():get({
    url = address, headers = check_headers(txn), timeout = TIMEOUT,
  })
  if response.status == nil or response.status < 200 then
    txn:done(txn:reply({ status = 503 }))
  elseif response.status < 300 then
    set_identity(txn, response)
  else
    send_response(txn, response)
  end
end, 1)

core.register_action("forward_auth_cookies", { "http-res" }, function(txn)
  for _, cookie in ipairs(txn:get_priv() or {}) do
    txn.http:res_add_header("set-cookie", cookie)
  end
end, 0)
