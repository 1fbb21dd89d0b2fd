# Mail through a relay that behaves: pooled connections, the envelope as the relay can take it, its
# words to the client, routes, balancers, stalled clients, and the message octet for octet.
use strict;
use warnings;
use Digest::SHA qw(sha256_hex);
use FakeRelay;
use TestHost;
use Test::More;
use Time::HiRes qw(time);

my $MPM = $ENV{TEST_MPM} // 'event';
my $MESSAGE = "Subject: relay\r\n\r\nhello\r\n";

sub relay  { FakeRelay->new(port => $ENV{FAKE_RELAY_PORT}, @_) }
sub relay2 { FakeRelay->new(port => $ENV{FAKE_RELAY2_PORT}, @_) }
sub say_to { my ($c, $line) = @_; $c->cmd($line); $c->heard }

sub batches { my ($relay) = @_; map { @{ $_->{commands} } } $relay->connections }

subtest 'one relay connection for many mails' => sub {
    my $relay = relay();
    my $c = client('smtp_reuse', ehlo => 'me.test');
    for my $i (1 .. 5) {
        is $c->mail("s$i\@from.test", ["r$i\@to.test", "t$i\@to.test"], $MESSAGE), 250, "mail $i";
        is $c->cmd("MAIL FROM:<given-up$i\@from.test>"), 250, 'a mail that is given up';
        is $c->cmd("RCPT TO:<leak$i\@to.test>"), 250, 'after its recipient was taken';
        is $c->cmd('RSET'), 250, 'by RSET';
    }
    my @mails = $relay->mails_when(5);
    is_deeply [map { "$_->{from} @{ $_->{rcpts} }" } @mails],
        [map {"s$_\@from.test r$_\@to.test t$_\@to.test"} 1 .. 5], 'each has its own envelope';
    is scalar($relay->connections), 1, 'all over one connection';
    my @mail = grep { "@$_" =~ /MAIL FROM/ } batches($relay);
    is scalar(grep { $_->[0] eq 'RSET' } @mail), @mail - 1, 'RSET comes before each MAIL but the first';
    $c->quit;
    SKIP: {
        skip 'a child of prefork has its own connections', 2 if $MPM eq 'prefork';
        my @codes = map { my $d = client('smtp_reuse', ehlo => 'me.test');
            my @c = map { $d->mail("c$_\@from.test", "d$_\@to.test", $MESSAGE) } 1 .. 2;
            $d->quit; @c } 1 .. 3;
        is "@codes", '250 250 250 250 250 250', 'three more clients';
        $relay->mails_when(11);
        is scalar($relay->connections), 1, 'over the same connection';
    }
};

subtest 'the parameters of a relay are those of its own host' => sub {
    plan tests => 3;
    my $relay = relay2();
    my $c = client('smtp_twin_reuse', ehlo => 'me.test');
    is join(' ', map { $c->mail("p$_\@from.test", 'a@to.test', $MESSAGE) } 1 .. 3), '250 250 250', 'mails';
    $relay->mails_when(3);
    is scalar($relay->connections), 1, 'disablereuse=on of another host does not matter here';
    $c = client('smtp_twin_single', ehlo => 'me.test');
    $c->mail("p$_\@from.test", 'a@to.test', $MESSAGE) for 4 .. 5;
    $relay->mails_when(5);
    is scalar($relay->connections), 3, 'and matters there';
};

subtest 'a connection that is given up hears QUIT' => sub {
    plan tests => 3;
    my $relay = relay();
    my $c = client('smtp_faults', ehlo => 'me.test');
    is join(' ', map { $c->mail("q$_\@from.test", 'a@to.test', $MESSAGE) } 1 .. 2), '250 250', 'two mails';
    ok $relay->wait_for(sub { 2 == grep { $_->{end} eq 'quit' } $_[0]->connections }, 3),
        'two connections, each ended by QUIT';
    is scalar(grep { $_ eq 'RSET' } $relay->commands), 0, 'no RSET on a new connection';
};

