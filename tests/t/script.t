# Phases in Lua, driven by SMTP sessions: when each one runs, what it knows, what its reply does, and
# what no reply may do. What scripts change is scriptedit.t's, how they fail scriptfault.t's.
use strict;
use warnings;
use FakeRelay;
use FreePort;
use HTTP::Tiny;
use IO::Select;
use IO::Socket::INET;
use MIME::Base64 qw(encode_base64);
use ScriptedHttpd;
use TestHost qw(wait_for);
use Test::More;

plan tests => 25;

my $event = ($ENV{TEST_MPM} // 'event') eq 'event'; # there one child has all the places
my $relay = FakeRelay->new;
my $closed = FreePort::pick();
my $deadlines = "SmtpdTimeout connect=2 relay=2 dot=2\n";
my $to_relay = 'SmtpdRelay smtp://127.0.0.1:' . $relay->port . " retry=0 disablereuse=on\n$deadlines";
my $h = ScriptedHttpd->new(
    modules => [qw(authn_file authz_user)],
    main => "StartServers 1\nServerLimit 2\nThreadLimit 25\nThreadsPerChild 25\nMaxRequestWorkers 25\n" x $event
        . "CustomLog %DIR%/smtp.log \"%>s %r reply=%{SMTP_REPLY}e %{verdict}n %{COLOUR}e\"\n",
    hosts => {
        fake   => $to_relay,
        closed => "SmtpdRelay smtp://127.0.0.1:$closed retry=0\n$deadlines",
        drop   => "SmtpdRelay discard:\nSmtpdMaxErrors 1000\n",
        strange => "SmtpdRelay discard:\nSmtpdTrustedClients none\nSmtpdRelayDomains listed.test\n"
            . "<Location /smtp/rcpt>\nSetEnv COLOUR red\n</Location>\n",
        auth   => "SmtpdRelay discard:\nSmtpdTrustedClients none\nSmtpdRelayDomains listed.test\n"
            . "SmtpdAuthProvider file\nSmtpdAuthPlaintext on\n"
            . "<Location /smtp/auth>\nAuthUserFile %DIR%/users\n</Location>\n",
        busy   => "SmtpdRelay discard:\nSmtpdMaxBusy 1\nSmtpdTimeout connect=1\n"
            . "SmtpdAuthProvider file\nSmtpdAuthPlaintext on\n"
            . "<Location /smtp/auth>\nAuthUserFile %DIR%/users\n</Location>\n",
        patient => "SmtpdRelay discard:\nSmtpdMaxBusy 1\nSmtpdTimeout connect=3\n",
        (map { $_ => "SmtpdRelay discard:\nLuaScope $_\n" } qw(once request conn thread server)),
        bare   => "SmtpdRelay discard:\n# no LuaMapHandler\n",
        web    => '',
    });
# SHA-1 of "secret"
$h->write_file('users', 'alice:{SHA}' . encode_base64(pack('H*', 'e5e9fa1ba31ecd1ae84f75caaa474f3a663f05f4'), '') . "\n");
$h->start;

my $message = "Subject: x\r\n\r\nhello\r\n";

sub mail_ok {
    my ($c, $wanted, $what) = @_;
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    is $c->mail('a@b.test', 'c@d.test', $message), $wanted, $what or diag $c->text;
}

subtest 'what a phase knows' => sub {
    plan tests => 15;
    my $common = 'tell(r.method, r.uri, r.the_request, r.user, r.useragent_ip, s:getline(),'
        . ' r.subprocess_env["SMTP_HELO"], r.subprocess_env["SMTP_FROM"], r.protocol)';
    my $ip = '127.0.0.9'; # unlike those who looked whether it listens
    $h->script(map { $_ => "if r.useragent_ip == '$ip' then $common end" } qw(connect helo mail rcpt data));
    my $c = $h->client('drop', local => $ip);
    mail_ok $c, 250, 'a mail';
    my @said = $h->said;
    is_deeply $said[0], ['connect', 'CONNECT', '/smtp/connect', 'CONNECT /smtp/connect', undef, $ip,
        'CONNECT /smtp/connect', undef, undef, 'SMTP'], 'connect';
    is_deeply $said[1], ['helo', 'EHLO', '/smtp/helo', 'EHLO me.test', undef, $ip, 'EHLO me.test',
        undef, undef, 'SMTP'], 'helo';
    is_deeply $said[2], ['mail', 'MAIL', '/smtp/mail', 'MAIL FROM:<a@b.test>', undef, $ip,
        'MAIL FROM:<a@b.test>', 'me.test', 'a@b.test', 'ESMTP'], 'mail';
    is_deeply $said[3], ['rcpt', 'RCPT', '/smtp/rcpt', 'RCPT TO:<c@d.test>', undef, $ip,
        'RCPT TO:<c@d.test>', 'me.test', 'a@b.test', 'ESMTP'], 'rcpt';
    is_deeply $said[4], ['data', 'DATA', '/smtp/data', 'DATA', undef, $ip, 'DATA', 'me.test',
        'a@b.test', 'ESMTP'], 'data';
    is scalar @said, 5, 'each of them once';

    $h->script(data => 'tell(r.headers_in["Subject"], r.headers_in["X-Two"], r.headers_in["Host"],
        r.headers_in["Authorization"], s:gethdr("host"), r.subprocess_env["SMTP_SIZE"])',
        rcpt => 'tell(r.headers_in["Subject"])');
    $message = "Subject: \$x\r\n folded\r\nX-Two: 1\r\nX-Two: 2\r\nHost: h\r\nAuthorization: Basic eDp5\r\n\r\nhi\r\n";
    mail_ok $c, 250, 'a mail with odd fields';
    is_deeply [$h->said], [['rcpt', undef], ['data', '$x folded', '1', undef, undef, 'h', length $message]],
        'headers_in has them in data only, and none that httpd would believe';
    $message = "Subject: x\r\n\r\nhello\r\n";

    $h->script(mail => 'r.notes["verdict"] = "seen" r.subprocess_env["COLOUR"] = "blue"',
        data => 'tell(r.notes["verdict"], r.subprocess_env["COLOUR"])', helo => 'r.notes["verdict"] = "no"');
    $c->cmd('HELO again.test');
    mail_ok $c, 250, 'a mail';
    is_deeply [$h->said], [['data', 'seen', 'blue']], 'what mail leaves in notes and environment is there in data';
    ok wait_for { $h->log('smtp.log') =~ /seen blue$/m }, 'and in the log';
    $h->script(data => 'tell(r.notes["verdict"], r.subprocess_env["COLOUR"])');
    mail_ok $c, 250, 'the next mail';
    is_deeply [$h->said], [['data', undef, undef]], 'knows nothing of it';
    $h->script(rcpt => 'tell(r.subprocess_env["COLOUR"])', mail => 'tell(r.subprocess_env["COLOUR"])');
    $c = $h->client('strange');
    $c->pipeline('MAIL FROM:<a@b.test>', 'RCPT TO:<c@listed.test>');
    is_deeply [$h->said], [['mail', undef], ['rcpt', 'red']], '<Location> scopes SetEnv to a phase';
};

