-- bounces.lua and mime.lua: reports of RFC 3464, and the texts of systems that have none. The texts
-- here were written for this test after the shapes that those systems give them.
package.path = "conf/lua/?.lua;tests/lua/lib/?.lua;" .. package.path
local t, fake = require "tap", require "fake"
local bounces, mime = require "bounces", require "mime"

local function crlf(text) return (text:gsub("\n", "\r\n")) end

local function brief(list)
    local out = {}
    for _, b in ipairs(list) do out[#out + 1] = b.address .. " " .. (b.status or "-") end
    return out
end

-- RFC 3464
local report = crlf [[
From: MAILER-DAEMON@mx.test
To: list@example.com
Subject: failure
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status;
	boundary="a;b=c"

A preamble: <preamble@x.test>:
--a;b=c

The text names <other@x.test>: which is not looked at.

--a;b=c
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.test
Final-Recipient: rfc822; notarecipient@x.test

Original-Recipient: rfc822;Joe@Example.com
Final-Recipient: RFC822; <joe@inner.example.com>
Action: failed
Status: 5.1.1 (no such user)
Diagnostic-Code: smtp; 550 5.1.1
	<joe@inner.example.com> unknown

Final-Recipient: rfc822; late@example.com
Action: delayed
Status: 4.4.1

Final-Recipient: rfc822;ok@example.com
Action: Relayed
Status: 2.0.0

Final-recipient: rfc822; "odd user"@example.com
Status: 5.7.1

Original-Recipient: rfc822; only-original@example.com
Action: FAILED
Status: 5.2.2
--a;b=c
Content-Type: message/rfc822

From: list@example.com
Content-Type: message/delivery-status

Final-Recipient: rfc822; inner@example.com
Action: failed
--a;b=c--
Final-Recipient: rfc822; behind@example.com
]]
local found = bounces.extract(report)
t.is(brief(bounces.failed(report)), { "joe@inner.example.com 5.1.1",
    "only-original@example.com 5.2.2" }, "all that failed")
t.is(brief(found)[2], "late@example.com 4.4.1", "a delayed one is told, but has not failed")
t.is(found[2].action, "delayed", "and says so")
t.is(found[3].action, "relayed", "in lower case")
local first = bounces.failed(report)[1]
t.is(first.original, "Joe@Example.com", "the recipient that was written to, as it was")
t.is(first.diagnostic, "550 5.1.1 <joe@inner.example.com> unknown", "why, in one line")
t.is(first.source, "RFC 3464", "and how that is known")
t.is(brief(bounces.failed(report:gsub("\r\n", "\n"))), brief(bounces.failed(report)),
    "LF line ends too")

local function status_part(head, body)
    return crlf("Content-Type: multipart/report; boundary=X\n\n--X\n" .. head .. "\n\n" .. body
        .. "\n--X--\n")
end
t.is(brief(bounces.failed(status_part("Content-Type: MESSAGE/delivery-status",
    "Reporting-MTA: dns;x\n\nFinal-Recipient: rfc822;a@b.test\nAction: failed\nStatus: 5.0.0"))),
    { "a@b.test 5.0.0" }, "without quotes, in capitals")
t.is(brief(bounces.failed(status_part("Content-Type: message/delivery-status\nContent-Transfer-Encoding: base64",
    (fake.command("printf 'Reporting-MTA: dns;x\\n\\nFinal-Recipient: rfc822;a@b.test\\nAction: failed\\n' | base64"))))),
    { "a@b.test -" }, "in base64")
t.is(brief(bounces.failed(status_part("Content-Type: message/global-delivery-status",
    "Reporting-MTA: dns;x\n\nFinal-Recipient: utf-8;jürgen@b.test\nAction: failed\nStatus: 5.1.1"))),
    { "jürgen@b.test 5.1.1" }, "RFC 6533")
t.is(brief(bounces.failed(crlf("Content-Type: multipart/mixed; boundary=Y\n\n--Y\n") ..
    status_part("Content-Type: message/delivery-status",
    "Reporting-MTA: dns;x\n\nFinal-Recipient: rfc822;a@b.test\nAction: failed") .. "--Y--\r\n")),
    { "a@b.test -" }, "within a multipart of somebody else's footer")
t.is(brief(bounces.failed(status_part("Content-Type: message/delivery-status",
    "Reporting-MTA: dns;x\n\nFinal-Recipient: rfc822;a@b.test\n  \nStatus: 5.1.1"))), {},
        "an empty line ends a group")

t.is(brief(bounces.failed(crlf "X-Failed-Recipients: a@b.test,\n c@d.test\n\n<e@f.test>:\n")),
    { "a@b.test -", "c@d.test -" }, "X-Failed-Recipients")

-- Texts
local texts = {
    { "Exim", [[
This message was created automatically by mail delivery software.

A message that you sent could not be delivered to one or more of its
recipients. This is a permanent error. The following address(es) failed:

  joe@example.com
    host mx.example.com [192.0.2.1]: 550 5.1.1 <joe@example.com> no
  ann@example.com:
    unrouteable
  |/usr/bin/filter
    (ultimately generated from via@example.com)

------ This is a copy of the message, including all the headers. ------

  copy@example.com
]], { "joe@example.com 5.1.1", "ann@example.com -", "via@example.com -" } },
    { "qmail", [[
Hi. This is the qmail-send program at example.net.

<joe@example.com>:
192.0.2.1 does not like recipient.
Remote host said: 550 5.1.1 <joe@example.com>: Recipient address rejected

<Ann.O'Hara+tag@example.com>:
Sorry, no mailbox here by that name. (#5.1.2)

--- Below this line is a copy of the message.

<copy@example.com>:
]], { "joe@example.com 5.1.1", "Ann.O'Hara+tag@example.com 5.1.2" } },
    { "Postfix",
        "<joe@example.com>: host mx[192.0.2.1] said: 550 5.2.1 full (in reply to RCPT TO command)\n",
        { "joe@example.com 5.2.1" } },
    { "sendmail 8", [[
   ----- The following addresses had permanent fatal errors -----
<joe@example.com>
    (reason: 550 5.1.1 unknown)
ann@example.com

   ----- Transcript of session follows -----
... while talking to mx.example.com.:
>>> RCPT To:<third@example.com>
<<< 550 5.1.1 no
>>> RCPT To:<fine@example.com>
<<< 250 ok
]], { "joe@example.com 5.1.1", "ann@example.com -", "third@example.com 5.1.1" } },
    { "sendmail 8.6", "   ----- The following addresses had delivery problems -----\n"
        .. "<joe@example.com>  (unrecoverable error)\n<ann@example.com>  (transient failure)\n",
        { "joe@example.com -" } },
    { "sendmail 5",
        "   ----- Transcript of session follows -----\n550 <joe@example.com>... User unknown\n",
        { "joe@example.com -" } },
    { "smail", "|------------------------- Failed addresses follow: ---------------------|\n"
        .. " joe@example.com ... transport smtp: 550 <joe@example.com>... no\n"
        .. "|------------------------- Message text follows: ------------------------|\n <copy@example.com> ... x\n",
        { "joe@example.com -" } },
    { "Exchange 5.5",
        "Your message\n\n  To:      Joe\n\ndid not reach the following recipient(s):\n\n"
        .. "joe@example.com on Thu, 5 Mar 1998 10:11:12 +0100\n    The recipient name is not recognized\n",
        { "joe@example.com -" } },
    { "Exchange 2003", "The following recipient(s) could not be reached:\n\n"
        .. "      'joe@example.com' on 5/3/2003 10:11\n            There is no such account. <mx.test #5.1.1>\n",
        { "joe@example.com 5.1.1" } },
    { "Exchange 2007", "Delivery has failed to these recipients or distribution lists:\n\n"
        .. "Joe Doe<mailto:joe@example.com>\nNo such mailbox.\n\nann@example.com\nNo such mailbox.\n\n"
        .. "Diagnostic information for administrators:\n<mailto:copy@example.com>\n",
        { "joe@example.com -", "ann@example.com -" } },
    { "IIS", "Delivery to the following recipients failed.\n\n       joe@example.com\n       ann@example.com\n",
        { "joe@example.com -", "ann@example.com -" } },
    { "Gmail", "Delivery to the following recipient failed permanently:\n\n     joe@example.com\n\n"
        .. "Technical details: the other server said 550 5.1.1 no\n", { "joe@example.com 5.1.1" } },
    { "Domino",
        "Your message\n\n  Subject: x\n\nwas not delivered to:\n\n  joe@example.com\n\nbecause:\n\n"
        .. "  ann@example.com is elsewhere\n", { "joe@example.com -" } },
    { "Domino, one line", "User joe (joe@example.com) not listed in Domino Directory\n",
        { "joe@example.com -" } },
    { "Lotus Notes",
        "------- Failure Reasons  --------\n\nUser not listed in public Name & Address Book\n"
        .. "joe@example.com\n", { "joe@example.com -" } },
    { "CompuServe", "Receiver not found: joe@compuserve.test\n", { "joe@compuserve.test -" } },
    { "PMDF", "Your message cannot be delivered to the following recipients:\n\n"
        .. "  Recipient address: joe@example.com\n  Reason: 5.1.1 no\n",
            { "joe@example.com 5.1.1" } },
    { "GroupWise",
        "The message that you sent was undeliverable to the following:\n\tjoe@example.com (user not found)\n",
        { "joe@example.com -" } },
    { "IMail",
        "User mailbox exceeds allowed size: joe@example.com\nunknown user: ann@example.com\n",
        { "joe@example.com -", "ann@example.com -" } },
    { "SmarterMail",
        "Could not deliver message to the following recipient(s):\n\nFailed Recipient: joe@example.com\n",
        { "joe@example.com -" } },
    { "MailEnable",
        "MailEnable: Message could not be delivered\n\n    Recipient: [SMTP:joe@example.com]\n",
        { "joe@example.com -" } },
    { "Mercury", "*** joe@example.com\n550 no such local user\n", { "joe@example.com -" } },
    { "MMDF", "Your message was not delivered to 'joe@example.com' for the following reason:\n",
        { "joe@example.com -" } },
    { "IronPort",
        "The following message to <joe@example.com> was undeliverable.\nThe reason for the problem:\n"
        .. "5.1.0 - Unknown address error\n", { "joe@example.com 5.1.0" } },
    { "some other list", "We could not reach the following recipients:\n\n  joe@example.com\n",
        { "joe@example.com -" } },
    { "some other text", "The remote server answered 550 5.1.1 <joe@example.com> is unknown here\n",
        { "joe@example.com 5.1.1" } },
    { "no bounce", "Hello joe@example.com,\n\nplease write to <ann@example.com> and not to me.\n",
        {} },
    { "still trying",
        "Warning: message still undelivered after 4 hours. You do not need to resend it.\n\n"
        .. "<joe@example.com>: connection refused\n", {} },
}
for _, row in ipairs(texts) do
    t.is(brief(bounces.failed(crlf("From: daemon@mx.test\n\n" .. row[2]))), row[3], row[1])
end
t.is(bounces.extract("From: x\r\n\r\nIt has not yet been delivered.\r\n<joe@example.com>: no route\r\n")[1].action,
    "delayed", "what is only late is told as such")
t.is(brief(bounces.failed(crlf [[
Content-Type: multipart/mixed; boundary=b

--b
Content-Type: text/html

<other@example.com>: not the text
--b
Content-Type: text/plain
Content-Transfer-Encoding: quoted-printable

<joe@example.com>:=20
no such user

--b
Content-Type: text/plain

<copy@example.com>: not the report
--b--
]])), { "joe@example.com -" }, "the first text of several parts, decoded")

-- Odd input
for name, text in pairs { nothing = "", ["no body"] = "a: b", ["a lone line end"] = "\r\n",
    ["no end of parts"] = "Content-Type: multipart/report; boundary=x\r\n\r\n--x\r\n",
    ["an empty boundary"] = "Content-Type: multipart/report; boundary=\"\"\r\n\r\n--\r\n",
    ["control characters"] = "X-Failed-Recipients: a\27@b.test\r\n\r\n" } do
    t.is(bounces.extract(text), {}, name)
end
local deep = "text"
for i = 1, 50 do
    deep = ("Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n%s\r\n--b%d--\r\n"):format(i, i, deep, i)
end
t.ok(#mime.leaves(deep) == 1, "50 levels of parts")
local begun = os.clock()
for _, text in ipairs { "--x\r\n", "<", "550 ", "550 <a@", "a@", "<a@b.test>:\r\n", ("550 "
    .. ("a"):rep(990) .. "\r\n"),
    ("550 <" .. ("a@"):rep(400) .. "\r\n"), "--x", "\r\n" } do
    bounces.extract("Content-Type: multipart/report; boundary=x\r\n\r\n"
        .. text:rep(1024 * 1024 // #text))
    bounces.extract("\r\n" .. text:rep(1024 * 1024 // #text))
end
for _, text in ipairs { " ", "(", "a@b.test ", ";", "; a=" } do
    local long = text:rep(60000 // #text) .. "x"
    bounces.extract("X-Failed-Recipients:" .. long .. "\r\nContent-Type: multipart/x; " .. long .. "\r\n\r\n")
    bounces.extract(status_part("Content-Type: message/delivery-status", "Final-Recipient: rfc822;a@b.test\n"
        .. "Action: failed\nDiagnostic-Code: x;" .. long))
end
t.ok(os.clock() - begun < 20, "a MiB of anything takes seconds at most",
    tostring(os.clock() - begun))
local many = {}
for i = 1, 500 do many[i] = ("<user%d@x.test>: no\r\n"):format(i) end
t.is(#bounces.extract("\r\n" .. table.concat(many)), 100, "at most 100 recipients")

-- A large message came back, as an encoded part: it fits into SmtpdScriptMemory, 64M.
local back = report .. ("QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVo0MTIzNDU2\r\n"):rep(1000000)
    .. "\r\nFinal-Recipient: rfc822;late@x.test\r\nAction: failed\r\n"
collectgarbage()
collectgarbage("stop")
local before = collectgarbage("count")
local large = bounces.failed(back)
t.is(large[1].address, "joe@inner.example.com", "a large report is read")
t.ok(collectgarbage("count") - before < 16 * 1024, "in little memory",
    tostring(collectgarbage("count") - before) .. " KiB")
collectgarbage("restart")

-- The phase
local r = fake.request {}
t.is(bounces.data(r, fake.session { from = "", body = report }), nil, "the phase changes nothing")
t.is(r.log[1],
    "notice: bounce: rcpt=joe@inner.example.com original=Joe@Example.com action=failed status=5.1.1 by=RFC 3464",
    "and logs a line")
r = fake.request {}
bounces.data(r, fake.session { from = "a@b.test", body = report })
t.is(r.log, {}, "not for mail that has a sender")

t.done()
