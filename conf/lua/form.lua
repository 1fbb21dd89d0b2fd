-- form: a web page with a form, whose content goes by mail to a fixed recipient, over the relay of
-- an SMTP virtual host of the same httpd. Without scripts in the page; what a visitor writes is
-- never part of a field's name, an address or the page but escaped.
--
-- Wired, in the virtual host of the web site:
--   LuaMapHandler "^/contact$" /path/form.lua handle
--   <Location "/contact">
--       SetEnv FORM_TO office@example.com
--   </Location>
-- Settings (SetEnv):
--   FORM_TO        none, and needed       who gets the mail; several with blanks between
--   FORM_FROM      the first of FORM_TO   the envelope's sender, and the address of From
--   FORM_TITLE     Contact                the page's heading, and what Subject begins with
--   FORM_HOST      the first SMTP host    "name:port" of the SMTP host whose relay is used
--   FORM_ORIGIN    as the request says    scheme://host of the page, behind a proxy that changes it
--   FORM_MAX       65536                  octets of a filled in form
--   FORM_RATE      0                      messages of one address in RATELIMIT_PERIOD
-- A form is taken from our own page only: by Origin, or where a browser sends none, by Referer.
-- Stores: nothing (with FORM_RATE what ratelimit.lua does). A message that could not be sent is
-- shown again, and the error log says why.
local headers = require "headers"
local ratelimit = require "ratelimit"
local settings = require "settings"

local M = {}

-- name, label, type, longest value in characters
local fields = {
    { name = "name", label = "Your name", type = "text", longest = 100, complete = "name" },
    { name = "email", label = "Your e-mail address", type = "email", longest = 254,
      complete = "email" },
    { name = "subject", label = "Subject", type = "text", longest = 200, complete = "off" },
    { name = "message", label = "Message", type = "area", longest = 20000 },
}

