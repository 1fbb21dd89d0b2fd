-- senders: who a message is from, as a reader would say, and whether it came over a mailing list.
-- The order: Sender; Reply-To where it is not the envelope's sender; X-Sender; on a list Reply-To
-- or From; else the envelope's sender.
--
--   local who = require("senders").of(s)
--   who.address, who.source      --> "joe@example.com", "sender"
--   who.list, who.id, who.post   --> true, "dev.example.org", "dev@example.org"
--
-- A list says so by List-Id (RFC 2919), by List-Post, List-Unsubscribe and their like (RFC 2369),
-- by Mailing-List, or by Precedence list; who.bulk is true for those and for Precedence bulk. All
-- of these are fields of the message: anybody can write them. Good for sorting, not for trust.
--
-- Wired: alone by LuaMapHandler "^/smtp/(data)$" /path/senders.lua $1, or POLICY_CHAIN of
-- policy.lua: a line in the error log (level info) for each message.
-- Settings: none. Stores: nothing.
local M = {}

local rfc2369 = { "List-Help", "List-Unsubscribe", "List-Subscribe", "List-Post", "List-Owner",
    "List-Archive" }

local function address(s, name)
    local value = s:gethdr(name)
    local found = value and smtpd.checkemail(value)
    return found and found ~= "" and found or nil
end

-- "Developers <dev.example.org>" of RFC 2919, section 3
local function list_id(s)
    local value = s:gethdr("List-Id")
    if not value then return nil end
    return value:match("<%s*([^<>%s]+)%s*>%s*$") or value:match("^%s*([^%s<>]+)%s*$")
end

local function is_list(s)
    if s:gethdr("List-Id") or s:gethdr("Mailing-List") then return true end
    for _, name in ipairs(rfc2369) do
        if s:gethdr(name) then return true end
    end
    return false
end

-- The first that the order finds, and what it was.
local function first_of(s, from, bulk)
    local reply_to = address(s, "Reply-To")
    local sender = address(s, "Sender")
    if sender then return sender, "sender" end
    if reply_to and reply_to:lower() ~= from:lower() then return reply_to, "reply-to" end
    local x_sender = address(s, "X-Sender")
    if x_sender then return x_sender, "x-sender" end
    if bulk and reply_to then return reply_to, "reply-to" end
    local author = bulk and address(s, "From")
    if author then return author, "from" end
    return from, "envelope"
end

function M.of(s)
    local from = s:getfrom() or ""
    if from == "<>" then from = "" end
    local precedence = (s:gethdr("Precedence") or ""):lower():match("^%s*(%a+)")
    local list = is_list(s) or precedence == "list"
    local bulk = list or precedence == "bulk"
    local whom, source = first_of(s, from, bulk)
    return {
        address = whom, source = source, list = list, bulk = bulk, id = list_id(s),
        post = (s:gethdr("List-Post") or ""):lower():match("<%s*mailto:([^%s<>?]+)"),
    }
end

function M.data(r, s)
    local who = M.of(s)
    local list = who.list and (who.id or "yes") or "no"
    r:info(("sender: %s by=%s list=%s"):format(who.address, who.source, list))
    return nil
end

if not ... then require("phases").serve(M) end
return M