subtest 'connect' => sub {
    plan tests => 16;
    $h->script(connect => 's:setreply("550 5.7.1 Go away")');
    my $c = $h->client('drop', greeting => 0);
    is $c->read_reply, 554, '5xx: greeting 554';
    is $c->text, '5.7.1 Go away', 'its text';
    is $c->cmd($_), 503, "$_ is 503" for 'EHLO me.test', 'MAIL FROM:<a@b.test>', 'NOOP', 'RSET', 'STARTTLS', 'junk';
    is $c->cmd('QUIT'), 221, 'but QUIT';
    ok $c->expect_eof, 'closes';
    $h->script(connect => 's:setreply("450 later")');
    $c = $h->client('drop', greeting => 0);
    is $c->read_reply, 421, '4xx: 421';
    ok $c->expect_eof, 'and closed';
    $h->script(connect => 's:setreply("220 mx.example ESMTP at your service")');
    $c = $h->client('drop', greeting => 0);
    is $c->read_reply, 220, '2xx';
    is $c->text, 'mx.example ESMTP at your service', 'the greeting is the script\'s';
    $h->script(connect => 's:setflag("abort")');
    $c = $h->client('drop', greeting => 0);
    is $c->read_reply, 220, 'abort: the greeting is said';
    ok $c->expect_eof, 'and closed behind';
};

