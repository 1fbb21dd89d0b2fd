# What the tests of parity.t share: one httpd with a host for each purpose, relays, a name server,
# scanners and a certificate authority, and short ways to run Lua there. It ends with the object.
#
#   my $w = ParityWorld->new;
#   my @got = $w->page('return smtpd.flag("abort")');         # in a web page; dies where it raises
#   my @got = $w->tells('s:getfrom()', host => 'drop');       # in a data phase; a mail is sent for it
#   my $c = $w->client('strange'); $w->script(rcpt => '..'); $w->said;     # see ScriptedHttpd
package ParityWorld;

use strict;
use warnings;
use Carp qw(croak);
use Cwd qw(abs_path);
use FakeDNS;
use FakeRelay;
use FakeScanner;
use File::Basename qw(dirname);
use File::Copy qw(copy);
use File::Temp ();
use FreePort;
use HTTP::Tiny;
use JSON::PP ();
use ScriptedHttpd;
use TestCA;
use TLSRelay;
use TestHost qw(slurp spew wait_for);

my $t = abs_path(dirname(__FILE__) . '/..');
our $tree = abs_path("$t/../..");
our $message = "Subject: x\r\nX-Two: 1\r\nX-Two: 2\r\n\r\nhello\r\n";

sub new {
    my ($class) = @_;
    my $module = $ENV{MODULE} // "$tree/build/mod_nssmtpd.so";
    my $self = bless { module => $module, temp => File::Temp->newdir('parity.XXXXXX', TMPDIR => 1) }, $class;
    chmod 0755, "$self->{temp}";
    $self->{relay} = FakeRelay->new;
    $self->{second} = FakeRelay->new;
    $self->{dns} = FakeDNS->new(zone => <<'ZONE');
takes.test               MX    10 mx.takes.test
mx.takes.test            A     192.0.2.1
null.test                MX    0 .
broken.test              *     !servfail
1.0.0.127.in-addr.arpa   PTR   named.test
named.test               A     127.0.0.1
ZONE
    $self->{ca} = TestCA->new;
    my %pair = (pair => $self->{ca}->issue('relay', names => ['localhost']));
    $self->{tlsrelay} = TLSRelay->new(%pair, tls => ['AUTH PLAIN'], user => 'me', password => 'p@ss');
    $self->{finds} = FakeScanner->new(script => [{ say => "stream: Eicar-Test FOUND\0" }]);
    $self->{about} = FakeScanner->new(script => [{ say => "1: PONG\0002: ClamAV 1.0.7/27100/Fri Nov 20\0" }]);
    $self->{httpd} = ScriptedHttpd->new($self->_configuration);
    $self->_prepare_files;
    $self->{httpd}->start;
    return $self;
}

sub httpd { $_[0]{httpd} }
sub relay { $_[0]{relay} }
sub dir   { $_[0]{httpd}->dir }
sub port  { $_[0]{httpd}->port($_[1]) }

# A scanner for spam that says what its line says, of a module made from the public header.
sub _test_scanner {
    my ($self) = @_;
    copy("$t/scanner/mod_test_scanner.c", "$self->{temp}/mod_test_scanner.c") or croak "mod_test_scanner.c: $!";
    my $said = `cd $self->{temp} && apxs -c -I $tree mod_test_scanner.c 2>&1`;
    my $foreign = "$self->{temp}/.libs/mod_test_scanner.so";
    -r $foreign or croak $said;
    return $foreign;
}

# A folder for an authority that has signed nothing.
sub _other {
    my ($self) = @_;
    mkdir "$self->{temp}/other";
    return "$self->{temp}/other";
}

# A module or a scanner that this build may not have.
sub knows {
    my ($self, $word) = @_;
    return index(slurp($self->{module}), "\0$word\0") >= 0;
}

