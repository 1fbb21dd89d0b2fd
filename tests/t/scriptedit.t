# What scripts ask and change of a mail: selectors, flags, data of their own, the envelope as the relay
# hears it then, header fields to the octet, the message and its parts.
use strict;
use warnings;
use FakeRelay;
use JSON::PP ();
use MIME::Base64 qw(encode_base64);
use ScriptedHttpd;
use TestHost qw(slurp);
use Test::More;

plan tests => 19;

my ($true, $false) = (JSON::PP::true, JSON::PP::false);
my $relay = FakeRelay->new;
my $other = FakeRelay->new;
my $to_relay = 'SmtpdRelay smtp://127.0.0.1:' . $relay->port . " retry=0 disablereuse=on\n"
    . "SmtpdTimeout connect=10 relay=10 dot=10\nSmtpdMaxRecipients 5\nSmtpdMaxErrors 1000\n";
my $old = FakeRelay->new('8bitmime' => 0);
my $h = ScriptedHttpd->new(modules => ['proxy'], hosts => {
    fake => $to_relay,
    flows => qq{${to_relay}LuaMapHandler "^/smtp/(rcpt)\$" %POLICY%/phases.lua \$1\n}, # nobody judges the message
    old  => 'SmtpdRelay smtp://127.0.0.1:' . $old->port . "\n",
    few  => $to_relay =~ s/retry=0/retry=0 max=1/r, # a kept connection would be all of them
    routed => "${to_relay}SmtpdTrustedClients none\nSmtpdRelayDomains here.test there.test:127.0.0.1:"
        . $other->port . "\n",
    maildir => "SmtpdRelay maildir:%DIR%/maildir/%d/%u\n",
})->start;

my $message = "Subject: x\r\n\r\nhello\r\n";