for my $pipelining (1, 0) {
    my $how = $pipelining ? 'in one batch' : 'in lock-step';
    subtest "the envelope goes $how" => sub {
        plan tests => 3;
        my $relay = relay(pipelining => $pipelining);
        my $c = client('smtp_reuse', ehlo => 'me.test');
        is $c->mail("l$_\@from.test", 'a@to.test', $MESSAGE), 250, "mail $_" for 1 .. 2;
        $relay->mails_when(2);
        my @sizes = map { scalar @$_ } batches($relay);
        # EHLO; MAIL RCPT; DATA; RSET MAIL RCPT; DATA
        is "@sizes", $pipelining ? '1 2 1 3 1' : '1 1 1 1 1 1 1 1', 'commands per read at the relay';
    };
}

subtest 'HELO where EHLO is not known' => sub {
    plan tests => 3;
    my $relay = relay(no_ehlo => 1);
    my $c = client('smtp_faults', ehlo => 'me.test');
    $c->cmd('MAIL FROM:<h@from.test> SIZE=100 BODY=8BITMIME');
    $c->cmd('RCPT TO:<a@to.test>');
    is $c->data($MESSAGE), 250, 'the mail';
    my ($mail) = $relay->mails_when(1);
    is $mail->{mail}, 'MAIL FROM:<h@from.test>', 'no parameters';
    is join(' ', map { /^(\w+)/ } ($relay->commands)[0 .. 4]), 'EHLO HELO MAIL RCPT DATA', 'one by one';
};

subtest 'replies of many lines' => sub {
    plan tests => 3;
    my $relay = relay(script => {
        greeting => [[reply => ['220 fake.relay', 'ESMTP', 'at your service']]],
        map({ $_ => [[reply => ['250 2.0.0 a', '2.0.0 b']]] } qw(mail rset)),
        rcpt => [[reply => ['250 2.1.5 a', '2.1.5 b']]], data => [[reply => ['354 go', 'ahead']]],
        dot => [[reply => ['250 2.0.0 one', '2.0.0 two']]],
    });
    my $c = client('smtp_faults', ehlo => 'me.test');
    $c->cmd('MAIL FROM:<many@from.test>');
    like say_to($c, 'RCPT TO:<a@to.test>'), qr/\A(?:250[ -].*)+\z/s, 'RCPT';
    $c->data($MESSAGE);
    is $c->heard, "250 2.0.0 one\n250 2.0.0 two", 'the end of data';
    is scalar($relay->mails_when(1)), 1, 'the relay has it';
};

subtest 'SIZE and BODY are passed where announced' => sub {
    my @cases = (
        [1, 1, ' SIZE=100 BODY=8BITMIME', ' SIZE=100 BODY=8BITMIME'],
        [0, 1, ' SIZE=100 BODY=8BITMIME', ' BODY=8BITMIME'],
        [1, 0, ' SIZE=100 BODY=8BITMIME', ' SIZE=100'],
        [0, 0, ' SIZE=100 BODY=8BITMIME', ''],
        [1, 1, ' BODY=7BIT', ''],
        [1, 1, '', ''],
    );
    plan tests => 2 * @cases;
    for (@cases) {
        my ($size, $eight, $said, $passed) = @$_;
        my $relay = relay(size => $size ? 1000000 : 0, '8bitmime' => $eight);
        my $c = client('smtp_faults', ehlo => 'me.test');
        $c->cmd("MAIL FROM:<p\@from.test>$said");
        $c->cmd('RCPT TO:<a@to.test>');
        is $c->data($MESSAGE), 250, "a 7-bit mail with '$said' is taken";
        my ($mail) = $relay->mails_when(1);
        is $mail->{mail}, "MAIL FROM:<p\@from.test>$passed",
            "SIZE $size, 8BITMIME $eight: '$passed' is passed";
        $c->quit;
    }
};

subtest '8-bit content' => sub {
    plan tests => 6;
    my $eight = "Subject: 8\r\n\r\nh\xe4llo\r\n";
    my $relay = relay('8bitmime' => 0);
    my $c = client('smtp_reuse', ehlo => 'me.test');
    $c->mail('e1@from.test', 'a@to.test', $eight);
    like $c->heard, qr/\A554 5\.6\.3 /, 'is refused where the relay has no 8BITMIME';
    is $c->mail('e2@from.test', 'a@to.test', $MESSAGE), 250, 'the next, 7-bit mail is taken';
    is_deeply [map { $_->{from} } $relay->mails_when(1)], ['e2@from.test'], 'and only that is delivered';
    ok !grep({ $_->{wire} =~ /h\xe4llo/ } $relay->connections), 'no octet of the other was sent';
    undef $relay;
    $relay = relay();
    is $c->mail('e3@from.test', 'a@to.test', $eight), 250, 'is taken where it has';
    like $relay->mails_from('e3@from.test')->{data}, qr/h\xe4llo/, 'and arrives';
};

