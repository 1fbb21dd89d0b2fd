# What httpd -t says of wrong configurations: each message names the directive, the reason and what
# to do. And what of a right one reaches the hosts: defaults, merging, no inheritance of SmtpdEngine.
use strict;
use warnings;
use Apache::Test ();
use OwnHttpd;
use SMTPClient;
use TestCA;
use TestHost;
use Test::More;

my $tree = server_root() . '/../..';
my $good = "SmtpdEngine on\nSmtpdRelay discard:\n";

# A wrong value is refused with a message that holds all of the words.
sub refused {
    my ($name, $text, @words) = @_;
    my %more = ref $words[0] ? %{ shift @words } : ();
    my ($ok, $said) = OwnHttpd->new(hosts => { mail => $text }, modules => ['proxy'], %more)->check;
    ok !$ok, "$name: refused" or diag $text;
    my @missing = grep { index($said, $_) < 0 } @words;
    is_deeply \@missing, [], "$name: said why" or diag $said;
}

sub accepted {
    my ($name, $text, %more) = @_;
    my ($ok, $said) = OwnHttpd->new(hosts => { mail => $text }, modules => ['proxy'], %more)->check;
    ok $ok, "$name: accepted" or diag $said;
}

# ---- values: a directive, wrong values, right values

my @values = (
    [SmtpdEngine => ['maybe', ''], ['on', 'off', 'On']],
    [SmtpdHostname => ['', 'a b', '-x', 'a..b', 'x_$', '.'], ['mail.example.com', 'localhost', '[127.0.0.1]']],
    [SmtpdRelay => ['', 'ftp://x', 'smtp://', 'smtp://host:99999', 'smtp://h/path', 'smtp://u:p@h', 'maildir:',
        'maildir:/x/%q', '127.0.0.1 nokey', '127.0.0.1 colour=red'],
        ['discard:', 'smtp://127.0.0.1', '127.0.0.1:25 max=4 retry=0', '[::1]:25', 'localhost', 'maildir:/x/%d/%u']],
    [SmtpdRelayDomains => ['', 'a..b', '-', 'b.test=', 'b.test:', 'b.test=ftp://x', 'b.test=maildir:',
        '[127.0.0.1]'], ['b.test', 'b.test=discard:', 'b.test:127.0.0.1:25 c.test', 'b.test=smtp://127.0.0.1']],
    [SmtpdTrustedClients => ['', '300.1.2.3', '10.1', '10.0.0.0/33', '10.0.0.0/x', '::1/200', '1.2.3.4.5',
        'no.such.host.invalid', 'a.test/8'], ['none', '10.0.0.0/8', '10.0.0.0/255.0.0.0', '::1', '127.0.0.1 ::1/64']],
    [SmtpdFlags => ['', 'nonsense', 'needhelo,local'], ['needhelo', 'local needhelo', 'none',
        'needdomain resolve fastproxy viruscheck spamcheck segv']],
    [SmtpdNameServer => ['', 'ns.test', '127.0.0.1:0', '127.0.0.1:99999', '1.2.3'],
        ['127.0.0.1', '127.0.0.1:5300 [::1]:53 ::1']],
    [SmtpdBareNewline => ['', 'accept', 'trusted', 'trusted=', 'stranger=reject'],
        ['reject', 'normalize', 'reject trusted=reject']],
    (map { [$_->[0] => ['', 'none', '-1', '1x', '99999999999999999999', '1 2', @{ $_->[1] }], $_->[2]] }
        [SmtpdMaxMessageSize => ['9999999999G', '17179869184G'], ['0', '1', '10K', '10m', '1G']],
        [SmtpdMaxRecipients => ['0'], ['1', '1000']],
        [SmtpdMaxLine => ['0', '511', '1G'], ['512', '4096', '64K']],
        [SmtpdMaxErrors => ['0'], ['1', '100']],
        [SmtpdScriptMemory => ['0', '1K'], ['1M', '64M']],
        [SmtpdMaxBusy => ['0'], ['1', '100']]),
    [SmtpdMaxConnections => ['', 'x', '1 x', '-1', '1 2 3'], ['0', '10', '1000 20']],
    [SmtpdTimeout => ['', '300', 'command=0', 'command=', 'command=x', 'data=-1', 'lunch=3', 'connect=9999999'],
        ['command=1', 'command=300 data=300 connect=30 relay=300 dot=600']],
    [SmtpdSpool => ['', 'memory=x', 'memory=-1', 'size=1', 'directory=', 'memory=9G'],
        ['memory=0', 'memory=1M directory=%DIR%/spool']],
    [SmtpdReceived => ['maybe', ''], ['on', 'off']],
);
for (@values) {
    my ($directive, $wrong, $right) = @$_;
    my $rest = { SmtpdEngine => "SmtpdRelay discard:\n", SmtpdRelay => "SmtpdEngine on\n" }->{$directive} // $good;
    subtest $directive => sub {
        plan tests => 2 * @$wrong + @$right;
        refused("'$_'", "$rest$directive $_\n", $directive) for @$wrong;
        accepted("'$_'", "$rest$directive $_\n") for @$right;
    };
}