sub _configuration {
    my ($self) = @_;
    my $deadlines = 'SmtpdTimeout connect=3 relay=3 dot=3';
    my $to_relay = 'SmtpdRelay smtp://127.0.0.1:' . $self->{relay}->port . " retry=0 disablereuse=on\n$deadlines\n";
    my $drop = "SmtpdRelay discard:\nSmtpdMaxErrors 1000\n";
    my $dns = 'SmtpdNameServer 127.0.0.1:' . $self->{dns}->port . "\n";
    my $strange = "SmtpdTrustedClients none\nSmtpdRelayDomains Listed.Test routed.test:127.0.0.1:"
        . $self->{second}->port . "\n";
    my $pair = $self->{ca}->issue('mail', names => ['localhost']);
    my $tls = "${drop}SSLEngine on\nSSLCertificateFile $pair->{cert}\nSSLCertificateKeyFile $pair->{key}\n";
    my $to_tls = 'SmtpdRelay plain://me:p%40ss@localhost:' . $self->{tlsrelay}->port . " retry=0 disablereuse=on\n"
        . "SSLProxyEngine on\n$deadlines\n";
    my $finds = 'SmtpdScanner clamd 127.0.0.1:' . $self->{finds}->port . "\n";
    my ($pages, $cpath) = ("$t/lua", dirname($self->{module}));
    my $roll = '/usr/bin/env LOG_KEEP=1 ' . $self->rotatelogs . " -p $tree/tools/purge-logs";
    my %hosts = (
        web => qq{LuaPackageCPath $cpath/?.so\nLuaMapHandler "^/lua/(\\w+)\$" $pages/http.lua \$1\n},
        drop => $drop, fake => $to_relay, strange => $to_relay . $strange, lists => $drop . $strange,
        logged => "${to_relay}SmtpdSendLog %DIR%/spool/send.log\n",
        rolled => qq{${to_relay}SmtpdSendLog "|$roll %DIR%/spool/rolled.%H%M%S 1"\n},
        small => "${drop}SmtpdMaxMessageSize 2000\nSmtpdMaxRecipients 2\nSmtpdMaxLine 600\n",
        hasty => "SmtpdRelay discard:\nSmtpdTimeout command=1 data=1\n",
        slow => 'SmtpdRelay smtp://127.0.0.1:' . $self->{second}->port
            . " retry=0 disablereuse=on\nSmtpdTimeout connect=1 relay=1 dot=1\n",
        dns => $drop . $dns, nodns => "${drop}SmtpdNameServer 127.0.0.1:" . FreePort::pick() . "\n",
        needdomain => "${drop}${dns}SmtpdFlags needdomain\n", named => "${drop}${dns}SmtpdFlags resolve\n",
        noflags => "${drop}SmtpdFlags none\n", flagged => "${drop}SmtpdFlags needhelo SEGV fastproxy\n",
        fast => "${to_relay}${finds}SmtpdFlags fastproxy\n", local => $to_relay . $strange . "SmtpdFlags local\n",
        finds => $to_relay . $finds, idle => "${to_relay}${finds}SmtpdScanner timer A score=9 verdict=bad\nSmtpdFlags none\n",
        tag => "${to_relay}$finds" =~ s/\n\z/ action=tag\n/r,
        about => $drop . 'SmtpdScanner clamd 127.0.0.1:' . $self->{about}->port . "\nSmtpdScanner timer T score=1.5\n",
        spam => "${drop}SmtpdScanner timer T score=7.25 verdict=bad action=tag\n",
        tls => $tls, tls12 => $tls . "SSLProtocol -all +TLSv1.2\nSSLCipherSuite ECDHE-ECDSA-AES128-GCM-SHA256\n",
        tls13 => $tls . "SSLProtocol -all +TLSv1.3\nSSLCipherSuite TLSv1.3 TLS_AES_128_GCM_SHA256\n",
        cafile => $to_tls . 'SSLProxyCACertificateFile ' . $self->{ca}->file . "\n",
        capath => "${to_tls}SSLProxyCACertificatePath $self->{temp}/ca\n", noca => $to_tls . "SSLProxyCACertificateFile " . TestCA->new(dir => $self->_other)->file . "\n",
        single => qq{${to_relay}LuaMapHandler "^/smtp/(helo|mail|rcpt|data|error)\$" $self->{temp}/single.lua \$1\n},
        sample => $to_relay . $strange
            . qq{LuaMapHandler "^/smtp/(\\w+)\$" $tree/conf/lua/policy.lua \$1\n}
            . qq{SetEnv POLICY_REFUSED_RCPTS gone\@listed.test\nSetEnv POLICY_DUMP %DIR%/spool\n},
    );
    return (
        main => 'LoadModule test_scanner_module ' . $self->_test_scanner . "\n"
            . "<IfModule mpm_prefork_module>\nStartServers 6\nMaxRequestWorkers 20\n</IfModule>\n"
            . "<IfModule !mpm_prefork_module>\nStartServers 2\nThreadLimit 16\nThreadsPerChild 16\nMaxRequestWorkers 32\n"
            . "</IfModule>\nListen 127.0.0.1:%PORT:second%\nListen 127.0.0.5:%PORT:elsewhere%\n"
            . "<VirtualHost 127.0.0.1:%PORT:second% 127.0.0.5:%PORT:elsewhere%>\nServerName ports.test\n"
            . "SmtpdEngine on\nSmtpdRelay discard:\n</VirtualHost>\n",
        modules => [qw(socache_shmcb ssl slotmem_shm)], log_level => 'warn nssmtpd:info lua:info', hosts => \%hosts);
}

