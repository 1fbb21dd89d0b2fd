# Messages that nobody here judges: DATA goes to the relay ahead of them, and large ones flow on
# while their client still sends. What breaks off or is refused then is delivered nowhere.
use strict;
use warnings;
use Digest::SHA qw(sha256_hex);
use FakeRelay;
use TestHost;
use Test::More;
use Time::HiRes qw(sleep);

my $MPM = $ENV{TEST_MPM} // 'event';
my $SMALL = "Subject: small\r\n\r\nhello\r\n";
my $line = join '', map { chr 33 + $_ % 90 } 0 .. 72;

# Of n octets, without a dot at the beginning of a line.
sub large { my ($n) = @_; substr(("$line\r\n" x ($n / 75 + 1)), 0, $n - $n % 75) }

sub relay { FakeRelay->new(port => $ENV{FAKE_RELAY_PORT}, @_) }

# The octets that have come to the relay's first connection, once there are so many.
sub arrived {
    my ($relay, $n) = @_;
    return $relay->wait_for(sub { length +($_[0]->connections)[0]{wire} > $n }, 10);
}

# A client that has said DATA and heard 354; one that is known has sent a mail before.
sub in_data {
    my ($host, $from, %a) = @_;
    my $c = client($host, ehlo => 'me.test', timeout => 20);
    $c->mail('quick@from.test', 'a@to.test', $SMALL) if $a{known};
    $c->cmd($_) for "MAIL FROM:<$from\@from.test>", 'RCPT TO:<a@to.test>';
    die "DATA: " . $c->text if $c->cmd('DATA') != 354;
    return $c;
}

# A relay, and a client whose DATA it has heard ahead of the message. That is said for one that has been
# quick, and on a busy machine a client may need some attempts.
sub ahead {
    my ($from, @relay) = @_;
    for (1 .. 40) {
        my $relay = relay(@relay);
        my $c = in_data('smtp_reuse', $from, known => 1);
        return ($relay, $c) if $relay->wait_for(sub { 2 == grep { $_ eq 'DATA' } $_[0]->commands }, 0.5);
    }
    die "no DATA ahead of the message\n";
}

sub finish { my ($c, $rest) = @_; $c->send_raw("$rest.\r\n"); $c->read_reply; return $c->heard }

sub is_whole {
    my ($mail, $message, $name) = @_;
    my $data = $mail->{data};
    is scalar(my @trace = $data =~ /^Received:/mg), 1, "$name: one Received field";
    $data =~ s/\AReceived:[^\r]*\r\n(?:[ \t][^\r]*\r\n)*//;
    is length($data) . ' ' . sha256_hex($data), length($message) . ' ' . sha256_hex($message),
        "$name: octet for octet";
}

subtest 'DATA goes ahead of the message' => sub {
    my ($relay, $c) = ahead('ahead');
    ok $c, 'the relay has heard DATA';
    like finish($c, $SMALL), qr/\A250 /, 'taken';
    my (undef, $mail) = $relay->mails_when(2);
    is_whole($mail, $SMALL, 'the message');
    is $c->mail('next@from.test', 'a@to.test', $SMALL), 250, 'and the next one';
    $relay->mails_when(3);
    is scalar($relay->connections), 1, 'over the same connection';
};

