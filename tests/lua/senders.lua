-- senders.lua, network.lua and settings.lua, with a fake session.
package.path = "conf/lua/?.lua;tests/lua/lib/?.lua;" .. package.path
local t, fake = require "tap", require "fake"
local senders, network, settings = require "senders", require "network", require "settings"

local function of(headers, from)
    return senders.of(fake.session { from = from or "env@x.test", headers = headers })
end
local function is(headers, address, source, name, from)
    local who = of(headers, from)
    t.is({ who.address, who.source }, { address, source }, name)
end

is({ Sender = "S <s@x.test>", ["Reply-To"] = "r@x.test", ["X-Sender"] = "x@x.test" }, "s@x.test",
    "sender", "Sender comes first")
is({ ["Reply-To"] = "r@x.test", ["X-Sender"] = "x@x.test" }, "r@x.test", "reply-to",
    "then Reply-To")
is({ ["Reply-To"] = "ENV@x.test", ["X-Sender"] = "x@x.test" }, "x@x.test", "x-sender",
    "but not one that is the envelope's; then X-Sender")
is({ ["Reply-To"] = "env@x.test", ["List-Id"] = "<l.test>" }, "env@x.test", "reply-to",
    "on a list the same Reply-To")
is({ From = "A <a@x.test>", Precedence = "bulk" }, "a@x.test", "from", "on a list or in bulk From")
is({ From = "A <a@x.test>", Precedence = "first-class" }, "env@x.test", "envelope",
    "else the envelope's")
is({ From = "A <a@x.test>" }, "env@x.test", "envelope", "whatever From says")
is({ Sender = "nobody", From = "a@x.test" }, "env@x.test", "envelope",
    "a Sender without an address is none")
is({}, "", "envelope", "the null sender", "<>")

for _, name in ipairs { "List-Id", "List-Help", "List-Unsubscribe", "List-Subscribe", "List-Post",
    "List-Owner",
    "List-Archive", "Mailing-List" } do
    local who = of { [name] = "<mailto:x@l.test>" }
    t.is({ who.list, who.bulk }, { true, true }, name .. " says list")
end
t.is({ of({ Precedence = "List" }).list, of({ Precedence = "bulk" }).list,
    of({ Precedence = "bulk" }).bulk },
    { true, false, true }, "Precedence list is one, bulk is not")
t.is({ of({}).list, of({}).bulk }, { false, false }, "and other mail is neither")
t.is(of({ ["List-Id"] = "Developers <dev.l.test>" }).id, "dev.l.test", "the name of List-Id")
t.is(of({ ["List-Id"] = "dev.l.test" }).id, "dev.l.test", "also without brackets")
t.is(of({ ["List-Post"] = "<mailto:dev@l.test?subject=x> (x)" }).post, "dev@l.test",
    "where to post")
t.is(of({ ["List-Post"] = "NO" }).post, nil, "nowhere")
local r = fake.request {}
senders.data(r, fake.session { from = "env@x.test", headers = { ["List-Id"] = "<l.test>" } })
t.is(r.log, { "info: sender: env@x.test by=envelope list=l.test" }, "the phase logs it")

-- network
local function net(text, want, v4, v6) t.is(network.of(text, v4 or 24, v6 or 64), want,
    "network of " .. text) end
net("192.0.2.77", "192.0.2.0/24")
net("192.0.2.77", "192.0.2.77/32", 32)
net("192.0.2.77", "192.0.2.64/26", 26)
net("192.0.2.77", "0.0.0.0/0", 0)
net("192.0.2.77", "192.0.2.77/32", 99)
net("::ffff:192.0.2.77", "192.0.2.0/24")
net("2001:DB8:1:2:3:4:5:6", "2001:db8:1:2:0:0:0:0/64")
net("2001:db8:1:2::", "2001:db8:1:2:0:0:0:0/64")
net("2001:db8:1:2ff::7", "2001:db8:1:200:0:0:0:0/56", 24, 56)
net("::1", "0:0:0:0:0:0:0:1/128", 24, 128)
net("::", "0:0:0:0:0:0:0:0/64")
net("fe80::1%eth0", "fe80:0:0:0:0:0:0:0/64")
net("64:ff9b::192.0.2.1", "64:ff9b:0:0:0:0:c000:201/128", 24, 128)
for _, text in ipairs { "", "1.2.3", "1.2.3.256", "1:2:3", "1::2::3", "12345::",
    "1:2:3:4:5:6:7:8:9", "x" } do net(text, text) end

-- settings
r = fake.request { env = { N = "12", BAD = "12x", EMPTY = "", ON = "On", OFF = "off",
    L = "A@b,  c@D.test" } }
t.is({ settings.number(r, "N", 1), settings.number(r, "EMPTY", 2), settings.number(r, "NONE", 3) },
    { 12, 2, 3 }, "numbers")
t.is({ settings.number(r, "BAD", 4), #r.log }, { 4, 1 }, "what is none is logged")
t.is({ settings.flag(r, "ON"), settings.flag(r, "OFF", true), settings.flag(r, "NONE", true) },
    { true, false, true }, "flags")
t.is(settings.list(r, "L"), { "A@b", "c@D.test" }, "a list")
t.is(settings.words(r, "L")["c@d.test"], true, "a set, in lower case")

t.done()
