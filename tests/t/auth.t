# AUTH towards clients: the exchange of RFC 4954, wrong passwords and their delay, where httpd's
# providers find their directives, who may send what, and that no log holds a password.
use strict;
use warnings;
use File::Temp ();
use HTTP::Tiny;
use MIME::Base64 qw(encode_base64);
use OwnHttpd;
use SMTPClient;
use TLSClient;
use TestCA;
use TestHost qw(slurp spew wait_for);
use Test::More;
use Time::HiRes qw(sleep time);

my $tmp = File::Temp->newdir('auth.XXXXXX', TMPDIR => 1);
chmod 0755, "$tmp";
my $ca = TestCA->new;
my $pair = $ca->issue('mail', names => ['localhost']);
my %password = (alice => 'Tr0ub4dor-alice', bob => "b:b's % \xc3\xa9\\", nobody => '', long => 'p' x 250);

sub hash_of {
    open my $from, '-|', 'openssl', 'passwd', '-apr1', $_[0] or die "openssl: $!";
    chomp(my $hash = <$from> // '');
    close $from or die 'openssl passwd failed';
    return $hash;
}

my $users = spew("$tmp/users", join '', map { "$_:" . hash_of($password{$_}) . "\n" } sort keys %password);
my $others = spew("$tmp/others", 'alice:' . hash_of('another host') . "\n");
my $groups = spew("$tmp/groups", "staff: alice\n");

my $ssl = "SSLEngine on\nSSLCertificateFile $pair->{cert}\nSSLCertificateKeyFile $pair->{key}\n";
my $smtp = "SmtpdEngine on\nSmtpdRelay maildir:%DIR%/maildir/%d/%u\nSmtpdTrustedClients none\n"
    . "SmtpdRelayDomains d.test inner.test\nSmtpdMaxErrors 1000\nSmtpdMaxConnections 0 0\n";
my $provider = "SmtpdAuthProvider file\n";
my $file = "<Location \"/smtp/auth\">\nAuthUserFile $users\n</Location>\n";
my $auth = $smtp . $provider . $file;
my $clear = "${auth}SmtpdAuthPlaintext on\n";

sub location { return "$clear<Location \"/smtp/$_[0]\">\n$_[1]\n</Location>\n" }

my %hosts = (
    mail  => $auth . $ssl,
    clear => $clear . $ssl,
    none  => $smtp . $ssl,
    root  => "$smtp${provider}SmtpdAuthPlaintext on\n<Location \"/\">\nAuthUserFile $others\n</Location>\n",
    fault => "$smtp${provider}SmtpdAuthPlaintext on\n<Location \"/smtp/auth\">\n"
        . "AuthUserFile $tmp/missing\n</Location>\n",
    valid => location(mail => 'Require valid-user'),
    user  => location(mail => 'Require user alice'),
    group => location(mail => "AuthGroupFile $groups\nRequire group staff"),
    ip    => location(rcpt => 'Require ip 127.0.0.200'),
    expr  => location(rcpt => q[Require expr "%{ENV:SMTP_RCPT} !~ /@inner\.test$/ || %{REMOTE_USER} == 'alice'"]),
);
my @modules = qw(socache_shmcb ssl authn_file authz_user authz_host authz_groupfile);
my $h = OwnHttpd->new(modules => \@modules, hosts => \%hosts,
    main => "CustomLog %DIR%/users.log \"%u %a %>s %r\"\n")->start;

# Failures delay an address, so each client has one of its own unless it says which.
my $address = 1;
sub address { return '127.0.0.' . ++$address }

sub client { my ($host, %a) = @_; return $h->client($host, local => address(), %a) }
sub tls { my ($host, %a) = @_; return TLSClient->new(port => $h->port($host), local => address(), %a) }

sub b64 { return encode_base64($_[0], '') }
sub plain { my ($user, $pass, $as) = @_; return b64(($as // '') . "\0$user\0$pass") }

# Code and enhanced code of what was answered last.
sub said { my ($c) = @_; return $c->code . ' ' . ($c->text =~ /^(\d\.\d+\.\d+) / ? $1 : $c->text) }
sub answer { my ($c, $line) = @_; $c->cmd($line); return said($c) }

sub login {
    my ($c, $user, $pass) = @_;
    my $said = answer($c, 'AUTH LOGIN');
    for ($user, $pass) {
        last if $said !~ /^334/;
        $said = answer($c, b64($_));
    }
    return $said;
}

sub as { my ($c, $user) = @_; return answer($c, 'AUTH PLAIN ' . plain($user, $password{$user})) }

# Sends the line until something other than 454 is answered, for at most ten seconds.
sub persist {
    my ($c, $line) = @_;
    my $start = time;
    my $said;
    sleep 0.02 while ($said = answer($c, $line)) =~ /^454/ && time - $start < 10;
    return $said;
}

my $n = 0;
sub mailbox { return 'box' . ++$n }

sub arrived {
    my ($box) = @_;
    my ($name) = wait_for { glob $h->dir . "/maildir/*/$box/new/*" };
    return $name ? slurp($name) : '';
}

subtest 'PLAIN and LOGIN' => sub {
    plan tests => 27;
    for my $make (\&tls, \&client) {
        my $host = $make == \&tls ? 'mail' : 'clear';
        for my $user (qw(alice bob long)) {
            my $pass = $password{$user};
            my $c = $make->($host);
            like $c->text, qr/^AUTH PLAIN LOGIN$/m, 'announced' if $user eq 'alice';
            is answer($c, 'AUTH PLAIN ' . plain($user, $pass)), '235 2.7.0', "$host: PLAIN at once, $user";
            my $d = $make->($host);
            is answer($d, 'AUTH PLAIN') . '|' . answer($d, plain($user, $pass)), '334 |235 2.7.0',
                "$host: PLAIN, $user";
            is login($make->($host), $user, $pass), '235 2.7.0', "$host: LOGIN, $user";
        }
        my $c = $make->($host);
        is answer($c, 'AUTH LOGIN ' . b64('alice')), '334 UGFzc3dvcmQ6', "$host: LOGIN with the user";
        is answer($c, b64($password{alice})), '235 2.7.0', "$host: and the password";
    }
    my $c = client('clear');
    is answer($c, 'AUTH LOGIN'), '334 VXNlcm5hbWU6', 'LOGIN asks for the user';
    is $c->cmd('*'), 501, 'and can be cancelled';
    is answer($c, 'auth plain ' . plain('alice', $password{alice})), '235 2.7.0', 'in small letters';
};

subtest 'the exchange' => sub {
    my $max = 12288;
    my @refused = ( # what is said, and the last reply
        ['501 5.7.0', '* instead of PLAIN', 'AUTH PLAIN', '*'],
        ['501 5.7.0', '* instead of the user', 'AUTH LOGIN', '*'],
        ['501 5.7.0', '* instead of the password', 'AUTH LOGIN', b64('alice'), '*'],
        ['501 5.5.2', 'no base64 at once', 'AUTH PLAIN !!!!'],
        ['501 5.5.2', 'no base64', 'AUTH PLAIN', 'AGE.'],
        ['501 5.5.2', 'base64 cut short', 'AUTH PLAIN', 'AGEAY'],
        ['501 5.5.2', 'padding inside', 'AUTH PLAIN', 'AG==AGEAY'],
        ['501 5.5.2', 'an octet with the high bit', 'AUTH PLAIN', "AGE\xe9"],
        ['501 5.5.2', 'no base64 as user', 'AUTH LOGIN', 'a'],
        ['501 5.5.2', 'no base64 as password', 'AUTH LOGIN', b64('alice'), 'a'],
        ['501 5.5.2', 'two responses', 'AUTH PLAIN AGEAYg== AGEAYg=='],
        ['501 5.5.2', '= is an empty response, which is not PLAIN', 'AUTH PLAIN ='],
        ['501 5.5.2', '= is no later response', 'AUTH PLAIN', '='],
        ['501 5.5.2', 'no NUL', 'AUTH PLAIN ' . b64('alice')],
        ['501 5.5.2', 'one NUL', 'AUTH PLAIN ' . b64("\0alice")],
        ['334 UGFzc3dvcmQ6', '= is an empty user', 'AUTH LOGIN ='],
        ['504 5.5.4', 'CRAM-MD5', 'AUTH CRAM-MD5'],
        ['504 5.5.4', 'PLAINX', 'AUTH PLAINX AGEAYg=='],
        ['504 5.5.4', 'PLAI', 'AUTH PLAI'],
        ['535 5.7.8', 'the longest line at once', 'AUTH PLAIN ' . plain('alice', 'x' x 9200)],
        ['500 5.5.6', 'a longer one at once', 'AUTH PLAIN ' . 'A' x ($max - 10)],
        ['500 5.5.6', 'a much longer one at once', 'AUTH PLAIN ' . 'A' x (5 * $max)],
        ['535 5.7.8', 'the longest response', 'AUTH PLAIN', plain('alice', 'x' x ($max / 4 * 3 - 7))],
        ['500 5.5.6', 'a longer one', 'AUTH PLAIN', 'A' x ($max + 1)],
        ['500 5.5.6', 'a much longer one', 'AUTH LOGIN', b64('alice'), 'A' x (5 * $max)],
    );
    plan tests => 2 * @refused + 2;
    is length $refused[19][2], $max - 1, 'as long as base64 behind AUTH PLAIN can be';
    is length $refused[22][3], $max, 'as long as a line may be';
    for (@refused) {
        my ($reply, $what, @lines) = @$_;
        my $c = client('clear');
        my $got = '';
        $got = answer($c, $_) for @lines;
        is $got, $reply, $what;
        $c->cmd('*') if $reply =~ /^334/;
        is persist($c, 'AUTH PLAIN ' . plain('alice', $password{alice})), '235 2.7.0', "$what: and AUTH goes on";
    }
};

subtest 'when' => sub {
    plan tests => 19;
    my $c = tls('mail', ehlo => 0);
    is as($c, 'alice') =~ s/ .*//r, 503, 'before EHLO';
    $c->cmd('EHLO me.test');
    is $c->cmd('AUTH'), 501, 'without a mechanism';
    $c->cmd('MAIL FROM:<a@b.test>');
    is as($c, 'alice') =~ s/ .*//r, 503, 'within a transaction';
    $c->cmd('RSET');
    is as($c, 'alice'), '235 2.7.0', 'then';
    is as($c, 'bob') =~ s/ .*//r, 503, 'twice';
    $c->cmd('RSET');
    is $c->cmd('AUTH LOGIN'), 503, 'nor after RSET';
    is $c->mail('a@b.test', 'x@elsewhere.test', "x\r\n"), 250, 'a mail';
    is $c->cmd('AUTH LOGIN'), 503, 'nor after a mail';

    my $d = client('mail');
    unlike $d->text, qr/AUTH/, 'not announced without TLS';
    is answer($d, "AUTH PLAIN"), '538 5.7.11', 'and refused: PLAIN';
    is as($d, 'alice'), '538 5.7.11', 'PLAIN with the right password';
    is answer($d, "AUTH LOGIN"), '538 5.7.11', 'LOGIN';
    is $d->cmd('NOOP'), 250, 'nothing but a refusal';
    my $e = client('none');
    is $e->cmd('AUTH PLAIN'), 502, 'without SmtpdAuthProvider';
    unlike tls('none')->text, qr/AUTH/, 'which announces none within TLS either';

    # RFC 3207 4.2: what was known before TLS is forgotten.
    my $f = client('clear');
    is as($f, 'alice'), '235 2.7.0', 'authenticated in plaintext';
    $f->cmd('STARTTLS');
    TLSClient::secure($f);
    bless $f, 'TLSClient';
    $f->cmd('EHLO me.test');
    $f->cmd('MAIL FROM:<a@b.test>');
    is $f->cmd('RCPT TO:<x@elsewhere.test>'), 550, 'after STARTTLS a stranger again';
    $f->cmd('RSET');
    is as($f, 'bob'), '235 2.7.0', 'who may authenticate';
    $f->cmd('MAIL FROM:<a@b.test>');
    is $f->cmd('RCPT TO:<x@elsewhere.test>'), 250, 'and is somebody';
};

subtest 'wrong passwords' => sub {
    plan tests => 19;
    my ($from, $start, $c, $took, @said);
    for (1 .. 20) { # on a busy machine the half second may be over before all have asked
        ($from, $start) = (address(), time);
        $c = client('clear', local => $from);
        @said = answer($c, 'AUTH PLAIN ' . plain('alice', 'wrong'));
        $took = time - $start;
        push @said, as($c, 'alice'), as(client('clear', local => $from), 'alice'), as(tls('mail', local => $from), 'bob');
        last if time - $start < 0.4;
    }
    is $said[0], '535 5.7.8', 'wrong';
    cmp_ok $took, '<', 0.4, 'at once';
    is $said[1], '454 4.7.0', 'then even the right one has to wait';
    is $said[2], '454 4.7.0', 'in another session of the address, too';
    is $said[3], '454 4.7.0', 'and at another host, for another user';
    is as(client('clear'), 'alice'), '235 2.7.0', 'another address does not';
    is persist($c, 'AUTH PLAIN ' . plain('nobody there', 'x')), '535 5.7.8', 'an unknown user, later';
    cmp_ok time - $start, '>=', 0.5, 'after half a second';
    $start = time;
    my $d = client('clear', local => $from);
    is persist($d, 'AUTH PLAIN ' . plain('alice', $password{alice})), '235 2.7.0', 'the right one, later';
    cmp_ok time - $start, '>=', 0.8, 'after twice the time';
    cmp_ok time - $start, '<', 5, 'but not much more';
    is as(client('clear', local => $from), 'alice'), '235 2.7.0', 'which forgives';

    my $e = client('clear');
    my $line = 'AUTH PLAIN ' . plain('alice', 'wrong');
    is answer($e, $line), '535 5.7.8', 'first failure';
    is persist($e, $line), '535 5.7.8', 'second';
    is persist($e, $line), '535 5.7.8', 'third';
    is $e->read_reply . ' ' . substr($e->text, 0, 5), '421 4.7.0', 'which ends the session';
    ok $e->expect_eof, 'really';
    my $denied = qr/\[client \Q$from\E:\d+\] NS0025: denied: authentication failed$/m;
    is scalar(() = $h->log('error.log') =~ /$denied/g), 2, 'a log line for each failure';
    like $h->log('error.log'), qr/\[client \Q$from\E:\d+\] NS0025: denied: authentication too soon/,
        'and for those that did not wait';
};

subtest 'odd credentials' => sub {
    my $pw = $password{alice};
    my @plain = (
        ['501 5.5.2', 'NUL behind the password', "\0alice\0$pw\0"],
        ['501 5.5.2', 'NUL and more behind the password', "\0alice\0$pw\0x"],
        ['501 5.5.2', 'NUL behind the user', "\0alice\0\0$pw"],
        ['535 5.7.8', 'a user with a line feed', "\0alice\n\0$pw"],
        ['535 5.7.8', 'a user with a colon', "\0alice:" . hash_of($pw) . "\0$pw"],
        ['535 5.7.8', 'small and capital letters', "\0Alice\0$pw"],
        ['535 5.7.8', 'a password and a blank', "\0alice\0$pw "],
        ['535 5.7.8', 'half of a password', "\0alice\0" . substr $pw, 0, 8],
        ['535 5.7.8', 'the password of another', "\0alice\0$password{bob}"],
        ['535 5.7.8', 'the hash as the password', "\0alice\0" . (slurp($users) =~ /^alice:(.*)$/m)[0]],
        ['235 2.7.0', 'authzid is the user', "alice\0alice\0$pw"],
        ['535 5.7.8', 'authzid is another', "bob\0alice\0$pw"],
        ['535 5.7.8', 'authzid is longer', "alicex\0alice\0$pw"],
        ['535 5.7.8', 'an empty password of a user who has none', "\0nobody\0"],
        ['535 5.7.8', 'an empty password', "\0alice\0"],
        ['535 5.7.8', 'an empty user', "\0\0$pw"],
        ['535 5.7.8', 'nothing at all', "\0\0"],
        ['535 5.7.8', 'a password too long', "\0alice\0" . 'p' x 5000],
        ['535 5.7.8', 'a user too long', "\0" . 'u' x 5000 . "\0$pw"],
    );
    my @login = (
        ['501 5.5.2', 'NUL behind the password', 'alice', "$pw\0x"],
        ['501 5.5.2', 'NUL behind the user', "alice\0x", $pw],
        ['535 5.7.8', 'an empty password of a user who has none', 'nobody', ''],
        ['535 5.7.8', 'an empty user', '', $pw],
        ['535 5.7.8', 'a user too long', 'u' x 5000, $pw],
        ['535 5.7.8', 'PLAIN behind LOGIN', "\x01", "alice"],
    );
    plan tests => 3 * (@plain + @login);

    # A refused pair is a failure of its address, whatever is wrong with it; a line that holds no pair
    # is only an error.
    my $check = sub {
        my ($reply, $what, $try) = @_;
        my $from = address();
        is $try->(client('clear', local => $from)), $reply, $what;
        my $failed = $reply =~ /^535/;
        is as(client('clear', local => $from), 'alice'), $failed ? '454 4.7.0' : '235 2.7.0',
            "$what: then the right one " . ($failed ? 'has to wait' : 'is taken');
        my $line = qr/\[client \Q$from\E:\d+\] NS0025: denied: authentication failed$/m;
        my $denied = () = $h->log('error.log') =~ /$line/g;
        is $denied, $failed ? 1 : 0, "$what: " . ($failed ? 'a line in the log' : 'not in the log');
    };
    for (@plain) {
        my ($reply, $what, $octets) = @$_;
        $check->($reply, "PLAIN, $what", sub { answer($_[0], 'AUTH PLAIN ' . b64($octets)) });
    }
    for (@login) {
        my ($reply, $what, @pair) = @$_;
        $check->($reply, "LOGIN, $what", sub { login($_[0], @pair) });
    }
};

subtest 'where the directives of a provider stand' => sub {
    plan tests => 7;
    is answer(client('root'), 'AUTH PLAIN ' . plain('alice', 'another host')), '235 2.7.0', 'Location "/"';
    is as(client('root'), 'alice'), '535 5.7.8', 'with passwords of its own';
    is answer(client('clear'), 'AUTH PLAIN ' . plain('alice', 'another host')), '535 5.7.8',
        'which are not those of Location "/smtp/auth"';
    my $c = client('fault');
    is as($c, 'alice'), '454 4.7.0', 'a file that is not there';
    is as($c, 'alice'), '454 4.7.0', 'once more';
    like $h->log('error.log'), qr/NS0028/, 'is an error in the log';
    is as(client('clear', local => $c->socket->sockhost), 'alice'), '235 2.7.0', "and not the client's failure";
};

subtest 'who may relay' => sub {
    plan tests => 8;
    my $c = tls('mail');
    $c->cmd('MAIL FROM:<a@b.test>');
    is answer($c, 'RCPT TO:<x@elsewhere.test>'), '550 5.7.1', 'a stranger: not anywhere';
    is $c->cmd('RCPT TO:<x@d.test>'), 250, 'a stranger: to domains of SmtpdRelayDomains';
    $c->cmd('RSET');
    answer($c, 'AUTH PLAIN ' . plain('alice', 'wrong'));
    $c->cmd('MAIL FROM:<a@b.test>');
    is answer($c, 'RCPT TO:<x@elsewhere.test>'), '550 5.7.1', 'a wrong password: not anywhere';
    my $d = tls('mail');
    $d->cmd('AUTH PLAIN');
    $d->cmd('*');
    $d->cmd('MAIL FROM:<a@b.test>');
    is answer($d, 'RCPT TO:<x@elsewhere.test>'), '550 5.7.1', 'a cancelled exchange: not anywhere';
    for ([ESMTPSA => tls('mail')], [ESMTPA => client('clear')]) {
        my ($with, $e) = @$_;
        as($e, 'alice');
        my $box = mailbox();
        is $e->mail('a@b.test', "$box\@elsewhere.test", "Subject: x\r\n\r\nx\r\n"), 250, 'a user: anywhere';
        like arrived($box), qr/^Received: .*?\swith $with id/ms, "Received says $with";
    }
};

subtest 'Require' => sub {
    plan tests => 29;
    my $mail = 'MAIL FROM:<a@b.test>';
    for (['valid', '250', '250'], ['user', '250', '550 5.7.1'], ['group', '250', '550 5.7.1']) {
        my ($host, $alice, $bob) = @$_;
        is answer(client($host), $mail), '530 5.7.0', "$host: a stranger";
        for ([alice => $alice], [bob => $bob]) {
            my ($user, $reply) = @$_;
            my $c = client($host);
            is as($c, $user), '235 2.7.0', "$host: $user";
            like answer($c, $mail), qr/^$reply/, "$host: $user: $reply";
        }
    }
    my $alice = client('user');
    $alice->cmd($mail);
    is $alice->cmd('RCPT TO:<x@d.test>'), 503, 'user: no transaction after a 530';
    as($alice, 'alice');
    is $alice->mail('a@b.test', 'x@d.test', "x\r\n"), 250, 'user: authenticated, it goes on';

    for (['127.0.0.200', 250, 250], [undef, '530 5.7.0', '550 5.7.1']) {
        my ($local, $stranger, $bob) = @$_;
        my $c = client('ip', $local ? (local => $local) : ());
        $c->cmd($mail);
        like answer($c, 'RCPT TO:<x@d.test>'), qr/^$stranger/, "ip: a stranger, $stranger";
        $c->cmd('RSET');
        as($c, 'bob');
        $c->cmd($mail);
        like answer($c, 'RCPT TO:<x@d.test>'), qr/^$bob/, "ip: bob, $bob";
    }
    for ([undef, 250, '530 5.7.0'], [bob => 250, '550 5.7.1'], [alice => 250, 250]) {
        my ($user, $outer, $inner) = @$_;
        my $c = client('expr');
        as($c, $user) if $user;
        $user //= 'a stranger';
        $c->cmd($mail);
        like answer($c, 'RCPT TO:<x@d.test>'), qr/^$outer/, "expr: $user, $outer";
        like answer($c, 'RCPT TO:<x@inner.test>'), qr/^$inner/, "expr: $user, other recipient, $inner";
    }
    my $c = client('expr');
    $c->cmd($mail);
    $c->cmd('RCPT TO:<x@d.test>');
    is $c->cmd('RCPT TO:<x@inner.test>'), 530, 'expr: one recipient refused';
    is $c->data("x\r\n"), 250, 'expr: the other is served';
};

subtest '%u, and AUTH= of MAIL' => sub {
    plan tests => 8;
    my ($box, $c, $d) = (mailbox(), client('clear'), client('clear'));
    as($c, 'alice');
    $c->mail("$box\@b.test", "$box\@d.test", "x\r\n");
    $d->mail("stranger-$box\@b.test", "$box\@d.test", "x\r\n");
    ok +(wait_for { $h->log('users.log') =~ /^alice \S+ 250 MAIL FROM:<$box\@/m }), '%u is the user'
        or diag $h->log('users.log');
    ok +(wait_for { $h->log('users.log') =~ /^- \S+ 250 MAIL FROM:<stranger-$box\@/m }), '%u of a stranger';
    for ('AUTH=<>', 'AUTH=e+3Dmc2@example.com', 'auth=alice@b.test SIZE=10') {
        is $c->cmd("MAIL FROM:<a\@b.test> $_"), 250, $_;
        $c->cmd('RSET');
    }
    is $c->cmd('MAIL FROM:<a@b.test> AUTH='), 501, 'AUTH= of nothing';
    my $e = client('clear');
    $e->cmd('MAIL FROM:<a@b.test> AUTH=alice');
    is $e->cmd('RCPT TO:<x@elsewhere.test>'), 550, 'AUTH= makes nobody a user';
    is client('none')->cmd('MAIL FROM:<a@b.test> AUTH=<>'), 555, 'not without AUTH';
};

subtest 'the tools people use' => sub {
    plan tests => 8;
    my $run = sub {
        my $line = join ' ', map { my $a = $_; $a =~ s/'/'\\''/g; "'$a'" } 'timeout', 20, @_;
        my $said = `$line < $tmp/message 2>&1`;
        return ($? >> 8, $said);
    };
    spew("$tmp/message", "Subject: x\r\n\r\nhi\r\n");
    my $port = $h->port('mail');
    for my $how (qw(PLAIN LOGIN)) {
        my $box = mailbox();
        my ($status, $said) = $run->('swaks', '--tls', '-s', '127.0.0.1', '-p', $port, '--auth', $how, '--au', 'alice',
            '--ap', $password{alice}, '-f', 'a@b.test', '-t', "$box\@elsewhere.test", '-h', 'me.test');
        is $status, 0, "swaks --auth $how" or diag $said;
        ok arrived($box), "swaks --auth $how: arrived";
    }
    my $box = mailbox();
    my ($status, $said) = $run->('curl', '-sS', '-k', '--ssl-reqd', '-u', "alice:$password{alice}", '--mail-from',
        'a@b.test', '--mail-rcpt', "$box\@elsewhere.test", '-T', '-', "smtp://127.0.0.1:$port/me.test");
    is $status, 0, 'curl' or diag $said;
    ok arrived($box), 'curl: arrived';
    $box = mailbox();
    ($status, $said) = $run->('msmtp', '-C', '/dev/null', '--host=127.0.0.1', "--port=$port", '--tls=on',
        '--tls-certcheck=off', '--auth=login', '--user=alice', "--passwordeval=echo '$password{alice}'",
        '--from=a@b.test', "$box\@elsewhere.test");
    is $status, 0, 'msmtp' or diag $said;
    ok arrived($box), 'msmtp: arrived';
};

subtest 'no log has a password' => sub {
    my $wrong = 'Wr0ng-secret';
    my @secrets = ($password{alice}, $wrong, map { b64($_) } $password{alice}, $wrong);
    push @secrets, map { plain(@$_) } ['alice', $password{alice}], ['alice', $wrong], ['stranger', $wrong];
    my $own = OwnHttpd->new(modules => \@modules, log_level => 'trace8', main => "ExtendedStatus on\n"
        . "LogFormat \"%u %r %U %q %f %{Authorization}i %{SMTP_HELO}e\" all\nCustomLog %DIR%/all.log all\n",
        hosts => { mail => $auth . $ssl, clear => $clear,
            web => "<Location \"/server-status\">\nSetHandler server-status\n</Location>\n" })->start;
    my $web = HTTP::Tiny->new(timeout => 10);
    my $page = sub { return $web->get('http://127.0.0.1:' . $own->port('web') . '/server-status')->{content} };
    my $pages = '';
    for my $make (sub { TLSClient->new(port => $own->port('mail'), @_) },
        sub { my $c = SMTPClient->new(port => $own->port('clear'), @_); $c->cmd('EHLO me.test'); $c }) {
        for my $pass ($wrong, $password{alice}) {
            my $c = $make->(local => address());
            $c->cmd('AUTH PLAIN ' . plain('alice', $pass));
            $pages .= $page->();
            $c->mail('a@b.test', 'x@d.test', "x\r\n");
            my $d = $make->(local => address());
            $d->cmd('AUTH LOGIN');
            $d->cmd(b64('alice'));
            $pages .= $page->();
            $d->send_raw(b64($pass));
            $pages .= $page->();
            $d->send_raw("\r\n");
            $d->read_reply;
        }
        my $c = $make->(local => address());
        $c->cmd('AUTH PLAIN');
        $c->cmd(plain('stranger', $wrong));
        $c->cmd('QUIT');
    }
    $own->stop;
    plan tests => 3 + 4 * @secrets;
    my $trace = $own->log('error.log');
    like $trace, qr/:trace\d\]/, 'the log is as talkative as can be';
    like $pages, qr/Apache Server Status/, 'the status page was seen';
    like $own->log('all.log'), qr/^alice MAIL/m, 'and the access log';
    for my $secret (@secrets) {
        ok index($trace, $secret) < 0, "error log without $secret";
        ok index($own->log('all.log') . $own->log('smtp.log'), $secret) < 0, "access logs without $secret";
        ok index($own->log('output'), $secret) < 0, "standard output without $secret";
        ok index($pages, $secret) < 0, "status page without $secret";
    }
};

my $logs = join '', map { $h->log($_) } qw(error.log smtp.log users.log output);
ok index($logs, $password{alice}) < 0 && index($logs, b64($password{alice})) < 0, 'nor has any other log';
unlike $h->log('error.log'), qr/exit signal|NS0026|NS0027/, 'no crash, no fault';
done_testing;
