-- A value as JSON, octets above 126 as \u00XX, for the scripts of suites; `local json = dofile(..)`.

local function json(v)
    if type(v) == "string" then
        return '"' .. v:gsub('[^%w ._:@-]', function(c) return ("\\u%04x"):format(c:byte()) end) .. '"'
    elseif type(v) == "table" then
        local rows = {}
        if next(v) == nil or v[1] ~= nil then
            for _, x in ipairs(v) do rows[#rows + 1] = json(x) end
            return "[" .. table.concat(rows, ",") .. "]"
        end
        for k, x in pairs(v) do rows[#rows + 1] = json(tostring(k)) .. ":" .. json(x) end
        return "{" .. table.concat(rows, ",") .. "}"
    elseif type(v) == "nil" then
        return "null"
    elseif type(v) == "function" then
        return '"function"'
    end
    return tostring(v)
end

return json
