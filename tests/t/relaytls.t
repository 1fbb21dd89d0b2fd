# TLS and AUTH towards relays: what each SmtpdRelayTLS asks for, where a password goes and where it
# does not, a relay whose words come from before TLS, reuse, and what pages and logs must not hold.
use strict;
use warnings;
use File::Temp ();
use IO::Socket::INET;
use MIME::Base64 qw(decode_base64 encode_base64);
use OwnHttpd;
use TLSRelay;
use TestCA;
use TestHost qw(slurp spew wait_for);
use Test::More;

my $mpm   = $ENV{TEST_MPM} // 'event';
my $ca    = TestCA->new;
my $other = TestCA->new(name => 'Another CA');
my $good  = $ca->issue('good', names => ['localhost']);
my $name  = $ca->issue('name', names => ['elsewhere.test']);
my $old   = $ca->issue('old', names => ['localhost'], days => -1);
my $alien = $other->issue('alien', names => ['localhost']);
my $self_signed = { cert => $other->file, key => $other->file =~ s/pem$/key/r };
my $tmp   = File::Temp->newdir('relaytls.XXXXXX', TMPDIR => 1);
my $trust = 'SSLProxyCACertificateFile ' . $ca->file . "\n";

# ---- credentials, none of which may be read anywhere but inside TLS

my ($odd_user, $odd_password) = ("o:d\@d/%us er\xff", "p:a\@s/%2F w\xffo?r#d+\x01");
my ($user, $password) = ('robert', 'Corr3ctH0rse');
my ($wrong_user, $wrong_password) = ('robert', 'Wr0ngH0rse');
my @secrets = ($odd_password, $password, $wrong_password);

sub percent { return $_[0] =~ s/([^A-Za-z0-9])/sprintf '%%%02X', ord $1/ger }
sub plain   { return "plain://" . percent($_[1]) . ':' . percent($_[2]) . '@localhost:' . $_[0]->port }

# A password in each of the forms in which it goes through the program.
sub forms {
    my ($secret) = @_;
    my %login = ($odd_password => $odd_user, $password => $user, $wrong_password => $wrong_user);
    my ($printable) = $secret =~ /^([ -~]+)/;    # logs and pages escape the octets that follow
    return ($printable, percent($secret), encode_base64($secret, ''), encode_base64("\0$login{$secret}\0$secret", ''));
}

sub private_file {
    my ($id, $text, $mode) = @_;
    my $file = spew("$tmp/$id", $text);
    chmod $mode, $file;
    return $file;
}

chmod 0755, "$tmp";
my $secret_file = private_file('secret', "$user:$password\n", 0600);
my $program = private_file('program', "#!/bin/sh\necho '$user:$password'\n", 0755);
local $ENV{RELAYTLS_LOGIN} = "$user:$password";

# ---- relays, and a host for each

my %auth = (pair => $good, tls => ['AUTH PLAIN LOGIN'], user => $user, password => $password);
my %relay = (
    none       => TLSRelay->new(pair => $good),
    may        => TLSRelay->new(pair => $good),
    encrypt    => TLSRelay->new(pair => $self_signed),
    clear      => TLSRelay->new(pair => $good, starttls => 0),
    right      => TLSRelay->new(pair => $good),
    implicit   => TLSRelay->new(pair => $good, implicit => 1),
    wrong_ca   => TLSRelay->new(%auth, pair => $alien),
    wrong_name => TLSRelay->new(%auth, pair => $name),
    expired    => TLSRelay->new(%auth, pair => $old),
    implicit_wrong => TLSRelay->new(%auth, pair => $alien, implicit => 1),
    odd        => TLSRelay->new(%auth, clear => ['AUTH PLAIN LOGIN'], user => $odd_user, password => $odd_password),
    login      => TLSRelay->new(%auth, tls => ['AUTH LOGIN'], user => $odd_user, password => $odd_password),
    no_auth    => TLSRelay->new(%auth, tls => []),
    unknown    => TLSRelay->new(%auth, tls => ['AUTH CRAM-MD5 XOAUTH2']),
    refused    => TLSRelay->new(%auth),
    refused_login => TLSRelay->new(%auth, tls => ['AUTH LOGIN']),
    environment => TLSRelay->new(%auth),
    file       => TLSRelay->new(%auth),
    program    => TLSRelay->new(%auth),
    encrypt_auth => TLSRelay->new(%auth, pair => $alien),
    clear_auth => TLSRelay->new(%auth, clear => ['AUTH PLAIN LOGIN'], starttls => 0),
    inject     => TLSRelay->new(%auth, inject => "250-evil\r\n250 AUTH PLAIN\r\n"),
    inject_part => TLSRelay->new(pair => $good, inject => "250"),
    inject_open => TLSRelay->new(pair => $good, inject => "250 evil\r\n"),
    forget     => TLSRelay->new(pair => $good, clear => ['SIZE 100000', 'AUTH PLAIN LOGIN']),
    forget_auth => TLSRelay->new(%auth, clear => ['SIZE 100000', 'AUTH PLAIN LOGIN'], tls => []),
    reuse      => TLSRelay->new(%auth),
    balanced   => TLSRelay->new(%auth),
    (map { ("unasked_$_" => TLSRelay->new(pair => $good, unasked => $_)) } qw(data dot)),
);

