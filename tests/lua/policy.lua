-- policy.lua and phases.lua, with fake requests and sessions.
package.path = "conf/lua/?.lua;tests/lua/lib/?.lua;" .. package.path
local t, fake = require "tap", require "fake"
local policy, phases = require "policy", require "phases"

local r, s
local function run(name, a)
    r, s = fake.request { env = a.env, ip = a.ip, user = a.user }, fake.session(a)
    return policy[name](r, s)
end

-- What mod_lua calls: a file loaded without a module's name makes its phases global.
t.is(rcpt, nil, "a module that is required makes nothing global")
dofile("conf/lua/policy.lua")
t.is(type(rcpt), "function", "a policy that is loaded does")
s = fake.session { from = "a@b.test", rcpts = { "gone@d.test" } }
r = fake.request { env = { POLICY_REFUSED_RCPTS = "gone@d.test" }, session = s }
t.is(rcpt(r), apache2.OK, "a phase ends with apache2.OK")
t.is(s.reply, "550 5.1.1 No such recipient here", "and its word is the reply")
s = fake.session { from = "a@b.test", rcpts = { "c@d.test" } }
r = fake.request { session = s }
rcpt(r)
t.is(s.reply, nil, "or there is none")
for _, name in ipairs { "init", "connect", "helo", "auth", "mail", "rcpt", "data", "error" } do
    t.is(_G[name](fake.request { session = fake.session { rcpts = { "c@d.test" } } }), apache2.OK,
        name .. " exists")
end
t.is(phases.ask({}, "rcpt", r, s), nil, "a module need not have every phase")
for file, phase in pairs { greylist = "rcpt", ratelimit = "mail", bounces = "data",
    senders = "data" } do
    dofile("conf/lua/" .. file .. ".lua")
    local quiet = fake.session { from = "a@b.test", rcpts = { "c@d.test" }, flags = 2 }
    t.is(_G[phase](fake.request { session = quiet }), apache2.OK, file .. " alone is a policy")
    t.is({ _G.init, quiet.reply }, {}, "without functions for phases that are not its own")
end

-- rcpt
local refused = { POLICY_REFUSED_RCPTS = "gone@d.test, @old.test trap@" }
t.like(run("rcpt", { env = refused, rcpts = { "Gone@D.test" } }), "^550 5%.1%.1", "a recipient")
t.like(run("rcpt", { env = refused, rcpts = { "x@old.test" } }), "^550", "a domain")
t.like(run("rcpt", { env = refused, rcpts = { "trap@any.test" } }), "^550", "a user")
t.is(run("rcpt", { env = refused, rcpts = { "gone@d.test", "ok@d.test" } }), nil,
    "it is the newest that counts")
t.is({ s.flags & 0x20, s.rcpts[2].flags & 0x40, s.rcpts[1].flags & 0x40 }, { 0x20, 0x40, 0 },
    "and that is scanned")
run("rcpt", { rcpts = { "c@d.test" }, flags = 2 })
t.is(s.flags, 2, "not for trusted clients")
run("rcpt", { rcpts = { "c@d.test" }, env = { POLICY_SCAN = "off" } })
t.is(s.flags, 0, "nor where that is off")

-- The chain
local dir = fake.directory()
package.path = dir.path .. "/?.lua;" .. package.path
for name, text in pairs {
    yes = "return { rcpt = function() return nil end, data = function() return '550 5.7.1 data' end }",
    no = "return { rcpt = function(r, s) return '450 4.7.1 ' .. s:getfrom() end, init = function(r) r:info('seen') end }",
    never = "return { rcpt = function() error('asked') end }",
    broken = "return nonsense nonsense",
} do
    local file = io.open(dir.path .. "/" .. name .. ".lua", "w")
    file:write(text)
    file:close()
end
t.is(run("rcpt", { env = { POLICY_CHAIN = "yes no never" }, from = "a@b.test",
    rcpts = { "c@d.test" } }), "450 4.7.1 a@b.test",
    "the first reply of the chain, and nobody is asked after it")
t.is(run("data", { env = { POLICY_CHAIN = "no, yes" } }), "550 5.7.1 data", "in every phase")
t.is(run("init", { env = { POLICY_CHAIN = "yes no" } }), nil, "init")
t.is(r.log, { "info: seen", "notice: policy: asked in turn: yes, no" }, "says who is asked")
t.ok(not pcall(run, "init", { env = { POLICY_CHAIN = "broken" } }),
    "and finds a module that does not compile")
