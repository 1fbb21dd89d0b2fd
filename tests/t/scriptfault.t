# How scripts of phases fail and what becomes of the mail then; their limits; handles that are kept;
# input filters; flags of the configuration; /smtp/init.
use strict;
use warnings;
use FakeDNS;
use FakeRelay;
use JSON::PP ();
use ScriptedHttpd;
use TestHost qw(wait_for);
use Test::More;
use Time::HiRes qw(time);

plan tests => 14;

my ($true, $false) = (JSON::PP::true, JSON::PP::false);
my $mpm = $ENV{TEST_MPM} // 'event';
my $dns = FakeDNS->new(zone => <<'END');
good.test               MX    10 mail.good.test
mail.good.test          A     192.0.2.1
null.test               MX    0 .
broken.test             *     !servfail
2.0.0.127.in-addr.arpa  PTR   named.test
named.test              A     127.0.0.2
3.0.0.127.in-addr.arpa  PTR   liar.test
liar.test               A     192.0.2.9
4.0.0.127.in-addr.arpa  PTR   !servfail
END
my $relay = FakeRelay->new;
my $discard = "SmtpdRelay discard:\nSmtpdMaxErrors 1000\n";
my $to_relay = 'SmtpdRelay smtp://127.0.0.1:' . $relay->port . " retry=0 disablereuse=on\nSmtpdMaxErrors 1000\n";
my $limits = "SmtpdTimeout script=1 connect=10 relay=10 dot=10\nSmtpdScriptMemory 4M\n";
my $ask = "${discard}SmtpdNameServer 127.0.0.1:" . $dns->port . "\n";

sub filtered { return "$to_relay${limits}SmtpdReceived off\n<Location /smtp/data>\nSetInputFilter $_[0]\n</Location>\n" }

my $h = ScriptedHttpd->new(modules => [qw(ext_filter)],
    main => qq{ExtFilterDefine upper mode=input cmd="/usr/bin/tr a-z A-Z"\nExtFilterDefine false mode=input cmd="/bin/false"\n},
    hosts => {
        limits => $discard . $limits,
        (map { ("limits_$_" => "$discard${limits}LuaScope $_\n") } qw(conn thread)),
        file   => qq{${discard}LuaCodeCache stat\nLuaScope thread\nLuaMapHandler "^/smtp/(rcpt)\$" %POLICY%/policy.lua \$1\n},
        lacks  => qq{${discard}LuaCodeCache stat\nLuaScope thread\nLuaMapHandler "^/smtp/(rcpt)\$" %POLICY%/lacks.lua \$1\n},
        strict => qq{${discard}LuaMapHandler "^/smtp/(rcpt)\$" %POLICY%/strict.lua \$1\n},
        own_error => qq{${to_relay}LuaMapHandler "^/smtp/(\\w+)\$" %POLICY%/lacks.lua \$1\n},
        none   => qq{${discard}LuaMapHandler "^/smtp/(rcpt)\$" %POLICY%/nowhere.lua \$1\n},
        other  => "$discard# LuaMapHandler\n<Location /smtp/rcpt>\nSetHandler nobodys-handler\n</Location>\n",
        lua    => qq{${to_relay}${limits}SmtpdReceived off\nLuaInputFilter luain %POLICY%/filter.lua filter\n}
            . qq{<Location /smtp/data>\nSetInputFilter luain\n</Location>\n},
        upper  => filtered('upper'),
        keeps  => qq{LuaInputFilter luakeeps %POLICY%/filter.lua filter\n} . filtered('luakeeps'), # no child thinks it broken
        two    => qq{LuaInputFilter luatwo %POLICY%/filter.lua filter\n} . filtered('upper;luatwo'),
        domain => "${ask}SmtpdFlags needhelo needdomain\n",
        name   => "${ask}SmtpdFlags resolve\n",
        free   => "${ask}SmtpdFlags fastproxy\n",
        need   => $ask,
    })->start;

my $message = "Subject: x\r\n\r\nhello\r\n";

# The reply to RCPT in a new session, and what a later session hears without the script.
sub rcpt {
    my ($host, $code) = @_;
    $h->script(rcpt => $code) if defined $code;
    my $c = $h->client($host, timeout => 20);
    $c->cmd('MAIL FROM:<a@b.test>');
    return $c->cmd('RCPT TO:<c@d.test>') . ' ' . $c->text;
}

