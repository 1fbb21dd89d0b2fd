-- ratelimit: so many connections, messages and recipients in a period, for each client address
-- (IPv6: /64) or, where there is one, for each user with a password. The period slides: what was
-- taken in the last one counts as far as it reaches into the hour, say, that ends now.
--
-- Wired: LuaMapHandler "^/smtp/(connect|mail|rcpt)$" /path/ratelimit.lua $1, or POLICY_CHAIN of
-- policy.lua. Settings (SetEnv; in <Location "/smtp/mail"> for that phase only); 0 is no limit:
--   RATELIMIT_STORE        /var/lib/nssmtpd/ratelimit    a directory of httpd's user; see store.lua
--   RATELIMIT_PERIOD       3600                          seconds
--   RATELIMIT_CONNECTIONS  0                             beyond them 421 4.7.1 and close
--   RATELIMIT_MESSAGES     100                           MAIL commands; beyond it 451 4.7.1
--   RATELIMIT_RCPTS        500                           RCPT commands; beyond it 451 4.7.1
--   RATELIMIT_TRUSTED      off                           on: trusted clients are counted too
--   RATELIMIT_V4, RATELIMIT_V6   32, 64                  bits of the address that are one client
-- Stores: a counter for each client, kind and period, for two periods. Where the store fails nobody
-- is limited, and the error log says why.
local network = require "network"
local settings = require "settings"
local store = require "store"

local M = {}

-- How many there may be in the current period, when that many were in the last one, of which the
-- given number of seconds still counts.
local function room(limit, before, remaining, period)
    return limit - (before * remaining + period - 1) // period
end

-- Seconds until one more is allowed, if nobody takes any.
local function wait(limit, before, current, remaining, period)
    if current < limit then return remaining - (limit - current - 1) * period // before end
    return remaining + period - (limit - 1) * period // current
end

-- Takes one; true, or false and the seconds to wait; nil and why if the store fails.
function M.take(db, kind, key, limit, period)
    local window, remaining = db.now // period, period - db.now % period
    local function name(n) return period .. "\0" .. n .. "\0" .. key end
    local before, current, why
    before, why = db:count(kind, name(window - 1))
    if before then current, why = db:count(kind, name(window)) end
    if not current then return nil, why end
    local most, number = room(limit, before, remaining, period), current + 1
    if number <= most then
        -- Another child may have taken one since: the ticket says which this one really is.
        number, why = db:ticket(kind, name(window), 2 * period)
        if not number then return nil, why end
    end
    if number <= most then return true end
    return false, math.max(1, wait(limit, before, number - 1, remaining, period))
end

-- The same with what SetEnv says. what: the words for the log and the reply.
function M.check(r, kind, key, limit, what)
    if limit == 0 then return nil end
    local period = math.max(1, settings.number(r, "RATELIMIT_PERIOD", 3600))
    local db = store.open(r, settings.text(r, "RATELIMIT_STORE", "/var/lib/nssmtpd/ratelimit"))
    local taken, seconds = M.take(db, kind, key, limit, period)
    if taken == nil then
        r:err("ratelimit: nobody is limited, since the store fails: " .. tostring(seconds))
    elseif not taken then
        return ("4.7.1 Too many %s, please try again in %d seconds"):format(what, seconds)
    end
    return nil
end

function M.client(r)
    return network.of(r.useragent_ip, settings.number(r, "RATELIMIT_V4", 32),
        settings.number(r, "RATELIMIT_V6", 64))
end

local function limit(r, s, kind, setting, default, code)
    if not r.user and s:getflag() & smtpd.flag("local") ~= 0
        and not settings.flag(r, "RATELIMIT_TRUSTED", false) then return nil end
    local key = r.user and "user\0" .. r.user or "client\0" .. M.client(r)
    local text = M.check(r, kind, key, settings.number(r, setting, default), kind)
    return text and code .. " " .. text
end

function M.connect(r, s) return limit(r, s, "connections", "RATELIMIT_CONNECTIONS", 0, "421") end
function M.mail(r, s) return limit(r, s, "messages", "RATELIMIT_MESSAGES", 100, "451") end
function M.rcpt(r, s) return limit(r, s, "recipients", "RATELIMIT_RCPTS", 500, "451") end

if not ... then require("phases").serve(M) end
return M
