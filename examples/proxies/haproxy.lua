-- Asks scopeguard authorize about each request, and refuses those that it refuses.
--
--     http-request lua.authorize http://127.0.0.1:9080/authorize
--
-- The action "authorize" sets the variable txn.authorized at its end only. HAProxy goes on with a request after an error in
-- Lua, so the configuration has to deny those without the variable. Each field of the answer is a variable too:
-- X-Auth-Subject is txn.authorize.x_auth_subject.

-- Fields about the body, which is not sent, or about one connection (RFC 9110 section 7.6.1).
local not_copied = {
    ["connection"] = true, ["keep-alive"] = true, ["proxy-connection"] = true, ["te"] = true, ["trailer"] = true,
    ["transfer-encoding"] = true, ["upgrade"] = true, ["expect"] = true, ["host"] = true,
    ["content-length"] = true, ["content-type"] = true,
}

-- HAProxy counts the values of a field from 0. Values from 1 keep their order when HAProxy reads them back.
local function in_order(values)
    local list = {}
    for i = 0, #values do list[i + 1] = values[i] end
    return list
end

-- Returns the header fields of the request to scopeguard. A field that the request lacks is missing or empty, which scopeguard refuses.
local function describe(txn)
    local sent = txn.http:req_get_headers()
    local fields = {}
    for name, values in pairs(sent) do
        if not not_copied[name] then fields[name] = in_order(values) end
    end
    fields["x-original-method"] = { txn.sf:method() }
    fields["x-original-host"] = in_order(sent["host"] or {})
    fields["x-original-uri"] = { txn.sf:pathq() }
    fields["x-forwarded-proto"] = { txn.f:ssl_fc() == 1 and "https" or "http" }
    fields["x-forwarded-for"] = { txn.sf:src() }
    return fields
end

-- Ends the request with the refusal. Only what scopeguard decided keeps its status; all else is an outage.
local function refuse(txn, response)
    local status = response and response.status or 0
    if status < 400 or status > 499 then status = 503 end
    local reply = txn:reply{ status = status }
    if response and response.status == status then
        for name, values in pairs(response.headers) do
            if name == "content-type" or not not_copied[name] then
                for _, value in ipairs(in_order(values)) do reply:add_header(name, value) end
            end
        end
        reply:set_body(response.body or "")
    end
    txn:done(reply)
end

core.register_action("authorize", { "http-req" }, function(txn, url)
    local response = core.httpclient():get{ url = url, headers = describe(txn), timeout = 10000 }
    if not response or response.status ~= 200 then
        refuse(txn, response)
        return
    end
    for name, values in pairs(response.headers) do
        if values[0] ~= "" then txn:set_var("txn.authorize." .. name:gsub("-", "_"), values[0]) end
    end
    txn:set_var("txn.authorized", true)
end, 1)