# The reason and the remedy, where there is more to say than the range of a number.
subtest 'reasons and remedies' => sub {
    my @cases = (
        ['no delivery', "SmtpdEngine on\n", 'SmtpdEngine', 'SmtpdRelay', 'smtp://'],
        ['a domain without a route', "SmtpdEngine on\nSmtpdRelayDomains b.test\n", 'SmtpdRelayDomains', 'b.test',
            'SmtpdRelay'],
        ['an unknown scheme', "SmtpdEngine on\nSmtpdRelay ftp://x\n", 'SmtpdRelay', '"ftp"', 'smtp', 'maildir'],
        ['an unknown scheme of a domain', "$good\nSmtpdRelayDomains b.test=ftp://x\n", 'SmtpdRelayDomains', '"ftp"'],
        ['a number out of range', "$good\nSmtpdMaxLine 10\n", 'SmtpdMaxLine', '"10"', '512'],
        ['mod_proxy is missing', "SmtpdEngine on\nSmtpdRelay 127.0.0.1\n", { modules => [] }, 'SmtpdRelay', 'mod_proxy',
            'LoadModule proxy_module'],
        ['mod_proxy_balancer is missing', "SmtpdEngine on\nSmtpdRelay balancer://b\n", 'SmtpdRelay',
            'mod_proxy_balancer', 'LoadModule'],
        ['no such balancer', "SmtpdEngine on\nSmtpdRelay balancer://nobody\n",
            { modules => [qw(proxy slotmem_shm lbmethod_byrequests proxy_balancer)] }, 'SmtpdRelay',
            'balancer://nobody', 'BalancerMember'],
        ['a balancer of web servers', "SmtpdEngine on\nSmtpdRelay balancer://web\n",
            { modules => [qw(proxy slotmem_shm lbmethod_byrequests proxy_balancer)],
              main => "<Proxy balancer://web>\nBalancerMember http://127.0.0.1:80\n</Proxy>\n" },
            'SmtpdRelay', 'BalancerMember', 'smtp://host:port'],
        ['a spool directory that does not exist', "$good\nSmtpdSpool directory=%DIR%/nowhere\n", 'SmtpdSpool',
            '/nowhere', 'directory'],
        ['a spool directory that is a file', "$good\nSmtpdSpool directory=%DIR%/httpd.conf\n", 'SmtpdSpool',
            'httpd.conf', 'directory'],
        ['inside <Location>', "$good\n<Location />\nSmtpdMaxLine 512\n</Location>\n", 'SmtpdMaxLine'],
    );
    plan tests => 2 * @cases;
    refused(@$_) for @cases;
};

subtest 'a spool directory that cannot be written' => sub {
    plan tests => 2;
    my $h = OwnHttpd->new(hosts => { mail => "$good\nSmtpdSpool directory=%DIR%/sealed\n" });
    mkdir $h->dir . '/sealed', 0555;
    my ($ok, $said) = $h->check;
    ok !$ok || $> == 0, 'is refused';
    like $said, $> == 0 ? qr/Syntax OK/ : qr/SmtpdSpool.*sealed/, 'by name';
};

