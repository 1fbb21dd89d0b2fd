# What a relay can do wrong, at every step, with and without PIPELINING: the client hears the
# mapped reply and never a 250 without the relay's, and its connection stays usable.
use strict;
use warnings;
use FakeRelay;
use IO::Socket::INET;
use TestHost;
use Test::More;

my ($LOST, $FAULT) = (qr/\A451 4\.4\.2 /, qr/\A451 4\.3\.5 /);
my $TAKEN = qr/\A250 2\.0\.0 queued as FAKE1\z/;
my $MESSAGE = "Subject: fault\r\n\r\n.hello\r\n";

# The name of a fault, what the relay does, what the client hears of it at the greeting, at EHLO
# (a 5yz falls back to HELO), at MAIL, RCPT, DATA and the dot; and the tag of the line in the error
# log, for the first two columns and for the third.
my @faults = (
    ['421',  [reply => '421 4.3.2 closing'],  $LOST, $LOST, $LOST, 42, 42],
    ['450',  [reply => '450 4.2.1 busy'],     (qr/\A450 4\.2\.1 busy\z/) x 3, 42, 0],
    ['452',  [reply => '452 4.2.2 full'],     (qr/\A452 4\.2\.2 full\z/) x 3, 42, 0],
    ['550',  [reply => '550 5.1.1 nobody'],   $FAULT, $TAKEN, qr/\A550 5\.1\.1 nobody\z/, 42, 0],
    ['550 without an enhanced code', [reply => '550 nobody'],
        $FAULT, $TAKEN, qr/\A550 5\.0\.0 nobody\z/, 42, 0],
    ['550 with an enhanced code of another class', [reply => '550 4.1.1 nobody'],
        $FAULT, $TAKEN, qr/\A550 5\.0\.0 .*nobody\z/, 42, 0],
    ['550 of three lines', [reply => ['550 5.1.1 a', '5.1.1 b', '5.1.1 c']],
        $FAULT, $TAKEN, qr/\A550 5\.1\.1 a\n550 5\.1\.1 b\n550 5\.1\.1 c\z/, 42, 0],
    ['552',  [reply => '552 5.2.2 full'],     $FAULT, $TAKEN, qr/\A552 5\.2\.2 full\z/, 42, 0],
    ['571',  [reply => '571 5.7.1 blocked'],  $FAULT, $TAKEN, qr/\A554 5\.7\.1 blocked\z/, 42, 0],
    ['500',  [reply => '500 5.5.1 what'],     $FAULT, $TAKEN, $FAULT, 42, 42],
    ['503',  [reply => '503 5.5.1 order'],    $FAULT, $TAKEN, $FAULT, 42, 42],
    ['530',  [reply => '530 5.7.0 login'],    $FAULT, $TAKEN, $FAULT, 42, 42],
    ['555',  [reply => '555 5.5.4 what'],     $FAULT, $TAKEN, $FAULT, 42, 42],
    ['354 out of place', [reply => '354 go ahead'],    ($FAULT) x 3, 42, 42],
    ['garbage',     [raw => "\0\x91 what?\r\n"],       ($FAULT) x 3, 41, 41],
    ['1yz',         [reply => '150 wait'],             ($FAULT) x 3, 41, 41],
    ['mixed codes', [raw => "250-yes\r\n550 no\r\n"],  ($FAULT) x 3, 41, 41],
    ['LF only',     [raw => "450 4.2.1 busy\n"],       (qr/\A450 4\.2\.1 busy\z/) x 3, 42, 0],
    ['NUL, 8-bit and CR in the text', [raw => "450 4.2.1 a\0b\xe4c\rd\r\n"],
        (qr/\A450 4\.2\.1 a\?b\?c\?d\z/) x 3, 42, 0],
    ['200 lines', [raw => "550-5.1.1 no\r\n" x 199 . "550 5.1.1 no\r\n"],
        $FAULT, qr/\A(?:451 4\.3\.5|250) /, qr/\A(?:550 5\.1\.1 no\n){99}550 5\.1\.1 no\z/, undef, 0],
    ['an endless line',       [endless => 'x' x 1000],      (qr/\A451 4\.(?:3\.5|4\.2) /) x 3],
    ['a reply without end',   [endless => "450-more\r\n"],  (qr/\A451 4\.(?:3\.5|4\.2) /) x 3],
    ['close',                 [close => 1],                 ($LOST) x 3, 40, 40],
    ['close within a reply',  [raw => "250-yes\r\n25", close => 1], ($LOST) x 3, 40, 40],
    ['reset',                 [reset => 1],                 ($LOST) x 3, 40, 40],
    ['hang',                  [hang => 1],                  ($LOST) x 3, 40, 40, 'slow'],
    ['drip past the timeout', [drip => ['250 2.0.0 ' . 'x' x 200, 0.3]], ($LOST) x 3, 40, 40, 'slow'],
);
my %column = (greeting => 2, ehlo => 3, mail => 4, rcpt => 4, data => 4, dot => 4);
my ($cells, %relay) = (0);