subtest 'the relay answers for recipients' => sub {
    plan tests => 12;
    my $relay = relay(script => { rcpt => [
        [reply => '550 5.1.1 a is not here'], [reply => '250 2.1.5 b is'],
        [reply => '452 4.2.2 c is full'], [reply => ['551 5.1.6 d moved', '5.1.6 away']],
        [reply => '250 2.1.5 e is'], [reply => '550 5.1.1 f is not here'],
    ] });
    my $c = client('smtp_faults', ehlo => 'me.test');
    $c->cmd('MAIL FROM:<some@from.test>');
    is say_to($c, 'RCPT TO:<a@to.test>'), '550 5.1.1 a is not here', 'refused';
    like say_to($c, 'RCPT TO:<b@to.test>'), qr/\A250 2\.1\.5 /, 'taken';
    is say_to($c, 'RCPT TO:<c@to.test>'), '452 4.2.2 c is full', 'refused for now';
    is say_to($c, 'RCPT TO:<d@to.test>'), "551 5.1.6 d moved\n551 5.1.6 away", 'refused in two lines';
    is join(' ', $c->pipeline('RCPT TO:<e@to.test>', 'RCPT TO:<f@to.test>', 'DATA')), '250 550 354',
        'pipelined by the client';
    is $c->send_raw("$MESSAGE.\r\n")->read_reply, 250, 'the mail';
    my ($mail) = $relay->mails_when(1);
    is "@{ $mail->{rcpts} }", 'b@to.test e@to.test', 'goes to those who were taken';
    my $line = log_line('some@from.test');
    like $line, qr/rcpt="b\@to\.test,e\@to\.test" n=2 /, 'which the log has';

    $relay->script({ rcpt => [[reply => '550 5.1.1 nobody']] });
    $c->cmd('MAIL FROM:<none@from.test>');
    is join(' ', map { $c->cmd("RCPT TO:<$_\@to.test>") } 'a', 'b'), '550 550', 'all refused';
    like say_to($c, 'DATA'), qr/\A554 5\.5\.1 /, 'DATA is refused';
    $c->cmd('RSET');
    like log_line('none@from.test'), qr/ 55\d .* n=0 .* reply="55\d 5/, 'and the log has a refusal';
    is scalar($relay->mails), 1, 'nothing was delivered';
};

subtest 'a refused MAIL is the answer to each RCPT' => sub {
    plan tests => 5;
    my $relay = relay(script => { mail => [[reply => '550 5.7.1 go away']] });
    my $c = client('smtp_reuse', ehlo => 'me.test');
    is $c->cmd('MAIL FROM:<away@from.test>'), 250, 'MAIL is taken: nobody asked the relay yet';
    is say_to($c, "RCPT TO:<$_\@to.test>"), '550 5.7.1 go away', $_ for 'a', 'b';
    like say_to($c, 'DATA'), qr/\A554 5\.5\.1 /, 'DATA is refused';
    $c->cmd('RSET');
    is scalar($relay->mails), 0, 'nothing was delivered';
};

subtest 'the queue-id reaches the client and the log' => sub {
    plan tests => 3;
    my $relay = relay(script => { dot => [[reply => '250 2.6.0 Ok: queued as 4bXyZ1']] });
    my $c = client('smtp_faults', ehlo => 'me.test');
    $c->mail('queue@from.test', 'a@to.test', $MESSAGE);
    is $c->heard, '250 2.6.0 Ok: queued as 4bXyZ1', 'the client';
    my $line = log_line('queue@from.test');
    like $line, qr/ 250 .* reply="250 2\.6\.0 Ok: queued as 4bXyZ1"/, 'the log';
    like $line, qr/ relay="[^"]*127\.0\.0\.1:$ENV{FAKE_RELAY_PORT}/, 'with the relay';
};