# A mail through a session; ([codes], what the relay got of it or undef).
sub submit {
    my (%a) = @_;
    my $c = $a{client} // $h->client($a{host} // 'fake');
    my @codes = $c->cmd('MAIL FROM:<' . ($a{from} // 'a@b.test') . '>');
    push @codes, $c->cmd("RCPT TO:<$_>") for @{ $a{rcpts} // ['c@d.test'] };
    my $before = () = $relay->mails;
    push @codes, $c->data($a{message} // $message);
    my $mail = $codes[-1] != 250 || $a{nothing} ? undef
        : ($relay->mails_when($before + 1))[-1];
    return ("@codes", $mail);
}

# What a script tells, one value per expression; in the data phase of a mail to three.
sub told {
    my ($rows, %a) = @_;
    my $data = join "\n", map {"tell(pcall(function() return $_ end))"} map { $_->[0] } @$rows;
    $h->script(data => ($a{before} // '') . "\n$data\n" . ($a{after} // ''));
    submit(rcpts => ['a@d.test', 'B@d.test', '"c d"@E.test'], %a);
    return map { my (undef, @row) = @$_; \@row } $h->said;
}

subtest 'selectors' => sub {
    my @rows = (
        ['#s:getrcpt()', 3], ['s:getrcpt(1).address', 'a@d.test'], ['s:getrcpt(3).address', '"c d"@E.test'],
        ['s:getrcpt(-1).address', '"c d"@E.test'], ['s:getrcpt(-3).address', 'a@d.test'],
        ['s:getrcpt("a@d.test").address', 'a@d.test'], ['s:getrcpt("<a@D.TEST>").address', 'a@d.test'],
        ['s:getrcpt([["c d"@e.test]]).address', '"c d"@E.test'], ['s:getrcpt("B@d.test").address', 'B@d.test'],
        (map { ["s:getrcpt($_)", undef, 'there is no such recipient'] } 0, 4, -4, '"b@d.test"', '"x@y.test"', '"1"',
            '""', '"a@d.test\0"', '1 << 40'),
        ['s:getrcptdata(9)', undef, 'there is no such recipient'], ['s:delrcpt(9)', undef, 'there is no such recipient'],
        ['s:setflag(9, "delivered")', undef, 'there is no such recipient'],
        ['s:getrcpt(2)', { address => 'B@d.test', flags => 1, score => 0, route => '127.0.0.1:' . $relay->port }],
    );
    plan tests => @rows + 2;
    my @said = told(\@rows);
    is_deeply $said[$_], [$true, @{ $rows[$_] }[1 .. $#{ $rows[$_] }]], $rows[$_][0] for 0 .. $#rows;
    my @bad = (['s:getrcpt({})'], ['s:getrcpt(1.5)'], ['s:getrcpt(true)'], ['s:delrcpt()'], ['s.getrcpt()'],
        ['s:getrcptdata(nil)'], ['s.getfrom({})'], ['s:setrcptdata(1, {})']);
    is_deeply [grep { $_->[0] } told(\@bad)], [], 'wrong types raise';
    $h->script(data => 's:setrcptdata(1, "first") s:setrcptdata(2, "second") tell(s:getrcptdata("a@d.test"))');
    submit(rcpts => ['a@d.test', 'a@d.test']);
    is_deeply [$h->said], [['data', 'second']], 'of two with one address, the newest';
};

my %flags = (verified => 1, local => 2, relay => 4, delivered => 8, abort => 16, viruscheck => 32,
    spamcheck => 64, needdomain => 256, segv => 4096, fastproxy => 16384, resolve => 32768,
    needhelo => 65536, gothelo => 131072, gotmail => 262144, gotspam => 524288, gotvirus => 1048576);
subtest 'flags' => sub {
    my @own = grep { !/^got[hm]/ } sort keys %flags;
    my $word = 2 | 65536 | 131072 | 262144; # local, needhelo and what is so
    my @rows = (
        ['s:getflag()', $word],
        (map { ["s:setflag('$_')", $word | $flags{$_}], ["s:unsetflag('\U$_')", $word & ~$flags{$_}],
            ["s:setflag($flags{$_})", $word | $flags{$_}], ["s:unsetflag($flags{$_})", $word & ~$flags{$_}],
            ["s:setflag($word & $flags{$_} | 2)", $word] } @own),
        ['s:unsetflag("gotmail")', $word], ['s:unsetflag("gothelo")', $word],
        ['s:setflag("viruscheck")', $word | 32], ['s:getflag(1)', 33], ['s:getflag(3)', 33],
        ['s:unsetflag("viruscheck")', $word], ['s:getflag(1)', 1],
        ['s:setflag(1, "spamcheck")', 65], ['s:getflag(1)', 65], ['s:getflag(2)', 1], ['s:getflag()', $word],
        ['s:setflag("B@d.test", 0x80044)', 0x80045], ['s:unsetflag(2, "gotspam")', 0x45], ['s:unsetflag(-1, "relay")', 1],
        (map { ["s:setflag($_)", undef, 'there is no such flag'] } '"nonsense"', '""', '"abort "'),
        (map { ["s:setflag($_)", undef, 'flags are 1 to 4294967295'] } 0, -1, '1 << 32'),
        ['s:setflag(1, "nonsense")', undef, 'there is no such flag'], ['s:setflag("ab\0ort")', undef, 'there is no such flag'],
    );
    plan tests => @rows + 3;
    my @said = told(\@rows, after => 's:unsetflag("abort")');
    is_deeply $said[$_], [$true, @{ $rows[$_] }[1 .. $#{ $rows[$_] }]], $rows[$_][0] for 0 .. $#rows;
    is_deeply [grep { $_->[0] } told([['s:setflag()'], ['s:setflag({})'], ['s:setflag(1, {})'], ['s:setflag(1.5)']])], [],
        'wrong types raise';
    my $c = $h->client('fake');
    $h->script(mail => 's:setflag("spamcheck") s:setflag("gotvirus")', rcpt => 'tell(s:getflag(-1), s:getflag() & 0x100000)');
    submit(client => $c);
    is_deeply [$h->said], [['rcpt', 65, 0x100000]], 'what the session wants scanned holds for its recipients';
    $h->script(mail => 'tell(s:getflag() & 0x100040)');
    $c->cmd('MAIL FROM:<a@b.test>');
    is_deeply [$h->said], [['mail', 64]], 'flags stay with the session, what was found does not';
};

subtest 'data of a script\'s own' => sub {
    plan tests => 6;
    my $c = $h->client('fake');
    $h->script(mail => 'tell(s:getfromdata()) s:setfromdata("from\0data")',
        rcpt => 'tell(s:getrcptdata(-1)) s:setrcptdata(-1, ("x"):rep(300000) .. s:getrcpt(-1).address)',
        data => 'tell(s:getfromdata(), #s:getrcptdata(1), s:getrcptdata(2):sub(-8), s:getrcpt(2).data == s:getrcptdata(2))
            s:setfromdata("") tell(s:getfromdata()) s:setfromdata(nil) s:setrcptdata(1) tell(s:getfromdata(), s:getrcptdata(1))
            s:addrcpt("n@d.test", nil, "new\0one") tell(s:getrcptdata(3)) s:setfromdata(17) tell(s:getfromdata())');
    my ($codes) = submit(client => $c, rcpts => ['a@d.test', 'b@d.test']);
    is $codes, '250 250 250 250';
    my @said = $h->said;
    is_deeply [@said[0 .. 2]], [['mail', undef], ['rcpt', undef], ['rcpt', undef]], 'nothing at first';
    is_deeply $said[3], ['data', "from\0data", 300008, 'b@d.test', $true], 'octets, kept from phase to phase';
    is_deeply [@said[4, 5]], [['data', ''], ['data', undef, undef]], 'an empty one, and none';
    is_deeply [@said[6, 7]], [['data', "new\0one"], ['data', '17']], 'with a new recipient; numbers are texts';
    $h->script(mail => 'tell(s:getfromdata())');
    $c->cmd('MAIL FROM:<a@b.test>');
    is_deeply [$h->said], [['mail', undef]], 'gone with the mail';
};

subtest 'no mail in hand' => sub {
    plan tests => 3;
    my $none = 'there is no mail in hand in this phase';
    my @calls = ('getfrom()', 'setfrom("a@b.test")', 'getfromdata()', 'setfromdata("x")', 'getrcpt(1)', 'addrcpt("a@b.test")',
        'delrcpt(1)', 'getrcptdata(1)', 'setrcptdata(1, "x")', 'setflag(1, "relay")', 'getflag(1)');
    $h->script(helo => join "\n", (map {"tell(s:$_)"} @calls), 'tell(#s:getrcpt(), #s:gethdrs(), s:gethdr("x"))');
    $h->client('fake');
    my @said = $h->said;
    is_deeply [map { $_->[2] } @said[0 .. $#calls]], [($none) x @calls], 'is what they say';
    is_deeply $said[-1], ['helo', 0, 0, undef], 'there are no recipients and no fields';
    $h->script(rcpt => join "\n", map {"tell(s:$_)"} 'getbody()', 'parts()', 'dump("/nowhere")', 'addhdr("X", "y")',
        'sethdr("X", "y")', 'delhdr("X")');
    $h->client('fake')->pipeline('MAIL FROM:<a@b.test>', 'RCPT TO:<c@d.test>');
    is_deeply [map { $_->[2] } $h->said], [('there is no message yet in this phase') x 6], 'nor is there a message before data';
};

subtest 'sender' => sub {
    plan tests => 14;
    for my $phase (qw(mail rcpt data)) {
        for my $host (qw(fake few)) {
            $h->script($phase => 's:setfrom("New.One@x.test")');
            my ($codes, $mail) = submit(host => $host);
            is $mail && $mail->{from}, 'New.One@x.test', "changed in $phase ($host)";
        }
    }
    for my $null ('', '<>') {
        $h->script(data => "tell(s:setfrom('$null'), s:getfrom())");
        my ($codes, $mail) = submit();
        is $mail && $mail->{from}, '', "setfrom('$null')";
        is_deeply [$h->said], [['data', $true, '']], 'getfrom';
    }
    for my $bad ('x', 'a@b c', 'a@b.test> X=Y', "a\@b.test\\r\\nRCPT TO:<v\@w.test>") {
        $h->script(data => qq{local ok, why = s:setfrom("$bad") tell(ok, why:match("is no address"), s:getfrom())});
        submit();
        is_deeply [$h->said], [['data', undef, 'is no address', 'a@b.test']], $bad;
    }
};

subtest 'recipients added' => sub {
    plan tests => 20;
    my ($codes, $mail);
    for my $phase (qw(mail rcpt data)) {
        for my $host (qw(fake few)) {
            $h->script($phase => 'if s:getfromdata() == nil then s:setfromdata("once") tell(s:addrcpt("new@x.test")) end');
            ($codes, $mail) = submit(host => $host, rcpts => ['c@d.test', 'e@d.test']);
            is_deeply [sort @{ $mail->{rcpts} }], ['c@d.test', 'e@d.test', 'new@x.test'], "in $phase ($host)";
        }
    }
    $h->script(mail => 's:addrcpt("new@x.test")');
    my $c = $h->client('fake');
    $c->cmd('MAIL FROM:<a@b.test>');
    is $c->cmd('DATA'), 503, 'DATA still wants a RCPT';
    $h->script(rcpt => 's:addrcpt("new@x.test") s:setreply("550 5.7.1 Not him")');
    $c = $h->client('fake');
    ($codes, $mail) = submit(client => $c);
    is $codes, '250 550 554', 'another one in place of a refused one: no DATA, the client heard no 250';
    $h->script(data => 'for i = 1, 6 do tell(s:addrcpt("n" .. i .. "@d.test")) end tell(#s:getrcpt())');
    ($codes, $mail) = submit();
    is_deeply [$h->said], [(['data', $true]) x 4, (['data', undef,
        'the mail has too many recipients (SmtpdMaxRecipients)']) x 2, ['data', 5]], 'SmtpdMaxRecipients holds';
    is scalar @{ $mail->{rcpts} }, 5, 'for the relay, too';
    $h->script(data => join "\n", map {"tell(s:addrcpt($_))"} '"x"', '"<>"', '""', '"a@b.test\0"', '"a@b.test\r\nDATA"',
        '"v@w.test", "nonsense"', '"v@w.test", -1', '"v@w.test", 0', '"w@w.test", "delivered", "d"');
    ($codes, $mail) = submit();
    my @said = map { $_->[1] ? 'true' : $_->[2] } $h->said;
    is $said[0], '"x" is no address', 'no address';
    is_deeply [@said[1, 2]], ['a recipient is never the null path', '"" is no address'], 'null path';
    is $said[3], 'a NUL octet has no place here', 'NUL';
    like $said[4], qr/is no address/, 'CRLF';
    is_deeply [@said[5 .. 8]], ['there is no such flag', 'flags are 1 to 4294967295', 'true', 'true'], 'flags';
    is_deeply $mail->{rcpts}, ['c@d.test', 'v@w.test'], 'one that is delivered is not the relay\'s';
    $relay->script({ rcpt => [[reply => '250 ok'], [reply => '551 5.1.6 moved']] });
    $h->script(data => 'tell(s:addrcpt("gone@d.test")) tell(#s:getrcpt())', error => 'tell("asked")');
    ($codes, $mail) = submit(host => 'fresh', client => $h->client('few'));
    is_deeply [$h->said], [['data', undef, '551 5.1.6 moved'], ['data', 1]], 'one whom the relay refuses is told';
    is_deeply $mail && $mail->{rcpts}, ['c@d.test'], 'and the others get the mail';
    $relay->script({});
    my $third = "tell(s:addrcpt('v\@there.test')) tell(s:addrcpt('v\@here.test')) tell(s:addrcpt('v\@none.test'))";
    $h->script(data => $third);
    ($codes, $mail) = submit(host => 'routed', rcpts => ['c@here.test']);
    is_deeply [$h->said], [['data', undef, q(it goes another way than the mail's other recipients)], (['data', $true]) x 2],
        'another route is nil and why';
    $h->script(rcpt => 's:addrcpt("v@there.test")');
    ($codes) = submit(host => 'routed', rcpts => ['c@here.test']);
    is $codes, '250 452 554', 'one that a script added first leaves the client\'s for another mail';
};

subtest 'recipients deleted' => sub {
    plan tests => 28;
    my ($codes, $mail, $c);
    $h->script(rcpt => 'if s:getrcpt(-1).address:find("^no") then tell(s:delrcpt(-1)) end');
    ($codes, $mail) = submit(rcpts => ['c@d.test', 'no@d.test', 'e@d.test']);
    is $codes, '250 250 550 250 250', 'the one in question: refused';
    is_deeply $mail->{rcpts}, ['c@d.test', 'e@d.test'], 'the relay never heard of it';
    for my $how ('s:delrcpt(1)', 's:delrcpt("c@d.test")', 's:unsetflag(1, "verified")', 's:delrcpt(-2)') {
        for my $host (qw(fake few)) {
            $h->script(data => "tell($how) tell(#s:getrcpt())");
            ($codes, $mail) = submit(host => $host, rcpts => ['c@d.test', 'e@d.test']);
            is_deeply $mail && $mail->{rcpts}, ['e@d.test'], "$how in data ($host)";
        }
    }
    $h->script(rcpt => 'if #s:getrcpt() == 2 then s:delrcpt(1) end');
    ($codes, $mail) = submit(rcpts => ['c@d.test', 'e@d.test']);
    is_deeply [$codes, $mail->{rcpts}], ['250 250 250 250', ['e@d.test']], 'an earlier one, in rcpt';
    $h->script(data => 's:delrcpt("c@d.test") tell(#s:getrcpt())');
    ($codes, $mail) = submit(rcpts => ['c@d.test', 'c@d.test', 'e@d.test', 'c@d.test']);
    is_deeply [[$h->said], $mail->{rcpts}], [[['data', 1]], ['e@d.test']], 'an address drops all who have it';

    my $all = 'while #s:getrcpt() > 0 do s:delrcpt(1) end';
    $h->script(data => $all);
    $c = $h->client('fake');
    ($codes) = submit(client => $c);
    is "$codes " . $c->text, '250 250 550 5.7.1 Refused for all recipients', 'all of them: refused';
    ($codes) = submit(client => $c);
    is $codes, '250 250 550', 'again';
    $h->script(data => "$all s:setreply('250 2.0.0 Thanks')");
    ($codes, $mail) = submit(client => $c, nothing => 1);
    is "$codes " . $c->text, '250 250 250 2.0.0 Thanks', 'all of them and 250: discarded';
    is scalar $h->logged(qr/NS0076: .* accepted and sent nowhere/), 1, 'which is logged';
    $h->script(data => 's:setflag(1, "delivered") s:setflag(2, "delivered")');
    ($codes) = submit(client => $c, rcpts => ['c@d.test', 'e@d.test'], nothing => 1);
    is $codes, '250 250 250 250', 'all delivered by the script: taken';
    $h->script(data => 's:setflag(1, "delivered")');
    ($codes, $mail) = submit(client => $c, rcpts => ['c@d.test', 'e@d.test']);
    is_deeply $mail->{rcpts}, ['e@d.test'], 'one of two: the relay has the other, and had none of these';
    $h->script(rcpt => 's:setflag(1, "delivered")', data => 's:unsetflag(1, "delivered")');
    ($codes, $mail) = submit(client => $c, rcpts => ['c@d.test', 'e@d.test']);
    is_deeply [sort @{ $mail->{rcpts} }], ['c@d.test', 'e@d.test'], 'a change of mind';
    $h->script(rcpt => 's:setflag(-1, "delivered")');
    ($codes) = submit(client => $c, nothing => 1);
    is $codes, '250 250 250', 'the only one is delivered from the start';

    $h->script(rcpt => 's:setflag(-1, "delivered")', data => 's:unsetflag(1, "delivered")');
    for (1 .. 2) {
        ($codes) = submit(host => 'few');
        is $codes, '250 250 250', 'the only one, and then not: the relay\'s connection comes back';
    }

    $h->script(rcpt => 's:delrcpt(-1) s:setreply("250 2.1.5 Fine")');
    ($codes) = submit(client => $c, nothing => 1);
    is $codes, '250 250 550', 'deleted with a 250: nobody is left';
    $h->script(rcpt => 's:delrcpt(-1) s:addrcpt("instead@d.test")');
    ($codes, $mail) = submit(client => $c);
    is_deeply [$codes, $mail && $mail->{rcpts}], ['250 250 250', ['instead@d.test']], 'replaced';
    $h->script(rcpt => 's:setrcptdata(1, "kept") s:addrcpt("copy@d.test") s:delrcpt(1)');
    ($codes, $mail) = submit(client => $c, rcpts => ['c@d.test', 'e@d.test']);
    is $codes =~ /^250 250 \d+ 250$/ ? 'ok' : $codes, 'ok', 'replaced twice';
    is_deeply [$h->said], [], 'no error';
    my @maildir = ('maildir', 's:setfrom("x@y.test") s:addrcpt("two@d.test") s:delrcpt(1)');
    $h->script(data => $maildir[1]);
    ($codes) = submit(host => 'maildir', nothing => 1);
    my @files = glob $h->dir . '/maildir/d.test/*/new/*';
    is_deeply [$codes, map {m{/([^/]+)/new/}} @files], ['250 250 250', 'two'], 'a Maildir follows';
    like slurp($files[0]), qr/^Return-Path: <x\@y\.test>/m, 'the sender, too';
};

# Messages as they come: to the octet, whatever is in them.
my @odd = ('', "\r\n", "\r\n\r\n", "no header at all\r\n", "Subject: no body\r\n", "Subject: x\r\n\r\n",
    "Subject : blank\r\n\r\nx\r\n", "Subject:x\r\nSUBJECT:  y  \r\n\tfolded\r\n \r\n\r\nx\r\n", ":odd\r\nX: y\r\n\r\nz\r\n",
    "X: y\r\nno colon\r\nZ: 1\r\n\r\nz\r\n", " begins folded\r\nX: y\r\n\r\nz\r\n", "X: \xff\x00\x80y\r\n\r\n\xfe\x00\r\n",
    "X: y\r\n\r\n.\r\n..\r\n.x\r\n", ".X: y\r\n\r\nx\r\n", "X: " . 'y' x 5000 . "\r\n\r\n" . 'z' x 5000 . "\r\n",
    "From x\@y Sat\r\nX: y\r\n\r\nz\r\n", "X: y\r\n\r\n" . "line of a message\r\n" x 20000);
subtest 'an untouched message' => sub {
    plan tests => 2 * @odd;
    my $c = $h->client('fake');
    for my $odd (@odd) {
        $h->script(data => 's:gethdrs() local m, at, size = s:getbody() tell(#m == size, at <= size) for p in s:parts() do p.data() end
            tell(s:delhdr("X-None-Of-These"))' x ($odd =~ /\.$/ ? 0 : 1));
        my ($codes, $mail) = submit(client => $c, message => $odd);
        ok $mail && $mail->{data} eq $odd, 'is as it came: ' . substr($odd, 0, 40) =~ s/([^ -~])/sprintf '\\x%02x', ord $1/ger
            or diag $codes, $mail ? "[$mail->{data}]" : '';
        is_deeply [$h->said], [['data', $true, $true], ['data', $true]], 'whatever is asked of it';
    }
};

my $fields = "Received: one\r\nX-A: 1\r\n\t folded\r\nx-a:2\r\nSubject : odd\r\nX-B:\r\nX-A:   3  \r\n\r\nX-A: body\r\n";
my @edits = (
    ['s:addhdr("X-New", "v")', "X-New: v\r\n$fields"], ['s:addhdr("X-A", "0")', "X-A: 0\r\n$fields"],
    ['s:sethdr("X-New", "v")', "X-New: v\r\n$fields"], ['s:delhdr("X-New")', $fields],
    ['s:addhdr("A", "1") s:addhdr("B", "2")', "B: 2\r\nA: 1\r\n$fields"],
    ['s:sethdr("x-A", "one")', $fields =~ s/X-A: 1\r\n\t folded\r\nx-a:2\r\n/X-A: one\r\n/r =~ s/X-A:   3  \r\n//r],
    ['s:delhdr("x-a")', $fields =~ s/X-A: 1\r\n\t folded\r\nx-a:2\r\n//r =~ s/X-A:   3  \r\n//r],
    ['s:delhdr("Subject")', $fields =~ s/Subject : odd\r\n//r], ['s:sethdr("X-B", "")', $fields =~ s/X-B:\r\n/X-B: \r\n/r],
    ['s:delhdr("X-A") s:addhdr("X-A", "4") s:sethdr("X-A", "5")',
        'X-A: 5' . "\r\n" . ($fields =~ s/X-A: 1\r\n\t folded\r\nx-a:2\r\n//r =~ s/X-A:   3  \r\n//r)],
    ['s:addhdr("X", "\xfc")', "X: \xfc\r\n$fields"], ['s:addhdr("X", 17)', "X: 17\r\n$fields"],
    ['for _, f in ipairs(s:gethdrs()) do s:delhdr(f.name) end', "\r\nX-A: body\r\n"],
);
my @refused = (['"X", "a\r\nY: b"', 'CR or LF'], ['"X", "a\nb"', 'CR or LF'], ['"X", "a\rb"', 'CR or LF'], ['"X\r\n", "a"', 'no name'],
    ['"", "a"', 'no name'], ['"X Y", "a"', 'no name'], ['"X:", "a"', 'no name'], ['"X\xfc", "a"', 'no name'],
    ['"X", "a\0b"', 'NUL'], ['"X\0", "a"', 'NUL'], ['"X", ("a"):rep(1000)', '998 octets']);
subtest 'header fields changed' => sub {
    plan tests => @edits + @refused + 6;
    my $c = $h->client('fake');
    for (@edits) {
        my ($code, $wanted) = @$_;
        $h->script(data => $code);
        my ($codes, $mail) = submit(client => $c, message => $fields);
        is $mail && $mail->{data}, $wanted, $code;
    }
    for (@refused) {
        my ($args, $why) = @$_;
        $h->script(data => "for _, f in ipairs{'addhdr', 'sethdr'} do local ok, why = s[f](s, $args) tell(ok, why:match('$why')) end");
        my ($codes, $mail) = submit(client => $c, message => $fields);
        is_deeply [[$h->said], $mail->{data}], [[(['data', undef, $why]) x 2], $fields], "refused: $args";
    }
    $h->script(data => 's:addhdr("X-One", "1")');
    for ("\r\nbody only\r\n", '', "X: y\r\n") {
        my (undef, $mail) = submit(client => $c, message => $_);
        is $mail->{data}, "X-One: 1\r\n$_", 'a message without fields, body or anything';
    }
    my (undef, $mail) = submit(client => $c, message => "no header\r\nat all\r\n");
    like $mail->{data}, qr/^X-One: 1\r\n(?:\r\n)?no header\r\nat all\r\n\z/, 'one without a header';
    $h->script(data => 's:addhdr("Subject", "new") tell(s:gethdr("subject"), s:gethdr("x-a"), #s:gethdrs("X-A"),
        #s:gethdrs()) s:delhdr("X-A") tell(s:gethdr("X-A"), #s:gethdrs("x-a")) local m, at, size = s:getbody()
        tell(m, at, size) for p in s:parts() do tell(p.data()) end');
    submit(client => $c, message => $fields);
    my $left = "Subject: new\r\n" . ($fields =~ s/X-A: 1\r\n\t folded\r\nx-a:2\r\n//r =~ s/X-A:   3  \r\n//r);
    is_deeply [$h->said], [['data', 'odd', '3', 3, 7], ['data', undef, 0], ['data', $left, length($left) - 11, length $left],
        ['data', "X-A: body\r\n"]], 'a script sees its own changes';
    $h->script(data => 'local n = 0 while s:addhdr("X-Flood", ("x"):rep(900)) do n = n + 1 end tell(n < 5000)');
    submit(client => $c);
    is_deeply [$h->said], [['data', $true]], 'there is an end to what can be added';
};

subtest 'added fields on the wire' => sub {
    plan tests => 5;
    $h->script(data => 's:addhdr(".X", "y")');
    my ($codes, $mail) = submit();
    is $mail && $mail->{data}, ".X: y\r\n$message", 'the dot of a name is stuffed';
    $h->script(data => 's:sethdr(".X", "y")');
    ($codes, $mail) = submit();
    is $mail && $mail->{data}, ".X: y\r\n$message", 'by sethdr, too';
    for my $how ('addhdr', 'sethdr') {
        $h->script(data => qq{s:$how("X", "\xfc")});
        ($codes) = submit(host => 'old', nothing => 1);
        is $codes, '250 250 554', "$how: 8-bit octets want a relay with 8BITMIME";
    }
    $h->script;
    ($codes) = submit(host => 'old', nothing => 1);
    is $codes, '250 250 250', 'nothing else does';
};

subtest 'gethdr and gethdrs' => sub {
    plan tests => 2;
    $h->script(data => 'tell(s:gethdr("X-A")) tell(s:gethdr("x-B")) tell(s:gethdr("None")) tell(s:gethdrs("X-a"))
        tell(#s:gethdrs("None")) local t = s:gethdrs() tell(#t, t[2].name, t[2].value, t[2][1], t[2][2]) tell(s:gethdr("Subject"))');
    submit(message => $fields);
    is_deeply [$h->said], [['data', '3'], ['data', ''], ['data', undef], ['data', ["1\t folded", '2', '3']], ['data', 0],
        ['data', 6, 'X-A', "1\t folded", 'X-A', "1\t folded"], ['data', 'odd']], 'values in their order, unfolded';
    $h->script(data => 'tell(pcall(s.gethdr, s)) tell(pcall(s.gethdr, s, {})) tell(pcall(s.addhdr, s, "X"))');
    submit();
    is_deeply [map { $_->[1] } $h->said], [($false) x 3], 'wrong types raise';
};

my $mime = join "\r\n", 'Content-Type: multipart/mixed; boundary=b', '', 'preamble', '--b', 'Content-Type: text/plain',
    'Content-Transfer-Encoding: quoted-printable', '', 'J=FCrgen', '--b', 'Content-Type: application/Octet-Stream; name="a.bin"',
    'Content-Transfer-Encoding: base64', '', encode_base64("\0\1\2" x 40, "\r\n") . '--b',
    'Content-Type: message/rfc822', '', 'Subject: in', '', 'inner', '--b--', 'after', '';
subtest 'parts' => sub {
    plan tests => 5;
    $h->script(data => 'kept = nil for p in s:parts() do tell(p.type, p.name, p.size, p.data()) kept = p end');
    submit(message => $mime);
    my @said = map { [@$_[1 .. $#$_]] } $h->said;
    is_deeply $said[0], ['text/plain', undef, 6, "J\xfcrgen"], 'text, decoded';
    is_deeply $said[1], ['application/octet-stream', 'a.bin', 120, "\0\1\2" x 40], 'a file with its name';
    is_deeply [@said[2, 3]], [['message/rfc822', undef, 20, "Subject: in\r\n\r\ninner"], ['text/plain', undef, 5, 'inner']],
        'a message in a message, and its own part';
    is @said, 4, 'that is all';
    $h->script(data => 'for p in s:parts() do tell(p.type) s:addhdr("X", "y") break end');
    my ($codes, $mail) = submit(message => $mime);
    is $mail->{data}, "X: y\r\n$mime", 'a loop left early, and an edit';
};

# Messages in messages whose multiparts never end, and lines that nearly are delimiters.
subtest 'parts that are made to take long' => sub {
    plan tests => 2;
    my $nested = join '', map {"Content-Type: message/rfc822\r\n\r\nContent-Type: multipart/mixed; boundary=$_\r\n\r\n--$_\r\n"} 'a' .. 'x';
    $h->script(data => 'local n = 0 for p in s:parts() do n = n + 1 end tell(n)');
    my $began = time;
    submit(message => $nested . "--0\r\n" x 3_000_000);
    cmp_ok +($h->said)[0][1], '>', 1, 'are found';
    cmp_ok time - $began, '<', 8, 'in time';
};

subtest 'dump' => sub {
    plan tests => 7;
    my $file = $h->policy . '/dumped';
    $h->script(data => qq{s:addhdr("X", "y") tell(s:dump("$file"))});
    submit();
    is_deeply [$h->said], [['data', $true]], 'done';
    is slurp($file), "X: y\r\n$message", 'the message as it stands now';
    is +(stat $file)[2] & 077, 0, 'for nobody else';
    submit(message => "Subject: other\r\n\r\n");
    is slurp($file), "X: y\r\nSubject: other\r\n\r\n", 'over another one';
    $h->script(data => 'tell(s:dump("/nowhere/at/all")) tell(s:dump("a\0b")) tell(pcall(s.dump, s))');
    submit();
    my @said = $h->said;
    like $said[0][2], qr/No such file/, 'no directory';
    is $said[1][2], 'a NUL octet has no place here', 'NUL';
    is $said[2][1], $false, 'no path';
};

subtest 'a large message, spooled to a file' => sub {
    plan tests => 4;
    my $large = "Subject: large\r\n\r\n" . ('0123456789' x 7 . "\r\n") x 20000;
    $h->script(data => 'local m, at, size = s:getbody() tell(#m, at, size, m:sub(-4)) s:sethdr("Subject", "edited")
        m, at, size = s:getbody() tell(size, m:sub(1, 17)) for p in s:parts() do tell(p.size) end');
    my ($codes, $mail) = submit(message => $large);
    is $codes, '250 250 250';
    is_deeply [$h->said], [['data', length $large, 18, length $large, "89\r\n"], ['data', 1 + length $large, 'Subject: edited' . "\r\n"],
        ['data', length($large) - 18]], 'getbody and parts';
    ok $mail->{data} eq $large =~ s/large/edited/r, 'the relay has it, edited';
    $h->script(rcpt => 's:setflag("fastproxy")', data => 'tell(s:getbody()) tell(s:addhdr("X", "y")) tell(#s:gethdrs())');
    submit();
    my $none = 'messages are not shown to scripts here (fastproxy)';
    is_deeply [$h->said], [['data', undef, $none], ['data', undef, $none], ['data', 0]], 'fastproxy hides it';
};

# The relay has refused the one that it was asked about, so it must hear no DATA.
subtest 'a message that could flow, for nobody' => sub {
    plan tests => 3;
    $relay->script({ rcpt => [[reply => '550 5.1.1 nobody']], data => [[reply => '554 5.5.1 no valid recipients']] });
    for my $size (20, 800_000) {
        $h->script;
        my $c = $h->client('flows');
        my @codes = $c->pipeline('MAIL FROM:<a@b.test>', 'RCPT TO:<bad@d.test>');
        $h->script(rcpt => 's:setflag(-1, "delivered")');
        push @codes, $c->cmd('RCPT TO:<keep@d.test>');
        is join(' ', @codes, $c->data("Subject: x\r\n\r\n" . ('x' x 70 . "\r\n") x ($size / 72))), '250 550 250 250',
            "of $size octets: taken, since the script has delivered it";
    }
    $h->script(rcpt => 's:setflag(-1, "delivered")');
    my ($codes) = submit(host => 'flows', message => join('', ('x' x 70 . "\r\n") x 12000), nothing => 1);
    is $codes, '250 250 250', 'nobody else was named';
    $relay->script({});
};

subtest 'edits of an envelope whose relay has left meanwhile' => sub {
    plan tests => 2;
    $relay->script({ rcpt => [[reply => '250 ok', close => 1]] });
    $h->script(data => 's:addrcpt("v@d.test")');
    my $c = $h->client('fake');
    $c->pipeline('MAIL FROM:<a@b.test>', 'RCPT TO:<c@d.test>');
    $relay->script({});
    my $before = () = $relay->mails;
    is $c->data($message), 250, 'taken';
    my ($mail) = ($relay->mails_when($before + 1))[-1];
    is_deeply [sort @{ $mail->{rcpts} }], ['c@d.test', 'v@d.test'], 'by a new connection, whole';
};

subtest 'a relay that has changed its mind when the envelope is said again' => sub {
    plan tests => 6;
    my %again = ('553 5.1.8 not from you' => ['mail', 553, 'MAIL: 553 5.1.8 not from you'],
        '550 5.1.1 gone' => ['rcpt', 451, 'RCPT: 451 4.4.0 Next server has changed its mind; try again later']);
    for my $reply (sort keys %again) {
        my ($step, $code, $line) = @{ $again{$reply} };
        my $c = $h->client('fake');
        $h->script(data => 's:setfrom("other@b.test")', error => 'tell(s:getline(), #s:getrcpt())');
        $c->pipeline('MAIL FROM:<a@b.test>', 'RCPT TO:<c@d.test>');
        $relay->script({ $step => [[reply => $reply]] });
        is $c->data($message), $code, "$reply: the client hears $code";
        is_deeply [$h->said], [['error', $line, 1]], 'the script of error hears it';
        $relay->script({});
        $h->script;
        my $before = () = $relay->mails;
        my ($codes, $mail) = submit(client => $c);
        is $mail && $mail->{from}, 'a@b.test', 'the next mail goes';
    }
};

$h->stop;
is_deeply [$h->crashes], [], 'no child crashed';