sub rotatelogs { return (grep { -x } map {"$_/rotatelogs"} qw(/usr/bin /usr/sbin /usr/local/apache2/bin))[0] // 'rotatelogs' }

# A script that looks at its settings itself, a folder of certificates by their hashes.
sub _prepare_files {
    my ($self) = @_;
    my $dir = "$self->{temp}";
    mkdir "$dir/ca";
    chomp(my $hash = `openssl x509 -hash -noout -in @{[ $self->{ca}->file ]}`);
    copy($self->{ca}->file, "$dir/ca/$hash.0");
    spew("$dir/single.lua", join '', map { <<"LUA" } qw(helo mail rcpt data error));
function $_(r)
    local s = smtpd.session(r)
    if s:getline():find("refused by $_") or s:getfrom() == "$_\@refused.test" then s:setreply("450 4.7.1 $_ is wired") end
    return apache2.OK
end
LUA
}

# true and false as 1 and 0, at any depth.
sub _plain {
    my ($x) = @_;
    return 0 + $x if JSON::PP::is_bool($x);
    return [map { _plain($_) } @$x] if ref $x eq 'ARRAY';
    return { map { $_ => _plain($x->{$_}) } keys %$x } if ref $x eq 'HASH';
    return $x;
}

# In a page, with that SMTP host in use.
sub page {
    my ($self, $code, $host) = @_;
    my $name = ($host //= 'drop') . '.test:' . $self->port($host);
    my $answer = HTTP::Tiny->new(timeout => 30)->post('http://127.0.0.1:' . $self->port('web') . '/lua/eval',
        { content => qq{assert(smtpd.use("$name"))\n$code} });
    croak "$answer->{status} $answer->{content}" if $answer->{status} != 200;
    my ($ok, @got) = @{ _plain(JSON::PP::decode_json($answer->{content})) };
    croak "$code: $got[0]" if !$ok;
    return wantarray ? @got : $got[0];
}

# The error that it raises there.
sub raises {
    my ($self, $code) = @_;
    return eval { $self->page($code); 1 } ? '' : $@;
}

# A client that has said EHLO.
sub client { my ($self, $host, %a) = @_; return $self->httpd->client($host, timeout => 20, %a) }
sub script { my ($self, %code) = @_; $self->httpd->script(%code); return $self }
sub said   { return map { _plain($_) } $_[0]->httpd->said }

# A mail in a session of its own: its code.
sub mail {
    my ($self, $host, %a) = @_;
    my $c = $self->{last} = $self->client($host);
    return $c->mail($a{from} // 'a@b.test', $a{rcpts} // ['c@d.test'], $a{message} // $message);
}
sub reply { $_[0]{last}->heard }

# The values of expressions in a data phase.
sub tells {
    my ($self, $expressions, %a) = @_;
    $self->script(%{ $a{phases} // {} }, data => ($a{before} // '') . "\ntell($expressions)");
    $self->mail($a{host} // 'drop', %a);
    my ($row) = grep { $_->[0] eq 'data' } $self->said;
    return @{ $row // ['', 'no data phase: ' . $self->reply] }[1 .. $#{ $row // [1, 2] }];
}

# What the relay has got of a mail that the code sends: the newest mail after it, or undef.
sub relayed {
    my ($self, $code) = @_;
    my $before = () = $self->relay->mails;
    $code->();
    return $self->relay->wait_for(sub { my @m = $_[0]->mails; @m > $before ? $m[-1] : undef }, 5);
}

1;