my $yes = '250 2.0.0 queued';
for (['closed', [reply => $yes, close => 1]], ['reset', [reply => $yes, delay => 0.05, reset => 1]],
    ['ended with a 421', [reply => $yes, delay => 0.05, reply => '421 4.4.2 idle', close => 1]]) {
    my ($how, $dot) = @$_;
    subtest "an idle connection that the relay $how is replaced" => sub {
        plan tests => 4;
        my $relay = relay(script => { dot => [$dot] });
        my $c = client('smtp_reuse', ehlo => 'me.test');
        is $c->mail('i1@from.test', 'a@to.test', $MESSAGE), 250, 'the first mail';
        ok $relay->first_ended, "the relay $how it";
        is $c->mail('i2@from.test', 'b@to.test', $MESSAGE), 250, 'the next mail';
        is_deeply [map { "$_->{from} @{ $_->{rcpts} }" } $relay->mails_when(2)],
            ['i1@from.test a@to.test', 'i2@from.test b@to.test'], 'both arrived once';
    };
}

subtest 'a connection that says 421 between RCPT and DATA' => sub {
    plan tests => 3;
    my $relay = relay(script => { rcpt => [[reply => '250 ok', delay => 0.05, reply => '421 bye', close => 1]] });
    my $c = client('smtp_reuse', ehlo => 'me.test');
    is join(' ', $c->cmd('MAIL FROM:<late@from.test>'), $c->cmd('RCPT TO:<a@to.test>')), '250 250', 'RCPT';
    $relay->first_ended;
    $relay->script({});
    is $c->data($MESSAGE), 250, 'the mail is taken over a new one';
    is_deeply [map { "$_->{from} @{ $_->{rcpts} }" } $relay->mails_when(1)], ['late@from.test a@to.test'], 'once';
};

subtest 'stalled clients hold no relay connection' => sub {
    plan skip_all => 'a child of prefork has one client' if $MPM eq 'prefork';
    my $many = $MPM eq 'event' ? 200 : 12;
    plan tests => 8;
    my $relay = relay(script => { rcpt => [[reply => '550 5.1.1 not this one'], [reply => '250 2.1.5 ok']] });
    my $warm = client('smtp_few', ehlo => 'me.test');
    my (@stalled, @codes);
    for my $i (1 .. $many) {
        my $c = client('smtp_few', ehlo => 'me.test');
        $c->cmd("MAIL FROM:<stall$i\@from.test>");
        $c->cmd("RCPT TO:<x$i\@to.test>") for 1 .. 2; # a connection refuses its first
        push @codes, $c->cmd("RCPT TO:<y$i\@to.test>");
        push @stalled, $c;
        last if $codes[-1] != 250;
    }
    is_deeply \@codes, [(250) x $many], "$many clients stall after an accepted RCPT";
    my $start = time;
    is $warm->mail('swift@from.test', 'a@to.test', $MESSAGE), $codes[0], 'the next mail is taken';
    cmp_ok time - $start, '<', 4, 'without waiting for them';
    cmp_ok scalar(grep { $_->{end} eq 'open' } $relay->connections), '<=', 4, 'max=4 is kept';
    my @chosen = (1, 2, 5, 8, $many);
    is join(' ', map { $stalled[$_ - 1]->data($MESSAGE) } @chosen), '250 250 250 250 250',
        'some of them go on';
    $relay->mails_when(1 + @chosen);
    is_deeply [sort map { $_->{from} } grep { $_->{from} =~ /^stall/ } $relay->mails],
        [sort map {"stall$_\@from.test"} @chosen], 'and theirs arrive once';
    my ($last) = grep { $_->{from} eq "stall$many\@from.test" } $relay->mails;
    like "@{ $last->{rcpts} }", qr/\A(?:x$many\@to\.test )*y$many\@to\.test\z/, 'to their recipients';
    my ($replay) = grep { "@$_" =~ /MAIL FROM:<stall$many@.*y$many@/ && $_->[0] eq 'RSET' } batches($relay);
    ok $replay, 'the envelope was said again in one batch';
    $_->close for @stalled;
};

