# AUTH against a real LDAP server through mod_authnz_ldap: who is let in, who is not, what a user
# name cannot smuggle into a search, a server that goes and comes back, a second provider, and
# Require with LDAP's users and groups. The exchange itself is in auth.t.
use strict;
use warnings;
use File::Temp ();
use LDAPInstance;
use MIME::Base64 qw(encode_base64);
use OwnHttpd;
use Test::More;
use TestHost qw(spew wait_for);

plan skip_all => LDAPInstance->missing if LDAPInstance->missing;
chomp(my $libexec = `apxs -q LIBEXECDIR`);
plan skip_all => 'httpd has no mod_authnz_ldap here' unless -r "$libexec/mod_authnz_ldap.so";

my %password = (alice => 'Tr0ub4dor-alice', bob => "b:b's % \xc3\xa9\\", carol => 'only in the file');
my $ldap = LDAPInstance->new(
    users  => { map { $_ => $password{$_} } qw(alice bob) },
    groups => { staff => ['alice'] },
)->start;

my $tmp = File::Temp->newdir('ldap.XXXXXX', TMPDIR => 1);
chmod 0755, "$tmp";
chomp(my $hash = `openssl passwd -apr1 '$password{carol}'`);
spew("$tmp/users", "carol:$hash\n");

my $url = 'AuthLDAPURL ' . $ldap->url . '/' . $ldap->people . "?uid\n";
my $smtp = "SmtpdEngine on\nSmtpdRelay discard:\nSmtpdTrustedClients none\nSmtpdAuthPlaintext on\n";
my $auth = "$smtp\nSmtpdAuthProvider ldap\n<Location \"/smtp/auth\">\n$url</Location>\n";

sub location { return "$auth<Location \"/smtp/mail\">\n$url$_[0]\n</Location>\n" }

# Without the caches of mod_ldap each answer is the server's, not a remembered one.
my $h = OwnHttpd->new(
    modules => [qw(ldap authnz_ldap authn_file authz_user)],
    main => "LDAPCacheEntries 0\nLDAPOpCacheEntries 0\n",
    hosts => {
        mail => $auth,
        both => "${smtp}SmtpdAuthProvider file ldap\n"
            . "<Location \"/smtp/auth\">\nAuthUserFile $tmp/users\n$url</Location>\n",
        user  => location('Require ldap-user alice'),
        group => location('Require ldap-group ' . $ldap->group_dn('staff')),
    },
)->start;

# Failures delay an address, so each client has one of its own.
my $address = 1;

sub client { my ($host) = @_; return $h->client($host, local => '127.0.0.' . ++$address) }

# Code and enhanced code of the answer.
sub answer {
    my ($c, $line) = @_;
    my $code = $c->cmd($line);
    return $c->text =~ /^(\d\.\d+\.\d+) / ? "$code $1" : $code;
}

sub login {
    my ($c, $user, $password) = @_;
    return answer($c, 'AUTH PLAIN ' . encode_base64("\0$user\0$password", ''));
}

subtest 'the server of this test' => sub {
    plan tests => 3;
    is $ldap->whoami('alice', $password{alice}), 'dn:' . $ldap->dn('alice'), 'a bind with the password';
    like $ldap->whoami('alice', 'wrong'), qr/Invalid credentials/, 'with a wrong one';
    is $ldap->whoami('alice', ''), 'anonymous', 'a bind without a password succeeds, as nobody';
};

subtest 'who is let in' => sub {
    plan tests => 6;
    for my $user (qw(alice bob)) {
        my $c = client('mail');
        is login($c, $user, $password{$user}), '235 2.7.0', $user;
        is $c->mail('a@b.test', 'a@far.test', "Subject: x\r\n\r\nx\r\n"), 250, "$user may relay";
    }
    my $c = client('mail');
    is $c->mail('a@b.test', 'a@far.test', "Subject: x\r\n\r\nx\r\n"), 550, 'nobody else may';
    my $d = client('mail');
    login($d, 'alice', 'wrong');
    is $d->mail('a@b.test', 'a@far.test', "Subject: x\r\n\r\nx\r\n"), 550, 'nor who failed';
};

