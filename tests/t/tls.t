# TLS towards clients: STARTTLS, implicit TLS, what must not survive it, server names, client
# certificates, ALPN, resumption, what is no handshake, and slow clients. With the tools people use.
use strict;
use warnings;
use File::Temp ();
use IO::Socket::SSL;
use OwnHttpd;
use SMTPClient;
use TLSClient;
use TestCA;
use TestHost qw(slurp spew wait_for);
use Test::More;
use Time::HiRes qw(time);

my $ca    = TestCA->new;
my $other = TestCA->new(name => 'Another CA');
my $good  = $ca->issue('good', names => ['localhost']);
my $second_pair = $ca->issue('second', names => ['second.test']);
my $alice = $ca->issue('alice', cn => 'alice');
my $mallory = $other->issue('mallory', cn => 'alice');
my $tmp = File::Temp->newdir('tls.XXXXXX', TMPDIR => 1);
my $mpm = $ENV{TEST_MPM} // 'event';

my $ssl = "SSLEngine on\nSSLCertificateFile $good->{cert}\nSSLCertificateKeyFile $good->{key}\n";
my $smtp = "SmtpdEngine on\nSmtpdRelay maildir:%DIR%/maildir/%d/%u\n";
my $clients = $smtp . $ssl . 'SSLCACertificateFile ' . $ca->file . "\n";
my $second = "SmtpdEngine on\nSmtpdRelay discard:\nSSLEngine on\n"
    . "SSLCertificateFile $second_pair->{cert}\nSSLCertificateKeyFile $second_pair->{key}\n";

my $h = OwnHttpd->new(
    modules => [qw(socache_shmcb ssl proxy authz_host authn_file)],
    main => "SSLSessionCache shmcb:%DIR%/runtime/sessions(65536)\nSmtpdTimeout command=5\n"
        . "<VirtualHost 127.0.0.1:%PORT:names%>\nServerName first.test\nSmtpdTrustedClients none\n"
        . "SmtpdRelayDomains first-only.test\nSmtpdHostname mx.first.test\n$smtp$ssl</VirtualHost>\n"
        . "<VirtualHost 127.0.0.1:%PORT:later%>\nServerName hasty.test\nSmtpdTimeout command=2 data=2\n"
        . "$smtp$ssl</VirtualHost>\n",
    hosts => {
        mail      => $smtp . $ssl,
        onward    => "SmtpdEngine on\nSmtpdRelay smtp://localhost:%PORT:mail%\nSmtpdRelayTLS verify\n"
            . 'SSLProxyCACertificateFile ' . $ca->file . "\n$ssl",
        implicit  => "${smtp}SmtpdTLS immediate\n$ssl",
        required  => "${smtp}SmtpdTLS starttls required\nSmtpdAuthProvider file\n$ssl",
        plain     => $smtp,
        off       => "${smtp}SmtpdTLS off\n$ssl",
        names     => "SmtpdTrustedClients none\nSmtpdRelayDomains second-only.test\n"
            . "ServerAlias second.test\nSmtpdHostname mx.second.test\n$second",
        later     => "ServerAlias second.test\nSmtpdTimeout command=60 data=60\n$second",
        require   => "${clients}SSLVerifyClient require\n",
        optional  => "${clients}SSLVerifyClient optional\n<Location \"/smtp/mail\">\n"
            . "Require ssl-verify-client\n</Location>\n<Location \"/smtp/rcpt\">\n"
            . "Require expr \"%{SSL_CLIENT_S_DN_CN} == 'alice'\"\n</Location>\n",
        tls12     => "$smtp${ssl}SSLProtocol TLSv1.2\n",
        tls13     => "$smtp${ssl}SSLProtocol TLSv1.3\n",
    },
)->start;

sub client { my ($host, %a) = @_; return SMTPClient->new(port => $h->port($host), %a) }
sub tls    { my ($host, %a) = @_; return TLSClient->new(port => $h->port($host), %a) }

# A message to a Maildir of its own; what arrived, without what was put before it.
my $n = 0;
sub mailbox { return 'box' . ++$n }

sub arrived {
    my ($box) = @_;
    my ($file) = wait_for { glob $h->dir . "/maildir/d.test/$box/new/*" };
    return $file ? slurp($file) : '';
}