subtest 'a recipient refused when it is said again' => sub {
    plan skip_all => 'a child of prefork has one client' if $MPM eq 'prefork';
    plan tests => 6;
    my $relay = relay(global => 1, script => { rcpt => [
        ([reply => '250 2.1.5 ok']) x 3, [reply => '550 5.1.1 gone since'], [reply => '250 2.1.5 ok']] });
    my @c = map { client('smtp_few', ehlo => 'me.test') } 1 .. 3;
    for my $i (0 .. 2) {
        $c[$i]->cmd("MAIL FROM:<again$i\@from.test>");
        is $c[$i]->cmd("RCPT TO:<a$i\@to.test>"), 250, "client $i stalls after RCPT";
    }
    $c[2]->data($MESSAGE);
    like $c[2]->heard, qr/\A451 4\.4\.0 /, 'the third, whose connection was given back, hears 451';
    is join(' ', map { $c[$_]->data($MESSAGE) } 0, 1), '250 250', 'the others are served';
    is_deeply [sort map { $_->{from} } $relay->mails_when(2)], [map {"again$_\@from.test"} 0, 1],
        'and only theirs were delivered';
};

subtest 'routes' => sub {
    plan tests => 8;
    my ($one, $two) = (relay(), relay2());
    my $c = client('smtp_routes', ehlo => 'me.test');
    $c->cmd('MAIL FROM:<r1@from.test>');
    is $c->cmd('RCPT TO:<a@here.test>'), 250, 'a listed domain';
    like say_to($c, 'RCPT TO:<a@there.test>'), qr/\A452 4\.5\.3 /, 'a domain with another route';
    like say_to($c, 'RCPT TO:<a@else.test>'), qr/\A550 5\.7\.1 /, 'a domain that is not listed';
    is $c->data($MESSAGE), 250, 'the mail';
    is $c->mail('r2@from.test', 'b@sub.there.test', $MESSAGE), 250, 'a mail for the other route';
    is_deeply [map { "$_->{from} @{ $_->{rcpts} }" } $one->mails_when(1)], ['r1@from.test a@here.test'], 'the first';
    is_deeply [map { "$_->{from} @{ $_->{rcpts} }" } $two->mails_when(1)], ['r2@from.test b@sub.there.test'], 'the second';
    like log_line('r2@from.test'), qr/ relay="[^"]*127\.0\.0\.1:$ENV{FAKE_RELAY2_PORT}/, 'which the log has';
};

subtest 'two routes to one relay are one way' => sub {
    plan tests => 4;
    my $two = relay2();
    my $c = client('smtp_routes', ehlo => 'me.test');
    is_deeply [$c->pipeline('MAIL FROM:<both@from.test>', 'RCPT TO:<a@there.test>', 'RCPT TO:<b@beside.test>')],
        [250, 250, 250], 'a recipient of each';
    is $c->data($MESSAGE), 250, 'the mail';
    is_deeply [map {"@{ $_->{rcpts} }"} $two->mails_when(1)], ['a@there.test b@beside.test'], 'arrives once';
    is scalar($two->connections), 1, 'over one connection';
};

# Of max=4 all of them may keep two, not each route.
subtest 'two routes to one relay keep no more of its connections than one' => sub {
    plan skip_all => 'a child of prefork has one client' if $MPM eq 'prefork';
    plan tests => 2;
    my $relay = relay();
    my (@clients, @codes);
    for my $domain (('one.test', 'two.test') x 4) {
        push @clients, client('smtp_shared', ehlo => 'me.test');
        push @codes, ($clients[-1]->pipeline('MAIL FROM:<x@from.test>', "RCPT TO:<a\@$domain>"))[1];
    }
    is_deeply \@codes, [(250) x 8], 'clients that stall';
    is join(' ', map { $_->data($MESSAGE) } @clients), join(' ', (250) x 8), 'and go on';
};