my $fault = '451 4.3.0 Local fault; try again later';
my $fine = '250 2.1.5 Recipient ok';
my @faults = (
    ['raise("oh <dear> & \"me\"")', qr{rcpt:2: oh <dear> & "me"}], ['raise({})', qr{/smtp/rcpt has failed}],
    ['local x = nil .. 1', qr{attempt to concatenate a nil value}], ['raise()', qr{/smtp/rcpt has failed}],
    ['return 500', qr{it ended with status 500}], ['return 403', qr{it ended with status 403}],
    ['return 404', qr{it ended with status 404}], ['r.status = 503', qr{it ended with status 503}],
    ['s:setreply("250 2.1.5 Taken") raise("after all")', qr{after all}], ['coroutine.yield()', qr{outside a coroutine}],
    ['os.exit(1)', qr{attempt to call a nil value \(field 'exit'\)}], ['s:nothing()', qr{attempt to call a nil value}],
    ['s:getrcpt({})', qr{bad argument #}], ['raise(("x"):rep(100000))', qr{xxxx}],
);
subtest 'errors' => sub {
    plan tests => 3 * @faults;
    for (@faults) {
        my ($code, $why) = @$_;
        is rcpt('limits', $code), $fault, $code;
        like join("\n", $h->logged(qr/NS0057: \S+: \/smtp\/rcpt has failed: /)), $why, 'the log says why';
        is rcpt('limits', ''), $fine, 'the next one is fine';
    }
};

my @runaways = (
    ['while true do end', qr{longer than SmtpdTimeout script=1}], ['while true do pcall(raise, 1) end', qr{longer than}],
    ['while true do pcall(function() while true do end end) end', qr{longer than}],
    ['coroutine.wrap(function() while true do end end)()', qr{longer than}],
    ['local co = coroutine.create(function() while true do end end) while true do coroutine.resume(co) end', qr{longer than}],
    ['pcall(function() while true do end end) s:setreply("250 2.1.5 fooled")', qr{longer than}],
    ['local function f() return f() end f()', qr{longer than}], ['setmetatable({}, {__index = function() while true do end end}).x()', qr{longer than}],
    ['local t = {} while true do t[#t + 1] = ("x"):rep(1000) .. #t end', qr{not enough memory \(SmtpdScriptMemory\)}],
    ['local x = ("x"):rep(5000000)', qr{not enough memory}], ['pcall(string.rep, "x", 5000000) raise("went on")', qr{went on}],
    ['local function f() return 1 + f() end f()', qr{stack overflow|not enough memory}],
    ['local x, n = ("x"):rep(100000), 0 while s:setfromdata(x) and s:setrcptdata(1, x) do n = n + 1 end raise("kept " .. n)', qr{kept 1\d|kept 2\d}],
    ['while assert(s:setreply("250 ok")) do end', qr{not enough memory: too much was given to the mail \(SmtpdScriptMemory\)$}],
    ['while assert(s:setfrom("x@y.test")) do end', qr{not enough memory: too much was given}],
    ['kept = {} for i = 1, 3000 do kept[i] = ("x"):rep(1000) .. i end raise("big")', qr{big}],
);
subtest 'runaways' => sub {
    plan tests => 4 * @runaways + 3;
    my $n = 0;
    for (@runaways) {
        my ($code, $why) = @$_;
        my $host = ('limits', 'limits_conn', 'limits_thread')[$n++ % 3];
        my $start = time;
        is rcpt($host, $code), $fault, "$code ($host)";
        cmp_ok time - $start, '<', 8, 'in time';
        like join("\n", $h->logged(qr/NS0057: \S+: \/smtp\/rcpt has failed: /)), $why, 'the log says why';
        is rcpt($host, 'kept = nil'), $fine, 'the next one is fine';
    }
    $h->script(connect => 'while true do end');
    my $c = $h->client('limits', greeting => 0, timeout => 20);
    is $c->read_reply, 421, 'connect that loops: 421';
    $h->script(helo => 'while true do end');
    $c = SMTPClient->new(port => $h->port('limits'), timeout => 20);
    is $c->cmd('EHLO me.test'), 451, 'helo: 451 for that command';
    $h->script;
    is $c->cmd('EHLO me.test'), 250, 'alone';
};

subtest 'handles that were kept' => sub {
    plan tests => 7;
    for my $host (qw(limits_conn limits_thread)) {
        $h->script(mail => 'kept, kept_r = s, r', rcpt => 'tell(pcall(kept.getfrom, kept)) tell(smtpd.session(kept_r or r) == nil)
            tell((pcall(kept.setreply, kept, "550 no")))', data => 'parts = s:parts() part = parts() tell(part.size)');
        my $c = $h->client($host);
        $c->pipeline('MAIL FROM:<a@b.test>', 'RCPT TO:<c@d.test>');
        my @said = $h->said;
        is $said[0][1], $false, 'the handle of mail raises in rcpt';
        like $said[0][2], qr/this session handle is of a call that has ended/, 'and says why' if $host eq 'limits_conn';
        is $c->data($message), 250, 'the mail goes on';
        $h->script(mail => 'tell(pcall(function() return part.data() end)) tell(pcall(parts))');
        $c->cmd('MAIL FROM:<a@b.test>');
        is_deeply [map { $_->[1] } $h->said], [$false, $false], 'nor are parts good any longer';
    }
};

subtest 'a script that does not load' => sub {
    plan tests => 12;
    my $good = "function rcpt(r) smtpd.session(r):setreply('250 2.1.5 First') return apache2.OK end\n";
    my $heard = sub { rcpt('file') };
    $h->write('policy.lua', $good);
    is $heard->(), '250 2.1.5 First', 'a good one';
    for my $broken ("function rcpt(r) this is no Lua\n", "$good ((\n") {
        $h->script;
        $h->write('policy.lua', $broken);
        ok wait_for { $heard->() eq $fault && $h->logged(qr{NS0057: \S+: /smtp/rcpt has failed: the script cannot be loaded}) },
            'broken: 451 and a line in the log';
    }
    $h->write('policy.lua', $good =~ s/First/Second/r);
    ok wait_for { $heard->() eq '250 2.1.5 Second' }, 'mended: it works again';
    for my $broken ("raise = nil .. 1\n", "this is no Lua, once more\n") {
        $h->write('policy.lua', $broken);
        ok wait_for { $heard->() eq $fault }, 'broken again';
    }
    $h->write('policy.lua', $good =~ s/First/Third/r);
    ok wait_for { $heard->() eq '250 2.1.5 Third' }, 'mended again';
    ok wait_for { !grep { $heard->() ne '250 2.1.5 Third' } 1 .. 20 }, 'in all children and threads';
    is rcpt('none'), $fault, 'a script that is not there: 451';
    like join("\n", $h->logged(qr/NS0057/)), qr{/smtp/connect has failed|/smtp/rcpt has failed}, 'logged';
    is rcpt('other'), $fault, 'a handler that nobody has: 451';
    like join("\n", $h->logged(qr/NS0057/)), qr{nothing serves its handler nobodys-handler}, 'logged';
};

subtest 'a phase without a function' => sub {
    plan tests => 6;
    $h->script;
    $h->write('lacks.lua', "function helo(r) return apache2.OK end\n-- no rcpt\n");
    is rcpt('lacks'), $fine, 'is no failure';
    $h->script;
    my $c = $h->client('lacks');
    is((grep { $c->mail('a@b.test', 'c@d.test', $message) != 250 } 1 .. 20), 0, 'mails go') or diag $c->text;
    cmp_ok scalar $h->logged(qr/AH02331: .*'rcpt'/), '<=', 1, 'asked of mod_lua once in a child';
    $relay->script({ rcpt => [[reply => '550 5.1.1 nobody']] });
    $h->script;
    is rcpt('own_error'), '550 5.1.1 nobody', "nor is Lua's own error() a script's for its phase";
    is join("\n", $h->logged(qr/NS0057/)), '', 'and nothing is said of it';
    $relay->script({});
    $h->write('lacks.lua', "function rcpt(r) r:puts('550 5.1.1 There it is') return apache2.OK end\n");
    ok wait_for { rcpt('lacks') eq '550 5.1.1 There it is' }, 'works once the file has it';
};

# What the relay gets of a message through the filter; the code otherwise.
sub through {
    my ($host, $code, $text) = @_;
    $h->script;
    $h->write('filter.lua', "$code\n") if defined $code;
    my $before = () = $relay->mails;
    my $c = $h->client($host, timeout => 20);
    my $reply = $c->mail('a@b.test', 'c@d.test', $text // $message);
    return "$reply " . $c->text if $reply != 250;
    return ($relay->mails_when($before + 1))[-1]{data};
}

my $each = 'coroutine.yield() while bucket do coroutine.yield(%s) end';
my $large = "Subject: x\r\n\r\n" . ("line of a message\r\n" x 40000);
subtest 'input filters' => sub {
    plan tests => 22;
    my $filter = sub { return "function filter(r) $_[0] end" };
    my $pass = $filter->(sprintf $each, 'bucket');
    is through('lua', $pass), $message, 'one that changes nothing';
    ok through('lua', $pass, $large) eq $large, 'of a message in a file';
    is through('lua', $pass, ''), '', 'of no message';
    is through('lua', $filter->(sprintf $each, '(bucket:gsub("hello", "goodbye"))')), "Subject: x\r\n\r\ngoodbye\r\n", 'one that does';
    is through('lua', $filter->('coroutine.yield() while bucket do coroutine.yield(bucket) end coroutine.yield("tail\n")')),
        "${message}tail\r\n", 'one that adds at the end; its lines end in CRLF';
    is through('lua', $filter->(sprintf $each, '".\\n.\\n" .. bucket')), ".\r\n.\r\n$message", 'dots are stuffed';
    is through('lua', $filter->('return')), $message, 'one that does not want to';
    $h->write('data.lua', 'local r, s = ... tell(s:gethdr("X-New"), r.headers_in["X-New"], #(s:getbody())) s:sethdr("X-New", "two")');
    my $got = do {
        $h->write('filter.lua', $filter->('coroutine.yield() coroutine.yield("X-New: one\n" .. bucket) while bucket do coroutine.yield(bucket) end'));
        my $c = $h->client('lua');
        $c->mail('a@b.test', 'c@d.test', $message);
        [$h->said];
    };
    is_deeply $got, [['data', 'one', 'one', 12 + length $message]], 'the script of data sees what filters made';
    is $relay->wait_for(sub { ($_[0]->mails)[-1]{data} =~ /^X-New/ ? ($_[0]->mails)[-1]{data} : undef }), "X-New: two\r\n$message", 'and edits that';
    my @bad = (['raise("x") at_once = 1', 'before it begins', qr/attempt to call a nil value/],
        ['coroutine.yield() local x = nil .. 1', 'in the middle', qr/concatenate a nil value/],
        ['coroutine.yield() while bucket do coroutine.yield(bucket) end local x = nil .. 1', 'at the end', qr/concatenate/],
        ['coroutine.yield() while true do end', 'one that loops', qr/longer than SmtpdTimeout script=1/],
        ['while true do end', 'one that loops before it begins', qr/longer than SmtpdTimeout script=1/]);
    for (@bad) {
        my ($code, $what, $why) = @$_;
        is through('lua', $filter->($code)), $fault, "$what: 451";
        like join("\n", $h->logged(qr/NS0077/)), $why, 'the log says why';
    }
    is through('lua', 'this is no Lua'), $fault, 'one that does not load: 451';
    wait_for { through('lua', $pass) eq $message };
    is through('upper'), uc $message, 'another module\'s, mod_ext_filter';
    is through('two', $filter->(sprintf $each, '(bucket:gsub("hello", "bye"))')), "SUBJECT: X\r\n\r\nBYE\r\n", 'two, the last one first';
};

# mod_lua hands buckets over where no error can be caught: one there would end the child.
subtest 'an input filter that keeps all of a message' => sub {
    plan tests => 4;
    my $keep = 'function filter(r) coroutine.yield() local t = {} while bucket do t[#t + 1] = bucket .. #t coroutine.yield("") end end';
    for my $lines (2_000, 1_000_000) {
        is through('keeps', $keep, "Subject: x\r\n\r\n" . ("line of a message\r\n" x $lines)), $lines > 2_000 ? $fault : '', "$lines lines";
    }
    ok +(grep {/not enough memory/} $h->logged(qr/NS0077/)), 'the log says why';
    unlike $h->log('error.log'), qr/exit signal/, 'and no child has died';
};

subtest 'a script that lets nobody make globals' => sub {
    plan tests => 2;
    $h->write('strict.lua', 'function rcpt(r) smtpd.session(r):setreply("250 2.1.5 strict") return apache2.OK end
        setmetatable(_G, {__index = function(_, k) error("no " .. k) end, __newindex = function(_, k) error("no " .. k) end})
        setmetatable(os, getmetatable(_G)) package.loaded = setmetatable(package.loaded, getmetatable(_G))' . "\n");
    is rcpt('strict', ''), '250 2.1.5 strict', 'has the library all the same';
    unlike $h->log('error.log'), qr/exit signal/, 'and no child has died';
};

subtest 'needhelo' => sub {
    plan tests => 4;
    $h->script;
    is(SMTPClient->new(port => $h->port('need'))->cmd('MAIL FROM:<a@b.test>'), 503, 'is the default');
    is(SMTPClient->new(port => $h->port('free'))->cmd('MAIL FROM:<a@b.test>'), 250, 'SmtpdFlags without it');
    $h->script(connect => 's:unsetflag("needhelo")');
    is(SMTPClient->new(port => $h->port('need'))->cmd('MAIL FROM:<a@b.test>'), 250, 'unset by a script');
    $h->script(connect => 's:setflag("needhelo")');
    is(SMTPClient->new(port => $h->port('free'))->cmd('MAIL FROM:<a@b.test>'), 503, 'set by a script');
};

my %domains = ('a@good.test' => 250, 'a@null.test' => 553, 'a@missing.test' => 553, 'a@broken.test' => 451, '' => 250, 'a@[127.0.0.1]' => 250);
subtest 'needdomain' => sub {
    plan tests => 3 * keys %domains;
    for my $from (sort keys %domains) {
        $h->script;
        is $h->client('domain')->cmd("MAIL FROM:<$from>"), $domains{$from}, "configured: <$from>";
        $h->script(helo => 's:setflag("needdomain")');
        is $h->client('need')->cmd("MAIL FROM:<$from>"), $domains{$from}, 'set by a script';
        $h->script(helo => 's:unsetflag("needdomain")');
        is $h->client('domain')->cmd("MAIL FROM:<$from>"), 250, 'unset by a script';
    }
};

subtest 'resolve' => sub {
    plan tests => 6;
    $h->script(connect => 'tell(r.useragent_ip)');
    my %greeting = ('127.0.0.2' => 220, '127.0.0.3' => 554, '127.0.0.4' => 421, '127.0.0.5' => 554);
    for my $ip (sort keys %greeting) {
        my $c = $h->client('name', greeting => 0, local => $ip);
        is $c->read_reply, $greeting{$ip}, $ip;
    }
    is_deeply [map { $_->[1] } $h->said], ['127.0.0.2'], 'connect runs for whom it lets in';
    is scalar $h->logged(qr/NS0079: denied: address without a name/), 2, 'the others are logged';
};

subtest 'fastproxy' => sub {
    plan tests => 2;
    $h->script(data => 'tell(s:getflag() & smtpd.flag("fastproxy") ~= 0, (s:getbody()))');
    is $h->client('free')->mail('a@b.test', 'c@d.test', $message), 250;
    is_deeply [$h->said], [['data', $true, undef]], 'configured';
};

subtest 'init' => sub {
    plan tests => 9;
    my %children = (event => "StartServers 3\nThreadsPerChild 5\nServerLimit 6\nMaxRequestWorkers 30\nThreadLimit 5\n",
        prefork => "StartServers 4\nMinSpareServers 4\nMaxSpareServers 8\n");
    my $started = ScriptedHttpd->new(main => $children{$mpm} // $children{event}, hosts => {
        one => "${discard}", two => "${discard}", fails => $discard });
    my $init = 'local n = 0 for i = 1, 3000000 do n = n + i end tell(r.uri, r.method, r.server_name or "", smtpd.info("server"),
        s:getrcpt() and 1, s:getfrom()) if smtpd.info("server") == "fails.test" then raise("in init") end';
    $started->script(init => $init, connect => 'tell(smtpd.info("server"))');
    $started->start;
    my $c = $started->client('one');
    my @said = $started->said;
    my @inits = grep { $_->[0] eq 'init' } @said;
    is_deeply [sort map { $_->[4] } @inits], ['fails.test', 'one.test', 'two.test'], 'once in each host';
    is_deeply [(map { $_->[0] } @said)[0 .. 2]], [('init') x 3], 'before any greeting';
    is_deeply [@{ $inits[0] }[1, 2, 5, 6]], ['/smtp/init', 'INIT', 1, undef], 'its request';
    is scalar(my @failed = $started->log('error.log') =~ m{NS0057: .*/smtp/init has failed: init:3: in init}g), 1, 'an error is one line'
        or diag $started->log('error.log');
    is $started->client('fails')->mail('a@b.test', 'c@d.test', $message), 250, 'and no more';
    $started->script(init => $init);
    $started->graceful;
    ok wait_for { (() = $started->said) >= 3 }, 'again at a graceful restart';
    ok wait_for { eval { $started->client('one')->mail('a@b.test', 'c@d.test', $message) == 250 } }, 'which ends well';
    is scalar(grep { $_->[0] eq 'init' } $started->said), 3, 'once in each host';
    is scalar($started->lines(qr/exit signal/)), 0, 'no child crashed';
};

$h->stop;
is_deeply [$h->crashes], [], 'no child crashed';
