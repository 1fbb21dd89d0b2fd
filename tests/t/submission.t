# Through a real submission server, Postfix with SASL and certificates of its own CA: mail that goes
# there authenticated and over verified TLS, passwords that it accepts and refuses, and that no
# password goes to one whose certificate is not good. What Postfix heard is read from its log. It is
# started by root only (see tools/test); its ports are in PostfixSubmission.
use strict;
use warnings;
use File::Temp ();
use MIME::Base64 qw(encode_base64);
use OwnHttpd;
use SMTPClient;
use Test::More;
use TestHost qw(slurp wait_for);
use TLSClient;

plan skip_all => 'no submission server was started: not by root, or without saslpasswd2'
    unless $ENV{POSTFIX_SUBMISSION};

my %port = split /[:,]/, $ENV{POSTFIX_SUBMISSION};
my ($user, $password) = split /:/, $ENV{POSTFIX_CREDENTIALS}, 2;
my $wrong = 'Ebb:4-Estuary';

# The bad certificates, and why mod_ssl finds them bad.
my %bad = (
    wrongname => qr/does not match for hostname localhost\b/,
    expired   => qr/certificate has expired/,
    otherca   => qr/unable to (?:get local issuer|verify the first) certificate/,
);

my $secret = File::Temp->new(TEMPLATE => 'secret.XXXXXX', TMPDIR => 1);
print {$secret} "$ENV{POSTFIX_CREDENTIALS}\n";
close $secret or die "$secret: $!";

# ---- a host for each way to go there

sub percent { return $_[0] =~ s/([^A-Za-z0-9])/sprintf '%%%02X', ord $1/ger }

