# The greeting and every verb that needs no transaction: replies by their codes and enhanced codes.
use strict;
use warnings;
use TestHost;
use Test::More;

plan tests => 26;
my $ehlo = "[127.0.0.1]";

my $c = client('smtp_discard');
is $c->code, 220, 'greeted';
like $c->text, qr/^discard\.test ESMTP\b/, 'the greeting begins with our name and says ESMTP';
is scalar(my @greeting = $c->lines), 1, 'in one line';

is $c->cmd("EHLO $ehlo"), 250, 'EHLO';
my ($name, @offers) = $c->lines;
like $name, qr/^discard\.test\b/, 'names us first';
my %offer = map { /^(\S+)(?: (.*))?$/ ? ($1 => $2 // '') : () } @offers;
ok exists $offer{PIPELINING}, 'PIPELINING';
ok exists $offer{'8BITMIME'}, '8BITMIME';
ok exists $offer{ENHANCEDSTATUSCODES}, 'ENHANCEDSTATUSCODES';
is $offer{SIZE}, 50 * 1024 * 1024, 'SIZE is the default of SmtpdMaxMessageSize';
ok !exists $offer{STARTTLS} && !exists $offer{AUTH}, 'nothing is offered that is not set up';

is $c->cmd('HELO me.test'), 250, 'HELO';
is scalar(my @helo = $c->lines), 1, 'has one line';

my @simple = (
    ['NOOP',            250, '2.0.0'],
    ['noop with words', 250, '2.0.0'],
    ['RSET',            250, '2.0.0'],
    ['VRFY postmaster', 252, '2.'],
    ['EXPN list',       502, '5.5.1'],
    ['HELP',            214, '2.'],
    ['BLURB',           500, '5.5.1'],
    ['QUITE',           500, '5.5.1'],
);
for (@simple) {
    my ($command, $code, $enhanced) = @$_;
    subtest $command => sub {
        plan tests => 2;
        is $c->cmd($command), $code, 'code';
        like +($c->lines)[-1], qr/^\Q$enhanced\E/, 'enhanced code';
    };
}

is $c->cmd('QUIT'), 221, 'QUIT';
ok $c->expect_eof, 'and the connection is closed';

subtest 'an HTTP request is not spoken to' => sub {
    plan tests => 3;
    my $web = client('smtp_discard');
    is $web->cmd('GET / HTTP/1.1'), 421, 'code';
    like $web->text, qr/^4\.7\.0 /, 'enhanced code';
    ok $web->expect_eof, 'closed';
};

subtest 'the reply to a line too long comes once' => sub {
    plan tests => 3;
    my $long = client('smtp_discard');
    is $long->cmd('NOOP ' . 'x' x 5000), 500, 'refused';
    like $long->text, qr/^5\.5\.2 /, 'enhanced code';
    is $long->cmd('NOOP'), 250, 'and the session goes on';
};

subtest 'a command byte by byte' => sub {
    plan tests => 1;
    my $slow = client('smtp_discard');
    $slow->send_raw($_) for split //, "NOOP\r\n";
    is $slow->read_reply, 250, 'is a command';
};

subtest 'a client that says QUIT and half-closes is answered' => sub {
    plan tests => 2;
    my $half = client('smtp_discard');
    $half->send_raw("QUIT\r\n")->half_close;
    is $half->read_reply, 221, 'QUIT';
    ok $half->expect_eof, 'closed';
};
