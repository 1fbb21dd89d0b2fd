-- headers: encoded words of header fields (RFC 2047) to UTF-8 and back, and the two encodings they
-- use, which MIME bodies have too. A module: it needs no session, and works in plain Lua as well.
--
--   local headers = require "headers"
--   headers.decode("=?iso-8859-1?Q?caf=E9?=")   --> "café"
--   headers.encode("Grüße")                     --> "=?utf-8?B?R3LDvMOfZQ==?="
--
-- Wired: nothing to wire; policy.lua, bounces.lua and form.lua use it. Settings: none.
-- Stores: nothing.
--
-- What cannot be decoded stays as it stood: an unknown charset, bad base64, octets that the charset
-- does not have. Decoded control characters become blanks, so that nobody's Subject brings line
-- ends into a log, or escape sequences into a terminal (RFC 2047, section 5).
local M = {}

-- The upper halves of the single-octet charsets, in UTF-8, from octet 0x80 or 0xA0 on; "·" at a
-- place that the charset leaves empty, "\0" where it is a middle dot.
local latin1 = "\u{A0}¡¢£¤¥¦§¨©ª«¬\u{AD}®¯°±²³´µ¶\0¸¹º»¼½¾¿"
    .. "ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÐÑÒÓÔÕÖ×ØÙÚÛÜÝÞßàáâãäåæçèéêëìíîïðñòóôõö÷øùúûüýþÿ"
local latin2 = "\u{A0}Ą˘Ł¤ĽŚ§¨ŠŞŤŹ\u{AD}ŽŻ°ą˛ł´ľśˇ¸šşťź˝žż"
    .. "ŔÁÂĂÄĹĆÇČÉĘËĚÍÎĎĐŃŇÓÔŐÖ×ŘŮÚŰÜÝŢßŕáâăäĺćçčéęëěíîďđńňóôőö÷řůúűüýţ˙"
local windows = "€·‚ƒ„…†‡ˆ‰Š‹Œ·Ž··‘’“”•–—˜™š›œ·žŸ"

local function upper_half(text)
    local first = 0x100 - utf8.len(text)
    local map, octet = {}, first
    for _, code in utf8.codes(text) do
        local char = utf8.char(code)
        map[string.char(octet)] = char == "\0" and "·" or char ~= "·" and char or nil
        octet = octet + 1
    end
    return map
end

local latin9 = upper_half(latin1)
for octet, char in pairs {
    [0xA4] = "€", [0xA6] = "Š", [0xA8] = "š", [0xB4] = "Ž", [0xB8] = "ž", [0xBC] = "Œ",
    [0xBD] = "œ", [0xBE] = "Ÿ",
} do latin9[string.char(octet)] = char end
local windows_1252 = upper_half(windows .. latin1)

-- "iso-8859-1" is read as windows-1252, which has characters where that has control codes.
local charsets = {
    ["us-ascii"] = {}, ["ascii"] = {},
    ["iso-8859-1"] = windows_1252, ["latin1"] = windows_1252,
    ["windows-1252"] = windows_1252, ["cp1252"] = windows_1252,
    ["iso-8859-2"] = upper_half(latin2), ["latin2"] = upper_half(latin2),
    ["iso-8859-15"] = latin9, ["latin9"] = latin9, ["latin-9"] = latin9,
}

-- Octets of a charset as UTF-8; nil if the charset is unknown, or does not have one of the octets.
function M.to_utf8(octets, charset)
    charset = charset:lower():gsub("%*.*$", "")             -- RFC 2231: a language may follow
    if charset == "utf-8" or charset == "utf8" then
        -- utf8.len lets surrogates pass, which are no characters (RFC 3629).
        return utf8.len(octets) and not octets:find("\xED[\xA0-\xBF]") and octets or nil
    end
    local map = charsets[charset]
    if not map then return nil end
    local ok = true
    local text = octets:gsub("[\x80-\xFF]", function(octet)
        ok = ok and map[octet] ~= nil
        return map[octet]
    end)
    return ok and text or nil
end

local alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
local value_of = {}
for i = 1, 64 do value_of[alphabet:byte(i)] = i - 1 end