sub cells_of {
    my ($step) = @_;
    my @rows = grep { $step ne 'data' || $_->[0] ne '354 out of place' } @faults;
    # A reset may come before our connect() has returned.
    @rows = map { $_->[0] eq 'reset' ? ['reset', [reset => 1], (qr/\A451 4\.4\.[12] /) x 3] : $_ } @rows
        if $step eq 'greeting';
    return map { {
        name => "$_->[0] at $step", step => $step, script => { $step => [$_->[1]] },
        expect => $_->[ $column{$step} ],
        tag => $_->[ $column{$step} ] == $TAKEN ? 0 : $_->[ $column{$step} < 4 ? 5 : 6 ],
        slow => $_->[7], from => 'cell' . ++$cells . '@from.test',
    } } @rows;
}

sub data_follows {
    my ($c) = @_;
    return $c->code == 250 && $c->cmd('DATA') == 354;
}

# A mail as far as the relay's misdeed: the reply to it is not read yet.
sub begin {
    my ($cell, $host, $relay) = @_;
    my $before = $relay->connections;
    $relay->script($cell->{script});
    my $c = $cell->{client} ||= client($host, ehlo => 'me.test');
    $c->cmd("MAIL FROM:<$cell->{from}>");
    $c->send_raw("RCPT TO:<a\@to.test>\r\n");
    $relay->wait_for(sub { $_[0]->connections > $before }, 5) if $cell->{slow};
    return if $cell->{step} !~ /^(?:data|dot|quit)$/;
    $c->read_reply;
    $c->send_raw(SMTPClient::stuff($MESSAGE) . ".\r\n") if data_follows($c);
}

# Reads the reply; where it was a 250 to RCPT, goes on to the end.
sub finish {
    my ($cell) = @_;
    my $c = $cell->{client};
    $c->read_reply;
    if ($cell->{step} !~ /^(?:data|dot|quit)$/ && $c->code == 250) { $c->data($MESSAGE); }
    $cell->{heard} = $c->heard;
    if ($cell->{heard} !~ /^250/ && $cell->{step} !~ /^(?:data|dot|quit)$/) {
        $cell->{data} = $c->cmd('DATA') . ' ' . $c->text;
    }
}

# The same client, once the relay behaves again.
sub again {
    my ($cell) = @_;
    my $c = $cell->{client};
    $cell->{noop} = $c->cmd('NOOP');
    $cell->{rset} = $c->cmd('RSET');
    $cell->{second} = $c->mail("second.$cell->{from}", 'a@to.test', $MESSAGE);
    $c->quit;
}

sub id_of {
    my ($from) = @_;
    return log_line($from) =~ / id=(\S+)/ ? $1 : 'none';
}

