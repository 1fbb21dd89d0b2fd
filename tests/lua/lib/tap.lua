-- Test lines as prove reads them. Everything that fails says what it got; a test that dies shows up
-- as a plan that was not kept.
local M = {}
local run, failed = 0, 0

local function shown(value)
    if type(value) ~= "table" then return type(value) == "string" and ("%q"):format(value)
        or tostring(value) end
    local keys, out = {}, {}
    for key in pairs(value) do keys[#keys + 1] = key end
    table.sort(keys, function(a, b) return tostring(a) < tostring(b) end)
    for _, key in ipairs(keys) do out[#out + 1] = tostring(key) .. "=" .. shown(value[key]) end
    return "{" .. table.concat(out, ", ") .. "}"
end

function M.ok(condition, name, detail)
    run = run + 1
    print((condition and "ok " or "not ok ") .. run .. " - " .. name:gsub("[\r\n#]", " "))
    if condition then return true end
    failed = failed + 1
    if detail then print("# " .. detail:gsub("\n", "\n# ")) end
    return false
end

-- Equal, tables by what is in them.
function M.is(got, want, name)
    return M.ok(shown(got) == shown(want), name, "got  " .. shown(got) .. "\nwant " .. shown(want))
end

function M.like(got, pattern, name)
    return M.ok(type(got) == "string" and got:find(pattern) ~= nil, name, "got  " .. shown(got)
        .. "\nwant " .. pattern)
end

function M.done()
    print("1.." .. run)
    os.exit(failed == 0, true)         -- true: what is to be removed is removed
end

return M