-- Base64 to octets, with or without padding, blanks and line ends; nil if it is none.
function M.base64(text)
    local digits, padding = text:gsub("%s+", ""):match("^([%w+/]*)(=*)$")
    if not digits or #digits % 4 == 1 or #padding > 2 then return nil end
    if padding ~= "" and (#digits + #padding) % 4 ~= 0 then return nil end
    local out = {}
    for i = 1, #digits, 4 do
        local a, b, c, d = digits:byte(i, i + 3)
        local word = value_of[a] << 18 | value_of[b] << 12
            | (c and value_of[c] << 6 or 0) | (d and value_of[d] or 0)
        out[#out + 1] = string.pack(">I3", word):sub(1, d and 3 or c and 2 or 1)
    end
    return table.concat(out)
end

function M.to_base64(octets)
    local out = {}
    for i = 1, #octets, 3 do
        local a, b, c = octets:byte(i, i + 2)
        local word = a << 16 | (b or 0) << 8 | (c or 0)
        local four = {}
        for shift = 18, 0, -6 do
            local digit = (word >> shift & 63) + 1
            four[#four + 1] = alphabet:sub(digit, digit)
        end
        out[#out + 1] = table.concat(four, "", 1, c and 4 or b and 3 or 2)
            .. (c and "" or b and "=" or "==")
    end
    return table.concat(out)
end

local function octet(hex)
    return string.char(tonumber(hex, 16))
end

-- Quoted-printable to octets (RFC 2045, section 6.7); a "=" that means nothing stays.
function M.quoted_printable(text)
    return (text:gsub("%f[ \t][ \t]+(\r?\n)", "%1"):gsub("=\r?\n", ""):gsub("=(%x%x)", octet))
end

-- The Q encoding of words; nil if a "=" has no two hexadecimal digits behind it.
local function q_word(text)
    if text:gsub("=%x%x", ""):find("=", 1, true) then return nil end
    return (text:gsub("_", " "):gsub("=(%x%x)", octet))
end

local function word_octets(encoding, text)
    if encoding == "b" then return M.base64(text) end
    return q_word(text)
end

-- The last word from i on that has the charset of i, and the octets of all of them.
local function joined(run, i)
    local last, octets = i, {}
    while run[last] and run[last].octets and run[last].charset == run[i].charset do
        octets[#octets + 1] = run[last].octets
        last = last + 1
    end
    return last - 1, table.concat(octets)
end

-- A run of words with only blanks between them: { {raw, gap, charset, octets}.. }. Octets of words
-- of one charset are put together first, since many senders cut within a character; where that is
-- no text, each of them is tried alone.
local function run_text(run)
    local out, i, alone, before = {}, 1, 0, false
    while i <= #run do
        local last, octets, text = i, run[i].octets, nil
        if octets and i > alone then last, octets = joined(run, i) end
        text = octets and M.to_utf8(octets, run[i].charset)
        if octets and not text and last > i then
            alone, last = last, i
            text = M.to_utf8(run[i].octets, run[i].charset)
        end
        if not (text and before) then out[#out + 1] = run[i].gap end
        out[#out + 1] = text and text:gsub("%c", " "):gsub("\xC2[\x80-\x9F]", " ") or run[i].raw
        before = text ~= nil
        i = last + 1
    end
    return table.concat(out)
end

local encoded_word = "=%?([^%s?=]+)%?([BbQq])%?([^%s?]*)%?="

-- The field's value as UTF-8: unfolded, every encoded word decoded, the blanks between two of them
-- gone. Words are found where they touch other text too, since many senders write them so.
function M.decode(value)
    value = value:gsub("\r?\n([ \t])", "%1")
    local out, run, at = {}, {}, 1
    local function flush()
        if #run > 0 then out[#out + 1] = run_text(run) end
        run = {}
    end
    while true do
        local first, last, charset, encoding, text = value:find(encoded_word, at)
        if not first then break end
        local gap = value:sub(at, first - 1)
        if #run == 0 or gap:find("[^ \t]") then
            flush()
            out[#out + 1] = gap
            gap = ""
        end
        run[#run + 1] = {
            raw = value:sub(first, last), gap = gap, charset = charset:lower(),
            octets = word_octets(encoding:lower(), text),
        }
        at = last + 1
    end
    flush()
    out[#out + 1] = value:sub(at)
    return table.concat(out)
end

-- UTF-8 as a field's value: as it is if it is plain ASCII, else as encoded words of 75 octets at
-- most, folded (RFC 2047, section 2). Control characters become blanks: no value ends its line.
function M.encode(text)
    text = text:gsub("%c", " ")
    local is_plain = not text:find("[\x80-\xFF]") and not text:find("=?", 1, true)
    if is_plain and #text <= 900 then return text end
    local words, chunk = {}, ""
    -- 45 octets are 60 digits; with "=?utf-8?B?" and "?=" that is a word of 72.
    for char in text:gmatch(utf8.charpattern) do
        if #chunk + #char > 45 then
            words[#words + 1] = chunk
            chunk = ""
        end
        chunk = chunk .. char
    end
    words[#words + 1] = chunk
    for i, word in ipairs(words) do words[i] = "=?utf-8?B?" .. M.to_base64(word) .. "?=" end
    return table.concat(words, "\r\n ")
end

return M
