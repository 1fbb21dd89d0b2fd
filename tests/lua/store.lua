-- store.lua, greylist.lua and ratelimit.lua: with a fake request and clock, but real files, and for
-- what several children do at once real processes.
package.path = "conf/lua/?.lua;tests/lua/lib/?.lua;" .. package.path
local t, fake = require "tap", require "fake"
local store, greylist, ratelimit = require "store", require "greylist", require "ratelimit"

if arg[1] == "tickets" then
    local db = store.open(fake.request {}, arg[2])
    for _ = 1, tonumber(arg[3]) do print(db:ticket("n", "key", 3600)) end
    os.exit(true)
elseif arg[1] == "records" then
    local db = store.open(fake.request { ip = arg[3] }, arg[2])
    for i = 1, 300 do
        assert(db:put("r", "key", 3600, arg[3], i, ("x"):rep(i * 20)))
        local got = db:get("r", "key")
        if not got or #got ~= 3 or #got[3] ~= got[2] * 20 then print("torn") end
    end
    os.exit(true)
end

local function files(path)
    return (select(2, fake.command("find %s -type f ! -name swept", path):gsub("\n", "")))
end
local function wait(seconds) fake.now = fake.now + seconds end

-- The store
local dir = fake.directory()
local r = fake.request {}
local function open() return store.open(r, dir.path) end
t.is(open():get("kind", "key"), nil, "nothing yet")
t.is(open():put("kind", "key", 100, 1, 2, "three"), true, "a record")
t.is(open():get("kind", "key"), { "1", "2", "three" }, "is there")
t.is(select(2, open():get("kind", "key")), fake.now + 100, "and tells when it ends")
t.is(open():get("other", "key"), nil, "kinds are apart")
t.is(open():get("kin", "dkey"), nil, "and keys")
open():put("kind", "key", 100, 4)
t.is(open():get("kind", "key"), { "4" }, "written again")
wait(100)
t.is(open():get("kind", "key"), nil, "ended")
t.is({ open():ticket("n", "k", 60), open():ticket("n", "k", 60), open():count("n", "k"),
    open():count("n", "x") },
    { 1, 2, 2, 0 }, "a counter")
t.is(fake.command("find %s -mindepth 1 | sed 's,.*/,,' | grep -v '^[0-9a-f]*$' | sort -u",
    dir.path), "swept\n",
    "every name is a hash")
open():put("kind", "../../../tmp/x\0\n/", 100, 1)
t.is(open():get("kind", "../../../tmp/x\0\n/"), { "1" }, "whatever the key")
local gone = store.open(r, dir.path .. "/none")
local ok, why = gone:put("kind", "key", 1, 1)
t.ok(not ok and why:find("none"), "a directory that is missing is told", tostring(why))
t.is(gone:get("kind", "key"), nil, "and has nothing")
t.ok(not gone:ticket("n", "k", 1), "nor counts")
local path = open():path("kind", "broken")
open():put("kind", "broken", 100, 1)
io.open(path, "wb"):close()
t.is(open():get("kind", "broken"), nil, "an empty file is no record")
io.open(path, "wb"):write("rubbish \0\n\n"):close()
t.is(open():get("kind", "broken"), nil, "nor is rubbish")