subtest 'who is not' => sub {
    my @refused = (
        ['a wrong password', alice => 'wrong'],
        ["another user's password", alice => $password{bob}],
        ['an unknown user', mallory => 'x'],
        ['an empty password', alice => ''],
        ['an empty password of an unknown user', mallory => ''],
        ['an empty user', '' => $password{alice}],
        ['* as user', '*' => $password{alice}],
        ['a pattern as user', 'alic*' => $password{alice}],
        ['a filter as user', 'x)(uid=alice' => $password{alice}],
        ['a filter that is always true', '*)(objectClass=*' => $password{alice}],
        ['a DN as user', $ldap->dn('alice') => $password{alice}],
    );
    plan tests => 1 + @refused;
    my $denied = sub { return scalar(() = $h->log('error.log') =~ /NS0025: denied: authentication failed/g) };
    my $before = $denied->();
    my $asked = grep { length $_->[1] && length $_->[2] } @refused; # no provider hears of the others
    for (@refused) {
        my ($what, $user, $password) = @$_;
        is login(client('mail'), $user, $password), '535 5.7.8', $what;
    }
    ok +(wait_for { $denied->() >= $before + $asked }), "$asked of them are in the log"
        or diag $h->log('error.log');
};

subtest 'a server that is gone, and back' => sub {
    plan tests => 7;
    my $c = client('mail');
    is login(client('mail'), 'alice', $password{alice}), '235 2.7.0', 'there';
    $ldap->stop;
    is login($c, 'alice', $password{alice}), '454 4.7.0', 'gone';
    my $fault = $c->text;
    ok +(wait_for { $h->log('error.log') =~ /:error\].*NS0028: / }), 'an error in the log';
    is login($c, 'alice', 'wrong'), '454 4.7.0', 'whatever the password';
    is $c->text, $fault, 'which is no failure of the user, so nobody has to wait';
    $ldap->start;
    is login($c, 'alice', $password{alice}), '235 2.7.0', 'back, in the same session';
    is login(client('mail'), 'alice', 'wrong'), '535 5.7.8', 'and wrong passwords are wrong';
};

subtest 'file, then ldap' => sub {
    plan tests => 6;
    is login(client('both'), 'carol', $password{carol}), '235 2.7.0', 'a user of the file';
    is login(client('both'), 'alice', $password{alice}), '235 2.7.0', 'a user of LDAP alone';
    is login(client('both'), 'carol', 'wrong'), '535 5.7.8', 'a wrong password of the one';
    is login(client('both'), 'alice', 'wrong'), '535 5.7.8', 'and of the other';
    $ldap->stop;
    is login(client('both'), 'carol', $password{carol}), '235 2.7.0', 'LDAP gone: the file is enough';
    is login(client('both'), 'alice', $password{alice}), '454 4.7.0', 'LDAP gone: for others it is not';
    $ldap->start;
};

subtest 'Require' => sub {
    plan tests => 6;
    for my $host (qw(user group)) {
        my ($c, $d) = (client($host), client($host));
        login($c, 'alice', $password{alice});
        is answer($c, 'MAIL FROM:<a@b.test>'), '250 2.1.0', "ldap-$host: alice";
        login($d, 'bob', $password{bob});
        is answer($d, 'MAIL FROM:<a@b.test>'), '550 5.7.1', "ldap-$host: bob";
        is answer(client($host), 'MAIL FROM:<a@b.test>'), '530 5.7.0', "ldap-$host: nobody";
    }
};

unlike $h->log('error.log') . $h->log('smtp.log'), qr/\Q$password{alice}/, 'no password in a log';
done_testing;
