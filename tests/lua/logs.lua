-- tools/purge-logs, under the real rotatelogs where there is one: what stays, what goes, odd names.
package.path = "conf/lua/?.lua;tests/lua/lib/?.lua;" .. package.path
local t, fake = require "tap", require "fake"

local here = fake.command("pwd"):gsub("\n", "")
local tool = here .. "/tools/purge-logs"
local rotatelogs = fake.command("PATH=$PATH:/usr/sbin:/usr/local/apache2/bin command -v rotatelogs"):gsub("\n", "")

-- Files, the first of them the oldest, all older than what is written now.
local function make(dir, names)
    for i, name in ipairs(names) do
        fake.command("touch -d @" .. 1000000000 + i * 60 .. " %s", dir.path .. "/" .. name)
    end
end
local function left(dir)
    return fake.command("cd %s && printf '%%s\\n' * | LC_ALL=C sort", dir.path):gsub("\n$", "")
end
local function purge(dir, env, new)
    return fake.command("cd %s && " .. env .. " " .. tool .. " %s 2>&1", dir.path, new)
end

local dir = fake.directory()
local days = {}
for i = 1, 9 do days[i] = ("s.log.2020-01-%02d"):format(i) end
local others = { "s.log", "s.log.2020-01", "s.log.2020-01-01.gz", "t.log.2020-01-01",
    "xs.log.2020-01-01" }
make(dir, others)
make(dir, days)
purge(dir, "LOG_KEEP=3", days[9])
t.is(left(dir), table.concat({ others[1], others[2], others[3], days[6], days[7], days[8], days[9],
    others[4], others[5] }, "\n"),
    "the newest three stay beside the new one, and files of other names")
purge(dir, "LOG_KEEP=0", dir.path .. "/" .. days[9])
t.is(left(dir), table.concat({ others[1], others[2], others[3], days[9], others[4], others[5] },
    "\n"), "0 keeps only the new one, by its whole path")

dir = fake.directory()
make(dir, { "l.09", "l.05", "l.01", "l.02" })
purge(dir, "LOG_KEEP=1", "l.02")
t.is(left(dir), "l.01\nl.02", "age is the file's, not its name's")
make(dir, { "m.mon", "m.tue", "m.wed" })
purge(dir, "LOG_KEEP=1", "m.wed")
t.is(left(dir), "l.01\nl.02\nm.mon\nm.tue\nm.wed",
    "names without digits are each a log of their own")
purge(dir, "LOG_KEEP=1 LOG_NAMES='m.*'", "m.wed")
t.is(left(dir), "l.01\nl.02\nm.tue\nm.wed", "unless LOG_NAMES says otherwise")
make(dir, (function() local all = {} for i = 1,
    103 do all[i] = ("n.%03d"):format(i) end return all end)())
purge(dir, "", "n.103")
t.is(select(2, left(dir):gsub("n%.", "")), 101, "100 old files stay where nothing is said")

-- Odd names
for _, name in ipairs { "a b", "-rf", "a*", "a?", "[a]", "[!a]", "{a,b}", "$(touch x)", "`touch x`",
    "a'b", 'a"b', ".hidden", "é", "~", "#a;b" } do
    dir = fake.directory()
    fake.command("mkdir %s; touch %s", dir.path .. "/" .. "decoy", dir.path .. "/zz.1")
    local function all() return fake.command("cd %s && ls -A1", dir.path) end
    for i = 1, 4 do fake.command("touch -d @" .. 1000000000 + i * 60 .. " %s", dir.path .. "/"
        .. name .. "." .. i) end
    fake.command("touch -d @1000000000 %s", dir.path .. "/aX.1")
    local said = purge(dir, "LOG_KEEP=1", "./" .. name .. ".4")
    local now = all()
    t.ok(said == "" and now:find(name .. ".4", 1, true) and now:find(name .. ".3", 1, true)
        and not now:find(name .. ".2\n", 1, true)
        and not now:find(name .. ".1\n", 1, true) and now:find("aX.1", 1, true)
            and not now:find("\nx\n"),
        "a log named " .. name, said .. now)
end
dir = fake.directory()
make(dir, { "s.1\ns.2", "s.1", "s.3", "s.2", "s.4" })
purge(dir, "LOG_KEEP=1", "s.4")
t.is(left(dir), "s.1\ns.2\ns.2\ns.4",
    "a name with a line end is not the file that a half of it names")
fake.command("cd %s && mkdir s.0 && ln -s s.2 s.5 && touch -h -d @1 s.5", dir.path)
purge(dir, "LOG_KEEP=0", "s.4")
t.is(left(dir), "s.0\ns.1\ns.2\ns.4\ns.5", "folders and links are left alone")

-- What it does not understand removes nothing
make(dir, { "s.6", "s.7", "s.8" })
local before = left(dir)
for _, case in ipairs { { "LOG_KEEP=x", "s.8" }, { "LOG_KEEP=-1", "s.8" }, { "LOG_KEEP=010",
    "s.8" }, { "LOG_KEEP=0", "none" },
    { "LOG_KEEP=0 LOG_NAMES=../*", "s.8" }, { "LOG_KEEP=0", "" }, { "LOG_KEEP=0", "s.1\ns.2" } } do
    local said, ok = purge(dir, case[1], case[2])
    t.ok(not ok and said:find("^purge%-logs: .*nothing is removed") and left(dir) == before,
        "refused: " .. case[1] .. " " .. case[2], said)
end
fake.command("touch %s", dir.path .. "/b\\s.1")
t.ok(not select(2, purge(dir, "LOG_KEEP=0", "b\\s.1")), "a backslash in the name")

-- rotatelogs
if rotatelogs == "" then
    t.ok(true, "skipped: there is no rotatelogs")
    t.done()
end
dir = fake.directory()
make(dir, { "s.log.1000000001", "s.log.1000000002", "s.log.1000000003", "other.1000000001" })
local lines = 0
local pipe = io.popen(("LOG_KEEP=2 exec %s -p %s '%s/s.log' 1 2>'%s/errors'"):format(rotatelogs,
    tool, dir.path, dir.path), "w")
-- A line at a time until the log has rolled twice, which takes as many seconds; 20 are the limit.
local function rolled()
    local names = {}
    for name in left(dir):gmatch("s%.log%.[2-9]%d+") do names[#names + 1] = name end
    for name in left(dir):gmatch("s%.log%.1[1-9]%d+") do names[#names + 1] = name end
    return names
end
local begun = os.time()
while #rolled() < 3 and os.time() - begun < 20 do
    lines = lines + 1
    pipe:write("line ", lines, "\n")
    pipe:flush()
    fake.command("sleep 0.05")
end
pipe:close()
local names = rolled()
t.is(#names, 3, "rotatelogs rolled the log")
local text = fake.command("cd %s && cat s.log.*", dir.path)
t.is({ (select(2, text:gsub("\n", ""))), text:match("line (%d+)\n$") }, { lines, tostring(lines) },
    "and lost no line")
-- The last purge runs beside rotatelogs: it is awaited.
while left(dir):find("s.log.100000000", 1, true)
    and os.time() - begun < 25 do fake.command("sleep 0.05") end
t.is(left(dir), "errors\nother.1000000001\n" .. table.concat(names, "\n"),
    "purge-logs kept two old files, and another log's")
t.is(fake.command("cat %s", dir.path .. "/errors"), "", "and nothing complained")

t.done()
