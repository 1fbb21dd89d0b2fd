-- greylist: the first mail of a stranger is asked to come again (RFC 6647). Whoever is a mail
-- server does; much of what only sends spam does not. Known then are the client's network (/24,
-- /64), sender and recipient together; a network that came again for several of them need not do so
-- any more.
--
-- Wired: LuaMapHandler "^/smtp/(rcpt)$" /path/greylist.lua $1, or POLICY_CHAIN of policy.lua.
-- Trusted clients and users with a password are never asked; <If> around SetEnv GREYLIST off
-- exempts others.
-- Settings (SetEnv), times in seconds:
--   GREYLIST            on                            off: say nothing
--   GREYLIST_STORE      /var/lib/nssmtpd/greylist     a directory of httpd's user; see store.lua
--   GREYLIST_DELAY      300                           how soon to come again, at the earliest
--   GREYLIST_WINDOW     172800                        and at the latest: 2 days
--   GREYLIST_LIFETIME   3110400                       known for 36 days after the last mail
--   GREYLIST_CLIENTS    5                             mails that make a network known; 0: never
--   GREYLIST_V4, GREYLIST_V6   24, 64                 bits of a network
--   GREYLIST_EXEMPT     postmaster@ abuse@            recipients: whole, user@, or @domain
-- Stores: a record for each three of them, with the times of the first mail and of the first one
-- let through, and one for each network, with a count. Where the store fails mail passes, and the
-- error log says why.
local network = require "network"
local settings = require "settings"
local store = require "store"

local M = {}
local renew_after = 86400

-- A sender as it is the next time too: without the parts that mailing programs change for each
-- mail.
function M.stable(sender)
    sender = sender:lower()
    local user, domain = sender:match("^(.*)@(.-)$")
    if not user then return sender end
    user = user:gsub("^prvs=%w+=", ""):gsub("^btv1==%w+==", "")          -- BATV
    user = user:gsub("^srs[01][=+-].*$", "srs")                          -- SRS
    user = user:gsub("%+.*$", ""):gsub("%f[%w]%x*%d%x*%f[%W]", "#")      -- VERP and serial numbers
    return user .. "@" .. domain
end

local function is_exempt(r, rcpt)
    local words = settings.words(r, "GREYLIST_EXEMPT", "postmaster@ abuse@")
    local user, domain = rcpt:match("^(.*)@(.-)$")
    return words[rcpt] or words[(user or rcpt) .. "@"] or (domain and words["@" .. domain])
end

local function failed(r, why)
    r:err("greylist: mail passes unasked, since the store fails: " .. tostring(why))
end

-- Whether the network is known, which then stays so.
local function knows_network(db, net, config)
    if config.clients == 0 then return false end
    local record, ends = db:get("network", net)
    local count = record and tonumber(record[1]) or 0
    if count < config.clients then return false end
    if ends - db.now < config.lifetime - renew_after then
        db:put("network", net, config.lifetime, count)
    end
    return true
end

local function count_network(db, net, config)
    local record = db:get("network", net)
    local count = record and math.tointeger(tonumber(record[1])) or 0
    if config.clients > 0 then db:put("network", net, config.lifetime, count + 1) end
end

-- Seconds to wait, 0 to let the mail pass; nil and why if the store fails.
function M.wait(db, net, sender, rcpt, config)
    if knows_network(db, net, config) then return 0 end
    local key = table.concat({ net, M.stable(sender), rcpt }, "\0")
    local record, ends = db:get("triplet", key)
    local first, passed = table.unpack(record or {})
    first, passed = math.tointeger(tonumber(first)), math.tointeger(tonumber(passed))
    if not first or not passed then
        if not record and ends then return nil, ends end
        local ok, why = db:put("triplet", key, config.delay + config.window, db.now, 0)
        return ok and config.delay, why
    end
    if passed == 0 then
        if db.now < first + config.delay then return first + config.delay - db.now end
        count_network(db, net, config)
    elseif ends - db.now >= config.lifetime - renew_after then
        return 0
    end
    local ok, why = db:put("triplet", key, config.lifetime, first, passed > 0 and passed or db.now)
    return ok and 0, why
end

function M.rcpt(r, s)
    if not settings.flag(r, "GREYLIST", true) or r.user then return nil end
    if s:getflag() & smtpd.flag("local") ~= 0 then return nil end
    local rcpt = s:getrcpt(-1).address:lower()
    if is_exempt(r, rcpt) then return nil end
    local config = {
        delay = settings.number(r, "GREYLIST_DELAY", 300),
        window = settings.number(r, "GREYLIST_WINDOW", 172800),
        lifetime = settings.number(r, "GREYLIST_LIFETIME", 3110400),
        clients = settings.number(r, "GREYLIST_CLIENTS", 5),
    }
    local net = network.of(r.useragent_ip, settings.number(r, "GREYLIST_V4", 24),
        settings.number(r, "GREYLIST_V6", 64))
    local db = store.open(r, settings.text(r, "GREYLIST_STORE", "/var/lib/nssmtpd/greylist"))
    local wait, why = M.wait(db, net, s:getfrom(), rcpt, config)
    if not wait then failed(r, why) end
    if not wait or wait == 0 then return nil end
    return ("451 4.7.1 Greylisted, please try again in %d seconds"):format(wait)
end

if not ... then require("phases").serve(M) end
return M
