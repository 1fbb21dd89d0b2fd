# Whole mails to discard: what ends the data, what is refused in it, sizes.
use strict;
use warnings;
use TestHost;
use Test::More tests => 9;

sub ready {
    my ($host) = @_;
    my $c = client($host, ehlo => 'me.test', timeout => 30);
    $c->pipeline('MAIL FROM:<a@b.test>', 'RCPT TO:<c@d.test>');
    return $c;
}

my $c = ready('smtp_discard');
is $c->data("Subject: x\r\n\r\nhello\r\n"), 250, 'a mail';
like $c->text, qr/^2\.0\.0 /, 'with its enhanced code';
is $c->mail('', ['c@d.test', 'e@f.test'], ".\r\n..\r\n"), 250, 'another in the same session, of dots';

subtest 'only CRLF.CRLF ends the data' => sub {
    plan tests => 6;
    for (["\n.\n", 'LF.LF'], ["\n.\r\n", 'LF.CRLF'], ["\r\n.\n", "CRLF.LF"]) {
        my ($bytes, $name) = @$_;
        my $s = ready('smtp_discard');
        is $s->cmd('DATA'), 354, "$name: DATA";
        $s->send_raw("Subject: x\r\n\r\nhello${bytes}VRFY x\r\n.\r\nHELP\r\n");
        $s->read_reply;
        is $s->read_reply, 214, "$name: what follows it is data up to the real end";
    }
};

subtest 'a stranger\'s bare newline is refused after the real end' => sub {
    plan tests => 4;
    for (["\n", 'LF'], ["\r", 'CR']) {
        my $s = client('smtp_stranger', ehlo => 'me.test');
        is $s->mail('a@b.test', 'c@relay.test', "Subject: x\r\n\r\na$_->[0]b\r\n"), 550, "bare $_->[1]";
        like $s->text, qr/^5\.6\.0 /, 'enhanced code';
    }
};

subtest 'a bare CR is refused from anybody' => sub {
    plan tests => 1;
    is ready('smtp_discard')->data("a\rb\r\n"), 550, 'refused';
};

subtest 'a mail over the limit is refused at its end' => sub {
    plan tests => 4;
    my $s = ready('smtp_small');
    is $s->data('x' x 65534 . "\r\n"), 250, 'as large as allowed';
    is $s->mail('', 'c@d.test', 'x' x 65535 . "\r\n"), 552, 'one octet more';
    like $s->text, qr/^5\.3\.4 /, 'enhanced code';
    is $s->cmd('NOOP'), 250, 'the session goes on';
};

subtest 'octets of all kinds, in one long line' => sub {
    plan tests => 2;
    my $s = ready('smtp_discard');
    my $all = join '', map { chr } grep { $_ != 10 && $_ != 13 } 0 .. 255;
    is $s->data($all x 4000 . "\r\n"), 250, 'a line of a million octets';
    is $s->mail('', 'c@d.test', ''), 250, 'and no octet at all';
};

subtest 'a mail is logged once' => sub {
    plan tests => 1;
    my $tag = "log-$$";
    my $s = client('smtp_discard', ehlo => $tag);
    $s->mail('a@b.test', 'c@d.test', "Subject: x\r\n\r\n");
    $s->quit;
    wait_for { log_lines('smtp_log', qr/helo="\Q$tag\E"/) };
    my @lines = log_lines('smtp_log', qr/helo="\Q$tag\E"/);
    is_deeply [map { / (250) "MAIL FROM:<a\@b\.test>" .* n=1 / } @lines], [250], 'as 250 with its command'
        or diag @lines;
};