# A program's output and exit status; what it reads comes from a file.
sub run {
    my ($input, @command) = @_;
    spew("$tmp/in", $input);
    my $line = join ' ', map { my $a = $_; $a =~ s/'/'\\''/g; "'$a'" } 'timeout', 20, @command;
    my $said = `$line < $tmp/in 2>&1`;
    return wantarray ? ($said, $? >> 8) : $said;
}

subtest 'the tools people use' => sub {
    plan tests => 14;
    my $port = $h->port('mail');
    my @session = ("EHLO me.test\r\n", "MAIL FROM:<a\@b.test>\r\n", "RCPT TO:<%s\@d.test>\r\n", "DATA\r\n",
        "Subject: x\r\n\r\nhi\r\n.\r\n", "QUIT\r\n");
    for ([mail => '-starttls', 'smtp'], ['implicit']) {
        my ($host, @options) = @$_;
        my $box = mailbox();
        my $said = run(sprintf(join('', @session), $box), 'openssl', 's_client', '-quiet', @options,
            '-connect', '127.0.0.1:' . $h->port($host));
        like $said, qr/^250 2\.0\.0 /m, "openssl s_client, $host: 250";
        like arrived($box), qr/^\tby \S+ with ESMTPS id/m, "openssl s_client, $host: ESMTPS";
    }
    for ([mail => '--tls'], [implicit => '--tlsc']) {
        my ($host, $option) = @$_;
        my $box = mailbox();
        my ($said, $status) = run('', 'swaks', $option, '-s', '127.0.0.1', '-p', $h->port($host), '-f',
            'a@b.test', '-t', "$box\@d.test", '-h', 'me.test');
        is $status, 0, "swaks $option" or diag $said;
        ok arrived($box), "swaks $option: arrived";
    }
    for (['smtp', 'mail', '--ssl-reqd'], ['smtps', 'implicit']) {
        my ($scheme, $host, @options) = @$_;
        my $box = mailbox();
        my ($said, $status) = run("Subject: x\r\n\r\nhi\r\n", 'curl', '-sS', @options, '--cacert', $ca->file,
            '--mail-from', 'a@b.test', '--mail-rcpt', "$box\@d.test", '-T', '-',
            "$scheme://localhost:" . $h->port($host) . '/me.test');
        is $status, 0, "curl $scheme, verified" or diag $said;
        ok arrived($box), "curl $scheme: arrived";
    }
    my $box = mailbox();
    my ($said, $status) = run("Subject: x\n\nhi\n", 'msmtp', '-C', '/dev/null', '--host=localhost',
        "--port=$port", '--tls=on', '--auth=off', '--tls-trust-file=' . $ca->file, '--from=a@b.test',
        "$box\@d.test");
    is $status, 0, 'msmtp, verified' or diag $said;
    ok arrived($box), 'msmtp: arrived';
};

subtest 'STARTTLS, and what it leaves' => sub {
    plan tests => 19;
    my $c = client('mail');
    $c->cmd('EHLO me.test');
    like $c->text, qr/^STARTTLS$/m, 'announced';
    is $c->cmd('STARTTLS now'), 501, 'takes no argument';
    is $c->cmd('MAIL FROM:<forgotten@x.test>'), 250, 'a mail begins in plaintext';
    is $c->cmd('RCPT TO:<a@d.test>'), 250, 'with a recipient';
    is $c->cmd('STARTTLS'), 220, 'STARTTLS';
    is $c->text, '2.0.0 Ready to start TLS', 'its words';
    ok TLSClient::secure($c), 'a handshake' or return;
    bless $c, 'TLSClient';
    is $c->cmd('RCPT TO:<b@d.test>'), 503, 'the transaction is forgotten';
    is $c->cmd('MAIL FROM:<a@b.test>'), 503, 'and so is EHLO';
    is $c->cmd('EHLO me.test'), 250, 'EHLO again';
    unlike $c->text, qr/^STARTTLS$/m, 'not announced inside TLS';
    is $c->cmd('STARTTLS'), 503, 'not twice';
    my $box = mailbox();
    is $c->mail('a@b.test', "$box\@d.test", "Subject: x\r\n\r\nx\r\n"), 250, 'a mail';
    my $text = arrived($box);
    like $text, qr/with ESMTPS id/, 'Received says ESMTPS';
    $c->send_raw("QUIT\r\n");
    is $c->read_reply, 221, 'QUIT';
    ok $c->expect_eof, 'and the end';
    for (['plain', 'no certificate'], ['off', 'SmtpdTLS off']) {
        my ($host, $why) = @$_;
        my $d = client($host);
        $d->cmd('EHLO me.test');
        is $d->cmd('STARTTLS') . ($d->cmd('EHLO x.test') && $d->text =~ /STARTTLS/ ? ' announced' : ''), 502,
            "$why: not offered";
    }
    my $gone = tls('mail');
    $gone->send_raw("QUIT\r\n");
    $gone->close;
    is tls('mail')->cmd('NOOP'), 250, 'a client that says QUIT and closes hinders nobody';
};

