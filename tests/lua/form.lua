-- form.lua, with a fake request and a fake smtpd.send: what visitors see, and which mail they make.
package.path = "conf/lua/?.lua;tests/lua/lib/?.lua;" .. package.path
local t, fake = require "tap", require "fake"
local form, headers, mime = require "form", require "headers", require "mime"

local good = { name = "Jörg \"X\"", email = "joe@example.com", subject = "Grüße",
    message = "One\r\n.\r\n<b>two</b>" }
local r, result
local function call(a)
    local env = { FORM_TO = "Office@example.org" }
    for name, value in pairs(a.env or {}) do env[name] = value end
    fake.sent = {}
    r = fake.request { env = env, method = a.method or "GET", uri = "/contact", args = a.args,
        form = a.form,
        headers = a.headers, is_https = a.is_https, ip = a.ip }
    result = form.handle(r)
    return result
end
local function post(a)
    local values, given = {}, a.values or {}
    for name, value in pairs(good) do values[name] = value end
    for name, value in pairs(given) do values[name] = value end
    a.method, a.form = "POST", values
    a.headers = a.headers or { Host = "www.test", Origin = "http://www.test",
        ["Content-Type"] = "application/x-www-form-urlencoded" }
    return call(a)
end
local function with(name, value)
    local all = { Host = "www.test", Origin = "http://www.test",
        ["Content-Type"] = "application/x-www-form-urlencoded" }
    all[name] = value
    if value == "" then all[name] = nil end
    return all
end

-- The page
t.is(call {}, apache2.OK, "GET")
t.like(r.printed, "<form method=\"post\"", "shows a form")
t.is(r.status, 200, "with 200")
t.like(r.headers_out["Content-Security-Policy"], "default%-src 'none'",
    "and no scripts from anywhere")
t.ok(not r.printed:find("<script"), "or in it")
call { env = { FORM_TITLE = "<Us & Co>" } }
t.like(r.printed, "<h1>&lt;Us &amp; Co&gt;</h1>", "the title is escaped")
call { args = "sent" }
t.like(r.printed, "Thank you", "after sending")
call { method = "HEAD" }
t.is(r.status, 200, "HEAD is GET")
t.is(call { method = "DELETE" }, 405, "other methods are not there")
call { env = { FORM_TO = "" } }
t.is(r.status, 500, "without FORM_TO it is no use")
t.like(r.log[1], "FORM_TO", "as the log says")

