# The limits and deadlines of a session, and clients that try to use up what others need.
use strict;
use warnings;
use IO::Select;
use Socket qw(SOL_SOCKET SO_RCVBUF);
use TestHost;
use Test::More;
use Time::HiRes qw(sleep time);

# Where a session holds a thread or a process, the server of the tests has not enough of them for the
# subtests with dozens of sessions, which are about nothing that differs between MPMs.
my $has_room = ($ENV{TEST_MPM} // 'event') eq 'event';
plan tests => $has_room ? 14 : 12;

my @transaction = ('MAIL FROM:<a@b.test>', 'RCPT TO:<c@d.test>');

subtest 'SmtpdMaxErrors' => sub {
    plan tests => 7;
    my $c = client('smtp_small', ehlo => 'me.test');
    is $c->cmd('BLURB'), 500, "error $_" for 1 .. 4;
    is $c->mail('', 'c@d.test', "x\r\n"), 250, 'a mail that is taken begins the count anew';
    is_deeply [map { $c->cmd('BLURB') } 1 .. 6], [(500) x 5, 421], 'five more, and the sixth is the end';
    ok $c->expect_eof, 'closed';
};

subtest 'SmtpdMaxErrors and messages' => sub {
    plan tests => 3;
    my $c = client('smtp_small', ehlo => 'me.test');
    my @codes = map { $c->mail('', 'c@d.test', 'x' x 70_000 . "\r\n") } 1 .. 6;
    is_deeply \@codes, [(552) x 6], 'what is said of a message is always said';
    is $c->cmd('MAIL FROM:<>'), 421, 'but there are no more of them';
    ok $c->expect_eof, 'closed';
};

subtest 'SmtpdMaxErrors when errors are pipelined' => sub {
    plan tests => 2;
    my $c = client('smtp_small');
    $c->send_raw("BLURB\r\n" x 50);
    is join(' ', map { $c->read_reply } 1 .. 6), '500 500 500 500 500 421', 'replies';
    ok $c->expect_eof, 'no more of them, and closed';
};

subtest 'SmtpdMaxRecipients' => sub {
    plan tests => 4;
    my $c = client('smtp_small', ehlo => 'me.test');
    $c->cmd('MAIL FROM:<>');
    is_deeply [$c->pipeline(map {"RCPT TO:<r$_\@d.test>"} 1 .. 5)], [250, 250, 250, 452, 452], 'codes';
    like $c->text, qr/^4\.5\.3 /, 'enhanced code';
    is $c->data("x\r\n"), 250, 'those that were taken get the mail';
    is_deeply [$c->pipeline('MAIL FROM:<>', 'RCPT TO:<r@d.test>')], [250, 250], 'the next mail has its own';
};

subtest '1000 recipients' => sub {
    plan tests => 3;
    my $c = client('smtp_hurried', ehlo => 'me.test', timeout => 30);
    $c->cmd('MAIL FROM:<>');
    my %codes;
    $codes{$_}++ for $c->pipeline(map {"RCPT TO:<r$_\@d.test>"} 1 .. 1001);
    is_deeply \%codes, { 250 => 1000, 452 => 1 }, 'codes';
    is $c->data("x\r\n"), 250, 'the mail';
    wait_for { log_lines('smtp_log', qr/n=1000 /) };
    my ($line) = log_lines('smtp_log', qr/n=1000 /);
    my ($listed) = ($line // '') =~ /rcpt="([^"]*)"/;
    is scalar(my @listed = split /,/, $listed // ''), 20, 'the log lists twenty of them';
};

subtest 'SmtpdMaxLine' => sub {
    plan tests => 5;
    my $c = client('smtp_small');
    is $c->cmd('NOOP ' . 'x' x 1019), 250, 'as long as allowed';
    is $c->cmd('NOOP ' . 'x' x 1020), 500, 'one octet more';
    like $c->text, qr/^5\.5\.2 /, 'enhanced code';
    $c->send_raw('NOOP ' . 'x' x 5_000_000)->send_raw("x\r\nHELP\r\n");
    is $c->read_reply, 500, 'five million octets more are one error';
    is $c->read_reply, 214, 'and the next line is a command';
};

subtest 'a line without an end' => sub {
    plan tests => 3;
    my $c = client('smtp_small');
    my $start = time;
    # What the server takes is thrown away, so this may go on until the deadline of the command.
    while (!$c->ended && time - $start < 15) {
        eval { $c->send_raw('x' x 65536); 1 } or last;
        last if IO::Select->new($c->socket)->can_read(0);
    }
    my $took = time - $start;
    my $code = eval { $c->read_reply } // $c->ended;
    like $code, qr/^(?:421|closed|Connection reset by peer|Broken pipe)$/, "it is ended: $code";
    cmp_ok $took, '>=', 1, 'not before the deadline';
    cmp_ok $took, '<', 6, 'of the command';
};

subtest 'SmtpdMaxConnections' => sub {
    plan tests => 9;
    my $open = sub { client('smtp_counted', local => "127.0.0.$_[0]", greeting => 1) };
    my @first = map { $open->(11) } 1 .. 3;
    is_deeply [map { $_->code } @first], [220, 220, 220], 'three of one address';
    my $c = $open->(11);
    is $c->code, 421, 'not the fourth';
    like $c->text, qr/^4\.7\.0 /, 'enhanced code';
    ok $c->expect_eof, 'closed';
    my @others = map { $open->($_) } 12, 13, 14;
    is_deeply [map { $_->code } @others], [220, 220, 220], 'three of others';
    is $open->(15)->code, 421, 'not the seventh of all';
    is client('smtp_stranger')->code, 220, 'another host has a count of its own';
    $first[0]->quit;
    my $again = wait_for { my $s = $open->(11); $s->code == 220 ? $s : undef };
    ok $again, 'a place that QUIT left is given to the next';
    $again->reset if $again;
    $again = wait_for { my $s = $open->(11); $s->code == 220 ? $s : undef };
    ok $again, 'and one that a reset left';
    $_->quit for @first[1, 2], @others, grep {$_} $again;
};

subtest 'SmtpdMaxConnections by default' => sub {
    plan tests => 3;
    my @trusted = map { client('smtp_discard') } 1 .. 60;
    is_deeply [grep { $_ != 220 } map { $_->code } @trusted], [], 'trusted clients are not counted';
    my @strangers = map { client('smtp_stranger', local => '127.0.0.77') } 1 .. 51;
    is_deeply [map { $_->code } @strangers[0 .. 49]], [(220) x 50], 'by default fifty of an address';
    is $strangers[50]->code, 421, 'and no more';
} if $has_room;

# The deadlines run side by side, so that this takes as long as the longest.
subtest 'SmtpdTimeout' => sub {
    plan tests => 15;
    my %c = map { $_ => client('smtp_hurried') } qw(silent drip data late);
    $_->cmd('EHLO me.test') for values %c;
    for (@c{qw(data late)}) { $_->pipeline(@transaction, 'DATA'); }
    my $start = time;
    my (%code, %at);
    while (keys %code < 4 && time - $start < 12) {
        $c{drip}->send_raw('x') unless $code{drip};
        $c{data}->send_raw("x") unless $code{data};
        sleep 0.1;
        for (grep { !$code{$_} } keys %c) {
            next unless IO::Select->new($c{$_}->socket)->can_read(0);
            $at{$_} = time - $start;
            $code{$_} = eval { $c{$_}->read_reply } // "none: $@";
        }
    }
    my %due = (silent => 2, drip => 2, data => 3, late => 3);
    my %name = (silent => 'a client that says nothing', drip => 'a command byte by byte',
        data => 'data byte by byte', late => 'data that never comes');
    for (qw(silent drip data late)) {
        is $code{$_} // 'nothing', 421, "$name{$_}: 421";
        like $c{$_}->text, qr/^4\.4\.2 /, "$name{$_}: enhanced code";
        my $at = $at{$_} // 99;
        ok $at > $due{$_} - 0.2 && $at < $due{$_} + 2.5, "$name{$_}: at its deadline"
            or diag "after $at s, due $due{$_} s";
    }
    ok $c{silent}->expect_eof, 'closed after a command';
    ok $c{late}->expect_eof, 'closed in data';
    my $quick = client('smtp_hurried', ehlo => 'me.test');
    my $began = time;
    my $ok = 1;
    while (time - $began < 3) { $ok &&= $quick->cmd('VRFY x') == 252; sleep 0.3 }
    ok $ok, 'each command begins a deadline of its own';
};

subtest 'data that comes as fast as it should outlives the deadline' => sub {
    plan tests => 1;
    my $c = client('smtp_hurried', ehlo => 'me.test');
    $c->pipeline(@transaction, 'DATA');
    my $start = time;
    while (time - $start < 5) { $c->send_raw('y' x 998 . "\r\n"); sleep 0.2 }
    $c->send_raw(".\r\n");
    is $c->read_reply, 250, 'five seconds of data where data=3';
};

subtest 'commands without a mail' => sub {
    plan tests => 4;
    for my $command ('NOOP', 'RSET') {
        my $c = client('smtp_discard', ehlo => 'me.test');
        my %codes;
        eval { $codes{ $c->cmd($command) }++ for 1 .. 1000; 1 };
        is $codes{421}, 1, "$command for ever ends in 421";
        cmp_ok $codes{250} // 0, '>=', 100, "but not before a hundred";
    }
};

subtest 'clients that pipeline and never read' => sub {
    plan tests => 2;
    # Whole mails, since commands alone are soon too many.
    my $mails = join "\r\n", @transaction, 'DATA', '.', '';
    my @greedy = map {
        my $c = client('smtp_hurried', ehlo => 'me.test');
        setsockopt $c->socket, SOL_SOCKET, SO_RCVBUF, 4096;
        my $taken = 0;
        while (my $n = syswrite $c->socket, $mails x 1000) {
            last if ($taken += $n) > 64 << 20;
        }
        [$c, $taken];
    } 1 .. 30;
    is scalar(grep { $_->[1] > 64 << 20 } @greedy), 0, 'commands are not taken without end';
    my $c = client('smtp_discard', ehlo => 'me.test', timeout => 60);
    is $c->mail('', 'c@d.test', "x\r\n"), 250, 'and others are served';
} if $has_room;

subtest 'MAIL and RSET for ever' => sub {
    plan tests => 2;
    my $c = client('smtp_discard', ehlo => 'me.test', timeout => 30);
    my %codes;
    for (1 .. 50) {
        eval { $codes{$_}++ for $c->pipeline(('MAIL FROM:<>', 'RSET') x 20); 1 } or last;
    }
    ok $codes{250}, 'is answered';
    is client('smtp_discard')->code, 220, 'and others are greeted';
};
