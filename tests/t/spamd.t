# SpamAssassin: a real spamd for what it finds, refuses, marks and is told; and a fake one that is
# down, hangs, dies and talks nonsense. The mails go through mod_nssmtpd into Maildirs.
use strict;
use warnings;
use FakeDaemon;
use FreePort;
use OwnHttpd;
use SMTPClient;
use SpamHttpd;
use SpamdInstance;
use TestHost qw(wait_for);
use Test::More;
use Time::HiRes qw(time);

plan skip_all => SpamdInstance->missing if SpamdInstance->missing;
plan tests => 15;

my $spamd = SpamdInstance->new(rules => "header ASKED Subject =~ /a little spam/\nscore ASKED 8\n");
$spamd->start;
my $fake = FakeDaemon->new;
my $closed = '127.0.0.1:' . FreePort::pick();

my %scanner = (
    plain  => 'spamd ' . $spamd->address,
    socket => 'spamd unix:' . $spamd->socket . ' user=%u',
    tag    => 'spamd ' . $spamd->address . ' action=tag',
    scores => 'spamd ' . $spamd->address . ' tag=5.5 reject=500',
    small  => 'spamd ' . $spamd->address . ' maxsize=1K',
    down   => "spamd $closed",
    open   => "spamd $closed onerror=accept",
    spare  => "spamd $closed\nSmtpdScanner spamd " . $spamd->address,
    fake   => 'spamd ' . $fake->address . ' timeout=2',
    user   => 'spamd ' . $fake->address . ' user=%u+x/%d',
    named  => 'spamd ' . $fake->address . "\nHostnameLookups Double",
);
my $h = SpamHttpd->new(scanners => \%scanner)->start;

sub mail { return $h->mail(@_) }