subtest 'plaintext behind STARTTLS is never executed' => sub {
    plan tests => 7;
    my $c = client('mail');
    $c->cmd('EHLO me.test');
    $c->send_raw("STARTTLS\r\nMAIL FROM:<injected\@x.test>\r\n");
    is $c->read_reply, 421, 'in one packet: 421';
    like $c->text, qr/^4\.7\.0 /, 'enhanced code';
    ok $c->expect_eof, 'and nothing but the end';
    # A packet later: it stands where the handshake belongs.
    my $d = client('mail');
    $d->cmd('EHLO me.test');
    is $d->cmd('STARTTLS'), 220, 'asked nicely';
    $d->send_raw("MAIL FROM:<injected\@x.test>\r\n");
    $d->expect_eof;
    ok $d->ended, 'behind the 220: the session ends';
    unlike $d->unread, qr/^\d{3}[ -]/m, 'without a reply in plaintext';
    unlike $h->log('smtp.log'), qr/injected\@x/, 'no such mail was begun';
};

subtest 'no handshake' => sub {
    my %what = ('HTTP' => "GET / HTTP/1.0\r\n\r\n", 'HTTP, then SMTP' =>
        "GET / HTTP/1.0\r\n\r\nEHLO me.test\r\nMAIL FROM:<plain\@x.test>\r\n", 'octets' => "\0\xff" x 200,
        'a TLS record of nothing' => "\x16\x03\x01\x00\x05hello", 'SMTP' => "EHLO me.test\r\nNOOP\r\n");
    plan tests => 4 * keys(%what) + 1;
    for my $name (sort keys %what) {
        for my $host (qw(mail implicit)) {
            my $c = client($host, greeting => $host eq 'mail');
            if ($host eq 'mail') { $c->cmd('EHLO me.test'); $c->cmd('STARTTLS'); }
            $c->send_raw($what{$name});
            $c->expect_eof;
            ok $c->ended, "$name, $host: the session ends";
            unlike $c->unread, qr/(?:^|\n)(?:\d{3}[ -]|HTTP)/, "$name, $host: nothing in plaintext";
        }
    }
    unlike $h->log('smtp.log'), qr/plain\@x/, 'no mail was begun in plaintext';
};

subtest 'required' => sub {
    my %clear = (RSET => 250, NOOP => 250, 'HELO me.test' => 250, 'EHLO me.test' => 250, QUIT => 221,
        STARTTLS => 220);
    my @refused = ('MAIL FROM:<a@b.test>', 'RCPT TO:<a@b.test>', 'DATA', 'VRFY a', 'HELP', 'EXPN a', 'BDAT 0 LAST',
        'AUTH PLAIN AGEAYg==', 'AUTH LOGIN', 'ETRN x');
    plan tests => keys(%clear) + @refused + 3;
    for my $line (@refused) {
        my $c = client('required');
        $c->cmd('EHLO me.test');
        my $code = $c->cmd($line);
        is "$code " . substr($c->text, 0, 5), '530 5.7.0', $line;
    }
    for my $line (sort keys %clear) {
        my $c = client('required');
        $c->cmd('EHLO me.test');
        is $c->cmd($line), $clear{$line}, "$line is allowed";
    }
    my $c = client('required');
    is $c->cmd('MAIL FROM:<a@b.test>'), 530, 'before EHLO, too';
    my $d = tls('required');
    like $d->text, qr/^AUTH PLAIN LOGIN$/m, 'AUTH is announced within TLS';
    is $d->mail('a@b.test', mailbox() . '@d.test', "x\r\n"), 250, 'and mail is taken';
};