# A relay that leaves before it has any of the message is replaced; one that answers is believed.
my $again = qr/\A250 /;
for (['leaves without a word', $again, close => 1], ['says 421', $again, reply => '421 4.3.2 stopping', close => 1],
    ['leaves after its 354', $again, reply => '354 go ahead', raw => "421 4.4.2 too slow\r\n", close => 1],
    ['says 451', qr/\A451 4\.3\.0 later/, reply => '451 4.3.0 later'],
    ['speaks no SMTP', qr/\A451 4\.3\.5 /, raw => "what is this\r\n"]) {
    my ($what, $reply, @data) = @$_;
    my $large = "Subject: large\r\n\r\n" . large(300_000);
    for (['a small message', $SMALL, 1], ['a large message', $large, 1], ['a large message of a new client', $large, 0]) {
        my ($which, $message, $known) = @$_;
        subtest "the relay $what before $which" => sub {
            my @relay = (global => 1, script => {
                data => [([reply => '354 go ahead']) x $known, \@data, [reply => '354 go ahead']] });
            my ($relay, $c) = $known ? ahead('next', @relay) : (relay(@relay));
            $c ||= in_data('smtp_reuse', 'next');
            $relay->first_ended if $known && $reply eq $again;
            like finish($c, $message), $reply, 'the client hears it';
            my @want = (('quick') x $known, ('next') x ($reply eq $again));
            is_deeply [map { $_->{from} } $relay->mails_when(scalar @want)], [map {"$_\@from.test"} @want], 'what has arrived';
            is_whole(($relay->mails)[-1], $message, 'the message') if $reply eq $again;
            is $c->mail('after@from.test', 'a@to.test', $SMALL), 250, 'the next mail is taken';
        };
    }
}

subtest 'the relay refuses DATA' => sub {
    my ($relay, $c) = ahead('refused', script => {
        data => [[reply => '354 go ahead'], [reply => '554 5.7.1 not this one'], [reply => '354 go ahead']] });
    is finish($c, $SMALL), '554 5.7.1 not this one', 'the client hears it behind its message';
    is $c->mail('after@from.test', 'a@to.test', $SMALL), 250, 'the next mail is taken';
    is_deeply [map { $_->{from} } $relay->mails_when(2)], ['quick@from.test', 'after@from.test'], 'and this one is not';
    is scalar($relay->connections), 1, 'over the same connection';
};

# One that is no longer offered DATA ahead is given back and used by the next mail: what the relay
# has heard before that is all there was.
for (['somebody judges the message', 'smtp_judged'], ['the relay knows no 8BITMIME', 'smtp_reuse', '8bitmime' => 0]) {
    my ($why, $host, @relay) = @$_;
    subtest "nothing goes ahead where $why" => sub {
        plan skip_all => 'a child of prefork has its own connections' if $MPM eq 'prefork';
        my $relay = relay(@relay);
        in_data($host, 'away', known => 1)->close;
        log_line('away@from.test');
        like finish(in_data($host, 'whole'), large(300_000)), qr/\A250 /, 'a large mail is taken';
        $relay->mails_when(2);
        is join(' ', map { /^(\w+)/ } $relay->commands),
            'EHLO MAIL RCPT DATA RSET MAIL RCPT RSET MAIL RCPT DATA', 'of the mail between the relay hears no DATA';
    };
}

subtest 'a large message flows' => sub {
    my %tail = (
        'plain'                 => large(600_000),
        'dots from its middle on' => large(300_000) . ".\r\n..\r\n.a\r\n" x 30_000,
        'dots on every line'    => ".$line\r\n" x 8000,
        'a long line'           => 'z' x 400_000 . "\r\n.after\r\n",
        'short lines'           => "a\r\n" x 150_000,
    );
    for my $name (sort keys %tail) {
        my $message = "Subject: large\r\n\r\n$tail{$name}";
        my $relay = relay();
        my $c = in_data('smtp_reuse', 'large');
        (my $wire = $message) =~ s/^\./../mg;
        my $cut = length($wire) - 5000;
        $c->send_raw(substr $wire, 0, $cut);
        ok arrived($relay, 200_000), "$name: arrives before its end was sent";
        like finish($c, substr $wire, $cut), qr/\A250 /, "$name: taken";
        is_whole(($relay->mails_when(1))[0], $message, $name);
        is $c->mail('small@from.test', 'a@to.test', $SMALL), 250, "$name: a small one behind it";
        $relay->mails_when(2);
        is scalar($relay->connections), 1, "$name: over one connection";
    }
    like log_line('large@from.test'), qr/ size="?600018/, 'the log has the size';
};

