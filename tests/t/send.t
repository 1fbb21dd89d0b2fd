# smtpd.send from an HTTP page: what reaches the relay, what becomes of each recipient, what the page
# is told of every fault, the parallel case, and the lines of SmtpdSendLog.
use strict;
use warnings;
use FakeRelay;
use FreePort;
use HTTP::Tiny;
use IO::Select;
use IO::Socket::INET;
use OwnHttpd;
use SMTPClient;
use Test::More;
use TestHost qw(slurp wait_for);
use Time::HiRes qw(time);

my ($relay, $second) = (FakeRelay->new, FakeRelay->new);
my $away = FakeRelay->new(script => { greeting => [[reply => '421 away']] });
my ($closed, $only_port) = (FreePort::pick(), FreePort::pick());
my $short = 'SmtpdTimeout connect=2 relay=2 dot=2';
my $log = 'SmtpdSendLog %DIR%/send.log';
my $page = 'LuaMapHandler "^/send$" %DIR%/send.lua';

my $h = OwnHttpd->new(
    modules => [qw(slotmem_shm proxy lua)],
    main => <<"MAIN",
<IfModule mpm_prefork_module>
StartServers 8
MaxRequestWorkers 8
</IfModule>
<IfModule !mpm_prefork_module>
StartServers 1
ServerLimit 1
ThreadsPerChild 32
MaxRequestWorkers 32
MaxSpareThreads 32
</IfModule>
MAIN
    hosts => {
        web  => $page,
        mail => <<"MAIL",
SmtpdEngine on
SmtpdHostname mail.test
SmtpdRelay smtp://127.0.0.1:@{[$relay->port]} retry=0 disablereuse=on
SmtpdRelayDomains second.test:127.0.0.1:@{[$second->port]} away.test:127.0.0.1:@{[$away->port]} box.test=maildir:%DIR%/maildir/%d/%u
$short
$log
MAIL
        pool => <<"POOL",
SmtpdEngine on
SmtpdRelay smtp://127.0.0.1:@{[$relay->port]} max=4
ProxyVia Off
SmtpdSendLog "|/usr/bin/tee -a %DIR%/piped.log"
POOL
        closed => "SmtpdEngine on\nSmtpdRelay smtp://127.0.0.1:$closed retry=0\n$short\n$log",
        only   => "SmtpdEngine on\nSmtpdRelay smtp://127.0.0.1:$only_port max=1\nSmtpdTimeout connect=5\n"
            . 'LuaMapHandler "^/smtp/error$" %DIR%/error.lua',
        lonely => "SmtpdEngine on\nSmtpdRelayDomains box.test=maildir:%DIR%/maildir/%d/%u\n$log",
    },
);
$h->write_file('send.lua', <<'LUA');
-- Sends the request's body as a message, by from=, rcpt= (any number), host=, port=, use=.
function handle(r)
    local one, rcpts = {}, {}
    for name, value in r.args:gmatch('(%w+)=([^&]*)') do
        value = value:gsub('%%(%x%x)', function(hex) return string.char(tonumber(hex, 16)) end)
        if name == 'rcpt' then rcpts[#rcpts + 1] = value else one[name] = value end
    end
    assert(smtpd.use(one.use))
    local ok, what, more = smtpd.send(one.from, rcpts, r:requestbody() or '', one.host,
                                      tonumber(one.port))
    if ok then
        what, more = 'ok', what
    end
    more = more or {}
    local taken = 0
    for _, rcpt in ipairs(more.rcpts or {}) do
        if ok and rcpt.code < 400 then taken = taken + 1 end
    end
    r.content_type = 'text/plain'
    r:puts(what, '\nreply=', (more.code or 0) > 0 and more.reply or '-', '\nphase=',
           more.phase or (ok and 'end of data' or 'arguments'), '\ntaken=', taken, '\n')
    for _, rcpt in ipairs(more.rcpts or {}) do
        r:puts('rcpt ', rcpt.address, ': ', rcpt.reply, '\n')
    end
    return apache2.OK
end
LUA
$h->write_file('error.lua', <<'LUA');
function handle(r)
    assert(smtpd.send('phase@from.test', 'other@to.test', 'Subject: p\n\np\n'))
    return apache2.OK
end
LUA
$h->start;

my $MESSAGE = "Subject: hello\n\ntext\n";

sub query {
    my (%a) = @_;
    my @pairs = map { my $n = $_; map { [$n, $_] } ref $a{$n} ? @{ $a{$n} } : $a{$n} } sort keys %a;
    return '/send?' . join '&', map {
        my ($n, $v) = @$_;
        utf8::encode($v) if utf8::is_utf8($v);
        $v =~ s/([^A-Za-z0-9])/sprintf '%%%02X', ord $1/ge;
        "$n=$v";
    } @pairs;
}

# The page's answer: { ok => message or 'ok', reply, phase, taken, rcpts => {address => reply} }.
sub answer {
    my ($text) = @_;
    my %got = (text => $text, rcpts => { $text =~ /^rcpt (\S+): (.*)$/mg });
    ($got{ok}) = $text =~ /\A(.*)$/m;
    $got{$_} = $text =~ /^$_=(.*)$/m ? $1 : undef for qw(reply phase taken);
    return \%got;
}

sub sends {
    my ($message, %a) = @_;
    $a{use} = '' . ($a{use} // 'mail');
    $a{use} = "$a{use}.test:" . $h->port($a{use});
    my $got = HTTP::Tiny->new(timeout => 60)->post('http://127.0.0.1:' . $h->port('web')
        . query(from => 'me@from.test', rcpt => 'you@to.test', %a), { content => $message });
    return answer($got->{content});
}

my ($known, $here) = (0, 0);

# The next mail that a relay has got.
sub mail_of {
    my ($which, $n) = @_;
    return ($which->mails_when($n))[$n - 1] || {};
}
sub next_mail { return mail_of($relay, ++$known) }

# The send log's new line, once it is there, as a hash.
my $lines = 0;
sub line {
    my ($file) = @_;
    my @all;
    wait_for { @all = split /\n/, $h->log('send.log'); @all > $lines };
    is @all - $lines, 1, 'one line more in the send log';
    $lines = @all;
    my $date = qr{\d\d/[A-Z][a-z]{2}/\d{4}(?::\d\d){3}};
    my $zone = qr/[+-]\d{4}/;
    my ($pid, $status, $outcome, $place, $port, $time, $octets, $from, $rcpts) = $all[-1] =~
        m{\A\[$date $zone\] (\d+):\d+ (\d{3}) ([A-Z_]+) \[(\S+)\]:(\d+) (\d+\.\d{6}) (\d+) (\S+) RCPT:((?: \S+)*)\z}
        or fail("a well formed line: $all[-1]"), return {};
    return { status => $status, outcome => $outcome, place => "$place:$port", time => $time,
        octets => $octets, from => $from, rcpts => $rcpts };
}

subtest 'a mail' => sub {
    my $got = sends($MESSAGE);
    is $got->{ok}, 'ok', 'sent' or diag $got->{text};
    is $got->{reply}, '250 2.0.0 queued as FAKE1', 'the reply is the relay\'s';
    is $got->{phase}, 'end of data', 'to the end of data';
    is $got->{taken}, 1, 'one recipient';
    is_deeply $got->{rcpts}, { 'you@to.test' => $got->{reply} }, 'its reply';
    my $mail = next_mail();
    is $mail->{from}, 'me@from.test', 'the sender';
    like $mail->{mail}, qr/ SIZE=\d+\z/, 'SIZE was said, BODY was not';
    my $date = qr/\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d \+0000/;
    my $id = qr/<[^\s<>@]+\@mail\.test>/;
    like $mail->{data},
        qr/\ADate: $date\r\nMessage-ID: $id\r\nSubject: hello\r\n\r\ntext\r\n\z/,
        'Date and Message-ID are added, line ends are CRLF';
    is $mail->{mail} =~ /SIZE=(\d+)/ && $1, length $mail->{data}, 'SIZE is right';
    my $line = line();
    is "@$line{qw(status outcome place)}", '250 SUCCESS 127.0.0.1:' . $relay->port, 'its line';
    is $line->{octets}, length $mail->{data}, 'with the octets';
    is "$line->{from}$line->{rcpts}", 'me@from.test you@to.test', 'and the envelope';
};

# A message and what the relay must get behind the two fields that are added, or (keep) as all.
my @messages = (
    ['CRLF stays', "A: b\r\n\r\nc\r\n", "A: b\r\n\r\nc\r\n"],
    ['LF, CR and CRLF mixed, no final line end', "A: b\r\n\nc\rd", "A: b\r\n\r\nc\r\nd\r\n"],
    ['dots', "A: b\n\n.\n..\n.x\na.\n", "A: b\r\n\r\n.\r\n..\r\n.x\r\na.\r\n"],
    ['a dot at the very beginning', ".\n", "\r\n.\r\n"],
    ['no header section', "hello\n", "\r\nhello\r\n"],
    ['an empty header section', "\nhello\n", "\r\nhello\r\n"],
    ['nothing at all', '', "\r\n"],
    ['fields only', "A: b\n", "A: b\r\n"],
    ['what looks like an end', "A: b\n\n\r\n.\r\nRSET\r\n", "A: b\r\n\r\n\r\n.\r\nRSET\r\n"],
    ['a long line and many', "A: b\n\n" . 'x' x 70000 . "\n" . "y\n" x 50000,
        "A: b\r\n\r\n" . 'x' x 70000 . "\r\n" . "y\r\n" x 50000],
);

subtest 'messages' => sub {
    for (@messages) {
        my ($name, $message, $want) = @$_;
        is sends($message)->{ok}, 'ok', $name;
        my $mail = next_mail();
        my $rest = $mail->{data} =~ s/\ADate: [^\r]+\r\nMessage-ID: [^\r]+\r\n//r;
        ok $rest eq $want, "$name: as it must arrive" or diag substr $mail->{data}, 0, 300;
        ++$lines;
        wait_for { (() = $h->log('send.log') =~ /\n/g) >= $lines };
        my ($octets) = (split /\n/, $h->log('send.log'))[$lines - 1] =~ / (\d+) \S+ RCPT:/;
        is $octets, length($mail->{wire}) - 3, "$name: octets in the log are those of the wire";
    }
    for (['Date: now', qr/\AMessage-ID: [^\r]+\r\nDate: now\r\n/],
        ["message-id : <x\@y>", qr/\ADate: [^\r]+\r\nmessage-id : <x\@y>\r\n/],
        ["Date: now\nMessage-ID: <x>", qr/\ADate: now\r\nMessage-ID: <x>\r\n\r\nx\r\n\z/]) {
        sends("$_->[0]\n\nx\n");
        like next_mail()->{data}, $_->[1], 'a field that is there is not added';
        ++$lines;
    }
    is sends("A: \xe4\n\n\xff\n")->{ok}, 'ok', '8-bit octets';
    my $mail = next_mail();
    like $mail->{mail}, qr/ BODY=8BITMIME\z/, 'are announced';
    like $mail->{data}, qr/A: \xe4\r\n\r\n\xff\r\n\z/, 'and arrive';
    like sends("\xff\n", use => 'mail', rcpt => 'old@second.test')->{reply}, qr/^250 /, 'by another route too';
    $lines += 2;
};

subtest 'envelopes' => sub {
    is sends($MESSAGE, from => $_)->{ok}, 'ok', "sender '$_'" for '', '<>', ' <me@from.test> ';
    is_deeply [map { $_->{from} } map { next_mail() } 1 .. 3], ['', '', 'me@from.test'], 'as the relay hears them';
    is sends($MESSAGE, rcpt => ['<a@to.test>', ' b@to.test ', 'postmaster', '"a b"@to.test'])->{taken}, 4,
        'recipients of all forms';
    is_deeply next_mail()->{rcpts}, ['a@to.test', 'b@to.test', 'postmaster', '"a b"@to.test'], 'as heard';
    my @all = wait_for { my @l = split /\n/, $h->log('send.log'); @l == $lines + 4 ? \@l : 0 };
    $lines += 4;
    my @new = map { / (\S+ RCPT:.*)/ } @{ $all[0] }[-4 .. -1];
    is $new[0], '<> RCPT: you@to.test', 'the null sender in the log';
    is $new[1], $new[0], 'in both forms';
    is $new[2], 'me@from.test RCPT: you@to.test', 'without brackets and blanks';
    is $new[3], 'me@from.test RCPT: a@to.test b@to.test postmaster \x22a\x20b\x22@to.test', 'and escaped';
};

# Nothing of these reaches a relay, and none of them makes a line of its own.
my @bad = (
    [from => "me\@from.test\r\nRCPT TO:<evil\@to.test>"], [from => "<me\@from.test>\r\nDATA"],
    [from => "me\@from.test\n"], [from => 'me@from.test> SIZE=1'], [from => 'me'], [from => "\e[31m"],
    [from => "m\xc3\xa9\@from.test"],
    [rcpt => "you\@to.test\r\nRSET"], [rcpt => ["ok\@to.test", "you\@to.test\n"]], [rcpt => '<>'],
    [rcpt => 'you@to.test, two@to.test'], [rcpt => ''], [rcpt => "a\tb\@to.test"],
    [rcpt => "x \[1\]:25 0.1 5 f RCPT: y"],
    [host => "127.0.0.1:$closed/x"], [host => 'a b'], [host => "127.0.0.1\r\nx"], [host => 'me@127.0.0.1'],
);
my @worse = ([rcpt => []], [rcpt => "you\@to.test\0"], [from => "me\@from.test\0"], [host => ''],
    [host => '127.0.0.1', port => 70000], [host => '127.0.0.1', port => -1]);

subtest 'what is no address is refused' => sub {
    my $before = $relay->connections;
    for (@bad) {
        my $got = sends($MESSAGE, @$_);
        my $name = join ' ', map { ref $_ ? "[@$_]" : $_ } @$_;
        $name =~ s/[^ -~]/?/g;
        like $got->{ok}, qr/no address|no recipient|no host/, $name;
        is "$got->{reply} $got->{taken}", '- 0', 'no reply, nobody took it';
        is $got->{phase}, 'arguments', 'phase';
        my $line = line();
        is "@$line{qw(status outcome place octets)}", '000 SETUP_FAILURE -:0 0', 'the line';
        unlike "$line->{from}$line->{rcpts}", qr/[^ -~]/, 'nothing raw in it';
    }
    for (@worse) {
        my $got = sends($MESSAGE, @$_);
        like $got->{ok}, qr/no recipient|NUL|no name|a port is/, 'and what is no argument';
        is $got->{taken}, 0, 'sends nothing';
    }
    is $relay->connections, $before, 'the relay heard of none';
};

# Faults of the relay: what it does, and what the page and the log say. A relay that hangs costs one
# deadline, not one for each recipient.
my @faults = (
    ['MAIL refused', { mail => [[reply => '550 5.7.1 not you']] }, '550 5.7.1 not you', 'MAIL', '550 STATUS_ERROR'],
    ['every RCPT refused', { rcpt => [[reply => '550 5.1.1 nobody']] }, '550 5.1.1 nobody', 'RCPT', '550 STATUS_ERROR'],
    ['RCPT deferred', { rcpt => [[reply => '450 4.2.1 later']] }, '450 4.2.1 later', 'RCPT', '450 STATUS_ERROR'],
    ['DATA refused', { data => [[reply => '552 5.2.2 full']] }, '552 5.2.2 full', 'DATA', '552 STATUS_ERROR'],
    ['the dot refused', { dot => [[reply => '554 5.6.0 bad']] }, '554 5.6.0 bad', 'end of data', '554 STATUS_ERROR'],
    ['greeting refused', { greeting => [[reply => '554 no']] }, qr/^451 4\.3\.5 /, 'greeting', '451 GREET_FAILURE'],
    ['closed at once', { greeting => [[close => 1]] }, qr/^451 4\.4\.2 /, 'greeting', '000 GREET_FAILURE'],
    ['EHLO and HELO refused', { ehlo => [[reply => '550 no']], helo => [[reply => '550 no']] },
        qr/^451 4\.3\.5 /, 'HELO', '451 SETUP_FAILURE'],
    ['closed at EHLO', { ehlo => [[close => 1]] }, qr/^451 4\.4\.2 /, 'EHLO', '000 SETUP_FAILURE'],
    ['closed at MAIL', { mail => [[close => 1]] }, qr/^451 4\.4\.2 /, 'MAIL', '000 IO_ERROR'],
    ['closed at the second RCPT', { rcpt => [[reply => '250 ok'], [close => 1]] }, qr/^451 4\.4\.2 /, 'RCPT', '000 IO_ERROR'],
    ['closed at DATA', { data => [[close => 1]] }, qr/^451 4\.4\.2 /, 'DATA', '000 IO_ERROR'],
    ['closed at the dot', { dot => [[close => 1]] }, qr/^451 4\.4\.2 /, 'end of data', '000 IO_ERROR'],
    ['garbage at MAIL', { mail => [[raw => "\0\x91?\r\n"]] }, qr/^451 4\.3\.5 /, 'MAIL', '451 STATUS_ERROR'],
    ['hangs at the greeting', { greeting => [[hang => 1]] }, qr/^451 4\.4\.2 /, 'greeting', '000 GREET_FAILURE'],
    ['hangs at the second RCPT', { rcpt => [[reply => '250 ok'], [hang => 1]] }, qr/^451 4\.4\.2 /, 'RCPT', '000 IO_ERROR'],
    ['hangs at the dot', { dot => [[hang => 1]] }, qr/^451 4\.4\.2 /, 'end of data', '000 IO_ERROR'],
);

subtest 'faults of the relay' => sub {
    for (@faults) {
        my ($name, $script, $reply, $phase, $log) = @$_;
        $relay->script($script);
        my $got = sends($MESSAGE, rcpt => [map {"$_\@to.test"} 1 .. 4]);
        like $got->{reply}, ref $reply ? $reply : qr/^\Q$reply\E\z/, "$name: reply";
        is $got->{phase}, $phase, "$name: phase";
        is $got->{taken}, 0, "$name: nobody";
        like $got->{ok}, qr/^nobody has taken the mail; at \Q$phase\E: \d/, "$name: the sentence";
        is_deeply [sort values %{ $got->{rcpts} }], [($got->{reply}) x 4], "$name: each recipient's reply";
        my $line = line();
        is "@$line{qw(status outcome)}", $log, "$name: the line";
        is $line->{octets}, 0, "$name: without octets";
        cmp_ok $line->{time}, '<', 8, "$name: in time";
        $known += $name =~ /the dot/;
    }
    $relay->script({});
};

subtest 'some recipients are refused' => sub {
    $relay->script({ rcpt => [[reply => '250 2.1.5 ok'], [reply => '550 5.1.1 nobody'], [reply => '250 2.1.5 ok']] });
    my $got = sends($MESSAGE, rcpt => [map {"$_\@to.test"} 1 .. 3]);
    is $got->{ok}, 'ok', 'that is success';
    is $got->{taken}, 2, 'for two of three';
    like $got->{reply}, qr/^250 /, 'with the relay\'s last word';
    like $got->{rcpts}{"$_\@to.test"}, qr/^250 2\.0\.0 queued/, "recipient $_" for 1, 3;
    is $got->{rcpts}{'2@to.test'}, '550 5.1.1 nobody', 'recipient 2';
    is_deeply next_mail()->{rcpts}, ['1@to.test', '3@to.test'], 'who got it';
    is line()->{outcome}, 'SUCCESS', 'the line';
    $relay->script({});
};

subtest 'recipients with several routes' => sub {
    $here = $second->mails;
    my $got = sends($MESSAGE, rcpt => ['a@to.test', 'b@sub.second.test', 'c@to.test', 'd@box.test', 'e@Second.Test']);
    is $got->{ok} . $got->{taken}, 'ok5', 'all are taken' or diag $got->{text};
    my ($one, $two) = (next_mail(), mail_of($second, ++$here));
    is_deeply $one->{rcpts}, ['a@to.test', 'c@to.test'], 'the default relay\'s';
    is_deeply $two->{rcpts}, ['b@sub.second.test', 'e@Second.Test'], 'those of the listed domain';
    is $one->{data}, $two->{data}, 'got the same message';
    my @files = glob $h->dir . '/maildir/box.test/d/new/*';
    is @files, 1, 'the Maildir has one';
    like slurp($files[0]), qr/^Message-ID: .*\n(?:.*\n)*Subject: hello\n\ntext\n\z/m, 'as well';
    line();
    $got = sends($MESSAGE, rcpt => ['b@away.test', 'a@to.test']);
    is $got->{ok} . $got->{taken}, 'ok1', 'one way fails: still success';
    like $got->{rcpts}{'b@away.test'}, qr/^451 /, 'the reply there';
    like $got->{rcpts}{'a@to.test'}, qr/^250 /, 'and here';
    like $got->{reply}, qr/^250 /, 'the last word is the good one';
    is "@{ line() }{qw(outcome place)}", 'SUCCESS 127.0.0.1:' . $relay->port, 'so is the line';
    next_mail();
};

subtest 'no route, no relay' => sub {
    my $got = sends($MESSAGE, use => 'lonely');
    like $got->{ok}, qr/^there is no way to you\@to\.test: /, 'no route';
    is line()->{outcome}, 'SETUP_FAILURE', 'its line';
    $got = sends($MESSAGE, use => 'closed');
    is $got->{phase}, 'connect', 'nobody listens';
    like $got->{reply}, qr/^451 4\.4\.1 /, 'the reply';
    is "@{ line() }{qw(status outcome place)}", "000 CONNECT_FAILURE 127.0.0.1:$closed", 'its line';
};

subtest 'to a host of the script\'s choice' => sub {
    $here = $second->mails;
    for my $host ('127.0.0.1', 'localhost') {
        is sends($MESSAGE, host => $host, port => $second->port, rcpt => ['x@to.test', 'd@box.test'])->{taken}, 2, "to $host";
        is_deeply mail_of($second, ++$here)->{rcpts}, ['x@to.test', 'd@box.test'], 'everybody goes there';
        is line()->{place}, "$host:" . $second->port, 'its line';
    }
    my $before = $second->connections;
    for (1 .. 3) {
        is sends($MESSAGE, host => 'localhost', port => $second->port)->{ok}, 'ok', 'again';
        ++$lines;
    }
    is $second->connections, $before, 'over the same connection' if ($h->{mpm} ne 'prefork');
    ok 1, 'each child of prefork has its own' if $h->{mpm} eq 'prefork';
    is sends($MESSAGE, host => '::1', port => $closed)->{phase}, 'connect', 'an IPv6 address';
    is line()->{place}, "::1:$closed", 'its line';
    is sends($MESSAGE, host => 'no-such.invalid')->{phase}, 'connect', 'a name without address';
};

# 200 requests at once; on the threaded MPMs one child with four connections to the relay.
subtest 'two hundred at once' => sub {
    ++$lines;
    my ($before, $connections) = (scalar $relay->mails, scalar $relay->connections);
    my $message = "Subject: many\n\n" . "text\n" x 200;
    my %open;
    my $select = IO::Select->new;
    for my $n (1 .. 200) {
        my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $h->port('web')) or next;
        print {$s} 'POST ' . query(from => "p$n\@from.test", rcpt => 'you@to.test', use => 'pool.test:' . $h->port('pool'))
            . " HTTP/1.0\r\nContent-Length: " . length($message) . "\r\n\r\n$message";
        $open{ fileno $s } = { socket => $s, in => '' };
        $select->add($s);
    }
    my ($ok, $deadline) = (0, time + 60);
    while ($select->count && time < $deadline) {
        for my $s ($select->can_read(1)) {
            my $c = $open{ fileno $s };
            next if sysread $s, $c->{in}, 65536, length $c->{in};
            $ok += $c->{in} =~ /\r\n\r\nok\n/ ? 1 : 0;
            $select->remove($s);
            delete $open{ fileno $s };
            close $s;
        }
    }
    is $ok, 200, 'all are told so';
    my @mails = $relay->mails_when($before + 200);
    my %from = map { $_->{from} => 1 } @mails[$before .. $#mails];
    is keys %from, 200, 'each has arrived';
    is @mails - $before, 200, 'once';
    cmp_ok $relay->connections - $connections, '<=', $h->{mpm} eq 'prefork' ? 8 : 4, 'over few connections';
    wait_for { (() = $h->log('piped.log') =~ /\n/g) >= 200 };
    is scalar(grep {/ 250 SUCCESS \[127\.0\.0\.1\]:\d+ .* RCPT: you\@to\.test$/} split /\n/, $h->log('piped.log')), 200,
        'with a whole line each from the program of SmtpdSendLog';
    $known += 200;
};

# The relay refuses a recipient whom a phase of the same child then tells of by mail, with max=1: the
# session must let go of the only connection.
subtest 'from a phase, over the only connection' => sub {
    my $said = $h->{mpm} eq 'prefork' ? 1 : 2;    # a kept connection does not hear the first one again
    my $only = FakeRelay->new(port => $only_port, script => {
        rcpt => [([reply => '250 2.1.5 ok']) x $said, [reply => '550 5.1.1 nobody'], [reply => '250 2.1.5 ok']] });
    my $c = SMTPClient->new(port => $h->port('only'));
    $c->cmd($_) for 'EHLO me.test', 'MAIL FROM:<me@from.test>';
    is $c->cmd('RCPT TO:<one@to.test>'), 250, 'a recipient';
    my $start = time;
    is $c->cmd('RCPT TO:<two@to.test>'), 550, 'another is refused';
    cmp_ok time - $start, '<', 5, 'without waiting for a connection';
    is $c->data($MESSAGE =~ s/\n/\r\n/gr), 250, 'the mail goes on';
    is_deeply [map {"$_->{from} @{ $_->{rcpts} }"} $only->mails_when(2)],
        ['phase@from.test other@to.test', 'me@from.test one@to.test'], 'both have arrived';
    is scalar(() = $only->connections), 1, 'over one connection';
    $c->quit;
};

subtest 'a line is never longer than a pipe takes at once' => sub {
    my $before = length $h->log('send.log');
    is sends($MESSAGE, rcpt => [map { 'x' x 60 . "$_\@to.test" } 1 .. 90])->{taken}, 90, '90 long names';
    wait_for { $h->log('send.log') =~ /RCPT: x.*\n\z/ };
    my $line = substr $h->log('send.log'), $before;
    cmp_ok length $line, '<=', 4096, 'short enough';
    like $line, qr/ \+\d+\n\z/, 'and it says how many are missing';
};

$h->stop;
my ($valid, $said) = OwnHttpd->new(hosts => { mail => "SmtpdEngine on\nSmtpdRelay discard:\nSmtpdSendLog |\n" })->check;
ok !$valid && $said =~ /SmtpdSendLog: needs a path/, 'a program that is none';
my $missing = OwnHttpd->new(hosts => { mail => "SmtpdEngine on\nSmtpdRelay discard:\nSmtpdSendLog %DIR%/no/such/log\n" });
ok !eval { $missing->start; 1 }, 'a log in a directory that is not there';
like $@, qr/NS0067: SmtpdSendLog: cannot open .*no\/such\/log/, 'is named';
done_testing;