subtest 'helo' => sub {
    plan tests => 13;
    $h->script(helo => 'if s:getline():find("bad") then s:setreply("550 5.7.1 Bad name") end');
    my $c = SMTPClient->new(port => $h->port('drop'));
    is $c->cmd('EHLO bad.test'), 550, 'refused';
    is $c->cmd('MAIL FROM:<a@b.test>'), 503, 'as if it had not been said';
    is $c->cmd('HELO good.test'), 250, 'another name';
    is $c->cmd('MAIL FROM:<a@b.test>'), 250, 'a mail begins';
    is $c->cmd('EHLO bad.test'), 550, 'refused in it';
    is $c->cmd('RCPT TO:<c@d.test>'), 250, 'it goes on';
    $h->script(data => 'tell(r.subprocess_env["SMTP_HELO"])');
    is $c->data($message), 250, 'to its end';
    is_deeply [$h->said], [['data', 'good.test']], 'the name is the one that was taken';
    $h->script(helo => 's:setreply("250 Pleased to meet you")');
    is $c->cmd('EHLO me.test'), 250, 'a positive reply to EHLO';
    is(($c->lines)[0], 'drop.test Pleased to meet you', 'stands behind the name');
    cmp_ok scalar($c->lines), '>', 4, 'before the capabilities';
    my @others = @{ [$c->lines] }[1 .. $c->lines - 1];
    $h->script(helo => 's:setreply("250 " .. ("x"):rep(5000))');
    $c->cmd('EHLO me.test');
    is_deeply [@{ [$c->lines] }[1 .. $#others + 1]], \@others, 'which no text crowds out';
    $h->script(helo => 's:setreply("250 Pleased to meet you")');
    is $c->cmd('HELO me.test') . ' ' . $c->text, '250 2.0.0 Pleased to meet you', 'to HELO it is all';
};

sub plain { return 'AUTH PLAIN ' . encode_base64("\0$_[0]\0$_[1]", '') }

subtest 'auth' => sub {
    plan tests => 15;
    my $all = 'local t = {r.user, r.the_request, s:getline(), r.subprocess_env["SMTP_REPLY"]}
        for _, name in ipairs{"Authorization", "Proxy-Authorization"} do t[#t + 1] = r.headers_in[name] end
        tell(table.unpack(t))';
    my $c = $h->client('auth');
    $h->script(auth => $all);
    is $c->cmd(plain('alice', 'wrong')), 535, 'a wrong password';
    is_deeply [$h->said], [['auth', 'alice', 'AUTH', 'AUTH', '535 5.7.8 Authentication failed']],
        'the script knows the name and the result';
    unlike "@{[ map { @$_ } $h->said ]}", qr/wrong"|$_/, 'and no password' for encode_base64("\0alice\0wrong", '');
    $h->script(auth => 's:setreply("235 2.7.0 Welcome")');
    my $d = $h->client('auth', local => '127.0.0.2');
    is $d->cmd(plain('alice', 'wrong')), 535, 'a script cannot let in whom the provider does not';
    like join("\n", $h->logged(qr/NS0057/)), qr/NS0057: 127\.0\.0\.2: \/smtp\/auth has failed: a reply 235 may not stand here/, 'logged';
    is $d->cmd('MAIL FROM:<a@b.test>'), 250, 'a mail';
    is $d->cmd('RCPT TO:<x@far.test>'), 550, 'to anywhere is refused';
    $h->script(auth => 's:setreply("454 4.7.0 Not now, " .. r.user)');
    $c = $h->client('auth', local => '127.0.0.3');
    is $c->cmd(plain('alice', 'secret')) . ' ' . $c->text, '454 4.7.0 Not now, alice', 'the right password, refused';
    is $c->cmd('MAIL FROM:<a@b.test>'), 250, 'a mail';
    is $c->cmd('RCPT TO:<x@far.test>'), 550, 'to anywhere is refused: nobody is in';
    $c->cmd('RSET');
    $h->script(auth => $all, mail => 'tell(r.user)', rcpt => 'tell(r.user)');
    is $c->cmd(plain('alice', 'secret')), 235, 'the right password';
    is $c->cmd('MAIL FROM:<a@b.test>'), 250, 'a mail';
    is $c->cmd('RCPT TO:<x@far.test>'), 250, 'to anywhere';
    is_deeply [$h->said], [['auth', 'alice', 'AUTH', 'AUTH', '235 2.7.0 Authenticated'],
        ['mail', 'alice'], ['rcpt', 'alice']], 'later phases know the user';
    is $c->cmd(plain('alice', 'secret')), 503, 'once';
};

subtest 'mail' => sub {
    plan tests => 7;
    my $c = $h->client('fake');
    $h->script(mail => 'tell(s:getfrom(), #s:getrcpt()) if s:getfrom() == "" then s:setreply("554 No bounces") end');
    is $c->cmd('MAIL FROM:<>'), 554, 'refused';
    is $c->text, '5.7.1 No bounces', 'without an enhanced code it gets one';
    is $c->cmd('RCPT TO:<c@d.test>'), 503, 'no transaction';
    is $c->cmd('MAIL FROM:<A@b.test> SIZE=10'), 250, 'another sender';
    is $c->cmd('MAIL FROM:<A@b.test>'), 503, 'in a transaction no second';
    is_deeply [$h->said], [['mail', '', 0], ['mail', 'A@b.test', 0]], 'as it was written';
    $h->script(mail => 's:setreply("250 2.1.0 Hello " .. s:getfrom())');
    $c->cmd('RSET');
    is $c->cmd('MAIL FROM:<a@b.test>') . ' ' . $c->text, '250 2.1.0 Hello a@b.test', 'words of its own';
};

subtest 'rcpt' => sub {
    plan tests => 9;
    my $c = $h->client('fake');
    $h->script(rcpt => 'local all = s:getrcpt() local x = s:getrcpt(-1).address tell(#all, x)
        if x:find("^no") then s:setreply("550 5.1.1 No " .. x) end
        if x:find("^later") then s:setreply("450 Come back") end
        if x:find("^yes") then s:setreply("251 2.1.5 Will forward") end', data => 'tell(#s:getrcpt())');
    is $c->cmd('MAIL FROM:<a@b.test>'), 250;
    is $c->cmd('RCPT TO:<no@d.test>') . ' ' . $c->text, '550 5.1.1 No no@d.test', 'refused';
    is $c->cmd('DATA'), 554, 'only refused ones so far';
    is $c->cmd('RCPT TO:<c@d.test>'), 250, 'taken';
    is $c->cmd('RCPT TO:<later@d.test>') . ' ' . $c->text, '450 4.7.1 Come back', 'deferred';
    is $c->cmd('RCPT TO:<yes@d.test>') . ' ' . $c->text, '251 2.1.5 Will forward', 'reworded';
    is $c->data($message), 250, 'sent';
    is_deeply [$h->said], [[rcpt => 1, 'no@d.test'], [rcpt => 1, 'c@d.test'], [rcpt => 2, 'later@d.test'],
        [rcpt => 2, 'yes@d.test'], [data => 2]], 'those that were refused are not listed';
    is_deeply(($relay->wait_for(sub { ($_[0]->mails)[-1] }))->{rcpts}, ['c@d.test', 'yes@d.test'],
        'the relay never heard of them');
};

subtest 'data' => sub {
    plan tests => 8;
    my $before = () = $relay->mails;
    my $c = $h->client('fake');
    $h->script(data => 's:setreply("554 5.7.1 We do not like it")');
    is $c->mail('a@b.test', 'c@d.test', $message), 554, 'refused';
    is $c->text, '5.7.1 We do not like it', 'its text';
    $h->script(data => 's:setreply("450 4.7.1 Later")');
    is $c->mail('a@b.test', 'c@d.test', $message), 450, 'deferred';
    $h->script(data => 's:setreply("250 2.6.0 Read with pleasure")');
    is $c->mail('a@b.test', 'c@d.test', "X: last\r\n\r\n"), 250, 'taken';
    is $c->text, '2.6.0 Read with pleasure', 'with its words';
    $c->quit;
    my @mails = $relay->mails_when($before + 1);
    is @mails - $before, 1, 'the relay has one of the three';
    is $mails[-1]{data}, "X: last\r\n\r\n", 'the last, as it was sent';
    ok wait_for { $h->log('smtp.log') =~ /^554 MAIL .* reply=554 5\.7\.1 We do not like it/m }, 'the log has the reply';
};

# error: [step, what the relay does, what the client's command hears without the script, line]
my @errors = (
    ['RCPT', { rcpt => [[reply => '550 5.1.1 unknown']] }, 550, 'RCPT: 550 5.1.1 unknown'],
    ['RCPT, deferred', { rcpt => [[reply => '450 4.2.1 full']] }, 450, 'RCPT: 450 4.2.1 full'],
    ['MAIL', { mail => [[reply => '553 5.1.8 no sender']] }, 553, 'MAIL: 553 5.1.8 no sender'],
    ['DATA', { data => [[reply => '554 5.5.1 no']] }, 554, 'DATA: 554 5.5.1 no'],
    ['the dot', { dot => [[reply => '554 5.6.0 spam']] }, 554, 'end of data: 554 5.6.0 spam'],
    ['a timeout', { rcpt => [[hang => 1]] }, 451, 'RCPT: 451 4.4.2 Next server was lost; try again later'],
    ['a lost connection', { dot => [[close => 1]] }, 451, 'end of data: 451 4.4.2 Next server was lost; try again later'],
    ['a greeting that is none', { greeting => [[reply => '554 no']] }, 451,
        'greeting: 451 4.3.5 Fault at the next server; try again later'],
);
subtest 'error' => sub {
    plan tests => 5 * @errors + 11;
    my $tell = 'tell(s:getline(), s:getfrom(), #s:getrcpt())';
    for (@errors) {
        my ($what, $do, $code, $line) = @$_;
        $relay->script($do);
        $h->script(error => $tell);
        is $h->client('fake')->mail('a@b.test', 'c@d.test', $message), $code, "$what: as it is";
        my @said = $h->said;
        is scalar @said, 1, 'once';
        is $said[0][1], $line, 'what the script hears';
        $h->script(error => 's:setreply("452 4.3.1 Ask me later")');
        my $c = $h->client('fake');
        is $c->mail('a@b.test', 'c@d.test', $message) . ' ' . $c->text, '452 4.3.1 Ask me later', 'its reply';
        $h->script(error => 's:setreply("250 2.0.0 Fine")');
        is $h->client('fake')->mail('a@b.test', 'c@d.test', $message), $code, 'a 250 does not lift it';
    }
    $relay->script({});
    $h->script(error => $tell);
    is $h->client('closed')->mail('a@b.test', 'c@d.test', $message), 451, 'nobody listens';
    my @said = $h->said;
    is_deeply [@said], [['error', 'connect: 451 4.4.1 Next server cannot be reached; try again later', 'a@b.test', 1]],
        'the script hears it';
    $h->script(error => 's:setreply("550 5.4.1 Give up")');
    is $h->client('closed')->mail('a@b.test', 'c@d.test', $message), 550, 'and chooses the reply';
    $h->script(error => 'raise("oh dear")');
    is $h->client('closed')->mail('a@b.test', 'c@d.test', $message), 451, 'its own error changes nothing';
    like join("\n", $h->logged(qr/NS0057/)), qr{/smtp/error has failed: error:2: oh dear}, 'but is logged';
    $h->script(error => $tell, rcpt => 's:setreply("550 no")');
    is $h->client('fake')->mail('a@b.test', 'c@d.test', $message), 550, 'our own refusal';
    is_deeply [$h->said], [], 'is no error of the relay';
    $h->script(error => 's:setflag("abort")');
    my $c = $h->client('closed');
    $c->mail('a@b.test', 'c@d.test', $message);
    ok $c->expect_eof, 'abort works there, too';
    $h->script(rcpt => 's:setflag("abort")');
    $c = $h->client('drop');
    $c->cmd('MAIL FROM:<aborted@b.test>');
    is $c->cmd('RCPT TO:<c@d.test>'), 250, 'a recipient is taken';
    ok $c->expect_eof, 'and then the session is ended';
    ok wait_for { $h->log('smtp.log') =~ /^451 MAIL FROM:<aborted\S* reply=451 4\.3\.0 /m }, 'which is no 250 in the log';
};

subtest 'replies' => sub {
    plan tests => 24;
    my $c = $h->client('drop');
    my $rcpt = sub {
        my ($code) = @_;
        $c->cmd('RSET');
        $h->script(rcpt => $code);
        $c->cmd('MAIL FROM:<a@b.test>');
        return $c->cmd('RCPT TO:<c@d.test>') . ' ' . join '|', $c->lines;
    };
    is $rcpt->('r:puts("550 5.1.1 Printed\r\n")'), '550 5.1.1 Printed', 'printed';
    is $rcpt->('r:puts("550-5.1.1 One\n550-5.1.1 Two\n550 5.1.1 Three\n")'), '550 5.1.1 One|5.1.1 Two|5.1.1 Three',
        'of many lines, as SMTP has them';
    is $rcpt->('r:puts("550 One\nTwo\nThree")'), '550 5.7.1 One|5.7.1 Two|5.7.1 Three', 'and as people write them';
    is $rcpt->('r:puts("550 Printed") s:setreply("551 5.7.1 Set")'), '551 5.7.1 Set', 'setreply is first';
    is $rcpt->('s:setreply("550 First") s:setreply("450 Second")'), '450 4.7.1 Second', 'the last of two';
    is $rcpt->('s:setreply("550 5.7.1 With CRLF\r\n")'), '550 5.7.1 With CRLF', 'CRLF at its end is no matter';
    is $rcpt->('s:setreply("550")'), '550 5.7.1 Ok', 'a code alone';
    is $rcpt->('s:setreply("550 J\xc3\xbcrgen\1")'), '550 5.7.1 J??rgen?', 'octets that no reply may have';
    like $rcpt->('s:setreply("550 " .. ("x"):rep(2000))'), qr/^550 5\.7\.1 x{490,505}$/, 'a long one is cut';
    is $rcpt->('r:puts("hello") tell((s:getrcpt(1)))'), '250 2.1.5 Recipient ok', 'what is no reply is none';
    is $rcpt->('return apache2.DECLINED'), '250 2.1.5 Recipient ok', 'DECLINED: nothing said';
    is $rcpt->('r:puts(("x"):rep(3000000)) s:setreply("550 x")'), '550 5.7.1 x', 'megabytes of output are nothing';
    for my $bad ('354 Go on', '220 Hm', '999 What', '600 x', '199 x', '5500 x', 'garbage', '55', '550x', '') {
        is $rcpt->(qq{s:setreply("$bad")}), '451 4.3.0 Local fault; try again later', "setreply($bad) is 451";
    }
    is $rcpt->('r:puts("999 What")'), '451 4.3.0 Local fault; try again later', 'printed, too';
    is $rcpt->('tell(s:setreply("550 a\r\nRCPT TO:<x@y.test>")) s:setreply("550 b")'), '550 5.7.1 b',
        'CR and LF inside are an error that a good reply mends';
};

subtest 'what is logged of a bad reply' => sub {
    plan tests => 5;
    my $c = $h->client('drop');
    $h->script(mail => 'tell(s:setreply("garbage"))');
    is $c->cmd('MAIL FROM:<a@b.test>'), 451;
    is_deeply [$h->said], [['mail', undef, 'a reply begins with a code, such as "550 5.7.1 No"']], 'the script hears it';
    like join("\n", $h->logged(qr/NS0057/)), qr{/smtp/mail has failed: a reply begins with a code}, 'and the log';
    $h->script(mail => 's:setreply("354 x")');
    is $c->cmd('MAIL FROM:<a@b.test>'), 451;
    like join("\n", $h->logged(qr/NS0057/)), qr{/smtp/mail has failed: a reply 354 may not stand here}, 'what may not stand there';
};

subtest 'what a script logs of a client is no fault of the script' => sub {
    plan tests => 5;
    my $c = $h->client('drop');
    $h->script(data => 'r:err("subject: " .. s:gethdr("Subject")) s:setreply("550 5.7.1 No")');
    my $file = $h->policy . '/phases.lua';
    for my $subject ('Error loading x: y', "AH02331 '' in $file (not", "AH02331: lua: Unable to find entry function"
        . " 'data' in $file (not a valid function)", 'a plain one') {
        is $c->mail('a@b.test', 'c@d.test', "Subject: $subject\r\n\r\nhello\r\n"), 550, $subject or diag $c->text;
    }
    is scalar(my @lines = $h->logged(qr/subject: /)), 4, 'it was asked each time';
};

subtest 'no script lifts a refusal' => sub {
    plan tests => 6;
    my $c = $h->client('strange');
    $h->script(rcpt => 'tell("asked") s:setreply("250 2.1.5 Come in")');
    is $c->cmd('MAIL FROM:<a@b.test>'), 250;
    is $c->cmd('RCPT TO:<x@far.test>') . ' ' . $c->text, '550 5.7.1 Relaying denied', 'relaying stays denied';
    is_deeply [$h->said], [], 'and nobody asks';
    is $c->cmd('RCPT TO:<>'), 553, 'nor about no address';
    $h->script(mail => 's:setflag("local")');
    $c->cmd('RSET');
    $c->cmd('MAIL FROM:<a@b.test>');
    is $c->cmd('RCPT TO:<x@far.test>'), 250, 'the flag local gives permission';
    $h->script(mail => 's:unsetflag("local")');
    $c->cmd('RSET');
    $c->cmd('MAIL FROM:<a@b.test>');
    is $c->cmd('RCPT TO:<x@far.test>'), 550, 'and takes it';
};

subtest '421 and abort close' => sub {
    my %command = (helo => 'EHLO me.test', mail => 'MAIL FROM:<a@b.test>', rcpt => 'RCPT TO:<c@d.test>', data => 'data');
    plan tests => 4 * keys %command;
    for my $phase (sort keys %command) {
        for (['421 4.7.0 Enough', 421], ['250 2.0.0 Last one', 250]) {
            my ($reply, $wanted) = @$_;
            $h->script;
            my $c = $h->client('drop');
            $h->script($phase => qq{s:setreply("$reply")} . ($wanted == 421 ? '' : ' s:setflag("abort")'));
            $c->cmd('MAIL FROM:<a@b.test>') if $phase eq 'rcpt' || $phase eq 'data';
            $c->cmd('RCPT TO:<c@d.test>') if $phase eq 'data';
            my $code = $phase eq 'data' ? $c->data($message) : $c->cmd($command{$phase});
            is $code, $wanted, "$phase: $reply";
            ok $c->expect_eof, 'closed';
        }
    }
};

subtest 'no script without a place for it' => sub {
    plan skip_all => 'each session has a thread anyway' if !$event;
    plan tests => 7;
    my ($first, $second) = map { $h->client('busy') } 1, 2;
    $h->script(mail => 'tell("here") os.execute("sleep 3")', auth => 'tell("asked")');
    $first->send_raw("MAIL FROM:<a\@b.test>\r\n");
    ok +(wait_for { scalar $h->said }), 'a script has the only place';
    is $second->cmd('AUTH PLAIN ' . encode_base64("\0alice\0secret", '')), 454, 'AUTH waits in vain';
    is_deeply [$h->said], [['mail', 'here']], 'nothing was run for it';
    is $first->read_reply, 250, 'the first goes on';
    $h->script(connect => 'tell("here") os.execute("sleep 2")');
    my @waiting = map { IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $h->port('busy')) } 1, 2;
    ok +(wait_for { scalar $h->said }), 'a script has the place again';
    $h->graceful;
    my @heard = map { my $socket = $_; local $/; scalar <$socket> } @waiting;
    is scalar(grep { $_ eq "421 4.3.2 Server is restarting; try again\r\n" } @heard), 1,
        'who waits to be greeted is told of a restart once' or diag explain \@heard;
    is $h->client('busy', timeout => 10)->code, 250, 'and the next child greets';
};

subtest 'who waits at a host that allows little holds nobody up elsewhere' => sub {
    plan skip_all => 'each session has a thread anyway' if !$event;
    plan tests => 4;
    my ($first, $second, $other) = ((map { $h->client('patient') } 1, 2), $h->client('drop'));
    $h->script(mail => 'if s:getfrom():find("slow") then tell("here") os.execute("sleep 1.5") end');
    $first->send_raw("MAIL FROM:<slow\@b.test>\r\n");
    ok +(wait_for { scalar $h->said }), 'a script has its only place';
    $second->send_raw("MAIL FROM:<slow\@b.test>\r\n");
    is $other->cmd('MAIL FROM:<quick@b.test>'), 250, 'a client of another host';
    ok !IO::Select->new($first->socket)->can_read(0), 'is served meanwhile';
    is join(' ', map { $_->read_reply } $first, $second), '250 250', 'and these in turn';
};

subtest 'who leaves the queue by a reset has no turn' => sub {
    plan skip_all => 'each session has a thread anyway' if !$event;
    plan tests => 3;
    $h->script(mail => 'tell(s:getfrom()) os.execute("sleep 1")');
    my ($first, $second, $third) = map { $h->client('patient') } 1 .. 3;
    $first->send_raw("MAIL FROM:<1\@b.test>\r\n");
    ok +(wait_for { scalar $h->said }), 'a script has the only place';
    $second->send_raw("MAIL FROM:<2\@b.test>\r\n");
    $third->send_raw("MAIL FROM:<3\@b.test>\r\n");
    $second->reset;
    is join(' ', map { $_->read_reply } $first, $third), '250 250', 'two are served';
    is_deeply [map { $_->[1] } $h->said], ['1@b.test', '3@b.test'], 'and nobody else';
};

# It is queued behind the first for a second, and greeted before the three are over.
subtest 'who was greeted late has as much time as others' => sub {
    plan skip_all => 'each session has a thread anyway' if !$event;
    plan tests => 3;
    $h->script(connect => 'os.execute("sleep 1")');
    my @waiting = map { $h->client('patient', greeting => 0) } 1, 2;
    is $_->read_reply, 220, 'greeted' for @waiting;
    sleep 3;
    is join(' ', map { eval { $_->cmd('EHLO me.test') } // 'cut' } @waiting), '250 250', 'and heard later than connect=';
};

# The relay of each takes its time; what was decided before is not kept back until the last.
subtest 'replies to what came before a slow command' => sub {
    plan tests => 2;
    my $c = $h->client('drop');
    $h->script(rcpt => 'tell("rcpt") os.execute("sleep 1.2")');
    $c->send_raw("NOOP\r\nMAIL FROM:<a\@b.test>\r\n" . "RCPT TO:<c\@d.test>\r\n" x 4);
    $c->read_reply;
    cmp_ok scalar(my @asked = $h->said), '<', 4, 'are not kept back by all that follow';
    is join(' ', map { $c->read_reply } 1 .. 5), '250 250 250 250 250', 'and all come';
};

subtest 'scopes of mod_lua' => sub {
    plan tests => 10;
    for my $scope (qw(once request conn thread server)) {
        $h->script(rcpt => 'n = (n or 0) + 1 s:setreply("250 2.1.5 Ok " .. s:getrcpt(-1).address)', data => 'tell(s:getfrom())');
        my $c = $h->client($scope);
        my @texts = map { $c->mail("$_\@b.test", 'c@d.test', $message) } 1 .. 3;
        is "@texts", '250 250 250', "LuaScope $scope";
        is_deeply [$h->said], [map { ['data', "$_\@b.test"] } 1 .. 3], 'three mails';
    }
};

subtest 'RSET forgets' => sub {
    plan tests => 2;
    my $c = $h->client('drop');
    $h->script(mail => 's:setfromdata("x")');
    $c->pipeline('MAIL FROM:<a@b.test>', 'RSET');
    $h->script(data => 'tell(s:getfromdata())');
    mail_ok $c, 250, 'the next mail';
    is_deeply [$h->said], [['data', undef]], 'has nothing of the one before';
};

subtest 'a mail that is given up was not taken, whatever a script said of its sender' => sub {
    plan tests => 1;
    my $c = $h->client('drop');
    $h->script(mail => 's:setreply("250 2.1.0 Fine")');
    $c->pipeline('MAIL FROM:<given-up@b.test>', 'QUIT');
    wait_for { $h->log('smtp.log') =~ /given-up.* reply=/ };
    like $h->log('smtp.log'), qr/^221 .*given-up.* reply=221 2\.0\.0 Bye/m, 'the log says how it ended';
};

subtest 'a client that leaves in the middle' => sub {
    plan tests => 2;
    $h->script(map { $_ => 'tell(1)' } qw(mail rcpt data));
    my $c = $h->client('fake');
    $c->pipeline('MAIL FROM:<a@b.test>', 'RCPT TO:<c@d.test>', 'DATA');
    $c->send_raw("half a mess");
    $c->reset;
    mail_ok $h->client('fake'), 250, 'another one';
    is_deeply [map { $_->[0] } $h->said], [qw(mail rcpt mail rcpt data)], 'data never ran for it';
};

subtest 'hosts without phases' => sub {
    plan tests => 2;
    $h->script(map { $_ => 'tell(1) s:setreply("550 no")' } qw(connect helo mail rcpt data));
    mail_ok $h->client('bare'), 250, 'a mail';
    is_deeply [$h->said], [], 'no script ran';
};

subtest 'HTTP' => sub {
    plan tests => 9;
    my $http = HTTP::Tiny->new(timeout => 10);
    $h->script(map { $_ => 'tell(r.uri)' } qw(init connect helo auth mail rcpt data error));
    is $http->get('http://127.0.0.1:' . $h->port('web') . "/smtp/$_")->{status}, 404, "/smtp/$_"
        for qw(init connect helo auth mail rcpt data error);
    is_deeply [$h->said], [], 'no script ran';
};

$h->stop;
is_deeply [$h->crashes], [], 'no child crashed';
