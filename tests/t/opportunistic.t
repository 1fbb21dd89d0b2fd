# SmtpdRelayTLS may, the default, at an address that is not loopback: TLS to a Postfix as Debian
# installs it, plaintext after whatever can go wrong before TLS, never a password; and the client
# certificate that a relay asks for. It needs the network and the Postfix that tools/test starts as
# root; nothing leaves the machine.
use strict;
use warnings;
use OwnHttpd;
use Test::More;
use TestCA;
use TestHost qw(slurp wait_for);
use Time::HiRes qw(time);
use TLSRelay;

plan skip_all => 'no network of its own: not by root, or unshare -n is not permitted'
    unless $ENV{TEST_NETWORK} && $ENV{POSTFIX_NETWORK};

my $address = $ENV{TEST_NETWORK};
my %port = split /[:,]/, $ENV{POSTFIX_NETWORK};
my $ca   = TestCA->new;
my $pair = $ca->issue('relay', names => ['relay.test']);
my ($user, $password) = ('submitter', 'Tide:9-Harbour');
my $patience = 1;    # seconds for a relay that hangs

# ---- relays that are not Postfix. All offer AUTH to whoever is silly enough, before TLS and inside.

my @common = (pair => $pair, address => $address, clear => ['AUTH PLAIN LOGIN'],
    tls => ['AUTH PLAIN LOGIN'], user => $user, password => $password);
my %relay = (
    good     => TLSRelay->new(@common),
    missing  => TLSRelay->new(@common, starttls => 0),
    secret   => TLSRelay->new(@common),
    inject   => TLSRelay->new(@common, inject => "250 2.0.0 ok\r\n250 2.1.0 ok\r\n"),
    loopback => TLSRelay->new(@common, address => '127.0.0.1'),
    '454'    => TLSRelay->new(@common, refuse_starttls => '454 4.7.0 no TLS today'),
    '502'    => TLSRelay->new(@common, refuse_starttls => '502 5.5.1 what'),
    map { $_ => TLSRelay->new(@common, handshake => $_) } qw(close garbage hang drip late),
);

# ---- a host for each

sub to { return "SmtpdEngine on\nSmtpdRelay smtp://$_[0] retry=0\n" }
sub postfix { return to("$address:$port{$_[0]}") }

my $on = "SSLProxyEngine on\n";
my $client = "SSLProxyMachineCertificateFile $ENV{POSTFIX_CLIENT}\n";
my %host = (
    default => postfix('default') . $on,
    written => postfix('default') . "${on}SmtpdRelayTLS may\n",
    off     => postfix('default'),
    never   => postfix('default') . "${on}SmtpdRelayTLS none\n",
    verify  => postfix('default') . "SmtpdRelayTLS verify\nSSLProxyCACertificateFile " . $ca->file . "\n",
    client_may     => postfix('asking') . $on . $client,
    client_encrypt => postfix('asking') . "SmtpdRelayTLS encrypt\n$client",
    client_none    => postfix('asking') . $on,
    (map { $_ => to("$address:" . $relay{$_}->port) . $on } grep { $_ ne 'secret' } keys %relay),
    loopback  => to('127.0.0.1:' . $relay{loopback}->port) . $on,
    localhost => to('localhost:' . $relay{loopback}->port) . $on,
    secret    => "SmtpdEngine on\nSmtpdRelay plain://$user:" . ($password =~ s/:/%3A/r)
        . "\@$address:" . $relay{secret}->port . "\nSSLProxyCACertificateFile " . $ca->file . "\n",
);
my $h = OwnHttpd->new(modules => [qw(proxy socache_shmcb ssl)], hosts => \%host,
    main => "SmtpdTimeout connect=$patience\n")->start;

# ---- mails, and what became of them

my $serial = 0;
sub tag { return sprintf 'may-%d-%d', $$, ++$serial }

# Mails in one session: what the client hears of each, as "code x.y.z".
sub deliver {
    my ($host, @tags) = @_;
    my $c = $h->client($host, timeout => 20);
    my @said = map {
        $c->mail('a@b.test', 'c@d.test', "Subject: $_\r\n\r\n.\r\nhi\r\n");
        $c->code . ' ' . substr $c->text, 0, 5;
    } @tags;
    $c->quit;
    return join ', ', @said;
}

