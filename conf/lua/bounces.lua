-- bounces: whom a bounce is about. Delivery status notifications are read as RFC 3464 (and RFC
-- 6533) have them; the texts of mail systems that never learned them, or did not always, by a table
-- of how each announces the recipients it failed for. Add a row for another.
--
--   local bounces = require "bounces"
--   for _, b in ipairs(bounces.failed(message)) do print(b.address, b.status) end
--
-- Wired: alone by LuaMapHandler "^/smtp/(data)$" /path/bounces.lua $1, or POLICY_CHAIN of
-- policy.lua. It logs a line for each recipient of a mail with the null sender, and does no more.
-- Settings: none. Stores: nothing.
local mime = require "mime"

local M = {}
local longest_text, longest_line, most_recipients = 65536, 500, 100
local longest_message = 1048576 -- octets: a report stands before what came back, which may be large

-- An address in a text that is in lower case. In the rows ADDR is this, with or without <>.
local address = "[^%s<>()%[%]\"'`,;:@][^%s<>()%[%]\"`,;:@]*@[%w.-]*%w"

-- after: a line that announces addresses; line: how they stand then (without after: anywhere);
-- stop: a line that ends the list; next: what the line behind must be. In lower case.
local rows = {
    { "Exim", after = "following address%(?e?s?%)? failed", line = "^%s+ADDR:?%s*$" },
    { "Exim, expanded", after = "following address%(?e?s?%)? failed",
        line = "generated from ADDR%)" },
    { "qmail, Postfix, Courier, Yahoo", line = "^<ADDR>:" },
    { "sendmail 8", after = "following addresses had permanent fatal errors", line = "^ADDR",
      stop = "%-%-%-%-%- transcript" },
    { "sendmail 8.6", after = "following addresses had delivery problems",
      line = "^ADDR%s+%(unrecoverable", stop = "%-%-%-%-%- transcript" },
    { "sendmail 5", line = "^5%d%d .-ADDR%.%.%. " },
    { "any, a dialogue", line = "^>>> rcpt to:%s*ADDR", next = "^<<< 5%d%d" },
    { "smail 3", after = "failed addresses follow", line = "^%s*ADDR",
        stop = "message text follows" },
    { "Exchange 5.5", after = "did not reach the following recipient",
        line = "^%s*'?ADDR'? on %a" },
    { "Exchange 2003", after = "recipient%(?s?%)? could%s?not be reached",
        line = "^%s*'?ADDR'? on %d" },
    { "Exchange 2007", after = "delivery has failed to these recipients", line = "^%s*ADDR%s*$" },
    { "Exchange 2007, named", after = "delivery has failed to these recipients",
      line = "<?mailto:ADDR", stop = "diagnostic information" },
    { "IIS, Gmail", after = "delivery to the following recipients? failed", line = "^%s*ADDR%s*$" },
    { "Domino", after = "was not delivered to:", line = "^%s*ADDR%s*$", stop = "^%s*because" },
    { "Domino, one line", line = "%(ADDR%) not listed in" },
    { "Lotus Notes", after = "not listed in public name", line = "^%s*ADDR%s*$" },
    { "CompuServe", line = "receiver not found:%s*ADDR" },
    { "CompuServe, malformed", line = "invalid receiver address:%s*ADDR" },
    { "PMDF, Oracle, iPlanet", line = "recipient address:%s*ADDR" },
    { "GroupWise", after = "undeliverable to the following", line = "^%s+ADDR" },
    { "IMail", line = "unknown user:%s*ADDR" },
    { "IMail, full", line = "user mailbox exceeds allowed size:%s*ADDR" },
    { "IMail, aliased", line = "invalid final delivery userid:%s*ADDR" },
    { "SmarterMail", line = "^%s*failed recipient:%s*ADDR" },
    { "MailEnable", line = "^%s*recipient:%s*%[smtp:ADDR%]" },
    { "Mercury", line = "^%*%*%*+%s+ADDR" },
    { "MMDF", line = "not delivered to%s+['\"`]?ADDR['\"`]? for the following reason" },
    { "IronPort", line = "message to ADDR was undeliverable" },
    { "any, a list", after = "following recipient", line = "^%s*ADDR:?%s*$" },
    { "any, addresses", after = "following address", line = "^%s*ADDR:?%s*$" },
}