sub clean { return "${head}Subject: hello\r\n" . ($_[0] // '') . "\r\nSee you at six.\r\n" }
sub spam  { return "${head}Subject: buy\r\n\r\n$gtube\r\n" }

subtest 'a clean mail arrives with the verdict' => sub {
    plan tests => 6;
    my ($reply, $got) = mail('plain', clean("X-Spam-Flag: YES\r\nX-Spam-Status: No, forged\r\n"
        . "X-Spam-Score: -100\r\n"));
    like $reply, qr/^250 2\.0\.0/, 'taken';
    like $got, qr/^X-Spam-Status: No, score=-?[\d.]+ required=5\.0 .*tests=/m, 'status';
    unlike $got, qr/NO_RELAYS|NO_RECEIVED/, 'spamd was told where it comes from';
    like $got, qr/^X-Spam-Score: -?\d/m, 'score';
    unlike $got, qr/forged|-100|X-Spam-Flag/, 'what the sender says of it is gone';
    unlike $got, qr/envelope-from/, 'the trace for spamd is not delivered';
};

subtest 'GTUBE is refused' => sub {
    plan tests => 3;
    my ($reply, $got) = mail('plain', spam());
    like $reply, qr/^550 5\.7\.1 /, 'the reply';
    is $got, '', 'nothing arrives';
    like $h->log('error.log'), qr/spam, \d{3,4}\.\d of 5\.0, [^ ]*GTUBE/, 'the log says why';
};

subtest 'action=tag marks it' => sub {
    plan tests => 3;
    my ($reply, $got) = mail('tag', spam());
    like $reply, qr/^250 /, 'taken';
    like $got, qr/^X-Spam-Flag: YES$/m, 'flag';
    like $got, qr/^X-Spam-Status: Yes, score=\d{3,4}\..* tests=(?:\w+,)*GTUBE\b/m, 'status';
};

subtest 'scores of the configuration' => sub {
    plan tests => 5;
    my ($reply, $got) = mail('scores', "${head}Subject: a little spam\r\n\r\nSee you at six.\r\n");
    like $reply, qr/^250 /, 'between tag and reject: taken';
    like $got, qr/^X-Spam-Flag: YES$/m, 'and marked';
    ($reply) = mail('scores', spam());
    like $reply, qr/^550 5\.7\.1 /, 'beyond: refused';
    ($reply, $got) = mail('scores', clean());
    like $reply, qr/^250 /, 'below: taken';
    unlike $got, qr/X-Spam-Flag/, 'and not marked';
};

subtest 'a unix socket, and a user' => sub {
    plan tests => 4;
    my ($reply, $got) = mail('socket', clean(), rcpt => 'alice@d.test');
    like $reply, qr/^250 /, 'taken';
    ok wait_for { $spamd->log =~ /clean message .* for alice:/ }, 'looked at as alice';
    ($reply) = mail('socket', spam(), rcpt => ['"../../etc/x"@d.test', 'bob@d.test']);
    like $reply, qr/^550 /, 'a first recipient that wants out';
    ok wait_for { $spamd->log =~ m{identified spam .* for _\._\.\._etc_x:} }, 'and does not get there'
        or diag grep {/identified/} $spamd->log;
};

subtest 'over size' => sub {
    plan tests => 4;
    my $mail = clean() . 'x' x 998 . "\r\n";
    my ($reply, $got) = mail('small', $mail);
    like $reply, qr/^250 /, 'taken by default';
    like $got, qr/^X-Smtpd-Scan-Status: skipped, too large; scanner=spamd$/m, 'with a word of it';
    unlike $got, qr/X-Spam-Status/, 'and without a verdict';
    like $h->log('error.log'), qr/NS0081: .*spamd: too large: 1\d\d\d octets, maxsize=1024/, 'the log';
};

subtest 'down' => sub {
    plan tests => 7;
    my ($reply, $got) = mail('down', clean());
    like $reply, qr/^451 4\.7\.1 /, 'by default the client tries again';
    is $got, '', 'nothing arrives';
    like $h->log('error.log'), qr/NS0080: .*spamd: \Q$closed\E: Connection refused/, 'the log';
    ($reply, $got) = mail('open', clean("X-Smtpd-Scan-Status: forged\r\n"));
    like $reply, qr/^250 /, 'onerror=accept';
    like $got, qr/^X-Smtpd-Scan-Status: failed; scanner=spamd$/m, 'is marked';
    unlike $got, qr/forged/, 'by nobody else';
    ($reply) = mail('spare', spam());
    like $reply, qr/^550 5\.7\.1 /, 'a second line of the name takes over';
};

subtest 'what it is asked' => sub {
    plan tests => 7;
    $fake->answer("SPAMD/1.1 0 EX_OK\r\nContent-length: 5\r\nSpam: False ; -0.1 / 5.0\r\n\r\nA,B_1");
    my ($reply, $got) = mail('user', clean(), from => '', rcpt => '"a b"@D.test');
    like $reply, qr/^250 /, 'answered';
    my ($asked) = $fake->questions;
    my ($question, $message) = $asked =~ /\A(.*?)\r\n\r\n(.*)\z/s;
    like $question, qr/\ASYMBOLS SPAMC\/1\.5\r\n/, 'the verb';
    like $question, qr/^User: a_b\+x_d\.test\r?$/m, 'the user';
    my ($length) = $question =~ /^Content-length: (\d+)/m;
    is $length, length $message, 'the length';
    like $message, qr/\AReturn-Path:[ ]<>\r\nReceived:[ ]from[ ]me\.test[ ]\(\[127\.0\.0\.1\]\)\r\n
        \tby[ ]user\.test[ ]with[ ]ESMTP[ ]id[ ]\S+\r\n\t\(envelope-from[ ]<>\);\r\n
        \t\w{3},[ ].*\+0000\r\nFrom:/x, 'the trace';
    is substr($message, index $message, 'From: a@b'), clean(), 'the message';
    mail('named', clean());
    like +($fake->questions)[-1], qr/^Received: from me\.test \([a-z]\S* \[127\.0\.0\.1\]\)/m, 'a known name';
};

subtest 'answers that are taken' => sub {
    my $mail = clean();
    my $ok = "SPAMD/1.1 0 EX_OK\r\nContent-length: 3\r\nSpam: True ; 7.5 / 5.0\r\n\r\nA,B";
    my @rows = (
        ['byte by byte', { drip => [$ok, 0.002] }, '550 5.7.1'],
        ['without a length', "SPAMD/1.1 0 EX_OK\r\nSpam: False ; 1 / 5\r\n\r\nA,B\r\n", '250 2.0.0'],
        ['with more behind it', $ok . 'x' x 100_000, '550 5.7.1'],
        ['without rules', "SPAMD/1.1 0 EX_OK\r\nContent-length: 0\r\nSpam: True ; 7 / 5\r\n\r\n", '550 5.7.1'],
        ['another order of fields', "SPAMD/1.5 0 EX_OK\r\nSpam: Yes ; 7 / 5\r\nX-New: 1\r\n"
            . "Content-length: 1\r\n\r\nA", '550 5.7.1'],
    );
    plan tests => scalar @rows;
    for (@rows) {
        my ($name, $answer, $wanted) = @$_;
        $fake->answer($answer);
        my ($reply) = mail('fake', $mail);
        like $reply, qr/^\Q$wanted\E /, $name;
    }
};

subtest 'answers that are not believed' => sub {
    my $ok = "SPAMD/1.1 0 EX_OK\r\n";
    my $no_verdict = qr/the answer has no verdict/;
    my $not_spamd = qr/the answer is not spamd's/;
    my $cut = qr/closed the connection in the middle of the answer/;
    my @rows = (
        ['EX_TEMPFAIL', "SPAMD/1.0 75 EX_TEMPFAIL\r\n", qr/EX_TEMPFAIL/],
        ['EX_PROTOCOL, early', { early => "SPAMD/1.0 76 Bad header line: x\r\n" }, qr/Bad header line: x/],
        ['nothing', '', qr/closed the connection without an answer/],
        ['the middle of the status', 'SPAMD/1.1 0', $cut],
        ['the middle of the head', "${ok}Spam: False ; 1 / 5", $cut],
        ['the end of the head', "${ok}Spam: False ; 1 / 5\r\n", $cut],
        ['the middle of the body', "${ok}Content-length: 30\r\nSpam: False ; 1 / 5\r\n\r\nA", $cut],
        ['nothing behind the status', $ok, $no_verdict],
        ['no verdict', "${ok}Content-length: 0\r\n\r\n", $no_verdict],
        ['a verdict that is none', "${ok}Content-length: 0\r\nSpam: Perhaps ; 1 / 5\r\n\r\n", $no_verdict],
        ['a score that is none', "${ok}Content-length: 0\r\nSpam: False ; inf / 5\r\n\r\n", $no_verdict],
        ['a score of dots', "${ok}Content-length: 0\r\nSpam: False ; 1.2.3 / 5\r\n\r\n", $no_verdict],
        ['a very long score', "${ok}Spam: False ; " . '9' x 200 . " / 5\r\n\r\n", $no_verdict],
        ['a negative length', "${ok}Content-length: -1\r\nSpam: False ; 1 / 5\r\n\r\n", $not_spamd],
        ['a huge length', "${ok}Content-length: 99999999999\r\nSpam: False ; 1 / 5\r\n\r\n", $not_spamd],
        ['a NUL', "${ok}Spam: False ; 1 / 5\0\r\n\r\n", $not_spamd],
        ['a field without a colon', "${ok}Spam\r\n\r\n", $not_spamd],
        ['another protocol', "HTTP/1.1 200 OK\r\n\r\n", $not_spamd],
        ['octets', join('', map { chr($_ * 7 % 256) } 1 .. 500), $not_spamd],
        ['an endless head', { endless => 'X-Y: z' . 'z' x 1000 . "\r\n" }, qr{not spamd's|does not end}],
        ['an endless body', { endless => "${ok}Spam: False ; 1 / 5\r\n\r\n" }, qr/the answer does not end/],
        ['its death', { die => 50 }, qr/reset by peer|without an answer/],
    );
    plan tests => 2 * @rows;
    for (@rows) {
        my ($name, $answer, $why) = @$_;
        $fake->answer($answer);
        my $before = length $h->log('error.log');
        my ($reply) = mail('fake', clean());
        like $reply, qr/^451 4\.7\.1 /, $name;
        like substr($h->log('error.log'), $before), qr/NS0080: \S+ SmtpdScanner spamd: .*$why/, "$name: why";
    }
};

subtest 'hanging' => sub {
    plan tests => 4;
    for ([hang => 1], [drip => ["SPAMD/1.1 0 EX_OK\r\n" x 20, 0.1]]) {
        $fake->answer({@$_});
        my $began = time;
        my ($reply) = mail('fake', clean());
        like $reply, qr/^451 4\.7\.1 /, "$_->[0]: tried again later";
        cmp_ok time - $began, '<', 4, 'after timeout=';
    }
};

subtest 'a large mail, and many at once' => sub {
    plan tests => 2;
    my ($reply) = mail('plain', spam() . ('x' x 70 . "\r\n") x 20_000);
    like $reply, qr/^550 5\.7\.1 /, 'of 1.4 MB';
    my @clients = map { SMTPClient->new(port => $h->port('plain'), timeout => 60) } 1 .. 8;
    $_->pipeline('EHLO me.test', 'MAIL FROM:<a@b.test>', 'RCPT TO:<many@d.test>', 'DATA') for @clients;
    $_->send_raw(spam() . ".\r\n") for @clients;
    is_deeply [map { $_->read_reply } @clients], [(550) x @clients], 'eight of them';
};

sub teach { return $h->teach('spamd', address => $spamd->address, @_) }

subtest 'version' => sub {
    plan tests => 5;
    like teach(verb => 'version'), qr/\Aok SpamAssassin \d+\.\d+\.\d+ \(\d{4}-\d\d-\d\d\)\z/, 'of the real one';
    like teach(verb => 'version', address => 'unix:' . $spamd->socket), qr/\Aok SpamAssassin \d/, 'by its socket';
    like teach(verb => 'version', address => $closed), qr/\Ano \Q$closed\E: Connection refused\z/, 'of nobody';
    $fake->answer("SPAMD/1.5 0 PONG\r\n");
    like teach(verb => 'version', address => $fake->address), qr/\Aok SpamAssassin\z/, 'of one that says none';
    $fake->answer("220 me ESMTP\r\n");
    like teach(verb => 'version', address => $fake->address), qr/\Ano .*not spamd's\z/, 'of another daemon';
};

sub mail_of { return "${head}Subject: words\r\n\r\n" . words($_[0]) }

subtest 'learning' => sub {
    plan tests => 9;
    my (undef, $got) = mail('plain', mail_of(1));
    unlike $got, qr/BAYES_/, 'at first it knows nothing';
    is teach(verb => 'spam', message => mail_of(1)), 'ok ', 'this is spam';
    is teach(verb => 'ham', message => mail_of(2)), 'ok ', 'and this is none';
    (undef, $got) = mail('tag', mail_of(1));
    like $got, qr/^X-Spam-Status: .*\bBAYES_(?:9\d+|80)\b/m, 'it knows the one';
    (undef, $got) = mail('tag', mail_of(2));
    like $got, qr/^X-Spam-Status: .*\bBAYES_(?:0\d+|20)\b/m, 'and the other';
    is teach(verb => 'ham', message => mail_of(1), rcpt => 'alice'), 'ok ', 'an error is made good';
    ok wait_for { $spamd->log =~ /Tell: Setting local for alice:/ }, 'as the user';
    like teach(verb => 'spam', address => $closed), qr/\Ano \Q$closed\E: Connection refused/, 'nobody learns';
    $fake->answer("SPAMD/1.0 69 Service Unavailable: TELL commands are not enabled\r\n");
    like teach(verb => 'spam', address => $fake->address), qr/\Ano .*TELL commands are not enabled\z/, 'it may not';
};

subtest 'what httpd -t says' => sub {
    plan tests => 4;
    for (['spamd 127.0.0.1:1 password=secret', qr/spamd: password= is none of its keys$/m],
         ['spamd 127.0.0.1:x', qr/spamd: '127\.0\.0\.1:x' cannot be looked up/],
         ['spamd unix:socket', qr/spamd: 'socket' is no path/],
         ['spamd 127.0.0.1 user=', qr/user= must be some text/]) {
        my ($line, $wanted) = @$_;
        my (undef, $said) = OwnHttpd->new(hosts => { x => "SmtpdEngine on\nSmtpdRelay discard:\n"
            . "SmtpdScanner $line" })->check;
        like $said, $wanted, $line;
    }
};