# What Postfix made of it, once it is there.
sub arrived {
    my ($tag) = @_;
    my $text = wait_for {
        (grep {/^Subject: \Q$tag\E$/m} map { slurp($_) } glob "$ENV{POSTFIX_MAILDIR}/new/*")[0];
    };
    return $text // '';
}

# The first Received, which is Postfix's, as one line.
sub received { return arrived($_[0]) =~ /^(Received: .*\n(?:[ \t].*\n)*)/m ? $1 =~ s/\s+/ /gr : '' }

# The lines of Postfix's log behind so many octets of it.
sub heard {
    my ($name, $from) = @_;
    return grep { m{ postfix/\Q$name\E/smtpd\[} } split /\n/, substr slurp($ENV{POSTFIX_LOG}), $from;
}

# Lines of our error log with that tag and level about that relay.
sub logged {
    my ($tag, $level, $peer) = @_;
    return scalar $h->lines(qr/\[nssmtpd:$level\] .* \Q$tag\E: .*\b\Q$peer\E\b/);
}

sub verbs { return join ' ', map { (split /[ :]/)[0] } @_ }

subtest 'Postfix as Debian installs it' => sub {
    plan tests => 13;
    for my $host (qw(default written)) {
        my ($tag, $from) = (tag(), -s $ENV{POSTFIX_LOG});
        is deliver($host, $tag), '250 2.0.0', "$host: a mail";
        like received($tag), qr/ by relay\.test \(Postfix\) with ESMTPS id /, "$host: by TLS";
        my $line = wait_for { (grep {/TLS connection established from /} heard('default', $from))[0] };
        like $line // '', qr/\[\Q$address\E\]: TLSv1\.3 with cipher /, "$host: says Postfix, too";
    }
    for my $host (qw(off never)) {
        my ($tag, $from) = (tag(), -s $ENV{POSTFIX_LOG});
        is deliver($host, $tag), '250 2.0.0', "$host: a mail";
        like received($tag), qr/ by relay\.test \(Postfix\) with ESMTP id /, "$host: in plaintext";
        is scalar(grep {/TLS/} heard('default', $from)), 0, "$host: STARTTLS was not tried";
    }
    is deliver('verify', tag()), '451 4.7.0', 'its certificate is indeed none that verifies';
};

subtest 'TLS, and no password' => sub {
    plan tests => 7;
    is deliver('good', 'one', 'two'), '250 2.0.0, 250 2.0.0', 'two mails';
    is verbs($relay{good}->lines('clear')), 'EHLO STARTTLS', 'nothing but that in plaintext';
    is verbs($relay{good}->lines('tls')), 'EHLO MAIL RCPT DATA RSET MAIL RCPT DATA', 'one handshake, no AUTH';
    is deliver('secret', 'x'), '451 4.7.0', 'with credentials the default is verify';
    is verbs($relay{secret}->lines), 'EHLO STARTTLS', 'neither mail nor password, nor another try in plaintext';
    my $login = to("$address:25") . "SmtpdRelayCredentials env:MAY_LOGIN\nSmtpdRelayTLS may\n$on";
    local $ENV{MAY_LOGIN} = "$user:$password";
    my ($ok, $said) = OwnHttpd->new(hosts => { mail => $login }, modules => [qw(ssl proxy)])->check;
    ok !$ok, 'credentials and may: httpd does not start';
    like $said, qr/credentials need SmtpdRelayTLS verify, or encrypt/, 'and says why';
};

# Two mails that arrive once each, over one connection in plaintext, after one that came to nothing.
sub falls_back {
    my ($name, $why) = @_;
    my ($r, $start) = ($relay{$name}, time);
    is deliver($name, 'one', 'two'), '250 2.0.0, 250 2.0.0', "$name: two mails";
    my $took = time - $start;
    is $r->mails, 2, "$name: arrived once each";
    is verbs($r->lines('clear')), 'EHLO STARTTLS EHLO MAIL RCPT DATA RSET MAIL RCPT DATA',
        "$name: in plaintext, no AUTH";
    is verbs($r->lines('tls')), '', "$name: and not inside TLS";
    is $r->opened, 2, "$name: over a connection of their own";
    my @lines = $h->lines(qr/\[nssmtpd:warn\] .* NS0095: \S+ relay \Q$address\E:$r->{port}: /);
    is scalar(@lines), 1, "$name: NS0095 says so, once";
    like "@lines", $why, "$name: and why";
    return $took;
}

subtest 'plaintext when TLS fails' => sub {
    plan tests => 7 * 7 + 5;
    falls_back($_, qr/STARTTLS was refused/) for qw(454 502);
    falls_back($_, qr/the TLS handshake has failed/) for qw(close garbage);
    falls_back('late', qr/lost right after the TLS handshake/);
    for my $name (qw(hang drip)) {
        my $took = falls_back($name, qr/the TLS handshake has failed/);
        cmp_ok $took, '>=', $patience * 0.8, "$name: after SmtpdTimeout connect";
        cmp_ok $took, '<', $patience + 4, "$name: but no later";
    }
    my $others = join '|', map { $relay{$_}->port } qw(454 502 close garbage hang drip);
    my @errors = $h->log('error.log') =~ /^(.*\[nssmtpd:error\].*\b\Q$address\E:(?:$others)\b.*)$/mg;
    is "@errors", '', 'nothing of it is an error';
};

subtest 'no STARTTLS, and too much of it' => sub {
    plan tests => 7;
    is deliver('missing', 'x'), '250 2.0.0', 'not offered: a mail';
    is verbs($relay{missing}->lines), 'EHLO MAIL RCPT DATA', 'not offered: not tried';
    is deliver('inject', 'x'), '451 4.3.5', 'plaintext behind its 220: 451';
    ok $relay{inject}->wait_for(sub { $_[0]->opened && $_[0]->ended == $_[0]->opened }), 'and closed';
    is $relay{inject}->opened, 1, 'no other try';
    is verbs($relay{inject}->lines), 'EHLO STARTTLS', 'nothing of it was believed';
    is logged('NS0050', 'error', "$address:" . $relay{inject}->port), 1, 'it is an error';
};

subtest 'not on loopback' => sub {
    plan tests => 4;
    for my $host (qw(loopback localhost)) {
        my $before = () = $relay{loopback}->lines;
        is deliver($host, 'x'), '250 2.0.0', "$host: a mail";
        my @lines = $relay{loopback}->lines;
        is verbs(grep { !/^QUIT/ } @lines[$before .. $#lines]), 'EHLO MAIL RCPT DATA', "$host: without STARTTLS";
    }
};

subtest 'our certificate for the relay' => sub {
    plan tests => 9;
    for my $host (qw(client_may client_encrypt)) {
        my ($tag, $from) = (tag(), -s $ENV{POSTFIX_LOG});
        is deliver($host, $tag), '250 2.0.0', "$host: a mail";
        like received($tag),
            qr/\(using TLSv1\.3 .*\(Client CN "our client", Issuer "The CA of clients" \(verified OK\)\)/,
            "$host: Received has it, verified";
        my $line = wait_for { (grep {/TLS connection established from /} heard('asking', $from))[0] };
        like $line // '', qr/: Trusted TLS connection established from /, "$host: Postfix trusts it";
    }
    my ($tag, $from) = (tag(), -s $ENV{POSTFIX_LOG});
    is deliver('client_none', $tag), '250 2.0.0', 'without one: a mail';
    like received($tag), qr/\(using TLSv1\.3 .*\(Client did not present a certificate\)/, 'Received says so';
    my $line = wait_for { (grep {/TLS connection established from /} heard('asking', $from))[0] };
    like $line // '', qr/: Anonymous TLS connection established from /, 'and Postfix';
};

unlike $h->log('error.log') . $h->log('smtp.log'), qr/exit signal|NS0026|NS0027|\Q$password\E/, 'no crash, no password';
done_testing;