-- Keys whose files are in one folder, since it is folders that are swept.
dir = fake.directory()
local keys, i = {}, 0
while #keys < 8 do
    i = i + 1
    if select(2, open():path("old", "k" .. i)) == select(2, open():path("old",
        "k1")) then keys[#keys + 1] = "k" .. i end
end
open():put("old", keys[1], 100000, 1)
for n = 2, 7 do open():put("old", keys[n], 10, 1) end
t.is(files(dir.path), 7, "records and those that have ended")
wait(3000)
open():put("old", keys[8], 10, 1)
t.is(files(dir.path), 8, "are not looked at twice in an hour")
wait(1000)
open():put("old", keys[8], 10, 1)
t.is(files(dir.path), 2, "then what has ended is swept")
t.is(open():get("old", keys[1]), { "1" }, "and nothing else")

dir = fake.directory()
local function in_parallel(what, count, ...)
    local words = {}
    for i = 1, count do words[i] = ("lua5.3 tests/lua/store.lua %s '%s' %s &"):format(what,
        dir.path, select(i, ...) or ...) end
    return fake.command(table.concat(words, " ") .. " wait")
end
local seen, n, twice = {}, 0, 0
for ticket in in_parallel("tickets", 4, 500):gmatch("%d+") do
    if seen[ticket] then twice = twice + 1 end
    seen[ticket], n = true, n + 1
end
t.is({ n, twice, seen["2000"], open():count("n", "key") }, { 2000, 0, true, 2000 },
    "four processes count to 2000, each number once")
t.is(in_parallel("records", 3, 1, 2, 3), "", "of a record three processes write none is ever half")
t.is(fake.command("find %s -mindepth 1 -name '*.*'", dir.path), "", "and nothing is left beside it")

-- Greylisting
dir = fake.directory()
local config = { delay = 300, window = 3600, lifetime = 36 * 86400, clients = 3 }
local function ask(net, from, rcpt) return greylist.wait(open(), net, from, rcpt, config) end
local function asks(want, name, ...) t.is(ask(...), want, name) end
local me = { "192.0.2.0/24", "a@b.test", "c@d.test" }
asks(300, "a stranger waits", table.unpack(me))
wait(100)
asks(200, "and is told how long still", table.unpack(me))
asks(300, "another recipient waits anew", me[1], me[2], "other@d.test")
asks(300, "another sender too", me[1], "b@b.test", me[3])
asks(300, "another network too", "192.0.3.0/24", me[2], me[3])
wait(199)
asks(1, "one second early", table.unpack(me))
wait(1)
asks(0, "in time", table.unpack(me))
asks(0, "and from now on", table.unpack(me))
wait(35 * 86400)
asks(0, "after 35 days", table.unpack(me))
wait(35 * 86400)
asks(0, "and 35 more, since it is renewed", table.unpack(me))
wait(36 * 86400)
asks(300, "after 36 without mail it is a stranger", table.unpack(me))
wait(3901)
asks(300, "who comes too late begins anew", table.unpack(me))
wait(300)
asks(0, "and passes in time", table.unpack(me))
for i = 1, 3 do ask("198.51.100.0/24", "a@b.test", i .. "@d.test") end
wait(300)
for i = 1, 2 do ask("198.51.100.0/24", "a@b.test", i .. "@d.test") end
asks(300, "a network that came again for two is not known", "198.51.100.0/24", "x@b.test",
    "x@d.test")
ask("198.51.100.0/24", "a@b.test", "3@d.test")
asks(0, "one that did for three is", "198.51.100.0/24", "y@b.test", "y@d.test")
wait(35 * 86400 + 10)
asks(0, "and stays so", "198.51.100.0/24", "z@b.test", "y@d.test")
wait(30 * 86400)
asks(0, "as long as it writes", "198.51.100.0/24", "w@b.test", "y@d.test")
wait(37 * 86400)
asks(300, "not for ever", "198.51.100.0/24", "v@b.test", "y@d.test")

for from, want in pairs {
    ["A@B.test"] = "a@b.test", [""] = "", ["prvs=1234567abc=joe@x.test"] = "joe@x.test",
    ["list-bounces+joe=y.test@x.test"] = "list-bounces@x.test",
        ["bounce-1234-99@x.test"] = "bounce-#-#@x.test",
    ["srs0=ab12=xy=a.test=joe@x.test"] = "srs@x.test", ["m-0a1b2c3d@x.test"] = "m-#@x.test",
        ["user7@x.test"] = "user7@x.test",
} do t.is(greylist.stable(from), want, "stable: " .. from) end

local function rcpt(a)
    local env = { GREYLIST_STORE = dir.path, GREYLIST_DELAY = "60" }
    for name, value in pairs(a.env or {}) do env[name] = value end
    r = fake.request { env = env, ip = a.ip or "203.0.113.9", user = a.user }
    return greylist.rcpt(r, fake.session { from = "a@b.test", rcpts = { "first@d.test", a.rcpt
        or "c@d.test" }, flags = a.flags })
end
t.is(rcpt {}, "451 4.7.1 Greylisted, please try again in 60 seconds",
    "the phase: a reply with the seconds")
t.is(rcpt { ip = "203.0.113.200" }, rcpt {}, "for the network")
t.is(rcpt { user = "joe" }, nil, "not for users")
t.is(rcpt { flags = 2 }, nil, "nor trusted clients")
t.is(rcpt { rcpt = "Postmaster@d.test" }, nil, "nor to postmaster")
t.is(rcpt { rcpt = "postmaster" }, nil, "without a domain either")
t.is(rcpt { rcpt = "x@quick.test", env = { GREYLIST_EXEMPT = "@quick.test" } }, nil,
    "nor to an exempt domain")
t.is(rcpt { env = { GREYLIST = "off" } }, nil, "nor where it is off")
t.is(rcpt { env = { GREYLIST_STORE = "/nonexistent" } }, nil, "nor where the store fails")
t.like(r.log[1], "^err: greylist: .*nonexistent", "which is logged")
wait(60)
t.is(rcpt {}, nil, "later it passes")

-- Rates
dir = fake.directory()
fake.now = fake.now // 60 * 60
local function take() return ratelimit.take(open(), "messages", "key", 10, 60) end
local taken = 0
for _ = 1, 12 do taken = taken + (take() and 1 or 0) end
t.is(taken, 10, "ten in a minute")
local allowed, seconds = take()
t.is(allowed, false, "the next must wait")
wait(seconds - 1)
t.is((take()), false, "nearly until then")
wait(1)
t.is({ take(), (take()) }, { true, false }, "and then one is allowed")
wait(30)
taken = 0
for _ = 1, 12 do taken = taken + (take() and 1 or 0) end
t.ok(taken >= 3 and taken <= 6, "half a minute later about half of them", taken)
allowed, seconds = take()
wait(seconds - 1)
t.is((take()), false, "the wait is right in a period that both count in, too: not before")
wait(1)
t.is((take()), true, "but then")
wait(600)
taken = 0
for _ = 1, 12 do taken = taken + (take() and 1 or 0) end
t.is(taken, 10, "after ten minutes all are there again")
t.is({ ratelimit.take(open(), "m", "once", 1, 60), (ratelimit.take(open(), "m", "once", 1, 60)) },
    { true, false }, "a limit of one")
allowed, seconds = ratelimit.take(open(), "m", "once", 1, 60)
wait(seconds)
t.is((ratelimit.take(open(), "m", "once", 1, 60)), true, "which comes back as well")
local size = files(dir.path)
for _ = 1, 50 do ratelimit.take(open(), "m", "once", 1, 60) end
t.is(open():count("m", "60\0" .. fake.now // 60 .. "\0once"), 1, "who is refused is not counted")
t.is(files(dir.path), size, "and stores nothing")

local function phase(name, a)
    local env = { RATELIMIT_STORE = dir.path, RATELIMIT_MESSAGES = "2", RATELIMIT_RCPTS = "3",
        RATELIMIT_CONNECTIONS = "1" }
    for key, value in pairs(a.env or {}) do env[key] = value end
    r = fake.request { env = env, ip = a.ip or "203.0.113.9", user = a.user }
    return ratelimit[name](r, fake.session { from = "a@b.test", rcpts = { "c@d.test" },
        flags = a.flags })
end
fake.now = fake.now // 3600 * 3600 + 1800
t.is({ phase("mail", {}), phase("mail", {}) }, {}, "two messages")
t.like(phase("mail", {}), "^451 4%.7%.1 Too many messages, please try again in %d+ seconds$",
    "not three")
t.is(phase("mail", { ip = "203.0.113.10" }), nil, "another address has its own")
t.is({ phase("mail", { user = "joe" }), phase("mail", { user = "joe", ip = "203.0.113.10" }) }, {},
    "so has a user")
t.like(phase("mail", { user = "joe", ip = "203.0.113.11" }), "^451", "wherever from")
t.is(phase("mail", { user = "ann" }), nil, "not everybody else")
t.is({ phase("rcpt", {}), phase("rcpt", {}), phase("rcpt", {}) }, {}, "three recipients")
t.like(phase("rcpt", {}), "^451 4%.7%.1 Too many recipients", "not four")
t.is(phase("connect", {}), nil, "one connection")
t.like(phase("connect", {}), "^421 4%.7%.1 Too many connections", "not two")
t.is(phase("connect", { env = { RATELIMIT_CONNECTIONS = "0" } }), nil, "0 is no limit")
t.is(phase("mail", { flags = 2 }), nil, "trusted clients are free")
t.like(phase("mail", { flags = 2, env = { RATELIMIT_TRUSTED = "on" } }), "^451",
    "unless they are not")
t.is({ phase("mail", { ip = "2001:db8::1" }), phase("mail", { ip = "2001:db8::2" }) }, {}, "IPv6")
t.like(phase("mail", { ip = "2001:db8::3" }), "^451", "by /64")
t.is(phase("mail", { env = { RATELIMIT_STORE = "/nonexistent" } }), nil,
    "nobody is limited where the store fails")
t.like(r.log[1], "^err: ratelimit: .*nonexistent", "which is logged")

t.done()
