-- The two phases whose cost tests/bench/compare measures: each reads what a policy would read, and
-- lets everything pass.
function rcpt(r)
    local s = smtpd.session(r)
    local to = s:getrcpt(-1)
    if to and to.address == "nobody@bench.test" then
        s:setreply("550 5.1.1 no such user here")
    end
    return apache2.OK
end

function data(r)
    local s = smtpd.session(r)
    local subject = s:gethdr("Subject")
    if subject and subject:find("lottery", 1, true) then
        s:setreply("550 5.7.1 not here")
    end
    return apache2.OK
end