subtest 'the server name chooses the host' => sub {
    plan tests => 12;
    my %of = ('' => ['mx.first.test', 'first-only.test', 'localhost'],
        'first.test' => ['mx.first.test', 'first-only.test', 'localhost'],
        'second.test' => ['mx.second.test', 'second-only.test', 'second.test']);
    for my $name (sort keys %of) {
        my ($hostname, $domain, $cn) = @{ $of{$name} };
        my ($not) = grep { $_ ne $domain } qw(first-only.test second-only.test);
        my $c = tls('names', tls => { SSL_hostname => $name });
        is +($c->lines)[0], $hostname, "'$name': the host's name";
        is $c->socket->peer_certificate('commonName'), $cn, "'$name': its certificate";
        $c->cmd('MAIL FROM:<a@b.test>');
        is $c->cmd("RCPT TO:<a\@$domain>"), 250, "'$name': its domain";
        is $c->cmd("RCPT TO:<a\@$not>"), 550, "'$name': not the other's";
    }
};

# What the client hears inside TLS: a code, or '' when the connection ends instead.
sub heard {
    my ($host, %tls) = @_;
    return eval { my $c = tls($host, tls => \%tls); $c->code } || '';
}

subtest 'client certificates' => sub {
    plan tests => 12;
    my @alice = (SSL_cert_file => $alice->{cert}, SSL_key_file => $alice->{key});
    my @mallory = (SSL_cert_file => $mallory->{cert}, SSL_key_file => $mallory->{key});
    is heard('require', @alice), 250, 'required, and good';
    my $before = () = $h->log('error.log') =~ /NS0014/g;
    is heard('require'), '', 'required, and none: the end';
    is heard('require', @mallory), '', 'required, of another CA: the end';
    is heard('optional', @mallory), '', 'optional, of another CA: the end';
    ok +(wait_for { (() = $h->log('error.log') =~ /NS0014: TLS handshake failed/g) == $before + 3 } 5),
        'each with a line in the log';
    is client('require')->cmd('EHLO me.test'), 250, 'others are served';
    my $none = tls('optional');
    is $none->code, 250, 'optional, and none';
    is $none->cmd('MAIL FROM:<a@b.test>') . ' ' . substr($none->text, 0, 5), '530 5.7.0',
        'Require ssl-verify-client: not without one';
    my $c = tls('optional', tls => {@alice});
    is $c->cmd('MAIL FROM:<a@b.test>'), 250, 'Require ssl-verify-client: with one';
    is $c->cmd('RCPT TO:<x@d.test>'), 250, 'an expression on its subject';
    my $bob = $ca->issue('bob', cn => 'bob');
    my $d = tls('optional', tls => { SSL_cert_file => $bob->{cert}, SSL_key_file => $bob->{key} });
    is $d->cmd('MAIL FROM:<a@b.test>'), 250, 'another subject';
    is $d->cmd('RCPT TO:<x@d.test>'), 530, 'does not satisfy the expression';
};

