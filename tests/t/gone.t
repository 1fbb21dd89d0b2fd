# A client that is gone before our final dot gets nothing sent: gone is a reset, or an end of its
# stream without a complete QUIT behind the data. The relay delays its 354, so that the client's
# end is there for certain before the dot could be sent.
use strict;
use warnings;
use FakeRelay;
use TestHost;
use Test::More;

my $LATE = { data => [[delay => 0.4, reply => '354 go ahead']] };
my $MESSAGE = "Subject: gone\r\n\r\nhello\r\n";
my $n = 0;

sub relay { FakeRelay->new(port => $ENV{FAKE_RELAY_PORT}, script => $_[0] // $LATE) }

# A client as far as our 354; the address it sends from is its name in the log.
sub sender {
    my $from = 'gone' . ++$n . '@from.test';
    my $c = client('smtp_fake', ehlo => 'me.test');
    my $code = join ' ', $c->pipeline("MAIL FROM:<$from>", 'RCPT TO:<a@to.test>', 'DATA');
    return ($c, $from, $code);
}

sub relay_saw_data {
    my ($relay) = @_;
    return $relay->wait_for(sub { grep { $_ eq 'DATA' } $_[0]->commands }, 5);
}

# Whether the server still does its work, over a relay connection that is in order.
sub next_mail_is_whole {
    my ($relay) = @_;
    $relay->script({});
    my $c = client('smtp_fake', ehlo => 'me.test');
    is $c->mail("next$n\@from.test", 'b@to.test', $MESSAGE), 250, 'the next mail is taken';
    my ($mail) = $relay->mails_from("next$n\@from.test");
    is "@{ $mail->{rcpts} }", 'b@to.test', 'and has its own recipient only';
    like $mail->{data}, qr/\r\n\Q$MESSAGE\E\z/, 'and its own content only';
}

# The client sends what it is given, then leaves in the given way while the relay hangs.
sub leaves_after {
    my ($name, $tail, $leave) = @_;
    subtest $name => sub {
        plan tests => 8;
        my $relay = relay();
        my ($c, $from, $code) = sender();
        is $code, '250 250 354', 'as far as the data';
        $c->send_raw("$MESSAGE.\r\n$tail");
        ok relay_saw_data($relay), 'the relay hangs after DATA';
        $c->$leave;
        like log_line($from), qr/ 451 .* reply="451 4\.4\.2 Client left/, 'the log says why';
        my ($first) = $relay->wait_for(sub { grep { $_->{end} eq 'eof' } $_[0]->connections }, 5);
        is scalar(grep { $_->{from} eq $from } $relay->mails), 0, 'the relay got no final dot';
        unlike $first->{wire} // 'the relay connection is still open', qr/\r\n\.\r\n|still open/,
            'and the connection without it was closed';
        next_mail_is_whole($relay);
    };
}

leaves_after('a reset after the data', '', 'reset');
leaves_after('a reset after the data and QUIT', "QUIT\r\n", 'reset');
leaves_after('the end of the stream without QUIT', '', 'half_close');
leaves_after('a close without QUIT', '', 'close');
leaves_after('the end of the stream within QUIT', 'QUIT', 'half_close');
leaves_after('the end of the stream after another command', "NOOP\r\n", 'half_close');
leaves_after('a QUIT that is not the last', "QUIT\r\nNOOP", 'half_close');

sub leaves_within {
    my ($name, $bytes, $leave) = @_;
    subtest $name => sub {
        plan tests => 7;
        my $relay = relay({});
        my ($c, $from, $code) = sender();
        is $code, '250 250 354', 'as far as the data';
        $c->send_raw($bytes);
        $c->$leave;
        my $line = log_line($from);
        ok $line, 'the log has a line for it';
        unlike $line // '', qr/^\S+ \S+ 2/, 'that is no success';
        is scalar(grep { $_->{from} eq $from } $relay->mails), 0, 'the relay got no final dot';
        next_mail_is_whole($relay);
    };
}

leaves_within('the end of the stream within the data', $MESSAGE, 'half_close');
leaves_within('the end of the stream within the final dot', "$MESSAGE.\r", 'half_close');
leaves_within('a reset within the data', $MESSAGE, 'reset');
leaves_within('the end of the stream within data in the spool file', 'x' x 70 . "\r\n" . 'y' x 300000, 'close');

# Half-closed with everything said: served.
for my $case (['at once', {}], ['while the relay hangs', $LATE]) {
    my ($when, $script) = @$case;
    for my $tail ("QUIT\r\n", "NOOP\r\nquit\r\n") {
        (my $shown = $tail) =~ s/\r\n/ /g;
        subtest "the end of the stream after ${shown}is served, $when" => sub {
            plan tests => 5;
            my $relay = relay($script);
            my ($c, $from, $code) = sender();
            is $code, '250 250 354', 'as far as the data';
            $c->send_raw("$MESSAGE.\r\n$tail")->half_close;
            is $c->read_reply, 250, 'the mail is accepted';
            my @codes = map { $c->read_reply } split /\r\n/, $tail;
            is $codes[-1], 221, 'QUIT is answered';
            ok $c->expect_eof, 'then the connection ends';
            ok $relay->wait_for(sub { 1 == grep { $_->{from} eq $from } $_[0]->mails }, 3),
                'the relay has it once';
        };
    }
}

subtest 'a reset after RCPT' => sub {
    plan tests => 4;
    my $relay = relay({});
    my $c = client('smtp_fake', ehlo => 'me.test');
    my $from = 'gone' . ++$n . '@from.test';
    is join(' ', $c->pipeline("MAIL FROM:<$from>", 'RCPT TO:<a@to.test>')), '250 250', 'RCPT is taken';
    $c->reset;
    log_line($from);
    next_mail_is_whole($relay);
};

done_testing;
