-- Pages of lua.t: eval runs the Lua code of a request's body and tells what it returned.

local at_file_scope = require "mod_nssmtpd"
local said_at_file_scope = {
    encoded = at_file_scope.encode("hex", "ab"),
    flag = at_file_scope.flag("gotvirus"),
    sent = table.pack(at_file_scope.send("a@b.test", "c@d.test", "x")),
    used = table.pack(at_file_scope.use("x:1")),
    server = table.pack(at_file_scope.info("server")),
    version = at_file_scope.info("version"),
    relay = table.pack(at_file_scope.relay.get()),
    exit = type(os.exit),
}

local json = dofile(debug.getinfo(1, "S").source:match("^@(.*/)") .. "json.lua")

function eval(r)
    local code = r:requestbody()
    local chunk, wrong = load(code, "=request", "t")
    local results = table.pack(pcall(chunk or error, chunk and r or wrong))
    local rows = {}
    for i = 1, results.n do rows[i] = json(results[i]) end
    r.content_type = "application/json"
    r:puts("[" .. table.concat(rows, ",") .. "]")
    return apache2.OK
end

-- As httpd calls it: what it returns stays behind on the stack unless somebody cuts it.
function nothing(r)
    return apache2.OK
end

function file_scope(r)
    r.content_type = "application/json"
    r:puts(json(said_at_file_scope))
    return apache2.OK
end

function aborted(r)
    os.exit(3)
end