-- Asked only where no row knew anything: a quoted reply that says the recipient does not exist.
local last_resort = {
    { "a reply", line = "5%d%d[ -].-<ADDR>.*unknown" },
    { "a reply", line = "5%d%d[ -].-<ADDR>.*no such" },
    { "a reply", line = "5%d%d[ -].-<ADDR>.*not exist" },
    { "a reply", line = "5%d%d[ -].*unknown.-<ADDR>" },
    { "a reply", line = "5%d%d[ -].*no such.-<ADDR>" },
}

-- Here the report ends and the message that came back begins.
local end_of_report = {
    "^%-+ below this line is a copy", "^%-+ this is a copy of", "^%s*%-+ ?original message",
    "^%s*%-+ unsent message", "^%-+%s*returned message", "^%s*%-+ message header follows",
    "^|?%-+ message text follows", "^%-+ forwarded message", "^%-+ undelivered message",
    "^return%-path:", "^received: from ",
}

-- A text with one of these says that nothing has failed yet.
local not_yet = {
    "transient non%-fatal errors", "warning message only", "not yet been delivered",
    "do not need to resend", "no action is required on your part", "will continue to be attempted",
    "will keep trying", "delivery attempts will continue",
}

local function compile(list)
    for _, row in ipairs(list) do
        row.pattern = row.line:gsub("<?ADDR>?", function(found)
            local brackets = found == "<ADDR>" and { "<", ">" } or { "<?", ">?" }
            return brackets[1] .. "()" .. address .. "()" .. brackets[2]
        end)
    end
end
compile(rows)
compile(last_resort)

local function any(text, patterns)
    for _, pattern in ipairs(patterns) do
        if text:find(pattern) then return true end
    end
    return false
end

-- One address of a text, without what does not belong to it; nil if there is none.
local function clean(text)
    local pattern = "[^%s<>\"(),;:@]+@[%w.%-\x80-\xFF]*[%w\x80-\xFF]"
    local found = text and text:sub(1, 1000):gsub("%b()", ""):match(pattern)
    if not found or #found > 320 or found:find("%c") then return nil end
    return found
end

local function one_line(text)
    return text and text:sub(1, 300):gsub("%c", " "):match("^%s*(.*%S)") or nil
end

-- "rfc822; joe@example.com" of RFC 3464, section 2.1.2
local function typed_address(value)
    return value and clean(value:match("^%s*[%w-]+%s*;(.*)$") or value) or nil
end

local function recipient_of(fields)
    local status = (mime.field(fields, "status") or ""):match("^[245]%.%d+%.%d+")
    local action = (mime.field(fields, "action") or ""):match("^%a+")
    local original = typed_address(mime.field(fields, "original-recipient"))
    local final = typed_address(mime.field(fields, "final-recipient")) or original
    if not final then return nil end
    if not action and status then
        action = ({ ["2"] = "delivered", ["4"] = "delayed", ["5"] = "failed" })[status:sub(1, 1)]
    end
    if not action then return nil end               -- the group of the message itself
    return {
        address = final, original = original, action = action and action:lower(), status = status,
        diagnostic = one_line((mime.field(fields, "diagnostic-code") or ""):match(";%s*(.*)$")),
        source = "RFC 3464",
    }
end

