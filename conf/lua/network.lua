-- network: the network that an address lies in, as a short key: of IPv4 /24, say, since big senders
-- try again from the address next door, and of IPv6 /64, since one customer has at least that.
--
--   network.of("192.0.2.77", 24, 64)         --> "192.0.2.0/24"
--   network.of("2001:db8:1:2::7", 24, 64)    --> "2001:db8:1:2:0:0:0:0/64"
--
-- Wired: nothing to wire. Settings: none. Stores: nothing.
local M = {}

local function groups_v4(text)
    local a, b, c, d = text:match("^(%d+)%.(%d+)%.(%d+)%.(%d+)$")
    if not a then return nil end
    local groups = { tonumber(a), tonumber(b), tonumber(c), tonumber(d) }
    for _, group in ipairs(groups) do
        if group > 255 then return nil end
    end
    return groups
end

-- The groups between colons on one side of a "::"; an IPv4 address may be the last two.
local function groups_of(side)
    local groups = {}
    if side == "" then return groups end
    for item in (side .. ":"):gmatch("([^:]*):") do
        local v4 = item:find(".", 1, true) and groups_v4(item)
        if v4 then
            groups[#groups + 1] = v4[1] << 8 | v4[2]
            groups[#groups + 1] = v4[3] << 8 | v4[4]
        elseif item:match("^%x%x?%x?%x?$") then
            groups[#groups + 1] = tonumber(item, 16)
        else
            return nil
        end
    end
    return groups
end

local function groups_v6(text)
    text = text:gsub("%%.*$", "")
    local left, right = text:match("^(.-)::(.*)$")
    local groups, tail = groups_of(left or text), groups_of(right or "")
    if not groups or not tail then return nil end
    if not left then return #groups == 8 and groups or nil end
    if #groups + #tail > 7 then return nil end
    while #groups + #tail < 8 do groups[#groups + 1] = 0 end
    for _, group in ipairs(tail) do groups[#groups + 1] = group end
    return groups
end

-- Clears what is behind the first bits of groups of that width.
local function mask(groups, width, bits)
    local masked = {}
    for i, group in ipairs(groups) do
        local keep = math.max(0, math.min(width, bits - (i - 1) * width))
        masked[i] = group & ((1 << width) - (1 << (width - keep)))
    end
    return masked
end

local function is_mapped(groups)
    return groups[6] == 0xFFFF and table.concat(groups, ",", 1, 5) == "0,0,0,0,0"
end

-- The network of the given number of bits, by kind; what is no address is its own network.
function M.of(text, bits_v4, bits_v6)
    local v4 = groups_v4(text)
    local v6 = not v4 and groups_v6(text)
    if v6 and is_mapped(v6) then v4 = { v6[7] >> 8, v6[7] & 255, v6[8] >> 8, v6[8] & 255 } end
    if v4 then
        bits_v4 = math.min(bits_v4, 32)
        return table.concat(mask(v4, 8, bits_v4), ".") .. "/" .. bits_v4
    end
    if not v6 then return text end
    bits_v6 = math.min(bits_v6, 128)
    local hex = {}
    for i, group in ipairs(mask(v6, 16, bits_v6)) do hex[i] = ("%x"):format(group) end
    return table.concat(hex, ":") .. "/" .. bits_v6
end

return M