subtest 'SMTP and HTTP on one port' => sub {
    plan tests => 5;
    my ($ok, $said) = OwnHttpd->new(hosts => { mail => $good }, main =>
        "<VirtualHost 127.0.0.1:%PORT:mail%>\nServerName web.test\n</VirtualHost>\n")->check;
    ok !$ok, 'is refused';
    like $said, qr/SmtpdEngine.*\bmail\.test\b.*\bweb\.test\b.*port/, 'naming both hosts';
    ($ok, $said) = OwnHttpd->new(hosts => { mail => $good }, main =>
        "<VirtualHost *:%PORT:mail%>\nServerName web.test\n</VirtualHost>\n")->check;
    ok $ok || $said =~ /SmtpdEngine/, 'the same port of all addresses is no mystery';
    ($ok) = OwnHttpd->new(hosts => { mail => $good, web => '' })->check;
    ok $ok, 'two ports are fine';
    ($ok) = OwnHttpd->new(hosts => { mail => $good, more => $good })->check;
    ok $ok, 'two SMTP hosts too';
};

subtest 'a trusted host by name' => sub {
    plan tests => 2;
    my ($ok, $said) = OwnHttpd->new(hosts => { mail => "$good\nSmtpdTrustedClients localhost\n" })->check;
    ok $ok, 'is taken';
    like $said, qr/warn.*SmtpdTrustedClients: localhost/, 'with a warning';
};

# ---- what reaches the hosts

subtest 'merging' => sub {
    plan tests => 17;
    my $h = OwnHttpd->new(
        main => "SmtpdRelay discard:\nSmtpdMaxMessageSize 1K\nSmtpdMaxRecipients 2\nSmtpdHostname main.test\n"
            . "SmtpdTrustedClients none\nSmtpdRelayDomains a.test\nSmtpdFlags none\nSmtpdEngine on\n"
            . "SmtpdTimeout command=3\nListen 127.0.0.1:%PORT:main%\n",
        hosts => {
            heir => "SmtpdEngine on\n",
            own => "SmtpdEngine on\nSmtpdMaxMessageSize 2K\nSmtpdMaxRecipients 3\nSmtpdHostname own.test\n"
                . "SmtpdTrustedClients 127.0.0.1\nSmtpdRelayDomains b.test\nSmtpdFlags needhelo\n"
                . "SmtpdTimeout data=5\n",
            web => '',
        },
    )->start;
    my $c = SMTPClient->new(port => $h->port('heir'));
    like $c->text, qr/^main\.test /, 'a virtual host has the hostname of the main server';
    is $c->cmd('MAIL FROM:<>'), 250, 'its flags';
    is_deeply [map { $c->cmd("RCPT TO:<$_>") } 'x@a.test', 'x@b.test', 'y@a.test', 'z@a.test'],
        [250, 550, 250, 452], 'its domains, its clients, its number of recipients';
    is $c->data('x' x 1023 . "\r\n"), 552, 'its size';
    is $c->read_reply, 421, 'its deadline';
    $c = SMTPClient->new(port => $h->port('own'));
    like $c->text, qr/^own\.test /, 'or its own: hostname';
    is $c->cmd('MAIL FROM:<>'), 503, 'flags';
    is $c->cmd('EHLO me.test'), 250, 'EHLO';
    is_deeply [grep {/^SIZE/} $c->lines], ['SIZE 2048'], 'size';
    $c->cmd('MAIL FROM:<>');
    is_deeply [map { $c->cmd("RCPT TO:<$_>") } 'x@z.test', 'x@b.test', 'y@a.test', 'z@a.test'],
        [250, 250, 250, 452], 'clients, recipients';
    is $c->data('x' x 2046 . "\r\n"), 250, 'delivery is inherited';
    is $c->read_reply, 421, 'the deadline that is not set here is still inherited';
    like $c->text, qr/^4\.4\.2 /, 'and is one';
    is(SMTPClient->new(port => $h->port('main'))->code, 220, 'the main server speaks SMTP');
    my $web = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $h->port('web'));
    print {$web} "GET / HTTP/1.0\r\n\r\n";
    like scalar(<$web>) // '', qr{^HTTP/1\.1 \d}, 'SmtpdEngine is not inherited';
    $h->stop;
    unlike $h->log('error.log'), qr/exit signal|emerg/, 'nothing crashed';
    my ($ok) = OwnHttpd->new(main => "SmtpdEngine on\nSmtpdRelay discard:\n", hosts => { web => '' })->check;
    ok $ok, 'a main server that speaks SMTP leaves virtual hosts alone';
};

