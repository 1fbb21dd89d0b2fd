-- Runs in each phase what a suite put into <phase>.lua beside this file: a chunk that is given r and
-- the session s, and whose result is the handler's. Its tell(..) adds a row to the file "said".

local dir = debug.getinfo(1, "S").source:match("^@(.*/)")
local json = dofile("@LUA@/json.lua")

raise = error -- the phase's function takes its name

local function phase(name)
    return function(r)
        local file = io.open(dir .. name .. ".lua")
        if not file then
            return apache2.OK
        end
        local code = file:read("a")
        file:close()
        function tell(...)
            local rows = { json(name) }
            for i = 1, select("#", ...) do rows[i + 1] = json((select(i, ...))) end
            local out = io.open(dir .. "said", "a")
            out:write("[" .. table.concat(rows, ",") .. "]\n")
            out:close()
        end
        local chunk = assert(load(code, "=" .. name))
        return chunk(r, (smtpd.session(r))) or apache2.OK
    end
end

for _, name in ipairs { "init", "connect", "helo", "auth", "mail", "rcpt", "data", "error" } do
    _G[name] = phase(name)
end