-- The mail
t.is(post {}, 303, "a filled in form is sent, and the browser led elsewhere")
t.is(r.headers_out["Location"], "/contact?sent", "so that reloading does not send it again")
t.is(#fake.sent, 1, "one mail")
local sent = fake.sent[1] or { data = "" }
local head, body = mime.split(sent.data)
t.is({ sent.from, sent.to }, { "Office@example.org", { "Office@example.org" } },
    "to who is configured, from the same")
t.is(headers.decode(mime.field(head, "From")), "Jörg \"X\" <Office@example.org>",
    "From: our address")
t.is(mime.field(head, "Reply-To"), "<joe@example.com>", "Reply-To: the visitor's")
t.is(headers.decode(mime.field(head, "Subject")), "Contact: Grüße", "Subject")
t.is(mime.field(head, "To"), "<Office@example.org>", "To")
t.like(headers.base64(body),
    "^One\r\n%.\r\n<b>two</b>\r\n\r\n%-%- \r\nSent with the form /contact by J",
    "the text, octet by octet")
t.ok(not sent.data:gsub("\r\n", ""):find("[\r\n\x80-\xFF]"), "all lines end in CRLF, all is ASCII")
local longest = 0
for line in sent.data:gmatch("[^\r\n]+") do longest = math.max(longest, #line) end
t.ok(longest <= 78, "no line is long", tostring(longest))
post { env = { FORM_TO = "a@x.test, b@x.test", FORM_FROM = "web@x.test" } }
t.is({ fake.sent[1].from, fake.sent[1].to }, { "web@x.test", { "a@x.test", "b@x.test" } },
    "several recipients, another sender")
post { values = { name = "Plain O'Name" } }
t.like(fake.sent[1].data, '^From: "Plain O\'Name"\r\n <Office@example%.org>',
    "a plain name is quoted")
post { values = { name = 'a"b\\c' } }
t.like(fake.sent[1].data, '^From: "a\\"b\\\\c"\r\n', "with its quotes escaped")
post { env = { FORM_HOST = "mx.test:25" } }
t.is(fake.used, "mx.test:25", "by the relay of the host that is configured")

-- Injection
for name in pairs(good) do
    for _, poison in ipairs { "x\r\nBcc: evil@x.test", "x\nBcc: evil@x.test", "x\rBcc: evil@x.test",
        "x\r\n\r\nBcc: evil@x.test",
        "x\r\n.\r\nMAIL FROM:<evil@x.test>" } do
        post { values = { [name] = name == "email" and "joe@example.com" .. poison or poison } }
        local m = fake.sent[1]
        if name == "email" then
            t.is(m, nil, "an address with a line end is none")
        else
            local h = mime.split(m.data)
            t.ok(mime.field(h, "bcc") == nil and select(2, h:gsub("\r\n[^ ]", "")) == 6, name
                .. " adds no field", h)
        end
    end
end
for _, email in ipairs { "joe", "joe@", "@x.test", "a@b@c.test", "Joe <joe@x.test>",
    "joe@x.test, evil@x.test", "joe@x.test>",
    "joe@x..test", "<joe@x.test", "jo e@x.test", "joe@-x.test", "joe\0@x.test" } do
    post { values = { email = email } }
    t.is({ #fake.sent, r.status }, { 0, 400 }, "no address: " .. email:gsub("%z", "NUL"))
end
post { values = { email = "<script>alert(1)</script>", name = "\"><script>" } }
t.ok(not r.printed:find("<script", 1, true), "what was typed comes back escaped")
t.like(r.printed, "value=\"&quot;&gt;&lt;script&gt;\"", "into the form")
post { values = { message = "</textarea><script>", email = "x" } }
t.like(r.printed, "&lt;/textarea&gt;&lt;script&gt;</textarea>", "also into the text")

-- What is not a form of ours
local function refused(status, name, a)
    post(a)
    t.is({ #fake.sent, r.status }, { 0, status }, name)
end
refused(403, "another origin", { headers = with("Origin", "http://evil.test") })
refused(403, "another scheme", { headers = with("Origin", "https://www.test") })
refused(403, "another port", { headers = with("Origin", "http://www.test:8080") })
refused(403, "one that only begins like ours", { headers = with("Origin",
    "http://www.test.evil.test") })
refused(403, "no origin that a browser tells", { headers = with("Origin", "null") })
refused(403, "none at all", { headers = with("Origin", "") })
refused(403, "no Host", { headers = with("Host", "") })
local referred = with("Origin", "")
referred["Referer"] = "http://www.test/contact?x"
post { headers = referred }
t.is(#fake.sent, 1, "a Referer does where there is no Origin")
referred["Referer"] = "http://evil.test/?http://www.test/contact"
refused(403, "but not another's", { headers = referred })
post { headers = with("Origin", "https://www.test"), is_https = true }
t.is(#fake.sent, 1, "https")
post { headers = with("Origin", "https://www.test:443"), is_https = true }
t.is(#fake.sent, 1, "the default port may be said")
post { headers = with("Origin", "https://shop.test"), env = { FORM_ORIGIN = "https://shop.test/" } }
t.is(#fake.sent, 1, "an origin that is configured")
refused(415, "another type", { headers = with("Content-Type", "text/plain") })
refused(415, "no type", { headers = with("Content-Type", "") })
refused(413, "too long", { headers = with("Content-Length", "70000") })
refused(400, "an empty field", { values = { message = " \r\n " } })
refused(400, "a long one", { values = { subject = ("x"):rep(201) } })
refused(400, "not UTF-8", { values = { name = "J\xF6rg" } })
post { values = { subject = ("ä"):rep(200) } }
t.is(#fake.sent, 1, "characters count, not octets")
local begun = os.clock()
post { values = { message = (" "):rep(65000) .. "x", subject = ("\n "):rep(30000) .. "x" } }
t.ok(os.clock() - begun < 2, "65,000 blanks take no time", tostring(os.clock() - begun))
post { values = { website = "http://spam.test" } }
t.is({ #fake.sent, result }, { 0, 303 }, "who fills in the trap thinks it was sent")

-- When mail does not go
fake.send_fails = { phase = "connect", code = 451 }
t.is(post {}, apache2.OK, "the relay is away")
t.is(r.status, 503, "503")
t.like(r.printed, "try again later", "and the page says so")
t.like(r.printed, "value=\"Grüße\"", "with all that was typed")
t.like(r.log[1], "^err: form: the mail of joe@example.com was not sent: relay says no",
    "the log has the reason")
t.ok(not r.printed:find("relay says no"), "which the visitor is not told")
fake.send_fails = { phase = "rcpt", code = 550 }
post {}
t.like(r.printed, "refused your message", "a refusal for good is another page")
fake.send_fails = nil
post { env = { FORM_HOST = "none:1" } }
t.is({ r.status, #fake.sent }, { 503, 0 }, "no such SMTP host")

local dir = fake.directory()
local rate = { FORM_RATE = "2", RATELIMIT_STORE = dir.path }
post { env = rate }
post { env = rate }
t.is(#fake.sent, 1, "two messages of an address")
refused(429, "not three", { env = rate })
post { env = rate, ip = "192.0.2.99" }
t.is(#fake.sent, 1, "another address may")

t.done()