# A connection for each mail, so that Postfix counts the commands of a mail when it ends.
sub to {
    my ($name, %a) = @_;
    my $login = $a{password} ? "$user:" . percent($a{password}) . '@' : '';
    return "SmtpdEngine on\nSmtpdRelay " . ($a{scheme} // 'plain')
        . "://${login}localhost:$port{$name} retry=0 " . ($a{keys} // 'disablereuse=on') . "\n";
}

my %plain = (password => $password);
my $file  = "SmtpdRelayCredentials file:$secret\n";
my $trust = "SSLProxyCACertificateFile $ENV{POSTFIX_CA}\n";
my $h = OwnHttpd->new(modules => [qw(proxy socache_shmcb ssl)], log_level => 'trace8', hosts => {
    right     => to('right', %plain) . $trust,
    file      => to('right', scheme => 'smtp') . $file . $trust,
    login     => to('login', %plain) . $trust,
    implicit  => to('implicit', scheme => 'smtps') . $file . $trust,
    wrong     => to('right', password => $wrong) . $trust,
    none      => to('right', scheme => 'smtp') . "SmtpdRelayTLS verify\n$trust",
    reuse     => to('right', %plain, keys => '') . $trust,
    map { (
        "verify_$_"  => to($_, %plain) . $trust,
        "file_$_"    => to($_, scheme => 'smtp') . $file . $trust,
        "encrypt_$_" => to($_, %plain) . "SmtpdRelayTLS encrypt\n",
    ) } keys %bad,
})->start;

# ---- mails, and what became of them

my $serial = 0;
sub tag { return sprintf 'sub-%d-%d', $$, ++$serial }
sub message { return "Subject: $_[0]\r\n\r\n.\r\nby submission\r\n" }

# The files of the mail that are there by now.
sub arrived {
    my ($tag) = @_;
    my @files = grep { slurp($_) =~ /^Subject: \Q$tag\E$/m } glob "$ENV{POSTFIX_MAILDIR}/new/*";
    return @files;
}

# Lines of a port in Postfix's log, behind so many octets of it.
sub heard {
    my ($name, $from) = @_;
    my $log = substr slurp($ENV{POSTFIX_LOG}), $from;
    return grep { m{ postfix/\Q$name\E/smtpd\[} } split /\n/, $log;
}

# Its count of the commands of the one session on a port since then, when that is at its end, from a
# line as: disconnect from localhost[127.0.0.1] ehlo=2 starttls=1 auth=0/1 quit=1 commands=4/5
sub session {
    my ($name, $from) = @_;
    my $line = wait_for { (grep {/: disconnect from /} heard($name, $from))[0] };
    return { ($line // '') =~ /(\w+)=(\S+)/g };
}

# One mail: code and enhanced code for the client, Postfix's count of the session, and its log.
sub submit {
    my ($host, $name, $tag) = @_;
    my $from = -s $ENV{POSTFIX_LOG};
    my $c = $h->client($host);
    $c->mail('a@b.test', 'c@d.test', message($tag));
    my $said = $c->code . ' ' . substr $c->text, 0, 5;
    $c->quit;
    return ($said, session($name, $from), heard($name, $from));
}

# A mail that arrives, authenticated by that mechanism.
sub goes {
    my ($host, $name, $mechanism) = @_;
    my $tag = tag();
    my ($said, $session, @log) = submit($host, $name, $tag);
    is $said, '250 2.0.0', "$host: taken";
    is $session->{auth}, 1, "$host: one AUTH" or diag explain @log;
    my ($who) = map { /: client=\S+, sasl_method=(\S+), sasl_username=([^@\s]+)/ ? "$1 $2" : () }
        @log;
    is $who, "$mechanism $user", "$host: Postfix knows who it is" or diag explain @log;
    my ($file) = wait_for { (arrived($tag))[0] };
    my $text = $file ? slurp($file) : '';
    my ($received) = $text =~ /^(Received: from .*\n(?:[ \t].*\n)*)/m;
    like $received, qr/\(using\ TLSv1\.[23]\ with\ .* \(Authenticated\ sender:\ \Q$user\E\b
        .* by\ relay\.test\ .* with\ ESMTPSA\ id/sx,
        "$host: Received has TLS, the user, ESMTPSA";
    like $text, qr/^Subject: \Q$tag\E\n\n\.\nby submission\n\z/m, "$host: the message as it was";
}

# A mail that is refused for now and not begun at Postfix: its count of the session, and its log.
sub stays {
    my ($host, $name) = @_;
    my ($said, $session, @log) = submit($host, $name, tag());
    is $said, '451 4.7.0', "$host: the client hears 451";
    like $session->{starttls}, qr{^(?:1|0/1)$}, "$host: Postfix heard STARTTLS"
        or diag explain @log;
    is_deeply [grep { exists $session->{$_} } qw(mail rcpt data)], [], "$host: and no mail";
    return ($session, @log);
}

# Lines of our error log at error level about the relay at that port, with that tag.
sub errors {
    my ($tag, $name) = @_;
    return $h->lines(qr/\[nssmtpd:error\].* \Q$tag\E: .*\blocalhost:$port{$name}\b/);
}

subtest 'Postfix wants TLS before AUTH, and AUTH' => sub {
    plan tests => 4;
    my $from = -s $ENV{POSTFIX_LOG};
    my $c = SMTPClient->new(port => $port{right});
    $c->cmd('EHLO me.test');
    unlike $c->text, qr/^AUTH/m, 'AUTH is not offered';
    is $c->cmd('STARTTLS') && TLSClient::secure($c) && $c->cmd('EHLO me.test'), 250, 'STARTTLS is';
    my @mechanisms = map { /^AUTH (.*)/ ? split ' ', $1 : () } $c->lines;
    is join(' ', sort @mechanisms), 'LOGIN PLAIN', 'and AUTH inside it';
    $c->quit;
    session('right', $from);
    my ($said) = submit('none', 'right', tag());
    is $said, '554 5.7.1', 'without credentials it relays nothing';
};

subtest 'the right CA and name' => sub {
    plan tests => 20;
    goes('right', 'right', 'PLAIN');
    goes('file', 'right', 'PLAIN');
    goes('login', 'login', 'LOGIN');
    goes('implicit', 'implicit', 'PLAIN');
};

for my $name (sort keys %bad) {
    subtest "a certificate that is not good: $name" => sub {
        plan tests => 18;
        for my $how (qw(verify file)) {
            my $before = errors('NS0048', $name);
            my ($session, @log) = stays("${how}_$name", $name);
            ok !exists $session->{auth}, "$how: Postfix heard no AUTH" or diag explain $session;
            is scalar(grep {/sasl/i} @log), 0, "$how: nothing about SASL is in its log"
                or diag explain @log;
            is errors('NS0048', $name) - $before, 1, "$how: an error names the relay";
        }
        like $h->log('error.log'), $bad{$name}, 'it is bad for the reason meant';
        # The same questions show a password when one was sent.
        goes("encrypt_$name", $name, 'PLAIN');
    };
}

# The forms in which a password goes through the program.
sub forms {
    my ($secret) = @_;
    return ($secret, percent($secret), map { encode_base64($_, '') } $secret, "\0$user\0$secret");
}

subtest 'a wrong password' => sub {
    plan tests => 5;
    my ($session) = stays('wrong', 'right');
    is $session->{auth}, '0/1', 'one AUTH, which Postfix refused';
    my @errors = errors('NS0042', 'right');
    like "@errors", qr/\b535\b/, 'an error names the relay and has its reply'
        or diag explain @errors;
};

subtest 'one AUTH for many mails' => sub {
    plan tests => 6;
    my $from = -s $ENV{POSTFIX_LOG};
    my @tags = map { tag() } 1 .. 3;
    my $c = $h->client('reuse');
    is $c->mail('a@b.test', 'c@d.test', message($_)), 250, "$_ is taken" for @tags;
    $c->quit;
    ok &wait_for(sub { @tags == grep { arrived($_) == 1 } @tags }), 'all arrived';
    $h->stop;
    my $session = session('right', $from);
    is $session->{auth}, 1, 'with one AUTH' or diag explain heard('right', $from);
    is $session->{data}, 3, 'in one session';
};

subtest 'the logs at trace8' => sub {
    plan tests => 4;
    my $log = $h->log('error.log') . $h->log('smtp.log');
    like $log, qr/:trace[5-8]\]/, 'are that detailed';
    for my $secret ($password, $wrong) {
        is scalar(grep { index($log, $_) >= 0 } forms($secret)), 0, 'have no password in any form';
    }
    unlike $log, qr/exit signal|NS0026|NS0027/, 'no crash, no fault';
};

done_testing;
