-- headers.lua: encoded words. The charsets are compared with iconv, octet by octet.
package.path = "conf/lua/?.lua;tests/lua/lib/?.lua;" .. package.path
local t, fake = require "tap", require "fake"
local headers = require "headers"

local function decodes(from, to, name) t.is(headers.decode(from), to, name or from) end
local function stays(from, name) decodes(from, from, name or "stays: " .. from) end

-- RFC 2047, section 8
decodes("(=?ISO-8859-1?Q?a?=)", "(a)")
decodes("(=?ISO-8859-1?Q?a?= b)", "(a b)")
decodes("(=?ISO-8859-1?Q?a?= =?ISO-8859-1?Q?b?=)", "(ab)")
decodes("(=?ISO-8859-1?Q?a?=  =?ISO-8859-1?Q?b?=)", "(ab)")
decodes("(=?ISO-8859-1?Q?a?=\r\n    =?ISO-8859-1?Q?b?=)", "(ab)", "folded")
decodes("(=?ISO-8859-1?Q?a_b?=)", "(a b)")
decodes("(=?ISO-8859-1?Q?a?= =?ISO-8859-2?Q?_b?=)", "(a b)")
decodes("=?US-ASCII?Q?Keith_Moore?= <moore@cs.utk.edu>", "Keith Moore <moore@cs.utk.edu>")
decodes("=?ISO-8859-1?Q?Keld_J=F8rn_Simonsen?= <keld@dkuug.dk>",
    "Keld Jørn Simonsen <keld@dkuug.dk>")
decodes("=?ISO-8859-1?Q?Andr=E9?= Pirard <PIRARD@vm1.ulg.ac.be>",
    "André Pirard <PIRARD@vm1.ulg.ac.be>")
decodes("=?ISO-8859-1?B?SWYgeW91IGNhbiByZWFkIHRoaXMgeW8=?=\r\n =?ISO-8859-2?B?dSB1bmRlcnN0YW5kIHRoZSBleGFtcGxlLg==?=",
    "If you can read this you understand the example.", "two charsets, folded")

-- Encodings, cases, languages
decodes("=?utf-8?q?=c3=a9?=", "é")
decodes("=?UTF-8?Q?=C3=A9?=", "é")
decodes("=?Utf8?b?w6k=?=", "é")
decodes("=?utf-8*fr-CH?Q?=C3=A9?=", "é")
decodes("=?utf-8?B?w6k?=", "é", "without padding")
decodes("=?utf-8?Q??=x", "x", "an empty word")
decodes("=?utf-8?B?w?= =?utf-8?B?6k=?=", "=?utf-8?B?w?= =?utf-8?B?6k=?=",
    "one digit of base64 is nothing")
decodes("=?utf-8?Q?=C3?= =?UTF-8?Q?=A9?=", "é", "a character cut in two")
decodes("=?utf-8?B?w6k=?= =?utf-8?Q?=C3?= =?utf-8?B?qQ==?=", "éé", "cut between B and Q")
decodes("=?utf-8?Q?a?= =?utf-8?Q?=FF?= =?utf-8?Q?b?=", "a =?utf-8?Q?=FF?= b",
    "one bad word among good ones")
decodes("a=?utf-8?Q?b?=c", "abc", "touching other text")
decodes("=?utf-8?Q?a?==?utf-8?Q?b?=", "ab", "touching each other")
decodes("=?utf-8?Q?a?= x =?utf-8?Q?b?=", "a x b", "with a word between")
decodes("  plain  text ", "  plain  text ")
decodes("", "", "nothing")
decodes("one\r\n two\n\tthree", "one two\tthree", "unfolded")

