-- policy: a policy to begin with, to be copied and changed. It asks the policies that POLICY_CHAIN
-- names, has its own word in helo, rcpt and data, and writes down what the relay refuses.
--
-- Wired: LuaMapHandler "^/smtp/(\w+)$" /path/policy.lua $1
-- Settings (SetEnv, in the virtual host or in <Location "/smtp/rcpt"> and so on):
--   POLICY_CHAIN           none     modules of this folder, asked in this order: ratelimit greylist
--                                   senders bounces, or one of your own; the first reply counts
--   POLICY_REFUSED_RCPTS   none     recipients that get 550 5.1.1: whole, user@, or @domain
--   POLICY_REFUSED_FILES   none     endings of attached files that get 550 5.7.1: exe scr js vbs
--   POLICY_REFUSE          virus    what gets 550 5.7.1 if a scanner found it: virus spam; or none
--   POLICY_SCAN            on       ask the scanners about mail of those who are not trusted
--   POLICY_TAG             off      add X-Policy-Sender and X-Policy-List, remove those of others
--   POLICY_DUMP            none     a directory of httpd's user that gets a copy of every message
-- Stores: nothing but those copies, one new file for each message, named by its SMTP_ID.
local headers = require "headers"
local phases = require "phases"
local senders = require "senders"
local settings = require "settings"

local M = {}

local function has(flags, name)
    return flags & smtpd.flag(name) ~= 0
end

local function is_trusted(r, s)
    return r.user ~= nil or has(s:getflag(), "local")
end

local function printable(text)
    return (text:gsub("%c+", " "):sub(1, 300))
end

-- The first reply of the chain.
local function ask_chain(name, r, s)
    for _, module in ipairs(settings.words(r, "POLICY_CHAIN")) do
        local reply = phases.ask(require(module), name, r, s)
        if reply then return reply end
    end
    return nil
end

-- A module that is missing or does not compile shows now, not with the first mail.
function M.init(r)
    local chain = settings.words(r, "POLICY_CHAIN")
    ask_chain("init", r, nil)
    r:notice("policy: asked in turn: " .. (#chain > 0 and table.concat(chain, ", ") or "none"))
end

function M.connect(r, s) return ask_chain("connect", r, s) end
function M.auth(r, s) return ask_chain("auth", r, s) end
function M.mail(r, s) return ask_chain("mail", r, s) end

-- Nobody but us has our name.
function M.helo(r, s)
    local helo = (s:getline() or ""):match("^%a+%s+(%S+)")
    if helo and r.hostname and helo:lower() == r.hostname:lower() and not is_trusted(r, s) then
        return "550 5.7.1 That is our name, please say yours"
    end
    return ask_chain("helo", r, s)
end

local function is_refused(r, rcpt)
    local words = settings.words(r, "POLICY_REFUSED_RCPTS")
    local user, domain = rcpt:lower():match("^(.*)@(.-)$")
    return words[rcpt:lower()] or (user and (words[user .. "@"] or words["@" .. domain]))
end

function M.rcpt(r, s)
    local rcpt = s:getrcpt(-1).address
    if is_refused(r, rcpt) then return "550 5.1.1 No such recipient here" end
    local reply = ask_chain("rcpt", r, s)
    if reply then return reply end
    if settings.flag(r, "POLICY_SCAN", true) and not is_trusted(r, s) then
        s:setflag("viruscheck")
        s:setflag(-1, "spamcheck")
    end
    return nil
end

-- What the scanners found: refused only where it holds for every recipient.
local function judged(r, s)
    local refuse = settings.words(r, "POLICY_REFUSE", "virus")
    if refuse.virus and has(s:getflag(), "gotvirus") then
        return "550 5.7.1 The message has a virus"
    end
    local all_spam = true
    local rcpts = s:getrcpt()
    for _, rcpt in ipairs(rcpts) do all_spam = all_spam and has(rcpt.flags, "gotspam") end
    if refuse.spam and #rcpts > 0 and all_spam then
        return "550 5.7.1 The message looks like spam"
    end
    return nil
end

-- The names of attached files, and the first of them that nobody wants.
local function attached(r, s)
    local names, unwanted, refused = {}, nil, settings.words(r, "POLICY_REFUSED_FILES")
    for part in s:parts() do
        if part.name and part.name ~= "" then
            names[#names + 1] = printable(headers.decode(part.name))
            local ending = names[#names]:lower():match("%.([^.%s]+)[%s.]*$")
            if ending and refused[ending] then unwanted = unwanted or names[#names] end
        end
    end
    return names, unwanted
end

local function set_tag(s, name, value)
    if s:gethdr(name) then s:delhdr(name) end
    if value and value ~= "" then s:addhdr(name, headers.encode(value):gsub("\r\n", "")) end
end

-- The copy's name is ours: an SMTP_ID has letters, digits and hyphens; anything else is hashed.
local function dump(r, s, directory)
    local id = r.subprocess_env.SMTP_ID or ""
    if not id:find("^%w[%w_-]*$") then id = r:sha1(id .. r:clock()) end
    local ok, why = s:dump(directory .. "/" .. id .. ".eml")
    if not ok then r:err("policy: no copy of the message: " .. tostring(why)) end
end

function M.data(r, s)
    local reply = ask_chain("data", r, s) or judged(r, s)
    if reply then return reply end
    local names, unwanted = attached(r, s)
    if unwanted then return "550 5.7.1 Files of that kind are not accepted" end
    local who = senders.of(s)
    if settings.flag(r, "POLICY_TAG", false) then
        set_tag(s, "X-Policy-Sender", who.address)
        set_tag(s, "X-Policy-List", who.list and (who.id or "yes") or nil)
    end
    local directory = settings.text(r, "POLICY_DUMP")
    if directory then dump(r, s, directory) end
    r:info(("policy: id=%s sender=%s list=%s subject=%q files=%q"):format(
        r.subprocess_env.SMTP_ID or "-", who.address, who.list and (who.id or "yes") or "no",
        printable(headers.decode(s:gethdr("Subject") or "")), table.concat(names, ", ")))
    return nil
end

-- The relay refused something, or could not be reached: getline is the step and what it said, as in
-- "RCPT: 550 5.1.1 No such user". The client hears that too, since nothing else is said here.
function M.error(r, s)
    local line = printable(s:getline() or "")
    local newest = s:getrcpt(-1)
    if newest and line:find("^RCPT: 550") then
        r:notice(("policy: the relay has no recipient %s: %s"):format(newest.address, line))
    else
        r:warn("policy: the relay did not take it: " .. line)
    end
    return ask_chain("error", r, s)
end

if not ... then phases.serve(M) end
return M
