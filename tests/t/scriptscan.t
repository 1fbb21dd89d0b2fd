# Scanners as scripts ask them: checkspam, checkvirus, trainspam and the versions, in phases; and what
# a scanner has found of the mail in hand.
use strict;
use warnings;
use FakeScanner;
use File::Copy qw(copy);
use File::Temp ();
use JSON::PP ();
use MIME::Base64 qw(decode_base64);
use ScriptedHttpd;
use TestHost;
use Test::More;

plan tests => 6;

my $tree = server_root() . '/../..';
my $build = File::Temp->newdir('scanner.XXXXXX', TMPDIR => 1);
chmod 0755, "$build";
copy(server_root() . '/scanner/mod_test_scanner.c', "$build/mod_test_scanner.c");
my $said = `cd $build && apxs -c -I $tree mod_test_scanner.c 2>&1`;
my $foreign = "$build/.libs/mod_test_scanner.so";
-r $foreign or BAIL_OUT($said);

my $clamd = FakeScanner->new(script => [{ say => "stream: OK\0" }, { say => "stream: Eicar FOUND\0" }]);
my $down = FakeScanner->new;
$down->stop;

my $discard = "SmtpdRelay discard:\n";
my %scanners = (
    none     => '',
    clean    => "SmtpdScanner timer T-1 score=1.5\n",
    spam     => "SmtpdScanner timer T-2 verdict=bad score=7.5 found=RULE\n",
    reject   => "SmtpdScanner timer T-3 verdict=clean score=9 reject=8\n",
    error    => "SmtpdScanner timer T-4 verdict=error why=broken\n",
    accepted => "SmtpdScanner timer T-4 verdict=error why=broken onerror=accept\n",
    virus    => 'SmtpdScanner clamd 127.0.0.1:' . $clamd->port . "\n",
    down     => 'SmtpdScanner clamd 127.0.0.1:' . $down->port . "\n",
    both     => "SmtpdScanner sleeper S-1 verdict=bad found=Worm\nSmtpdScanner timer T-5 score=2\n",
    flagged  => "SmtpdScanner timer T-2 verdict=bad score=7.5\n",
);
my $h = ScriptedHttpd->new(main => "LoadModule test_scanner_module $foreign\n",
    hosts => { map { $_ => $discard . $scanners{$_} } keys %scanners })->start;

# What the expressions give in a phase of the host.
sub told {
    my ($host, @code) = @_;
    $h->script(mail => join "\n", map {"tell(pcall(function() return $_ end))"} @code);
    $h->client($host)->cmd('MAIL FROM:<a@b.test>');
    return [map { my (undef, $ok, @rest) = @$_; $ok ? \@rest : ['raised', $rest[0]] } $h->said];
}

my ($no_spam, $no_virus) = map { [undef, "no $_ scanner is configured (SmtpdScanner)"] } qw(spam virus);

subtest 'no scanner' => sub {
    plan tests => 3;
    is_deeply told('none', 'smtpd.checkspam("x")', 'smtpd.checkvirus("x")', 'smtpd.trainspam(1, "a@b.test", "x")',
        'smtpd.spamversion()', 'smtpd.virusversion()'), [$no_spam, $no_virus, $no_spam, $no_spam, $no_virus], 'is what they say';
    is_deeply told('clean', 'smtpd.checkvirus("x")', 'smtpd.virusversion()'), [$no_virus, $no_virus], 'none of the kind';
    is_deeply [grep { $_->[0] ne 'raised' } @{ told('clean', 'smtpd.checkspam()', 'smtpd.checkspam({})', 'smtpd.checkvirus()',
        'smtpd.checkspam("x", {})', 'smtpd.trainspam("x", "y", "z")', 'smtpd.trainspam(1, "a@b.test")') }], [], 'wrong types raise';
};

subtest 'checkspam' => sub {
    plan tests => 6;
    is_deeply told('clean', 'smtpd.checkspam("Subject: x\n\nhi\n")', 'smtpd.checkspam("", "a@b.test")', 'smtpd.checkspam("\0\r\n", "<a@b.test>")'),
        [(['Innocent', 1.5, undef]) x 3], 'innocent';
    is_deeply told('spam', 'smtpd.checkspam("x")'), [['Spam', 7.5, undef]], 'spam';
    is_deeply told('reject', 'smtpd.checkspam("x")'), [['Spam', 9, undef]], 'by the configured score';
    is_deeply told('error', 'smtpd.checkspam("x")'), [[undef, 'Message cannot be scanned now; try again later']], 'a scanner that fails';
    is_deeply told('accepted', 'smtpd.checkspam("x")'), [[undef, 'timer: broken']], 'with onerror=accept, too';
    is_deeply told('spam', 'smtpd.checkspam("x", "no address")'), [[undef, 'this is no address']], 'no address';
};

subtest 'checkvirus' => sub {
    plan tests => 4;
    is_deeply told('virus', 'smtpd.checkvirus("bare\nlines\0")', 'smtpd.checkvirus("x")'), [[''], ['Eicar']], 'none, one';
    like $clamd->heard(0), qr/bare\nlines\0/, 'the octets are what the script gave';
    is_deeply told('down', 'smtpd.checkvirus("x")'), [[undef, 'Message cannot be scanned now; try again later']], 'a daemon that is away';
    is_deeply told('both', 'smtpd.checkvirus("x")', 'smtpd.checkspam("x")'), [['Worm'], ['Innocent', 2, undef]], 'each asks its kind';
};

subtest 'versions and training' => sub {
    plan tests => 2;
    is_deeply told('both', 'smtpd.spamversion()', 'smtpd.virusversion()'), [['T-5'], ['S-1']], 'versions';
    is_deeply told('spam', 'smtpd.trainspam(1, "a@b.test", "x")', 'smtpd.trainspam(0, "a@b.test", "x")', 'smtpd.trainspam(1, "no address", "x")'),
        [([undef, 'no scanner that can learn is configured (SmtpdScanner)']) x 2, [undef, 'this is no address']], 'nobody learns';
};

subtest 'the mail in hand' => sub {
    plan tests => 4;
    my $tell = 'tell(s:getflag() & 0x80000, s:getflag(1), s:getrcpt(1).score, r.subprocess_env["SMTP_SPAM"],
        r.subprocess_env["SMTP_SPAM_SCORE"], s:gethdr("X-Spam-Score"))';
    my $mail = sub { my $c = $h->client($_[0]); return $c->mail('a@b.test', 'c@d.test', "Subject: x\r\n\r\n") };
    $h->script(data => $tell);
    is $mail->('flagged'), 550, 'spam is refused before data is asked';
    is_deeply [$h->said], [], 'so it is not';
    $h->script(rcpt => 's:addrcpt("unscanned@d.test") s:unsetflag(-1, "spamcheck")', data => $tell . ' s:delhdr("X-Spam-Score")');
    is $mail->('flagged'), 250, 'one of two wants a scan: marked';
    is_deeply [$h->said], [['data', 0x80000, 0x80041, 7.5, 'Yes', '7.50', '7.5']], 'which data sees' or diag explain [$h->said];
};

$h->stop;
is_deeply [$h->crashes], [], 'no child crashed';