t.ok(not pcall(run, "init", { env = { POLICY_CHAIN = "missing" } }), "or is missing")

-- helo
t.like(run("helo", { line = "EHLO MX.test" }), "^550 5%.7%.1", "nobody else has our name")
t.is(run("helo", { line = "HELO MX.test", flags = 2 }), nil, "but trusted clients")
t.is(run("helo", { line = "EHLO other.test" }), nil, "and other names are theirs")

-- data
local mail = { from = "a@b.test", rcpts = { "c@d.test" },
    headers = { Subject = "=?utf-8?Q?Gr=C3=BC=C3=9Fe?=", ["List-Id"] = "<l.test>" } }
local function data(a)
    for name, value in pairs(mail) do a[name] = a[name] or value end
    return run("data", a)
end
t.is(data { env = { SMTP_ID = "id1" } }, nil, "a message passes")
t.is(r.log, { 'info: policy: id=id1 sender=a@b.test list=l.test subject="Grüße" files=""' },
    "and is logged")
t.like(data { env = { POLICY_REFUSED_FILES = "exe scr" }, files = { "ok.txt", "Invoice.pdf.EXE" } },
    "^550 5%.7%.1", "a file nobody wants")
t.like(data { env = { POLICY_REFUSED_FILES = "exe" }, files = { "=?utf-8?B?YS5leGU=?=" } }, "^550",
    "also encoded")
t.like(data { env = { POLICY_REFUSED_FILES = "exe" }, files = { "a.exe. " } }, "^550",
    "or with a tail that Windows drops")
t.is(data { env = { POLICY_REFUSED_FILES = "exe" }, files = { "exe", "a.exe.txt" } }, nil,
    "others are fine")
t.like(data { flags = 0x100000 }, "^550 5%.7%.1 The message has a virus", "a virus")
t.is(data { flags = 0x100000, env = { POLICY_REFUSE = "none" } }, nil, "unless that is fine")
data {}
t.is(data { env = { POLICY_REFUSE = "spam" } }, nil, "no spam")
r, s = fake.request { env = { POLICY_REFUSE = "spam" } }, fake.session { rcpts = { "c@d.test",
    "e@d.test" } }
s.rcpts[1].flags = 0x80001
t.is(policy.data(r, s), nil, "spam for one of two")
s.rcpts[2].flags = 0x80001
t.like(policy.data(r, s), "^550 5%.7%.1 The message looks like spam", "spam for both")
data { env = { POLICY_TAG = "on" }, headers = { ["X-Policy-List"] = "forged",
    ["X-Policy-Sender"] = "forged" } }
t.is({ s.headers["X-Policy-Sender"], s.headers["X-Policy-List"] }, { "a@b.test" },
    "tags are ours only")
data { env = { POLICY_TAG = "on" } }
t.is(s.headers["X-Policy-List"], "l.test", "the list's name")
data {}
t.is({ s.headers["X-Policy-Sender"], s.dumped }, {}, "no tags and no copies unless asked for")
data { env = { POLICY_DUMP = "/var/copies", SMTP_ID = "Abc_-1" } }
t.is(s.dumped, "/var/copies/Abc_-1.eml", "a copy by its id")
for _, id in ipairs { "../../etc/x", "", ".x", "a/b", "a\0b" } do
    data { env = { POLICY_DUMP = "/var/copies", SMTP_ID = id } }
    t.like(s.dumped, "^/var/copies/%x+%.eml$", "never elsewhere: " .. id:gsub("%z", "NUL"))
end

-- error
run("error", { line = "RCPT: 550 5.1.1 nobody\r\n", rcpts = { "a@y.test", "x@y.test" } })
t.is(r.log, { "notice: policy: the relay has no recipient x@y.test: RCPT: 550 5.1.1 nobody " },
    "a recipient that the relay does not have")
run("error", { line = "MAIL: 451 4.3.0 later", rcpts = { "x@y.test" } })
t.is(r.log, { "warn: policy: the relay did not take it: MAIL: 451 4.3.0 later" }, "anything else")
t.is(run("error", { line = "connect: 451 4.4.1 away" }), nil, "without a recipient")

t.done()