# Of max=4 two may be kept by clients that think, but one by a client that is slow with its message.
subtest 'slow clients have their messages kept until they are whole' => sub {
    my $relay = relay();
    my @c = map { in_data('smtp_few', "slow$_") } 1 .. 2;
    my $message = "Subject: slow\r\n\r\n" . large(300_000);
    $_->send_raw(substr $message, 0, 50_000) for @c;
    sleep 1.5; # it is the clients that are slow
    $_->send_raw(substr $message, 50_000, 200_000) for @c;
    $_->send_raw(substr $message, 250_000) for @c;
    is scalar(grep { length $_->{wire} > 1000 } $relay->connections), 0, 'the relay has nothing of them';
    like finish($_, ''), qr/\A250 /, 'taken' for @c;
    is_whole($_, $message, $_->{from}) for $relay->mails_when(2);
    is scalar(grep { $_ eq 'RSET' } $relay->commands), $MPM eq 'prefork' ? 0 : 1, 'one has let its connection go';
};

for (['552 5.3.4 too much', qr/\A552 5\.3\.4 too much/], ['250 2.0.0 queued', qr/\A451 4\.3\.5 /],
    ['', qr/\A451 4\.4\.2 /]) {
    my ($word, $reply) = @$_;
    my @action = $word ? (raw => "$word\r\n") : (close => 1);
    subtest 'the relay ' . ($word ? "says $word" : 'leaves') . ' while the message flows' => sub {
        my $relay = relay(script => { data => [[reply => '354 go ahead', delay => 0.1, @action]] });
        my $c = in_data('smtp_reuse', 'broken');
        $c->send_raw(large(500_000));
        ok arrived($relay, 200_000), 'it flows';
        ok $relay->wait_for(sub { my ($r) = $_[0]->connections; $r->{end} eq 'ours' || $word && $r->{said} =~ /$word/ }, 3),
            'the relay has done so';
        like finish($c, large(100_000)), $reply, 'the client hears of it behind its message';
        is scalar($relay->mails), 0, 'nothing was delivered';
        $relay->script({});
        is $c->mail('after@from.test', 'a@to.test', $SMALL), 250, 'the next mail is taken';
    };
}

for (['bare newlines', "a\nb\r\n", qr/\A550 5\.6\.0 /], ['too many octets', large(700_000), qr/\A552 5\.3\.4 /]) {
    my ($what, $tail, $reply) = @$_;
    subtest "$what behind what has flowed" => sub {
        my $relay = relay();
        my $c = in_data('smtp_strict', 'late');
        $c->send_raw(large(500_000));
        ok arrived($relay, 200_000), 'it flows';
        like finish($c, $tail), $reply, 'is refused';
        ok $relay->first_ended, 'the relay is left';
        is scalar($relay->mails), 0, 'without the dot';
        is $c->mail('after@from.test', 'a@to.test', $SMALL), 250, 'the next mail is taken';
    };
}

subtest 'a client that leaves while its message flows' => sub {
    my $relay = relay();
    my $c = in_data('smtp_reuse', 'gone');
    $c->send_raw(large(500_000));
    ok arrived($relay, 200_000), 'it flows';
    $c->close;
    ok $relay->first_ended, 'the relay is left';
    is scalar($relay->mails), 0, 'without the dot';
    like log_line('gone@from.test'), qr/ 451 .* reply="451 4\.4\.2 Client left/, 'the log says so';
};

subtest 'no more than half of the connections to a relay flow' => sub {
    plan skip_all => 'a child of prefork has one client' if $MPM eq 'prefork';
    my $relay = relay();
    my @c = map { in_data('smtp_few', "half$_") } 1 .. 4; # max=4
    $_->send_raw(large(300_000)) for @c;
    my $flow = sub { scalar grep { length $_->{wire} > 200_000 } $_[0]->connections };
    ok $relay->wait_for(sub { $flow->($_[0]) == 2 }), 'two do';
    like finish($_, $SMALL), qr/\A250 /, 'taken' for reverse @c;
    is scalar(my @mails = $relay->mails_when(4)), 4, 'all have arrived';
    cmp_ok scalar($relay->connections), '<=', 4, 'over four connections at most';
};

done_testing;