# A directory that goes away later is found by a mail too large for memory.
subtest 'a spool that fails at run time' => sub {
    plan tests => 5;
    my $h = OwnHttpd->new(hosts => { mail => "$good\nSmtpdSpool memory=1K directory=%DIR%/spool\n" })->start;
    my $c = SMTPClient->new(port => $h->port('mail'));
    $c->cmd('EHLO me.test');
    is $c->mail('', 'c@d.test', 'x' x 5000), 250, 'a mail in a file';
    rmdir $h->dir . '/spool' or die "rmdir: $!";
    is $c->mail('', 'c@d.test', 'x' x 5000), 451, 'the directory is gone';
    like $c->text, qr/^4\.3\.0 /, 'enhanced code';
    like $h->log('error.log'), qr/:error\].*SmtpdSpool/, 'the error log names the directive';
    is $c->mail('', 'c@d.test', 'x' x 500), 250, 'what fits into memory is still taken';
};

# ---- what we ship

my ($ok, $listing) = OwnHttpd->new->check('-L');
my @registered = $listing =~ /^(Smtpd\w+) \(mod_nssmtpd\.c\)/mg;

subtest 'conf/nssmtpd.conf' => sub {
    plan tests => 4;
    my $text = slurp("$tree/conf/nssmtpd.conf");
    my %commented = map { $_ => 1 } $text =~ /^#(Smtpd\w+)/mg;
    cmp_ok scalar(@registered), '>', 10, 'httpd -L lists our directives';
    is_deeply [sort keys %commented], [sort @registered], 'every directive stands there, and no other';
    accepted('as it is', $text . $good);
    (my $active = $text) =~ s/^#(Smtpd)/$1/mg;
    $active =~ s/^SmtpdEngine off/SmtpdEngine on/m;
    $active =~ s{maildir:/var/mail}{maildir:%DIR%/maildir}g;
    $active =~ s{directory=\S+}{directory=%DIR%/spool}g;
    $active =~ s/^(?=SmtpdRelayCredentials)/#/m; # they need another SmtpdRelayTLS than the default
    accepted('with every directive made active', $active, modules => [qw(proxy authn_file)]);
};

my @examples = glob "$tree/conf/examples/*.conf";
subtest 'conf/examples' => sub {
    plan tests => 1 + @examples;
    ok scalar(@examples), 'there are some';
    my $ca = TestCA->new;
    my $pair = $ca->issue('mail', names => ['mail.example.com', 'mx.example.com']);
    local $ENV{NSSMTPD_RELAY} = 'user:password';
    for my $file (@examples) {
        my $text = slurp($file);
        $text =~ s/^(Listen|<VirtualHost \S*:)\s*25\b/$1 eq 'Listen' ? 'Listen 127.0.0.1:%PORT:ex%' : "$1%PORT:ex%"/gme;
        $text =~ s/\$\{APACHE_LOG_DIR\}/%DIR%/g;
        $text =~ s{/etc/ssl/certs/ssl-cert-\S+}{$pair->{cert}}g;
        $text =~ s{/etc/ssl/private/ssl-cert-\S+}{$pair->{key}}g;
        $text =~ s{/etc/ssl/certs/ca-\S+}{$ca->file}ge;
        my ($name) = $file =~ m{([^/]+)$};
        my ($valid, $said) = OwnHttpd->new(main => $text,
            modules => [qw(proxy slotmem_shm lbmethod_byrequests proxy_balancer socache_shmcb ssl
                authn_file authz_user lua)])->check;
        ok $valid, $name or diag $said;
    }
};

subtest 'without its module nothing else is missing' => sub {
    plan tests => 2;
    ($ok) = OwnHttpd->new(hosts => { mail => $good }, modules => [], without => ['watchdog'])->check;
    ok $ok, 'discard: needs no other module';
    ($ok) = OwnHttpd->new(hosts => { web => '' }, modules => [])->check;
    ok $ok, 'and a host that speaks HTTP needs nothing of ours';
};

done_testing;
