# What every client sees on the wire: each reply of the table, addresses, permission to relay, what
# ends a message, sizes, Received. Each dialogue runs three times: command by command, in pieces of
# three octets, and all of it in one packet.
use strict;
use warnings;
use FakeRelay;
use Socket qw(IPPROTO_TCP TCP_NODELAY);
use TestHost;
use Test::More;

my $root = server_root() . '/maildir';
my $tag = "w$$";

my %way = (
    'line by line' => sub { my ($c, $read, @sent) = @_; for (@sent) { $c->send_raw($_); $read->() } },
    'in pieces' => sub {
        my ($c, $read, @sent) = @_;
        for my $bytes (@sent) { $c->send_raw($_) for $bytes =~ /(.{1,3})/sg; $read->() }
    },
    'in one packet' => sub {
        my ($c, $read, @sent) = @_;
        $c->send_raw(join '', @sent);
        $read->() for @sent;
    },
);

# Steps are pairs: what is sent, and how its reply begins: "250", "250 2.1.0". A command gets its
# CRLF; what ends in CRLF or is a message is sent as it is. A 421 must be the end.
sub dialogue {
    my ($name, $host, @steps) = @_;
    my (@sent, @want);
    while (my ($bytes, $reply) = splice @steps, 0, 2) {
        push @sent, $bytes =~ /\r\n\z/ ? $bytes : "$bytes\r\n";
        push @want, $reply;
    }
    my $closes = $want[-1] =~ /^(?:421|221)/;
    subtest $name => sub {
        plan tests => $closes ? 6 : 3;
        for my $way (sort keys %way) {
            my $c = client($host, timeout => 30);
            setsockopt $c->socket, IPPROTO_TCP, TCP_NODELAY, 1;
            my @got;
            eval {
                $way{$way}->($c, sub {
                    my $code = $c->read_reply;
                    push @got, join ' ', $code, ($c->lines)[-1];
                }, @sent);
                1;
            } or push @got, "died: $@";
            my @seen = map { substr $got[$_] // 'nothing', 0, length $want[$_] } 0 .. $#want;
            is_deeply \@seen, \@want, $way or diag explain \@got;
            ok $c->expect_eof, "$way: closed" if $closes;
        }
    };
}

my @hello = ('EHLO me.test' => '250');
my @mail = (@hello, 'MAIL FROM:<a@b.test>' => '250 2.1.0');
my @data = (@mail, 'RCPT TO:<c@d.test>' => '250 2.1.5', DATA => '354');
my $dot = ".\r\n";

# ---- the table of replies

dialogue 'commands', 'smtp_discard', BLURB => '500 5.5.1', EHLOX => '500 5.5.1', 'MAILFROM:<>' =>
    '500 5.5.1', '' => '500 5.5.1', 'AUTH PLAIN' => '502 5.5.1', STARTTLS => '502 5.5.1',
    'BDAT 3 LAST' => '502 5.5.1', 'EXPN x' => '502 5.5.1', EHLO => '501 5.5.2', HELO => '501 5.5.2',
    'VRFY' => '501 5.5.2', @hello, 'DATA now' => '503 5.5.1', 'RSET now' => '501 5.5.2',
    'NOOP ' . 'x' x 5000 => '500 5.5.2', 'QUIT' => '221 2.0.0';
dialogue 'MAIL and RCPT', 'smtp_discard', @hello, 'MAIL TO:<a@b.test>' => '501 5.5.2',
    'MAIL FROM:' => '501 5.5.2', 'MAIL FROM:<>x' => '553 5.1.7',
    'MAIL FROM:<> SIZE' => '501 5.5.4', 'MAIL FROM:<> SIZE=' => '501 5.5.4',
    'MAIL FROM:<> SIZE=-1' => '501 5.5.4', 'MAIL FROM:<> SIZE=1 SIZE=1' => '501 5.5.4',
    'MAIL FROM:<> SIZE=18446744073709552116' => '552 5.3.4', 'MAIL FROM:<> BODY=9BIT' => '501 5.5.4',
    'MAIL FROM:<> RET=FULL' => '555 5.5.4', 'MAIL FROM:<> SMTPUTF8' => '555 5.5.4',
    'MAIL FROM:<> SIZE=52428801' => '552 5.3.4', 'mail from:<> size=52428800 body=8bitmime' => '250 2.1.0',
    'RCPT FROM:<a@b.test>' => '501 5.5.2', 'RCPT TO:<>' => '553 5.1.3',
    'RCPT TO:<c@d.test> NOTIFY=NEVER' => '555 5.5.4', 'rcpt to:<c@d.test>' => '250 2.1.5';
dialogue 'order', 'smtp_discard', 'MAIL FROM:<>' => '503 5.5.1', 'RCPT TO:<c@d.test>' => '503 5.5.1',
    DATA => '503 5.5.1', @mail, 'MAIL FROM:<>' => '503 5.5.1', DATA => '503 5.5.1', 'RSET' => '250 2.0.0',
    'RCPT TO:<c@d.test>' => '503 5.5.1', 'MAIL FROM:<>' => '250 2.1.0',
    'HELO me.test' => '250', 'RCPT TO:<c@d.test>' => '503 5.5.1';
dialogue 'DATA after refused recipients', 'smtp_stranger', @mail, 'RCPT TO:<c@d.test>' => '550 5.7.1',
    DATA => '554 5.5.1', 'RCPT TO:<c@relay.test>' => '250 2.1.5';
dialogue 'a refused message ends its transaction', 'smtp_discard', @data, "a\rb\r\n$dot" => '550 5.6.0',
    'RCPT TO:<c@d.test>' => '503 5.5.1', DATA => '503 5.5.1';
dialogue 'octets that no command holds: the line ends at its CRLF', 'smtp_discard', @hello,
    "NOOP a\nMAIL FROM:<>" => '500 5.5.2', "NOOP a\rMAIL FROM:<>" => '500 5.5.2',
    "NOOP a\0b" => '500 5.5.2', "\n" x 3 => '500 5.5.2', 'RCPT TO:<c@d.test>' => '503 5.5.1';
dialogue "HTTP: $_", 'smtp_discard', "$_ / HTTP/1.1" => '421 4.7.0'
    for qw(GET POST PUT HEAD OPTIONS CONNECT);
dialogue 'HTTP with a path too long', 'smtp_discard', 'GET /' . 'x' x 6000 => '421 4.7.0';
dialogue 'too many errors', 'smtp_small', @hello, ('BLURB' => '500 5.5.1') x 5, 'BLURB' => '421 4.7.0';
dialogue 'another route', 'smtp_stranger', @mail, 'RCPT TO:<c@relay.test>' => '250 2.1.5',
    'RCPT TO:<c@other.test>' => '452 4.5.3', DATA => '354', "x\r\n$dot" => '250 2.0.0';
dialogue 'a relay that cannot be reached', 'smtp_closed', @mail, 'RCPT TO:<c@d.test>' => '451 4.4.1';

# ---- addresses

my $local64 = 'l' x 64;
my $domain = join '.', ('d' x 60) x 3, 'test';
my @good = ('<a@b.test>', '<A.b+c=d@B.Test>', '<"quoted local"@b.test>', '<"a\\"b"@b.test>', '<""@b.test>',
    '<a@[127.0.0.1]>', '<a@[IPv6:::1]>', '<@one.test,@two.test:a@b.test>', "<$local64\@b.test>",
    '<a_b@under_score.test>', '<"a@b"@c.test>', '<a%b@c.test>', '<b!a@c.test>', "<a\@$domain>",
    '<.a..b.@c.test>', '<${run{x}}`|&\'@b.test>');
my @bad = ('<a b@c.test>', '<a@b@c.test>', '<a@>', '<@b.test>', '<a@b..test>', '<;sleep@b.test>', '<$(touch)@b.test>',
    '<a@-b.test>', '<a@[300.1.2.3]>', '<a@[IPv6:xyz]>', '<"a@b.test>', '<a@b.test', 'a>@b.test',
    "<a\@b.test\e>", "<\xe4\@b.test>", '<' . 'l' x 300 . '@b.test>', '<a@' . 'd' x 64 . '.test>',
    '<a@' . join('.', ('d' x 60) x 5) . '>', '<<a@b.test>>');
dialogue 'senders', 'smtp_discard', @hello,
    map { ("MAIL FROM:$_" => '250 2.1.0', RSET => '250 2.0.0') } '<>', @good;
dialogue 'recipients', 'smtp_discard', @mail, map { ("RCPT TO:$_" => '250 2.1.5') }
    '<postmaster>', '<PostMaster>', @good;
dialogue 'no senders', 'smtp_discard', @hello, map { ("MAIL FROM:$_" => '553 5.1.7') } @bad;
dialogue 'no recipients', 'smtp_discard', @mail, map { ("RCPT TO:$_" => '553 5.1.3') } @bad;
dialogue 'a number or a tag is no domain', 'smtp_discard', @mail, map { ("RCPT TO:$_" => '553 5.1.3') }
    '<a@127.0.0.1>', '<a@127.1>', '<a@2130706433>', '<a@[IPv4:127.0.0.1]>', '<a@[tag:x]>';
dialogue 'a local part alone', 'smtp_discard', @hello, 'MAIL FROM:<postmasters>' => '553 5.1.7', @mail,
    'RCPT TO:<root>' => '553 5.1.3';

# ---- permission to relay

dialogue 'what a stranger may', 'smtp_stranger', @mail, map { ("RCPT TO:<$_>" => '250 2.1.5') }
    'c@relay.test', 'c@RELAY.Test', 'c@a.b.relay.test', 'postmaster@relay.test', 'postmaster',
    '@relay.test:c@relay.test', '"c d"@relay.test';
dialogue 'what a stranger may not', 'smtp_stranger', @mail, map { ("RCPT TO:<$_>" => '550 5.7.1') }
    'c@elsewhere.test', 'c@relay.test.elsewhere.test', 'c@xrelay.test', 'c@test', 'c@[127.0.0.1]',
    'c%elsewhere.test@relay.test', 'elsewhere.test!c@relay.test', '"c@elsewhere.test"@relay.test',
    '@relay.test:c@elsewhere.test', '@relay.test,@sub.relay.test:c@elsewhere.test',
    'postmaster@elsewhere.test', '"c%elsewhere.test"@relay.test', '"\\@c"@relay.test';
dialogue 'a NUL hides no domain', 'smtp_stranger', @mail, "RCPT TO:<c\@elsewhere.test\0\@relay.test>" =>
    '500 5.5.2';
dialogue 'a stranger who says to be postmaster is one', 'smtp_stranger', @hello,
    'MAIL FROM:<postmaster>' => '250 2.1.0', 'RCPT TO:<c@elsewhere.test>' => '550 5.7.1';

# ---- smuggling: nothing but CRLF.CRLF ends a message

my @terminators = ("\n.\n", "\n.\r\n", "\n.\r", "\r.\r", "\r.\n", "\r.\r\n", "\r\n.\n", "\r\n.\r",
    "\n\n.\r\n", "\r\n\n.\n", "\r\r\n.\r\r\n", "\r\n\0.\r\n", "\r\n.\0\r\n", "\n.\0\n", "\r\n.\x20\r\n",
    "\0\r\n.\n");
my $second = "MAIL FROM:<evil\@b.test>\r\nRCPT TO:<second\@other.test>\r\nDATA\r\n"
    . "Subject: smuggled\r\n\r\nsecond\r\n";
sub shown { local $_ = $_[0]; s/([^ -~])/sprintf '\\x%02x', ord $1/ge; return $_ }
sub files { my @found = glob "$root/$_[0]/new/*"; return @found }

# True when the octets are canonical in themselves, and so a message like any other.
sub is_clean { return $_[0] !~ /\r(?!\n)|(?<!\r)\n/ }

subtest "strangers' lenient terminators" => sub {
    plan tests => 4 * @terminators;
    for my $i (0 .. $#terminators) {
        my ($end, $name) = ($terminators[$i], shown $terminators[$i]);
        my $c = client('smtp_stranger', ehlo => 'me.test');
        $c->pipeline('MAIL FROM:<a@b.test>', "RCPT TO:<$tag-s$i\@other.test>", 'DATA');
        $c->send_raw("Subject: first\r\n\r\nfirst$end$second$dot" . "NOOP\r\n");
        my $want = is_clean($end) ? '250 2.0.0' : '550 5.6.0';
        my $said = $c->read_reply . ' ' . $c->text;
        like $said, qr/^\Q$want\E/, "$name: $want after the real end";
        is $c->read_reply . $c->text, '2502.0.0 Ok', "$name: then NOOP's and nothing else";
        is scalar(files("other.test/$tag-s$i")), is_clean($end) ? 1 : 0, "$name: files of the first";
        is scalar(files('other.test/second')), 0, "$name: nothing for the second";
    }
};

my $relay = FakeRelay->new(port => $ENV{FAKE_RELAY_PORT});
subtest "trusted clients' lenient terminators" => sub {
    plan tests => 6 * @terminators;
    for my $end (@terminators) {
        my $name = shown $end;
        my $before = $relay->mails;
        my $c = client('smtp_fake', ehlo => 'me.test');
        $c->pipeline('MAIL FROM:<a@b.test>', 'RCPT TO:<first@d.test>', 'DATA');
        $c->send_raw("Subject: first\r\n\r\nfirst$end$second$dot" . "NOOP\r\n");
        my $want = $end =~ /\r(?!\n)/ ? 550 : 250;
        is $c->read_reply, $want, "$name: $want";
        is $c->read_reply . $c->text, '2502.0.0 Ok', "$name: then NOOP's and nothing else";
        my @mails = $relay->mails_when($before + 1, $want == 250 ? 5 : 0);
        my $last = $mails[-1];
        is @mails ? @mails - $before : 0, $want == 250 ? 1 : 0, "$name: mails at the relay";
        is_deeply $last ? $last->{rcpts} : ['first@d.test'], ['first@d.test'], "$name: its recipient";
        unlike $last ? $last->{wire} : '', qr/\r(?!\n)|(?<!\r)\n/, "$name: canonical line ends";
        my @ends = $last ? $last->{wire} =~ /(\r\n\.\r\n)/g : $dot;
        is scalar(@ends), 1, "$name: one end in what was sent";
    }
};

subtest 'a message arrives byte for byte' => sub {
    plan tests => 4;
    my $message = "Subject: bytes\r\n\r\n.\r\n..\r\n.x\r\n\0\xff\x01\r\n" . 'y' x 70000 . "\r\n\r\n";
    my $c = client('smtp_fake', ehlo => 'me.test');
    is $c->mail('a@b.test', 'bytes@d.test', $message), 250, 'taken';
    my ($mail) = $relay->wait_for(sub { grep { "@{ $_->{rcpts} }" eq 'bytes@d.test' } $_[0]->mails });
    my ($field, $rest) = ($mail ? $mail->{data} : '') =~ /\A(Received: .*?\r\n)(Subject.*)\z/s;
    ok $field, 'behind a Received field';
    ok defined $rest && $rest eq $message, 'the message as it was sent';
    is $c->mail('a@b.test', 'empty@d.test', ''), 250, 'and one of 0 octets';
};

subtest '8-bit content for a relay that takes only 7 bits' => sub {
    plan tests => 4;
    $relay->stop;
    my $seven = FakeRelay->new(port => $ENV{FAKE_RELAY_PORT}, '8bitmime' => 0);
    # Connections that the first relay left in the pool are found dead and replaced.
    my $c = client('smtp_fake', ehlo => 'me.test');
    is $c->mail('a@b.test', 'c@d.test', "x\xe4\r\n"), 554, 'refused';
    like $c->text, qr/^5\.6\.3 /, 'enhanced code';
    is $c->mail('a@b.test', 'c@d.test', "x\r\n"), 250, '7-bit content is taken';
    is scalar(my @mails = $seven->mails_when(1)), 1, 'one mail arrived';
};

# ---- sizes

subtest 'sizes' => sub {
    plan tests => 11;
    my $c = client('smtp_bare', ehlo => 'me.test', timeout => 30);
    my ($size) = map { /^SIZE (\d+)$/ ? $1 : () } $c->lines;
    is $size, 65536, 'EHLO tells the limit';
    my $to = sub { "$tag-$_[0]\@size.test" };
    is $c->mail('', $to->('zero'), ''), 250, '0 octets';
    is slurp($_) =~ s/^(?:Return-Path|Delivered-To): .*\n//mgr, '', 'arrive as 0'
        for (files("size.test/$tag-zero"))[0];
    my $line = 'x' x 62 . "\r\n";
    is $c->mail('', $to->('max'), $line x 1024), 250, 'as many as allowed';
    is -s $_, slurp($_) =~ /\A((?:(?:Return|Deliv).*\n)*)/ ? 63 * 1024 + length $1 : -1, 'all of them'
        for (files("size.test/$tag-max"))[0];
    is $c->mail('', $to->('more'), 'x' . $line x 1024), 552, 'one more';
    like $c->text, qr/^5\.3\.4 /, 'enhanced code';
    is scalar(files("size.test/$tag-more")), 0, 'not delivered';
    is $c->cmd('MAIL FROM:<> SIZE=65537'), 552, 'declared too large';
    is $c->mail('', $to->('dots'), ".x\r\n" x 16384), 250, 'stuffed dots are not counted';
    is $c->mail('', $to->('lie'), 'x'), 250, 'the session goes on';
};

# ---- Received

sub received_of {
    my ($host, $rcpts, $local) = @_;
    my $c = client($host, ehlo => 'he (lo) "x"');
    my @rcpts = map {"$_\@recv.test"} @$rcpts;
    is $c->mail('a@b.test', \@rcpts, "Subject: x\r\n\r\nx\r\n"), 250, "$local: taken";
    my ($file) = files("recv.test/$local");
    return $file ? slurp($file) : '';
}

subtest 'Received' => sub {
    plan tests => 11;
    my $one = received_of('smtp_maildir', ["$tag-one"], "$tag-one");
    my $date = qr/\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d \+0000/;
    like $one, qr/^Received: from \S+ \(\[127\.0\.0\.1\]\)\n\tby maildir\.test with ESMTP id \S+\n/m,
        'the client, ourselves, the protocol and an id';
    like $one, qr/ id \S+\n\tfor <\Q$tag\E-one\@recv\.test>;\n\t$date\nSubject/, 'one recipient, date';
    unlike $one =~ /^(Received: from .*)$/m ? $1 : '', qr/["\\]|\(lo/, 'the name is made harmless';
    my $two = received_of('smtp_maildir', ["$tag-x", "$tag-y"], "$tag-y");
    like $two, qr/^Received: from .*\n\tby maildir\.test with ESMTP id \S+;\n\t$date\nSubject/m,
        'two recipients: no for';
    unlike $two, qr/\Q$tag\E-x/, 'neither is told of the other';
    my $off = received_of('smtp_bare', ["$tag-off"], "$tag-off");
    unlike $off, qr/^Received:/m, 'SmtpdReceived off adds none';
    my $c = client('smtp_maildir');
    $c->cmd('HELO me.test');
    is $c->mail('', "$tag-helo\@recv.test", "Subject: x\r\n\r\n"), 250, 'after HELO';
    like slurp((files("recv.test/$tag-helo"))[0]), qr/^\tby maildir\.test with SMTP id/m, 'with SMTP';
};

subtest 'loops' => sub {
    plan tests => 6;
    my $c = client('smtp_discard', ehlo => 'me.test');
    my $field = "Received: from a by b;\r\n\tSat, 1 Jan 2000 00:00:00 +0000\r\n";
    is $c->mail('', 'c@d.test', $field x 99 . "\r\nx\r\n"), 250, '99 fields pass';
    is $c->mail('', 'c@d.test', $field x 100 . "\r\nx\r\n"), 554, '100 do not';
    like $c->text, qr/^5\.4\.6 /, 'enhanced code';
    is $c->mail('', 'c@d.test', "received : x\r\n" x 100 . "\r\n"), 554, 'however they are written';
    is $c->mail('', 'c@d.test', "X: y\r\n\r\n" . $field x 100), 250, 'in the body they are text';
    is $c->mail('', 'c@d.test', "Received-SPF: pass\r\n" x 100 . "\r\nx\r\n"), 250, 'other names do not count';
};

done_testing;