local style = [[
:root { color-scheme: light dark; }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 38rem; margin: 2rem auto; padding: 0 1rem; }
label { display: block; margin-top: 1rem; font-weight: 600; }
input, textarea { box-sizing: border-box; width: 100%; padding: .5rem; font: inherit;
  border: 1px solid #888; border-radius: 4px; }
textarea { min-height: 12rem; resize: vertical; }
button { margin-top: 1rem; padding: .5rem 1.5rem; font: inherit; border: 1px solid #1b5e9e;
  border-radius: 4px; background: #1b5e9e; color: #fff; cursor: pointer; }
.note { padding: .5rem 1rem; border-left: 4px solid #1b5e9e; background: #1b5e9e22; }
.bad { border-color: #b3261e; background: #b3261e22; }
.trap { position: absolute; left: -99rem; }]]

local function title_of(r) return settings.text(r, "FORM_TITLE", "Contact") end

local function page(r, status, body)
    local out = r.headers_out
    r.status = status
    r.content_type = "text/html; charset=utf-8"
    out["Content-Security-Policy"] = "default-src 'none'; style-src 'unsafe-inline'; "
        .. "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    out["X-Content-Type-Options"] = "nosniff"
    out["Referrer-Policy"] = "same-origin"
    out["Cache-Control"] = "no-store"
    local title = r:escape_html(title_of(r))
    r:puts("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n",
        "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n",
        "<title>", title, "</title>\n<style>\n", style, "\n</style>\n</head>\n",
        "<body>\n<h1>", title, "</h1>\n", body, "</body>\n</html>\n")
    return apache2.OK
end

local function note(r, text, is_bad)
    return ("<p class=\"note%s\" role=\"%s\">%s</p>\n"):format(
        is_bad and " bad" or "", is_bad and "alert" or "status", r:escape_html(text))
end

local function control(r, field, value)
    local attributes = ("id=\"%s\" name=\"%s\" maxlength=\"%d\" required"):format(
        field.name, field.name, field.longest)
    value = r:escape_html(value)
    if field.type == "area" then
        return ("<textarea %s>\n%s</textarea>\n"):format(attributes, value)
    end
    return ("<input type=\"%s\" %s autocomplete=\"%s\" value=\"%s\">\n"):format(
        field.type, attributes, field.complete, value)
end

local function form(r, values)
    local out = { "<form method=\"post\" accept-charset=\"utf-8\">\n" }
    for _, field in ipairs(fields) do
        out[#out + 1] = ("<label for=\"%s\">%s</label>\n"):format(field.name, field.label)
        out[#out + 1] = control(r, field, values[field.name] or "")
    end
    -- People do not see this one; programs that fill in everything do.
    out[#out + 1] = "<p class=\"trap\" aria-hidden=\"true\">"
        .. "<label for=\"website\">Leave this empty</label>\n"
        .. "<input id=\"website\" name=\"website\" tabindex=\"-1\" autocomplete=\"off\"></p>\n"
    out[#out + 1] = "<button>Send</button>\n</form>\n"
    return table.concat(out)
end

local function origin_of(url)
    local scheme, host = (url or ""):lower():match("^(https?)://([^/?#]+)")
    if not scheme then return nil end
    return scheme .. "://" .. host:gsub(scheme == "https" and ":443$" or ":80$", "")
end

local function is_ours(r)
    local request = r.headers_in
    local own = settings.text(r, "FORM_ORIGIN")
        or (r.is_https and "https://" or "http://") .. (request["Host"] or "")
    local said = request["Origin"]
    if not said or said == "" then said = request["Referer"] end
    return origin_of(said) ~= nil and origin_of(said) == origin_of(own)
end

-- The values without blanks around them and without control characters, but lines in the message.
local function tidy(given)
    local values = {}
    for _, field in ipairs(fields) do
        local value = (given[field.name] or ""):gsub("\r\n?", "\n")
        value = field.type == "area" and value:gsub("[^\n\t\x20-\x7E\x80-\xFF]", " ")
            or value:gsub("%c", " ")
        values[field.name] = value:match("^%s*(.*%S)") or ""
    end
    return values
end

local function is_address(text)
    return text:find("^[%w.!#$%%&'*+/=?^_`{|}~-]+@[%w][%w.-]*%w$") and not text:find("..", 1, true)
        and smtpd.checkemail(text) == text
end

-- What is wrong with the form, as a sentence for its visitor; nil if nothing is.
local function complaint(values)
    for _, field in ipairs(fields) do
        local length = utf8.len(values[field.name])
        if not length then return "The form is not in UTF-8. Please use another browser." end
        if length == 0 then return ("Please fill in: %s."):format(field.label) end
        if length > field.longest then
            return ("%s: at most %d characters, please."):format(field.label, field.longest)
        end
    end
    if not is_address(values.email) then return "That is no e-mail address we could answer to." end
    return nil
end

-- A name as it stands before an address (RFC 5322, section 3.2.5).
local function phrase(name)
    local encoded = headers.encode(name)
    if encoded ~= name then return encoded end
    return '"' .. name:gsub('[\\"]', "\\%0") .. '"'
end

local function wrapped(base64)
    return (base64:gsub(("."):rep(76), "%0\r\n"))
end

-- The mail. Values hold no control characters but the message's line ends, and those are encoded.
local function message(r, values, from, to)
    local text = values.message .. ("\n\n-- \nSent with the form %s by %s <%s>, from %s\n"):format(
        r.uri, values.name, values.email, r.useragent_ip)
    return table.concat {
        "From: ", phrase(values.name), "\r\n <", from, ">\r\n",
        "Reply-To: <", values.email, ">\r\n",
        "To: <", table.concat(to, ">,\r\n <"), ">\r\n",
        "Subject: ", headers.encode(title_of(r) .. ": " .. values.subject), "\r\n",
        "MIME-Version: 1.0\r\n",
        "Content-Type: text/plain; charset=utf-8\r\n",
        "Content-Transfer-Encoding: base64\r\n\r\n",
        wrapped(headers.to_base64((text:gsub("\n", "\r\n")))), "\r\n",
    }
end

local refused = "The mail server refused your message, so it was not sent. "
    .. "Please reach us in another way."
local deferred = "Your message could not be sent, since the mail server does not take it at the "
    .. "moment. Please try again later."

-- true, or false and the page's sentence for a visitor whose mail was not sent.
local function send(r, values)
    local to = settings.list(r, "FORM_TO")
    local from = settings.text(r, "FORM_FROM", to[1])
    local host = settings.text(r, "FORM_HOST")
    local ok, why, detail
    if host then ok, why = smtpd.use(host) end
    if not host or ok then ok, why, detail = smtpd.send(from, to, message(r, values, from, to)) end
    if ok then return true end
    r:err(("form: the mail of %s was not sent: %s"):format(values.email, tostring(why)))
    local code = type(detail) == "table" and tonumber(detail.code) or 0
    return false, code >= 500 and refused or deferred
end

-- Back to the page by GET, so that reloading it sends nothing again.
local function done(r)
    local path = r.uri:gsub("^/+", "/"):gsub("[^%w/._~-]", function(octet)
        return ("%%%02X"):format(octet:byte())
    end)
    r.headers_out["Location"] = path .. "?sent"
    return 303
end

local function post(r)
    local longest = settings.number(r, "FORM_MAX", 65536)
    local kind = (r.headers_in["Content-Type"] or ""):lower()
    if not is_ours(r) then
        return page(r, 403, note(r, "This form can only be sent from its own page.", true)
            .. form(r, {}))
    end
    if not kind:find("^application/x%-www%-form%-urlencoded") then
        return page(r, 415, note(r, "This is not how a form is sent.", true) .. form(r, {}))
    end
    if (tonumber(r.headers_in["Content-Length"]) or 0) > longest then
        return page(r, 413, note(r, "Your message is too long.", true) .. form(r, {}))
    end
    local given = r:parsebody(longest)
    local values = tidy(given)
    local wrong = complaint(values)
    if wrong then return page(r, 400, note(r, wrong, true) .. form(r, values)) end
    if (given.website or "") ~= "" then return done(r) end
    local rate = settings.number(r, "FORM_RATE", 0)
    if ratelimit.check(r, "form", ratelimit.client(r), rate, "messages") then
        return page(r, 429, note(r, "You sent many messages already. Please try again later.", true)
            .. form(r, values))
    end
    local sent, why = send(r, values)
    if sent then return done(r) end
    return page(r, 503, note(r, why, true) .. form(r, values))
end

function M.handle(r)
    if #settings.list(r, "FORM_TO") == 0 then
        r:err("form: FORM_TO is not set for " .. r.uri .. ": nobody would get the mail")
        return page(r, 500, note(r, "This form is not set up yet.", true))
    end
    if r.method == "POST" then return post(r) end
    if r.method ~= "GET" and r.method ~= "HEAD" then
        r.headers_out["Allow"] = "GET, HEAD, POST"
        return 405
    end
    if r.args == "sent" then
        return page(r, 200, note(r, "Thank you. Your message was sent.", false))
    end
    return page(r, 200, form(r, {}))
end

if not ... then handle = M.handle end
return M