# Else nobody behind a recipient whose relay is down would ever get the mail.
for (['refuses', '550 5.1.1 no', script => { rcpt => [[reply => '550 5.1.1 no']] }], ['is down', '451 4.4.1 ']) {
    my ($what, $reply, @one) = @$_;
    subtest "a route whose relay $what is left" => sub {
        plan tests => 7;
        my ($one, $two) = (@one ? relay(@one) : undef, relay2());
        my $c = client('smtp_routes', ehlo => 'me.test');
        my $from = ($what =~ s/ /-/r) . '@from.test';
        $c->cmd("MAIL FROM:<$from>");
        like say_to($c, 'RCPT TO:<a@here.test>'), qr/\A\Q$reply/, 'its recipient';
        is $c->cmd('RCPT TO:<b@there.test>'), 250, 'the next goes another way';
        is $c->cmd('RCPT TO:<c@here.test>'), 452, 'and now others do not go the first';
        is $c->data($MESSAGE), 250, 'the mail';
        is_deeply [map { "$_->{from} @{ $_->{rcpts} }" } $two->mails_when(1)], ["$from b\@there.test"], 'arrives there';
        is $one ? scalar($one->mails) : 0, 0, 'and there only';
        like log_line($from), qr/ relay="[^"]*127\.0\.0\.1:$ENV{FAKE_RELAY2_PORT}/, 'which the log has';
    };
}

subtest 'a balancer goes on to its next member' => sub {
    plan tests => 14;
    my $two = relay2();
    my $c = client('smtp_balanced', ehlo => 'me.test');
    is $c->mail('b1@from.test', 'a@to.test', $MESSAGE), 250, 'the first is down';
    ok $two->mails_from('b1@from.test'), 'the second has it';
    like log_line('b1@from.test'), qr/ relay="[^"]*127\.0\.0\.1:$ENV{FAKE_RELAY2_PORT}/, 'which the log has';
    my $n = 0;
    my $mail = sub { # from another client and sender each time; true: a 250
        return 250 == client('smtp_balanced', ehlo => 'me.test')->mail('n' . ++$n . '@from.test', 'a@to.test', $MESSAGE);
    };
    for my $greeting ('554 5.3.2 not now', '421 4.3.2 not now') {
        my $one = relay(script => { greeting => [[reply => $greeting]] });
        my $refused = 0;
        # A member that failed is left alone for a second (retry=1).
        ok +(wait_for { $mail->() || $refused++; $one->connections } 5), "the first greets with $greeting";
        is $refused, 0, 'no client hears of that';
        ok $two->mails_from("n$n\@from.test"), 'the second has the mail';
        is scalar($one->mails), 0, 'and the first has not';
    }
    my $one = relay();
    ok +(wait_for { !$mail->() || $one->mails } 5), 'the first is back';
    ok $one->mails_from("n$n\@from.test"), 'and serves';
    $_->stop for $one, $two;
    $c->cmd('RSET');
    $c->cmd('MAIL FROM:<b4@from.test>');
    like say_to($c, 'RCPT TO:<a@to.test>'), qr/\A451 4\.4\.1 /, 'both are down';
};

subtest 'octet for octet' => sub {
    my $all = join '', map { chr } grep { $_ != 10 && $_ != 13 } 0 .. 255;
    my $line = join '', map { chr 33 + $_ % 90 } 0 .. 997;
    my $large = "Subject: large\r\n\r\n" . join '', map {".$_ $line\r\n"} 1 .. 5 * 1024 * 1024 / 1000;
    my %message = (
        'no octet at all'     => '',
        'one empty line'      => "\r\n",
        'a header only'       => "Subject: x\r\n",
        'a lone dot'          => "Subject: x\r\n\r\n.\r\n",
        'a dot at the start'  => ".\r\n",
        'leading dots'        => "Subject: x\r\n\r\n.a\r\n..b\r\n...\r\n.\r\n.\r\n a.\r\n",
        'a line of 100 KB'    => "Subject: x\r\n\r\n" . 'z' x 102400 . "\r\n.after\r\n",
        'every octet, and NUL' => "Subject: x\r\n\r\n$all\r\n\0\r\n.\0\r\n",
        '5 MiB through a file' => $large,
    );
    plan tests => 3 * keys(%message);
    for my $name (sort keys %message) {
        my $relay = relay();
        my $c = client('smtp_fake', ehlo => 'me.test', timeout => 20);
        is $c->mail('x@from.test', 'a@to.test', $message{$name}), 250, "$name: taken";
        my ($mail) = $relay->mails_when(1);
        ok $mail->{data} =~ s/\AReceived:[^\r]*\r\n(?:[ \t][^\r]*\r\n)*//, "$name: Received: is added";
        is length($mail->{data}) . ' ' . sha256_hex($mail->{data}),
            length($message{$name}) . ' ' . sha256_hex($message{$name}), "$name: nothing else changed";
        $c->quit;
    }
};

done_testing;
