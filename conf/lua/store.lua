-- store: what policies remember, in small files, shared by all children of httpd and kept over
-- restarts. (mod_lua's ivm_get and ivm_set are each child's own, and forgotten when it ends.) Of
-- records a reader sees the old or the new one, never half of one: they are written beside and
-- renamed. Of counters none is lost: each count is one append of eleven octets, and where it ended
-- tells which it was. No locks, so nothing that a killed child could keep. Every file begins with
-- the time at which it ends.
--
--   local db = store.open(r, "/var/lib/nssmtpd/greylist")
--   db:put("triplet", key, 3600, first, passed)     --> true, or nil and why
--   db:get("triplet", key)                          --> { "1790000000", "0" }, or nil
--   db:ticket("mails", key, 3600)                   --> 1, 2, 3 ..: how many with this one
--   db:count("mails", key)                          --> how many so far
--
-- Wired: nothing to wire. Settings: the policy's, which names the directory. Stores: a file for
-- each key, in 256 folders of that directory, named by the SHA-1 of kind and key, so that nothing a
-- client says is part of a path. The directory must exist and belong to the user that httpd's
-- children run as; a tmpfs is fine, and a network file system is not (its appends are not atomic).
-- What has ended is removed, folder by folder, by those who write into it, once an hour.
local M = {}
local Store = { __index = {} }
local methods = Store.__index

local owner_only = 0x0700              -- as APR counts permissions
local not_there = 2                    -- ENOENT
local purge_every = 3600
local count_size = 11

function M.open(r, directory)
    return setmetatable({ r = r, directory = directory, now = r:clock() // 1000000 | 0 }, Store)
end

-- The file of a key, and its folder.
function methods:path(kind, key)
    local name = self.r:sha1(kind .. "\0" .. key):lower()
    local folder = self.directory .. "/" .. name:sub(1, 2)
    return folder .. "/" .. name:sub(3), folder
end

local function unreadable(why, code)
    return nil, code ~= not_there and why or nil
end

-- The fields of a record and when it ends; nil if there is none, or it has ended; nil and why if it
-- cannot be read.
function methods:get(kind, key)
    local file, why, code = io.open((self:path(kind, key)), "rb")
    if not file then return unreadable(why, code) end
    local line = file:read("l")
    file:close()
    local fields = {}
    for field in (line or ""):gmatch("%S+") do fields[#fields + 1] = field end
    local ends = math.tointeger(tonumber(table.remove(fields, 1)))
    if not ends or ends <= self.now then return nil end
    return fields, ends
end

-- Opens for writing; the first in a folder makes it, and at times somebody sweeps it.
function methods:create(path, folder, mode)
    local file, why = io.open(path, mode)
    if not file and self.r:mkdir(folder, owner_only) then file, why = io.open(path, mode) end
    if not file then file, why = io.open(path, mode) end    -- another made it meanwhile
    return file, why
end

local function write(file, text)
    local ok, why = file:write(text)
    if ok then ok, why = file:flush() end
    return ok, why
end

-- Writes a record that ends in that many seconds. The fields are numbers, or words without blanks.
function methods:put(kind, key, lifetime, ...)
    local path, folder = self:path(kind, key)
    local unique = tostring({}) .. self.r:clock() .. self.r.useragent_ip
        .. (self.r.subprocess_env.SMTP_ID or "")
    local beside = path .. "." .. self.r:sha1(unique):sub(1, 16)
    local file, why = self:create(beside, folder, "wb")
    if not file then return nil, why end
    local text = ("%010d %s\n"):format(self.now + lifetime, table.concat({ ... }, " "))
    local ok
    ok, why = write(file, text)
    file:close()
    if ok then ok, why = os.rename(beside, path) end
    if not ok then
        os.remove(beside)
        return nil, why
    end
    self:sweep(folder)
    return true
end

-- Counts one, of a counter that ends in that many seconds: all its tickets must say about the same.
-- Returns which it was.
function methods:ticket(kind, key, lifetime)
    local path, folder = self:path(kind, key)
    local file, why = self:create(path, folder, "ab")
    if not file then return nil, why end
    local ok, ended
    ok, why = write(file, ("%010d\n"):format(self.now + lifetime))
    if ok then ended, why = file:seek("cur") end
    file:close()
    if not ended then return nil, why end
    self:sweep(folder)
    return ended // count_size
end

-- How many tickets were taken; nil and why if that cannot be read.
function methods:count(kind, key)
    local file, why, code = io.open((self:path(kind, key)), "rb")
    if not file then
        if code == not_there then return 0 end
        return nil, why
    end
    local size = file:seek("end")
    file:close()
    return size and size // count_size
end

-- When a file ends; nil if it is empty: somebody is about to write it.
local function ends_at(path)
    local file = io.open(path, "rb")
    if not file then return nil end
    local ends = file:read(10)
    file:close()
    return ends and (math.tointeger(tonumber(ends)) or 0)
end

-- Removes what has ended in a folder, if nobody did within the hour. Who writes a record again in
-- the very moment it is removed for having ended loses it, and begins anew.
function methods:sweep(folder)
    local stamp = folder .. "/swept"
    if (ends_at(stamp) or 0) > self.now then return end
    local file = io.open(stamp, "wb")
    if not file then return end
    write(file, ("%010d\n"):format(self.now + purge_every))
    file:close()
    for _, name in ipairs(self.r:get_direntries(folder) or {}) do
        local path = folder .. "/" .. name
        if name:find("^%x+%.?%x*$") and (ends_at(path) or self.now) < self.now then
            os.remove(path)
        end
    end
end

return M
