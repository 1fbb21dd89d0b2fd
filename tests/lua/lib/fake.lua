-- FAKES of what mod_lua and mod_nssmtpd give a script: a request, a session, the library smtpd, the
-- clock. They stand for the real ones only as far as the policies use them, so that these can be
-- tested by plain Lua; what the real ones do is tested through httpd, in tests/t.
--
--   local fake = require "fake"
--   local r = fake.request { env = { GREYLIST_DELAY = "60" }, ip = "192.0.2.1" }
--   local s = fake.session { from = "a@b.test", rcpts = { "c@d.test" } }
--   fake.now = fake.now + 60
local M = { now = 1790000000, sent = {}, tables = {} }

apache2 = { OK = 0, DECLINED = -1 }

local flags = {
    verified = 0x1, ["local"] = 0x2, relay = 0x4, delivered = 0x8, abort = 0x10, viruscheck = 0x20,
    spamcheck = 0x40, gotspam = 0x80000, gotvirus = 0x100000,
}

smtpd = {
    flag = function(name) return assert(flags[name:lower()], "no flag " .. name) end,
    checkemail = function(text) return text:match("([^%s<>@]+@[%w.-]+)") end,
    session = function(r) return r.the_session end,
    use = function(host)
        M.used = host
        if host:find("^none") then return nil, "no such host" end
        return true
    end,
    send = function(from, to, data)
        M.sent[#M.sent + 1] = { from = from, to = to, data = data }
        if M.send_fails then return nil, "relay says no", M.send_fails end
        return true, { code = 250 }
    end,
}

local function command(format, ...)
    local words = {}
    for i, word in ipairs { ... } do words[i] = "'" .. word:gsub("'", "'\\''") .. "'" end
    local pipe = assert(io.popen(format:format(table.unpack(words))))
    local said = pipe:read("a")
    local ok = pipe:close()
    return said, ok == true
end
M.command = command

-- A directory of its own, and its removal.
function M.directory()
    local path = command("mktemp -d"):gsub("\n", "")
    return setmetatable({ path = path }, { __gc = function() command("rm -rf %s", path) end })
end

-- Any function of a key that is the same in every process will do for SHA-1 here.
local function hash(text)
    local out = {}
    for seed = 1, 5 do
        local h = 2166136261 * seed & 0xFFFFFFFF
        for i = 1, #text do h = (h ~ text:byte(i)) * 16777619 & 0xFFFFFFFF end
        out[seed] = ("%08x"):format(h)
    end
    return table.concat(out)
end

local entities = { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;" }

local methods = {
    clock = function() return M.now * 1000000.0 end,
    sha1 = function(_, text) return hash(text) end,
    mkdir = function(_, path) return select(2, command("mkdir %s 2>/dev/null && echo", path)) end,
    get_direntries = function(_, path)
        local names = {}
        for name in command("ls -a %s 2>/dev/null",
            path):gmatch("[^\n]+") do names[#names + 1] = name end
        return names
    end,
    escape_html = function(_, text) return (text:gsub('[&<>"]', entities)) end,
    puts = function(r, ...) r.printed = r.printed .. table.concat { ... } end,
    parsebody = function(r) return r.form or {}, {} end,
}
for _, level in ipairs { "info", "notice", "warn", "err" } do
    methods[level] = function(r, text) r.log[#r.log + 1] = level .. ": " .. text end
end

-- Headers are found whatever their case, as in httpd's tables.
local function headers(given)
    local lower = {}
    for name, value in pairs(given or {}) do lower[name:lower()] = value end
    return setmetatable({}, {
        __index = function(_, name) return lower[name:lower()] end,
        __newindex = function(_, name, value) lower[name:lower()] = value end,
    })
end

function M.request(a)
    local r = {
        subprocess_env = a.env or {}, useragent_ip = a.ip or "192.0.2.1", user = a.user, log = {},
        method = a.method or "SMTP", uri = a.uri or "/smtp/rcpt", hostname = "mx.test",
            printed = "",
        headers_in = headers(a.headers), headers_out = headers(), form = a.form, args = a.args,
        status = 200, is_https = a.is_https or false, the_session = a.session,
    }
    return setmetatable(r, { __index = methods })
end

local session = {
    getfrom = function(s) return s.from end,
    getflag = function(s) return s.flags end,
    getline = function(s) return s.line end,
    getbody = function(s) return s.body, 0, #s.body end,
    setreply = function(s, text)
        assert(not text:find("[\r\n]"), "a line end in a reply")
        s.reply = text
    end,
    getrcpt = function(s, which)
        if which == nil then return s.rcpts end
        return s.rcpts[which == -1 and #s.rcpts or which]
    end,
    setflag = function(s, which, name)
        if name == nil then
            s.flags = s.flags | smtpd.flag(which)
            return s.flags
        end
        local rcpt = s:getrcpt(which)
        rcpt.flags = rcpt.flags | smtpd.flag(name)
        return rcpt.flags
    end,
    gethdr = function(s, name) return s.headers[name] end,
    addhdr = function(s, name, value)
        assert(not value:find("[\r\n]"), "a line end in a header")
        s.headers[name] = value
        return true
    end,
    delhdr = function(s, name)
        s.headers[name] = nil
        return true
    end,
    parts = function(s)
        local i = 0
        return function()
            i = i + 1
            return s.files[i] and { type = "application/octet-stream", name = s.files[i] }
        end
    end,
    dump = function(s, path)
        s.dumped = path
        return true
    end,
}

function M.session(a)
    local s = {
        from = a.from or "", flags = a.flags or 0, line = a.line or "",
            headers = headers(a.headers),
        body = a.body or "", files = a.files or {}, rcpts = {},
    }
    for i, address in ipairs(a.rcpts or {}) do s.rcpts[i] = { address = address, flags = 0x1,
        score = 0 } end
    return setmetatable(s, { __index = session })
end

return M
