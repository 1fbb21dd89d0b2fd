-- mime: the fields and the parts of a message given as a string. A module for bounces.lua; it needs
-- no session (which has s:parts(), GMime's walk, for what policies ask of attachments).
--
--   local mime = require "mime"
--   local head, body = mime.split(message)
--   mime.field(head, "subject")
--   for _, part in ipairs(mime.leaves(message)) do print(part.type, #part.body) end
--
-- Wired: nothing to wire. Settings: none. Stores: nothing. Everything has a limit, since a message
-- is what a stranger wrote: 5 levels, 100 parts, 64 KiB of a part's head.
local headers = require "headers"

local M = {}
local deepest, most_parts, longest_head = 5, 100, 65536

-- Head (with its last line end) and body of a message or a part; line ends are LF or CRLF.
function M.split(text)
    if text:find("^\r?\n") then return "", (text:gsub("^\r?\n", "", 1)) end
    local _, last = text:find("\n\r?\n")
    if not last then return text, "" end
    local head = text:sub(1, last):gsub("\r?\n$", "")
    return head, text:sub(last + 1)
end

-- The values of a field in their order, unfolded.
function M.fields(head, name)
    local values = {}
    name = name:lower()
    head = head:sub(1, longest_head):gsub("\r\n", "\n"):gsub("\n[ \t]+", " ")
    for line in head:gmatch("[^\n]+") do
        local key, value = line:match("^([\33-\57\59-\126]+)[ \t]*:[ \t]*(.*)$")
        if key and key:lower() == name then
            values[#values + 1] = value:match("^(.*[^ \t])") or ""
        end
    end
    return values
end

function M.field(head, name)
    return M.fields(head, name)[1]
end

-- A parameter of a Content-Type or the like, or nil.
function M.parameter(value, name)
    for key, rest in (";" .. value):gmatch(";%s*([%w*_-]+)%s*=%s*([^;]*)") do
        if key:lower() == name then
            -- A quoted value may hold a ";", so it is looked for in the whole.
            if rest:sub(1, 1) ~= '"' then return rest:match("^(.*%S)") or "" end
            local from = value:find(rest, 1, true)
            return from and value:match('^"([^"]*)"', from)
        end
    end
    return nil
end

local function decoded(part)
    if part.encoding == "base64" then return headers.base64(part.body) or part.body end
    if part.encoding == "quoted-printable" then return headers.quoted_printable(part.body) end
    return part.body
end

local walk

-- What stands between the lines "--boundary", the last of which is "--boundary--".
local function sections(body, boundary)
    local found, at, from = {}, 1, nil
    local mark = "--" .. boundary
    while #found < most_parts do
        local first, last = body:find(mark, at, true)
        if not first then break end
        local close, line_end = body:match("^(%-?%-?)[ \t]*\r?()", last + 1)
        local whole = (first == 1 or body:byte(first - 1) == 10)
            and (line_end > #body or body:byte(line_end) == 10) and (close == "" or close == "--")
        at = last + 1
        if whole then
            if from then found[#found + 1] = body:sub(from, first - 1):gsub("\r?\n$", "") end
            from = line_end + 1
            if close == "--" then return found end
        end
    end
    if from then found[#found + 1] = body:sub(from) end
    return found
end

function walk(text, depth, out, inherited)
    local head, body = M.split(text)
    local value = M.field(head, "content-type") or inherited
    local type = (value:match("^%s*([^%s;]+)") or "text/plain"):lower()
    local boundary = type:find("^multipart/") and M.parameter(value, "boundary")
    if boundary and boundary ~= "" and depth < deepest then
        local default = type == "multipart/digest" and "message/rfc822" or "text/plain"
        for _, section in ipairs(sections(body, boundary)) do
            if #out >= most_parts then return end
            walk(section, depth + 1, out, default)
        end
        return
    end
    local encoding = (M.field(head, "content-transfer-encoding") or "7bit"):match("^[%w-]*"):lower()
    local part = { type = type, head = head, body = body, encoding = encoding }
    part.body = decoded(part)
    out[#out + 1] = part
end

-- The parts that hold no others, in order: { {type, head, body, encoding}.. }, bodies decoded. What
-- is attached as a message is one part: nobody looks into it.
function M.leaves(message)
    local out = {}
    walk(message, 0, out, "text/plain")
    return out
end

return M
