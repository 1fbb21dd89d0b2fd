# The order of commands, and what each of them leaves behind.
use strict;
use warnings;
use TestHost;
use Test::More tests => 10;

sub codes_are {
    my ($name, $host, @steps) = @_;
    subtest $name => sub {
        plan tests => @steps / 2;
        my $c = client($host);
        while (my ($command, $code) = splice @steps, 0, 2) {
            like $c->cmd($command) . ' ' . ($c->lines)[-1], qr/^\Q$code\E/, $command;
        }
    };
}

my @hello = ('EHLO me.test' => 250);
my @mail = ('MAIL FROM:<a@b.test>' => '250 2.1.0');

codes_are 'MAIL needs EHLO', 'smtp_discard', 'MAIL FROM:<a@b.test>' => '503 5.5.1', @hello, @mail;
codes_are 'HELO is as good', 'smtp_discard', 'HELO me.test' => 250, @mail;
codes_are 'one MAIL at a time', 'smtp_discard', @hello, @mail, 'MAIL FROM:<>' => '503 5.5.1',
    RSET => '250 2.0.0', 'MAIL FROM:<>' => '250 2.1.0';
codes_are 'RCPT needs MAIL', 'smtp_discard', @hello, 'RCPT TO:<a@b.test>' => '503 5.5.1';
codes_are 'DATA needs RCPT', 'smtp_discard', @hello, DATA => '503 5.5.1', @mail, DATA => '503 5.5.1';
codes_are 'a second EHLO ends the transaction', 'smtp_discard', @hello, @mail,
    'RCPT TO:<a@b.test>' => '250 2.1.5', @hello, DATA => '503 5.5.1', @mail;
codes_are 'syntax and parameters', 'smtp_discard', @hello,
    'MAIL'                              => '501 5.5.2',
    'MAIL FROM:<a b>'                   => '553 5.1.7',
    'MAIL FROM:<a@b.test> SIZE=x'       => '501 5.5.4',
    'MAIL FROM:<a@b.test> COLOUR=red'   => '555 5.5.4',
    'MAIL FROM:<a@b.test> SIZE=99999999999' => '552 5.3.4',
    'MAIL FROM:<a@b.test> SIZE=10 BODY=8BITMIME' => '250 2.1.0',
    'RCPT TO:<>'                        => '553 5.1.3',
    'RCPT TO:<a@b.test> COLOUR=red'     => '555 5.5.4',
    'RCPT TO:<Postmaster>'              => '250 2.1.5';
codes_are 'strangers may not relay', 'smtp_stranger', @hello, @mail,
    'RCPT TO:<a@elsewhere.test>'        => '550 5.7.1',
    DATA                                => '554 5.5.1',
    'RCPT TO:<a%b.test@relay.test>'     => '550 5.7.1',
    'RCPT TO:<b.test!a@relay.test>'     => '550 5.7.1',
    'RCPT TO:<a@relay.test>'            => '250 2.1.5',
    'RCPT TO:<a@sub.relay.test>'        => '250 2.1.5',
    'RCPT TO:<a@notrelay.test>'         => '550 5.7.1',
    'RCPT TO:<a@other.test>'            => '452 4.5.3';
codes_are 'too many recipients', 'smtp_small', @hello, @mail,
    (map { ("RCPT TO:<r$_\@b.test>" => '250 2.1.5') } 1 .. 3), 'RCPT TO:<r4@b.test>' => '452 4.5.3';

subtest 'pipelined commands are answered one by one' => sub {
    plan tests => 3;
    my $c = client('smtp_discard');
    my @codes = $c->pipeline('EHLO me.test', 'MAIL FROM:<>', 'RCPT TO:<a@b.test>', 'BLURB', 'DATA');
    is "@codes", '250 250 250 500 354', 'codes';
    is $c->send_raw("hello\r\n.\r\nMAIL FROM:<>\r\nQUIT\r\n")->read_reply, 250, 'the mail';
    is join(' ', map { $c->read_reply } 1 .. 2), '250 221', 'what stood behind it';
};