subtest 'versions, ALPN, resumption' => sub {
    plan tests => 17;
    my %v = (tls12 => ['TLSv1_2', 'SSLv23:!TLSv1_2'], tls13 => ['TLSv1_3', 'SSLv23:!TLSv1_3']);
    for my $host (sort keys %v) {
        my ($version, $others) = @{ $v{$host} };
        my $c = tls($host);
        is $c->socket->get_sslversion, $version, "$version";
        is $c->mail('a@b.test', mailbox() . '@d.test', "x\r\n"), 250, "$version: a mail";
        is heard($host, SSL_version => $others), '', "$version only";
        my $connect = '127.0.0.1:' . $h->port($host);
        my @s_client = ('openssl', 's_client', '-ign_eof', '-crlf', '-starttls', 'smtp', '-connect', $connect);
        my $session = "EHLO me.test\nQUIT\n";
        my $first = run($session, @s_client, '-sess_out', "$tmp/$host.session");
        like $first, qr/^New, TLS/m, "$version: a new session";
        my $next = run($session, @s_client, '-sess_in', "$tmp/$host.session");
        like $next, qr/^Reused, TLS/m, "$version: resumed";
        like $next, qr/^221 /m, "$version: and goes on to QUIT";
    }
    for my $host (qw(mail implicit)) {
        my $c = tls($host, implicit => $host eq 'implicit', tls => { SSL_alpn_protocols => ['smtp'] });
        is $c->socket->alpn_selected, 'smtp', "ALPN smtp, $host";
        is eval { tls($host, implicit => $host eq 'implicit',
            tls => { SSL_alpn_protocols => ['h2', 'http/1.1'] })->code } || '', '', "ALPN of a browser, $host: the end";
    }
    is eval { tls('mail', tls => { SSL_alpn_protocols => ['http/1.1'] })->code } || '', '', 'ALPN http/1.1: the end';
};

# The event MPM has a timeout of its own, which is then the first host's, with five seconds more.
subtest 'the host that the client has named gives it its time' => sub {
    plan tests => 1;
    my $c = tls('later', tls => { SSL_hostname => 'second.test' });
    sleep 8;
    is eval { $c->cmd('NOOP') } // 'cut', 250, 'more than the first one would';
} if $mpm eq 'event';

# To the second host it flows, while it comes, through TLS on both sides.
subtest 'a large message' => sub {
    plan tests => 5;
    my $text = "X-Start: 1\r\n\r\n"
        . join '', map { ($_ % 100 ? '' : '.') . "$_ " . chr(33 + $_ % 90) x ($_ % 120) . "\r\n" } 1 .. 32000;
    cmp_ok length $text, '>', 2_000_000, 'two megabytes';
    for my $host (qw(mail onward)) {
        my $box = mailbox();
        my $c = tls($host, timeout => 20);
        is $c->mail('a@b.test', "$box\@d.test", $text), 250, "$host: taken";
        my $got = arrived($box);
        $got =~ s/\A.*?^(?=X-Start)//ms;
        ok $got eq $text =~ s/\r\n/\n/gr, "$host: every octet is there";
    }
};

subtest 'slow handshakes' => sub {
    plan skip_all => "a session holds a thread on the $mpm MPM" if $mpm ne 'event';
    plan tests => 12;
    my $few = OwnHttpd->new(modules => ['ssl'], hosts => {
        mail => "$smtp${ssl}SmtpdMaxConnections 0 0\n",
        implicit => "$smtp${ssl}SmtpdMaxConnections 0 0\nSmtpdTLS immediate\n" },
        main => "StartServers 1\nServerLimit 1\nThreadsPerChild 4\nMaxRequestWorkers 4\n"
            . "MinSpareThreads 1\nMaxSpareThreads 4\nAsyncRequestWorkerFactor 100\n")->start;
    my @stalled = map {
        my $implicit = $_ % 3 == 0;
        my $c = SMTPClient->new(port => $few->port($implicit ? 'implicit' : 'mail'), greeting => !$implicit);
        if (!$implicit) { $c->cmd('EHLO me.test'); $c->cmd('STARTTLS'); }
        $c->send_raw("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03") if $_ % 2;
        $c;
    } 1 .. 100;
    is scalar(@stalled), 100, 'clients that stall';
    for my $i (1 .. 5) {
        my $start = time;
        my $c = SMTPClient->new(port => $few->port('mail'));
        cmp_ok time - $start, '<', 4, "client $i is greeted without waiting for them";
        $start = time;
        is eval { TLSClient->new(port => $few->port($i % 2 ? 'mail' : 'implicit'), implicit => !($i % 2))
            ->mail('a@b.test', mailbox() . '@d.test', "x\r\n") } // $@, 250, "and one sends by TLS";
    }
    ok !(grep { $_->ended } @stalled), 'nobody of them was cut off';
    $few->stop;
};

unlike $h->log('error.log'), qr/exit signal|NS0026|NS0027/, 'no crash, no fault';
done_testing;