-- Left alone
stays "=?koi8-r?Q?=C1?="
stays "=?utf-8?X?abc?="
stays "=?utf-8?Q?=4?="
stays "=?utf-8?Q?=GG?="
stays "=?utf-8?B?w6k$?="
stays "=?utf-8?B?=w6k?="
stays "=?us-ascii?Q?=E9?="
stays "=?windows-1252?Q?=81?="
stays "=?utf-8?Q?=ED=A0=80?="
stays "=?utf-8?Q?=C0=80?="
stays "=?utf-8?Q?=F4=90=80=80?="
stays "=?utf-8?Q?two words?="
stays "=?utf-8?Q?open"
stays "=?=?=?="
decodes("=?koi8-r?Q?=C1?=  =?utf-8?Q?a?=", "=?koi8-r?Q?=C1?=  a",
    "the blanks beside an unknown word stay")

-- Nothing that ends a line, or moves a terminal's cursor
decodes("=?utf-8?Q?a=0D=0ABcc:_x=00=1B[2J?=", "a  Bcc: x  [2J", "control characters become blanks")
decodes("=?utf-8?Q?=C2=9B2J=E2=80=8B?=", " 2J\u{200B}", "so do those of C1, and nothing else")

for _, name in ipairs { "ISO-8859-1", "ISO-8859-2", "ISO-8859-15", "WINDOWS-1252" } do
    local wrong = {}
    for octet = name == "WINDOWS-1252" and 0x80 or 0xA0, 0xFF do
        local want = fake.command(("printf '\\%03o' | iconv -f %s -t UTF-8 2>/dev/null"):format(octet, name))
        local got = headers.to_utf8(string.char(octet), name) or ""
        if got ~= want then wrong[#wrong + 1] = ("%02X"):format(octet) end
    end
    t.is(wrong, {}, name .. " is what iconv has")
end

local function returns(text, name)
    local encoded = headers.encode(text)
    local longest = 0
    for word in encoded:gmatch("%S+") do longest = math.max(longest, #word) end
    t.is(headers.decode(encoded), text, "there and back: " .. name)
    t.ok(longest <= 75 or encoded == text, "no word longer than 75: " .. name, encoded)
    t.ok(not encoded:find("[\x80-\xFF]"), "all ASCII: " .. name, encoded)
end
returns("Grüße", "a word")
returns(("äöü€😀 "):rep(40), "many, of up to four octets")
returns("plain", "ASCII")
returns("=?utf-8?Q?x?= literally", "what looks like a word")
t.is(headers.encode("plain"), "plain", "ASCII stays as it is")
t.is(headers.encode("a\r\nBcc: x@y.test"), "a  Bcc: x@y.test", "no line end comes through")
t.ok(not headers.encode("é\r\nBcc: x"):gsub("\r\n ", ""):find("[\r\n]"),
    "nor beside other characters")

for _, text in ipairs { "", "f", "fo", "foo", "foob", "\0\xFF\x10", ("\xFB\xF0"):rep(50) } do
    local pipe = fake.command("printf %%s %s | base64 -w0 2>/dev/null", (text:gsub("%z", "")))
    if not text:find("%z") then t.is(headers.to_base64(text), pipe, "base64 as base64(1): " .. #text
        .. " octets") end
    t.is(headers.base64(headers.to_base64(text)), text, "base64 there and back: " .. #text
        .. " octets")
end
t.is(headers.base64("Zm9v\r\nYmFy"), "foobar", "base64 over two lines")
t.is(headers.base64("Zg=v"), nil, "padding within base64")
t.is(headers.quoted_printable("a=\r\nb=C3=A9 \r\n= c"), "ab\xC3\xA9\r\n= c", "quoted-printable")

-- A hostile value must not take long.
local begun = os.clock()
for _, text in ipairs { "=?", "=?a?q?", "=?a?q?=?=", "=?a?q?b?= ", "?=", "=?utf-8?b?w?= " } do
    headers.decode(text:rep(64 * 1024 // #text))
end
headers.quoted_printable((" "):rep(1024 * 1024) .. "x")
t.ok(os.clock() - begun < 5, "64 KiB of anything take no time", tostring(os.clock() - begun))

t.done()