sub problems {
    my ($cell, $dots, $errors) = @_;
    my @wrong;
    my $is_late = $cell->{step} =~ /^(?:dot|quit)$/;
    my $arrived = $is_late || $cell->{heard} =~ /^250/ ? 1 : 0;
    my $id = id_of($cell->{from});
    my $first = $dots->{ $cell->{from} } // 0;
    push @wrong, "the client heard '$cell->{heard}'" if $cell->{heard} !~ $cell->{expect};
    push @wrong, "DATA was answered by $cell->{data}" if ($cell->{data} // '554 5.5.1') !~ /^554 5\.5\.1/;
    push @wrong, "NOOP $cell->{noop}, RSET $cell->{rset}" if "$cell->{noop}$cell->{rset}" ne '250250';
    push @wrong, "the second mail: $cell->{second}" if $cell->{second} != 250;
    push @wrong, "$first final dots at the relay, not $arrived" if $first != $arrived;
    push @wrong, 'the second mail is not there' if ($dots->{"second.$cell->{from}"} // 0) != 1;
    push @wrong, "no NS00$cell->{tag} in the error log for $id"
        if $cell->{tag} && !grep { /NS00$cell->{tag}: \Q$id\E: relay / } @$errors;
    push @wrong, "no NS0047 in the error log for $id, although the answer to the dot was lost"
        if $cell->{step} eq 'dot' && ($cell->{tag} // 0) =~ /^4[01]$/
        && !grep { /NS0047: \Q$id\E: relay / } @$errors;
    return @wrong;
}

sub judge {
    my ($mode, $relay, @cells) = @_;
    my %dots;
    $relay->mails_from("second.$cells[-1]{from}");
    $dots{ $_->{from} }++ for $relay->mails;
    my @errors = log_lines('error_log', qr/NS004/);
    for my $cell (@cells) {
        my @wrong = problems($cell, \%dots, \@errors);
        ok !@wrong, "$cell->{name}, $mode";
        diag map {"  $_\n"} @wrong if @wrong;
    }
}

sub run_cells {
    my ($mode, $host, $relay, @cells) = @_;
    for my $cell (grep { !$_->{slow} } @cells) {
        begin($cell, $host, $relay);
        finish($cell);
        $relay->script({});
        again($cell);
    }
    my @slow = grep { $_->{slow} } @cells;
    begin($_, $host, $relay) for @slow;
    finish($_) for @slow;
    $relay->script({});
    again($_) for @slow;
    judge($mode, $relay, (grep { !$_->{slow} } @cells), @slow);
}

# A relay that does not even take the connection: nobody listens, or its queue is full.
sub unreachable {
    my ($name, $host) = @_;
    my $c = client($host, ehlo => 'me.test');
    $c->cmd('MAIL FROM:<unreachable@from.test>');
    $c->cmd('RCPT TO:<a@to.test>');
    like $c->heard, qr/\A451 4\.4\.1 /, $name;
    is $c->cmd('DATA') . $c->cmd('NOOP'), '554250', "$name: the client may go on";
    ok +(wait_for { scalar log_lines('error_log', qr/NS0043: \S+: relay .* cannot be reached/) } 3),
        "$name: the error log says so";
    $c->quit;
}

unreachable('connection refused', 'smtp_closed');
SKIP: {
    my $full = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $ENV{FAKE_RELAY2_PORT},
        Listen => 1, ReuseAddr => 1, Proto => 'tcp') or skip "no full listener: $@", 3;
    my @fill = map { IO::Socket::INET->new(PeerAddr => "127.0.0.1:$ENV{FAKE_RELAY2_PORT}",
        Timeout => 0.2) } 1 .. 3;
    unreachable('nobody accepts the connection', 'smtp_faults_plain');
}

my %mode = (
    'pipelined'  => ['smtp_faults', $ENV{FAKE_RELAY_PORT}, 1],
    'lock-step'  => ['smtp_faults_plain', $ENV{FAKE_RELAY2_PORT}, 0],
);
for my $mode (sort keys %mode) {
    my ($host, $port, $pipelining) = @{ $mode{$mode} };
    for my $step (qw(greeting ehlo mail rcpt data dot)) {
        my $relay = FakeRelay->new(port => $port, pipelining => $pipelining);
        run_cells($mode, $host, $relay, cells_of($step));
    }

    # Whatever comes after the dot's 250 is no matter of this mail.
    my $relay = FakeRelay->new(port => $port, pipelining => $pipelining);
    my @yes = (reply => '250 2.0.0 queued as FAKE1');
    my @after = (
        ['garbage after the dot\'s 250',  { dot => [[@yes, raw => "\0\x91\r\n"]] }],
        ['a second reply after the dot\'s 250', { dot => [[@yes, reply => '550 5.1.1 no']] }],
        ['close after the dot\'s 250',    { dot => [[@yes, close => 1]] }],
        ['hang after the dot\'s 250',     { dot => [[@yes, hang => 1]] }],
        ['a dripped 250 to the dot',      { dot => [[drip => ["250 2.0.0 queued as FAKE1\r\n", 0.02]]] }],
        ['251 to the dot',                { dot => [[reply => '251 2.0.0 queued as FAKE1']] }],
        ['250 with LF to the dot',        { dot => [[raw => "250 2.0.0 queued as FAKE1\n"]] }],
        ['250 of 200 lines to the dot',
            { dot => [[raw => "250-2.0.0 yes\r\n" x 199 . "250 2.0.0 yes\r\n"]] }, qr/\A250 2\.0\.0 yes/],
        (map { ["$_->[0] at QUIT", { quit => [$_->[1]] }] } @faults),
    );
    run_cells($mode, $host, $relay, map { {
        name => $_->[0], step => 'quit', script => $_->[1], expect => $_->[2] // $TAKEN,
        from => 'cell' . ++$cells . '@from.test',
    } } @after);
}

# RSET is said on a connection that is used again: the first mail of each client is taken, its
# second one meets the fault. What merely ends the connection is not the client's business.
for my $pipelining (1, 0) {
    my $mode = $pipelining ? 'pipelined' : 'lock-step';
    for my $fault (@faults) {
        my ($name, $action, undef, undef, undef, undef, undef, $slow) = @$fault;
        my $expect = $slow ? $LOST : $name =~ /garbage|1yz|mixed|endless|without end/
            ? qr/\A451 4\.(?:3\.5|4\.2) / : qr/\A250 /;
        my $relay = FakeRelay->new(port => $ENV{FAKE_RELAY_PORT}, pipelining => $pipelining,
            script => { rset => [$action] });
        my $c = client('smtp_reuse', ehlo => 'me.test');
        my $first = $c->mail('first@from.test', 'a@to.test', $MESSAGE);
        my $code = $c->mail('next@from.test', 'a@to.test', $MESSAGE);
        my $heard = $c->heard;
        $c->cmd('RSET');
        $relay->script({});
        is $c->mail('last@from.test', 'a@to.test', $MESSAGE), 250, "and the next mail after $name";
        $relay->mails_from('last@from.test');
        my $dots = grep { $_->{from} eq 'next@from.test' } $relay->mails;
        ok $first == 250 && $heard =~ $expect && $dots == ($code == 250 ? 1 : 0)
            && grep({ $_ eq 'RSET' } $relay->commands), "$name at RSET, $mode"
            or diag "first mail $first, then heard '$heard', $dots final dots at the relay";
        $c->quit;
    }
}

done_testing;