-- The groups of fields, each up to an empty line, behind that of the message itself.
local function from_status(body, found)
    for fields in (body:gsub("\r\n", "\n") .. "\n\n"):gmatch("(.-)\n[ \t]*\n") do
        local recipient = #found < most_recipients and recipient_of(fields .. "\n")
        if recipient then found[#found + 1] = recipient end
    end
end

local status_types = {
    ["message/delivery-status"] = true, ["message/global-delivery-status"] = true,
}

local function from_report(parts)
    local found = {}
    for _, part in ipairs(parts) do
        if status_types[part.type] then from_status(part.body, found) end
    end
    return found
end

-- The text that the mail system wrote for people: the lines of the first text part, up to the copy
-- of the message.
local function report_lines(parts)
    for _, part in ipairs(parts) do
        if part.type == "text/plain" then
            local lines = {}
            for line in part.body:sub(1, longest_text):gsub("\r\n?", "\n"):gmatch("([^\n]*)\n?") do
                line = line:sub(1, longest_line)
                if any(line:lower(), end_of_report) then break end
                lines[#lines + 1] = line
            end
            return lines
        end
    end
    return {}
end

-- What is said of a recipient: its own line and the four behind it, but not those of the next one.
local function reason(lines, at)
    local text, status = nil, nil
    for i = at, math.min(at + 4, #lines) do
        if i > at and lines[i]:find("^%s*<?[^%s<>@]+@[^%s<>@]+>?:?%s*$") then break end
        status = status or lines[i]:match("%f[%w]([245]%.%d%d?%d?%.%d%d?%d?)%f[^%w]")
        if i > at and not text and lines[i]:find("%a") then text = lines[i] end
    end
    return one_line(text or lines[at]), status
end

local function from_rows(lines, list, found)
    local seen, open = {}, {}
    local action = any(table.concat(lines, " "):lower(), not_yet) and "delayed" or "failed"
    local function add(row, at, first, last)
        local whom = lines[at]:sub(first, last - 1)
        if seen[whom:lower()] or #found >= most_recipients then return end
        seen[whom:lower()] = true
        local diagnostic, status = reason(lines, at)
        found[#found + 1] = {
            address = whom, action = action, status = status, diagnostic = diagnostic,
            source = row[1],
        }
    end
    for i, line in ipairs(lines) do
        local lower = line:lower()
        for _, row in ipairs(list) do
            if row.after and lower:find(row.after) then open[row] = true end
            if row.stop and lower:find(row.stop) then open[row] = nil end
            if not row.after or open[row] then
                local first, last = lower:match(row.pattern)
                if first and (not row.next or (lines[i + 1] or ""):lower():find(row.next)) then
                    add(row, i, first, last)
                end
            end
        end
    end
    return found
end

-- Exim's, and what others took from it; only of the report itself, never of the copy.
local function from_head(message)
    local found = {}
    for _, value in ipairs(mime.fields((mime.split(message)), "x-failed-recipients")) do
        for item in value:gmatch("[^,]+") do
            local whom = #found < most_recipients and clean(item)
            if whom then
                found[#found + 1] = {
                    address = whom, action = "failed", source = "X-Failed-Recipients",
                }
            end
        end
    end
    return found
end

-- Every recipient that the message reports on: { {address, original, action, status, diagnostic,
-- source}.. }. action: failed, delayed, delivered, relayed or expanded; status: "5.1.1" or nil;
-- original: whom the sender wrote to, where that is told; source: how it was found.
function M.extract(message)
    message = message:sub(1, longest_message)
    local parts = mime.leaves(message)
    local found = from_report(parts)
    if #found > 0 then return found end
    found = from_head(message)
    if #found > 0 then return found end
    local lines = report_lines(parts)
    found = from_rows(lines, rows, {})
    if #found > 0 then return found end
    return from_rows(lines, last_resort, {})
end

-- Only those that failed for good.
function M.failed(message)
    local failed = {}
    for _, b in ipairs(M.extract(message)) do
        if b.action == "failed" then failed[#failed + 1] = b end
    end
    return failed
end

function M.data(r, s)
    local from = s:getfrom()
    if from ~= "" and from ~= "<>" then return nil end
    local message = s:getbody()
    for _, b in ipairs(M.extract(message)) do
        r:notice(("bounce: rcpt=%s original=%s action=%s status=%s by=%s"):format(
            b.address, b.original or "-", b.action or "-", b.status or "-", b.source))
    end
    return nil
end

if not ... then require("phases").serve(M) end
return M
