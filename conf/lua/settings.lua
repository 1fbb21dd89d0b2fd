-- settings: what SetEnv says, in the virtual host or in <Location "/smtp/rcpt"> for one phase. A
-- setting that is no number where one is wanted is logged, and its default is used.
--
--   local delay = settings.number(r, "GREYLIST_DELAY", 300)
--
-- Wired: nothing to wire; needs mod_env. Stores: nothing.
local M = {}

function M.text(r, name, default)
    local value = r.subprocess_env[name]
    if value == nil or value == "" then return default end
    return value
end

-- A whole number, not below zero.
function M.number(r, name, default)
    local value = M.text(r, name)
    if not value then return default end
    local number = value:match("^%d+$") and math.tointeger(tonumber(value))
    if not number then
        r:err(("%s is '%s', which is no whole number; %d is used."):format(name, value, default))
    end
    return number or default
end

function M.flag(r, name, default)
    local value = M.text(r, name)
    if not value then return default end
    value = value:lower()
    return value == "on" or value == "yes" or value == "true" or value == "1"
end

-- What stands between blanks or commas, in its order.
function M.list(r, name, default)
    local items = {}
    for item in M.text(r, name, default or ""):gmatch("[^%s,]+") do items[#items + 1] = item end
    return items
end

-- The same in lower case, as an array and as a set.
function M.words(r, name, default)
    local words = {}
    for i, item in ipairs(M.list(r, name, default)) do
        words[i] = item:lower()
        words[words[i]] = true
    end
    return words
end

return M
