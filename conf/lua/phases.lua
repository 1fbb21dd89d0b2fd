-- phases: what stands between mod_lua and a policy module. A module offers functions named like
-- phases (connect, helo, auth, mail, rcpt, data, error, init), called with the request and the
-- session, that return a reply ("550 5.7.1 No such user"), or nil where they have nothing to say.
--
--   if not ... then require("phases").serve(M) end      -- the last lines of every policy here
--   return M
--
-- "..." is a module's name where the file is loaded by require, and nothing where mod_lua loads it:
-- so the same file is a policy that LuaMapHandler can name, and a part of others.
-- Wired: nothing to wire. Settings: none. Stores: nothing.
local names = { "init", "connect", "helo", "auth", "mail", "rcpt", "data", "error" }

local M = {}

-- What a module has to say in a phase, if anything.
function M.ask(module, name, r, s)
    return module[name] and module[name](r, s) or nil
end

-- Makes a module's phases the functions that LuaMapHandler "^/smtp/(\w+)$" file.lua $1 calls. Of
-- phases that it has nothing to say in there is no function, and they cost nothing.
function M.serve(module)
    for _, name in ipairs(names) do
        _G[name] = module[name] and function(r)
            local s = name ~= "init" and smtpd.session(r) or nil
            local reply = module[name](r, s)
            if reply and s then s:setreply(reply) end
            return apache2.OK
        end
    end
end

return M