sub to {
    my ($id, $scheme) = @_;
    return 'SmtpdRelay ' . ($scheme // 'smtp') . '://localhost:' . $relay{$id}->port . "\n";
}

my $verify = "SmtpdRelayTLS verify\n$trust";
my %host = (
    none       => to('none') . "SmtpdRelayTLS none\nSSLProxyEngine on\n",
    may        => to('may') . "SmtpdRelayTLS may\nSSLProxyEngine on\n",
    encrypt    => to('encrypt') . "SmtpdRelayTLS encrypt\n",
    clear      => to('clear') . "SmtpdRelayTLS encrypt\n",
    right      => to('right') . $verify,
    implicit   => to('implicit', 'smtps') . $verify,
    (map { $_ => 'SmtpdRelay ' . plain($relay{$_}, $user, $password) . "\n$verify" } qw(wrong_ca wrong_name expired)),
    implicit_wrong => to('implicit_wrong', 'smtps') . "SmtpdRelayCredentials file:$secret_file\n$trust",
    (map { $_ => 'SmtpdRelay ' . plain($relay{$_}, $odd_user, $odd_password) . "\n$trust" } qw(odd login)),
    (map { $_ => 'SmtpdRelay ' . plain($relay{$_}, $user, $password) . "\n$trust" } qw(no_auth unknown clear_auth
        inject forget_auth reuse)),
    (map { $_ => 'SmtpdRelay ' . plain($relay{$_}, $wrong_user, $wrong_password) . "\n$trust" }
        qw(refused refused_login)),
    environment => to('environment') . "SmtpdRelayCredentials env:RELAYTLS_LOGIN\n$trust",
    file       => to('file') . "SmtpdRelayCredentials file:$secret_file\n$trust",
    program    => to('program') . "SmtpdRelayCredentials exec:$program\n$trust",
    encrypt_auth => to('encrypt_auth') . "SmtpdRelayCredentials file:$secret_file\nSmtpdRelayTLS encrypt\n",
    inject_part => to('inject_part') . "SmtpdRelayTLS encrypt\n",
    inject_open => to('inject_open') . "SmtpdRelayTLS encrypt\n",
    forget     => to('forget') . $verify,
    (map { $_ => to($_) . $verify } qw(unasked_data unasked_dot)),
    balanced   => "SmtpdRelay balancer://pool\nSmtpdRelayCredentials file:$secret_file\n$verify",
);

my $h = OwnHttpd->new(
    modules => [qw(socache_shmcb ssl slotmem_shm proxy lbmethod_byrequests proxy_balancer authz_host status)],
    log_level => 'trace8',
    main => "ExtendedStatus On\nProxyStatus Full\n<Proxy balancer://pool>\n"
        . "SSLProxyEngine on\n${trust}SSLProxyVerify require\n"
        . "BalancerMember smtp://localhost:" . $relay{balanced}->port . "\n</Proxy>\n",
    hosts => {
        web => "<Location /status>\nSetHandler server-status\n</Location>\n"
            . "<Location /balancer>\nSetHandler balancer-manager\n</Location>\n",
        map { $_ => "SmtpdEngine on\n$host{$_}" } keys %host,
    },
)->start;

# A mail through that host: the first reply that is no 2xx, or the last one, as "code x.y.z".
sub mail_through {
    my ($c, $size) = @_;
    my $code = $c->cmd('MAIL FROM:<a@b.test>' . ($size ? " SIZE=$size" : ''));
    $code = $c->cmd('RCPT TO:<x@d.test>') if $code == 250;
    $code = $c->data("Subject: x\r\n\r\nhi\r\n") if $code == 250;
    return "$code " . substr $c->text, 0, 5;
}

sub deliver { my ($id) = @_; my $c = $h->client($id); my $said = mail_through($c, 50); $c->quit; return $said }

sub clear_of { return join ' ', map { (split / /)[0] } $relay{ $_[0] }->lines('clear') }
sub all_of   { return join "\n", $relay{ $_[0] }->lines }

# The relay's connection is at its end, so that nothing more can come over it.
sub has_ended { my ($id) = @_; return $relay{$id}->wait_for(sub { $_[0]->opened && $_[0]->ended == $_[0]->opened }) }

# Lines of the error log about that relay.
sub logged {
    my ($id, $tag) = @_;
    my $peer = 'localhost:' . $relay{$id}->port;
    return wait_for { join "\n", grep {/\Q$peer\E\b/} $h->lines(qr/\Q$tag\E: /) } 3;
}

# 451, and the relay has seen neither a mail nor a password.
sub kept_back {
    my ($id, $tag, $said) = @_;
    like deliver($id), $said // qr/^451 4\.7\.0$/, "$id: the client hears 451";
    ok has_ended($id), "$id: the connection is closed";
    unlike all_of($id), qr/^(?:MAIL|RCPT|DATA|AUTH)/m, "$id: neither mail nor password was sent";
    ok logged($id, $tag), "$id: $tag names the relay";
}

subtest 'none, may, encrypt' => sub {
    plan tests => 14;
    for my $id (qw(none may)) {
        is deliver($id), '250 2.0.0', "$id: a mail";
        is $relay{$id}->secured, 0, "$id on loopback: no TLS";
        unlike all_of($id), qr/^STARTTLS/m, "$id on loopback: not tried";
    }
    is deliver('encrypt'), '250 2.0.0', 'encrypt takes a self-signed certificate';
    is clear_of('encrypt'), 'EHLO STARTTLS', 'encrypt: nothing else in plaintext';
    like join("\n", $relay{encrypt}->lines('tls')), qr/\AEHLO .*^MAIL FROM:<a\@b\.test>/ms,
        'encrypt: EHLO again, and the mail, inside TLS';
    is join(' ', $relay{encrypt}->names), 'localhost', 'encrypt: the relay\'s name for SNI';
    kept_back('clear', 'NS0049');
};

subtest 'verify' => sub {
    plan tests => 20;
    is deliver('right'), '250 2.0.0', 'the right CA';
    is clear_of('right'), 'EHLO STARTTLS', 'nothing but that in plaintext';
    is deliver('implicit'), '250 2.0.0', 'smtps://, the right CA';
    is clear_of('implicit') . $relay{implicit}->secured, 1, 'TLS from the first octet';
    kept_back($_, 'NS0048') for qw(wrong_ca wrong_name expired implicit_wrong);
};

subtest 'a password goes inside TLS only' => sub {
    plan tests => 17;
    my %sent;
    for my $id (qw(odd environment file program encrypt_auth)) {
        is deliver($id), '250 2.0.0', "$id: a mail";
        is clear_of($id), 'EHLO STARTTLS', "$id: no password in plaintext";
        my ($response) = map { /^AUTH PLAIN (\S+)$/ ? $1 : () } $relay{$id}->lines('tls');
        my $exact = $id eq 'odd' ? "\0$odd_user\0$odd_password" : "\0$user\0$password";
        is unpack('H*', decode_base64($response // '')), unpack('H*', $exact), "$id: AUTH PLAIN, the exact octets";
    }
    is deliver('login'), '250 2.0.0', 'a relay with AUTH LOGIN only';
    my @lines = $relay{login}->lines('tls');
    is_deeply [@lines[1 .. 3]], ['AUTH LOGIN', map { encode_base64($_, '') } $odd_user, $odd_password],
        'AUTH LOGIN, the exact octets';
};

subtest 'no way to authenticate' => sub {
    plan tests => 18;
    kept_back('no_auth', 'NS0052');
    kept_back('unknown', 'NS0052');
    kept_back('clear_auth', 'NS0049');
    for my $id (qw(refused refused_login)) {
        is deliver($id), '451 4.7.0', "$id credentials: 451 4.7.0";
        has_ended($id);
        unlike all_of($id), qr/^MAIL/m, "$id: no mail";
        like logged($id, 'NS0042'), qr/535/, "$id: the log names the relay and its reply";
    }
};

subtest 'what came before TLS is not believed' => sub {
    plan tests => 19;
    my @inject = qw(inject inject_open inject_part);
    kept_back($_, 'NS0050', qr/^451 /) for @inject;
    is join(' ', map { $relay{$_}->secured } @inject), '0 0 0', 'and no handshake';
    is deliver('forget'), '250 2.0.0', 'SIZE and AUTH before TLS only: a mail';
    my ($mail) = grep {/^MAIL/} $relay{forget}->lines('tls');
    is $mail, 'MAIL FROM:<a@b.test>', 'without SIZE=';
    kept_back('forget_auth', 'NS0052');
};

# What OpenSSL has taken from the socket and nobody has read does not show there.
subtest 'what a relay says unasked is no answer' => sub {
    plan tests => 6;
    is deliver('unasked_data'), '451 4.3.5', 'behind its 354: the client hears 451';
    ok has_ended('unasked_data'), 'the connection is closed';
    is $relay{unasked_data}->mails, 0, 'without the final dot';
    my $c = $h->client('unasked_dot');
    is mail_through($c), '250 2.0.0', 'behind its 250 to the dot: that mail is taken';
    is mail_through($c), '250 2.0.0', 'and the next';
    is $relay{unasked_dot}->opened, 2, 'over another connection';
};

# What an HTTP client reads there.
sub page {
    my ($path) = @_;
    my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $h->port('web')) or die "web: $@";
    print {$s} "GET $path HTTP/1.0\r\nHost: web.test\r\n\r\n";
    local $/;
    return scalar <$s>;
}

subtest 'one connection for many mails, and pages' => sub {
    plan tests => 13;
    my $c = $h->client('reuse');
    is mail_through($c), '250 2.0.0', "mail $_" for 1 .. 3;
    ok $relay{reuse}->wait_for(sub { $_[0]->mails == 3 }), 'all have arrived';
    is $relay{reuse}->opened, 1, 'over one connection';
    my @verbs = map { (split /[ :]/)[0] } $relay{reuse}->lines('tls');
    is "@verbs", 'EHLO AUTH MAIL RCPT DATA RSET MAIL RCPT DATA RSET MAIL RCPT DATA',
        'one AUTH, and RSET between the mails';
    my $d = $h->client('balanced');
    is mail_through($d), '250 2.0.0', 'through a balancer';
    is clear_of('balanced') . ' ' . join(' ', map { (split / /)[0] } grep {/^AUTH/} $relay{balanced}->lines('tls')),
        'EHLO STARTTLS AUTH', 'which authenticates inside TLS';
    my %pages = (status => page('/status'), balancer => page('/balancer'));
    my %expected = (status => qr/Server uptime/, balancer => qr/smtp:\/\/localhost:@{[$relay{balanced}->port]}/);
    for my $which (sort keys %pages) {
        like $pages{$which}, $expected{$which}, "$which: the page is there";
        is scalar(grep { index($pages{$which}, $_) >= 0 } map { forms($_) } @secrets), 0, "$which: no password";
    }
    $c->quit;
    like $pages{status}, qr/balancer:\/\/pool/, 'status: with the balancer';
};

subtest 'the error log at trace8' => sub {
    plan tests => 1 + @secrets;
    my $log = $h->log('error.log');
    like $log, qr/:trace[5-8]\]/, 'it is that detailed';
    for my $i (0 .. $#secrets) {
        my @found = grep { index($log, $_) >= 0 } forms($secrets[$i]);
        is scalar(@found), 0, "password $i is not in it, in no form";
    }
};

# ---- what httpd -t says

sub checked {
    my ($text) = @_;
    return OwnHttpd->new(hosts => { mail => "SmtpdEngine on\n$text" }, modules => [qw(ssl proxy)])->check;
}

sub stops {
    my ($what, $text, @words) = @_;
    my ($ok, $said) = checked($text);
    ok !$ok, "$what: does not start";
    is_deeply [grep { index($said, $_) < 0 } @words], [], "$what: says why" or diag $said;
    is scalar(grep { index($said, $_) >= 0 } forms($password)), 0, "$what: without the password";
}

subtest 'configuration' => sub {
    my $plain = "SmtpdRelay plain://$user:$password\@localhost:587\n";
    my $smtp = "SmtpdRelay smtp://localhost:587\n";
    my $failing = private_file('failing', "#!/bin/sh\necho '$user:$password'\nexit 3\n", 0755);
    my $no_colon = private_file('no-colon', "$password\n", 0600);
    my @cases = (
        ['plain:// with may', "${plain}SmtpdRelayTLS may\n$trust", 'SmtpdRelay', 'SmtpdRelayTLS verify'],
        ['plain:// with none', "${plain}SmtpdRelayTLS none\n$trust", 'SmtpdRelay', 'SmtpdRelayTLS verify'],
        ['plain:// without a CA', $plain, 'SmtpdRelay', 'SSLProxyCACertificateFile'],
        ['verify without a CA', "${smtp}SmtpdRelayTLS verify\n", 'SmtpdRelay', 'SSLProxyCACertificateFile'],
        ['a missing file', "${smtp}SmtpdRelayCredentials file:$tmp/missing\n$trust", 'SmtpdRelayCredentials',
            "$tmp/missing"],
        ['an empty file', "${smtp}SmtpdRelayCredentials file:/dev/null\n$trust", 'SmtpdRelayCredentials', '/dev/null'],
        ['a file without a user', "${smtp}SmtpdRelayCredentials file:$no_colon\n$trust", 'SmtpdRelayCredentials',
            'user:password'],
        ['an unset variable', "${smtp}SmtpdRelayCredentials env:RELAYTLS_NONE\n$trust", 'SmtpdRelayCredentials',
            'RELAYTLS_NONE'],
        ['a missing program', "${smtp}SmtpdRelayCredentials exec:$tmp/missing\n$trust", 'SmtpdRelayCredentials',
            "$tmp/missing"],
        ['a failing program', "${smtp}SmtpdRelayCredentials exec:$failing\n$trust", 'SmtpdRelayCredentials', $failing],
        ['credentials twice', "${plain}SmtpdRelayCredentials file:$secret_file\n$trust", 'SmtpdRelayCredentials'],
        ['badly encoded', "SmtpdRelay plain://$user:$password%2\@localhost\n$trust", 'SmtpdRelay', 'percent-encoded'],
    );
    plan tests => 3 * @cases + 5;
    stops(@$_) for @cases;
    my ($ok, $said) = checked("${smtp}SmtpdRelayCredentials file:$secret_file\n$trust");
    ok $ok, 'a private file' or diag $said;
    unlike $said, qr/NS0053/, 'no warning';
    my $open = private_file('open', "$user:$password\n", 0644);
    ($ok, $said) = checked("${smtp}SmtpdRelayCredentials file:$open\n$trust");
    ok $ok, 'a file that others can read starts' or diag $said;
    like $said, qr/NS0053: SmtpdRelayCredentials: \Q$open\E/, 'with a warning that names it';
    is scalar(grep { index($said, $_) >= 0 } forms($password)), 0, 'and without the password';
};

unlike $h->log('error.log'), qr/exit signal|NS0026|NS0027/, 'no crash, no fault';
$h->stop;
done_testing;
