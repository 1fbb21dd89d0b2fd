# parity.t: the parameters of the configuration, by the effect of the directives that they have become.
# Each test gets the ParityWorld.
package ParityParameters;

use strict;
use warnings;
use ClamdInstance;
use File::Basename qw(dirname);
use OwnHttpd;
use POSIX qw(strftime);
use SMTPClient;
use ParityWorld;
use Test::More;
use TestHost qw(slurp wait_for);
use Time::HiRes qw(sleep time);
use TLSClient;

my $mail = 'MAIL FROM:<a@b.test>';

sub plain { my ($w, $host, %a) = @_; return SMTPClient->new(port => $w->port($host), timeout => 20, %a) }

# httpd -t on a host with these lines: what it says, '' where it is content.
sub complaint {
    my ($lines, %a) = @_;
    my ($ok, $said) = OwnHttpd->new(modules => ['proxy'], hosts => { mail => "SmtpdEngine on\nSmtpdRelay discard:\n$lines\n" }, %a)
        ->check;
    return $ok ? '' : $said;
}

# A phase of its own in LuaMapHandler's pattern: it runs, by what it says to this sender.
sub wired {
    my ($phase, $talk) = @_;
    return sub {
        my ($w) = @_;
        my $c = plain($w, 'single');
        $talk->($w, $c);
        is $c->heard, "450 4.7.1 $phase is wired", 'runs';
    };
}

sub lines_of { my ($file) = @_; return -e $file ? split /\n/, slurp($file) : () }

sub send_one {
    my ($w, $host) = @_;
    is $w->page('return smtpd.send("a@b.test", "c@d.test", "x")', $host), 1, 'a mail is sent';
}

# TLS with the host, under these conditions: version and cipher, or ''.
sub handshake {
    my ($w, $host, %tls) = @_;
    my $c = plain($w, $host);
    $c->cmd('EHLO me.test');
    $c->cmd('STARTTLS') == 220 or return 'no STARTTLS';
    return TLSClient::secure($c, %tls) ? $c->socket->get_sslversion . ' ' . $c->socket->get_cipher : '';
}

# rotatelogs writes a line to a file of this pattern; the file's name.
sub rotated {
    my ($w, $name, @options) = @_;
    my $dir = File::Temp->newdir('rotated.XXXXXX', TMPDIR => 1);
    open my $to, '|-', $w->rotatelogs, "$dir/$name", @options or die "rotatelogs: $!\n";
    print {$to} "line\n";
    close $to;
    return join ' ', map { s{.*/}{}r } glob "$dir/*";
}

# In-process ClamAV's httpd, where it is built: a mail's reply.
sub clamav {
    my ($w, $keys, $octets) = @_;
    my $module = dirname($w->{module}) . '/mod_nssmtpd_clamav.so';
    return 'no module' if !-r $module;
    my $database = $w->{clamav} //= ClamdInstance::signatures("$w->{temp}/db");
    my $h = OwnHttpd->new(main => "LoadModule nssmtpd_clamav_module $module\n",
        hosts => { mail => "SmtpdEngine on\nSmtpdRelay discard:\nSmtpdScanner clamav database=$database $keys\n" });
    return ($h->check)[1] if !defined $octets;
    $h->start;
    my $c = SMTPClient->new(port => $h->port('mail'), timeout => 20);
    $c->cmd('EHLO me.test');
    return $c->mail('a@b.test', 'c@d.test', $octets) . ' ' . $c->text;
}

# A limit of libclamav's is a key of the scanner, which takes a number and nothing else.
sub clamav_limit {
    my ($key) = @_;
    return sub {
        my ($w) = @_;
        SKIP: {
            my $said = clamav($w, "$key=many");
            skip 'mod_nssmtpd_clamav.so is not built', 2 if $said eq 'no module';
            like $said, qr/\Q$key\E=/, 'what is no number is refused by name';
            like clamav($w, "$key=7"), qr/Syntax OK/, 'a number is taken';
        }
    };
}

sub tests {
    return (
    'parameter port' => sub {
        my ($w) = @_;
        like plain($w, $_)->text, qr/^ports\.test /, "the same host at another Listen: $_" for 'second';
        is +SMTPClient->new(host => '127.0.0.5', port => $w->port('elsewhere'))->code, 220, 'and at a third';
    },
    'parameter address' => sub {
        my ($w) = @_;
        ok !IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $w->port('elsewhere')), 'not at other addresses';
        ok +IO::Socket::INET->new(PeerAddr => '127.0.0.5', PeerPort => $w->port('elsewhere')), 'at that of Listen';
    },
    'parameter deferaccept' => sub {
        my ($w) = @_;
        is plain($w, 'drop')->code, 220, 'a client that says nothing is greeted';
    },
    'parameter nodelay' => sub {
        my ($w) = @_;
        my $best = 9;
        my $c = $w->client('drop');
        for (1 .. 3) {
            my $began = time;
            $c->cmd('NOOP') for 1 .. 40;
            my $took = time - $began;
            $best = $took if $took < $best;
            $c = $w->client('drop');
        }
        cmp_ok $best, '<', 1.2, 'no reply waits 40 ms for another';
    },
    'parameter readtimeout' => sub {
        my ($w) = @_;
        my $c = $w->client('hasty');
        is $c->read_reply, 421, 'command=';
        $c = $w->client('hasty');
        $c->cmd($_) for $mail, 'RCPT TO:<c@d.test>', 'DATA';
        is $c->read_reply, 421, 'data=';
        ok $c->expect_eof, 'and the end';
        $w->{second}->script({ mail => [[hang => 1]] });
        is $w->mail('slow'), 451, 'relay=';
        $w->{second}->script({});
    },
    'parameter writetimeout' => sub {
        my ($w) = @_;
        is $w->page('return smtpd.send("a@b.test", "c@d.test", "x", "127.0.0.1", ' . FreePort::pick() . ')', 'slow'), undef,
            'nobody listens';
        like complaint('SmtpdTimeout connect=0'), qr/SmtpdTimeout: "0" is not a number from 1/, 'connect= has a range';
        is complaint('SmtpdTimeout connect=60'), '', 'and is taken';
    },
    'parameter bufsize' => sub {
        my ($w) = @_;
        my $mail = $w->relayed(sub { is $w->mail('fake', message => 'x' x 70 . "\r\n" . "y\r\n" x 100_000), 250, 'nothing to set' });
        is length $mail->{data}, 300_072, 'all of it arrives';
        like complaint('SmtpdSpool memory=x'), qr/SmtpdSpool/, 'what is kept in memory is SmtpdSpool memory=';
    },
    'parameter maxline' => sub {
        my ($w) = @_;
        my $c = $w->client('small');
        is $c->cmd('NOOP ' . 'x' x 580), 250, 'a line within it';
        is $c->cmd('NOOP ' . 'x' x 700), 500, 'a longer one is refused';
        is $c->cmd('NOOP'), 250, 'and is no second command';
    },
    'parameter maxdata' => sub {
        my ($w) = @_;
        my $c = $w->client('small');
        ok scalar(grep { $_ eq 'SIZE 2000' } $c->lines), 'announced';
        is $c->cmd("$mail SIZE=2001"), 552, 'declared';
        is $c->mail('a@b.test', 'c@d.test', "x\r\n" x 700), 552, 'real';
        is $c->mail('a@b.test', 'c@d.test', "x\r\n" x 600), 250, 'and a smaller one passes';
    },
    'parameter maxrcpt' => sub {
        my ($w) = @_;
        is join(' ', $w->client('small')->pipeline($mail, map {"RCPT TO:<$_\@d.test>"} 1 .. 3)), '250 250 250 452', 'the third of two';
    },
    'parameter debug' => sub {
        my ($w) = @_;
        $w->mail('drop', from => 'debug@b.test');
        ok wait_for { return scalar grep {/^250 "MAIL FROM:<debug\@b\.test>.*" helo="me\.test" from="debug\@b\.test" reply="250 /}
            split /\n/, $w->httpd->log('smtp.log') }, 'CustomLog has a line for each mail';
        is complaint('LogLevel nssmtpd:trace8'), '', 'LogLevel says how much more';
    },
    'parameter flags' => sub {
        my ($w) = @_;
        $w->script(connect => 'tell(s:getflag())');
        $w->client('flagged');
        is_deeply [$w->said], [['connect', 0x10000 | 0x1000 | 0x4000 | 0x2]], 'every session has them';
        like complaint('SmtpdFlags colour'), qr/SmtpdFlags: "colour" is not one of/, 'unknown ones are refused';
    },
    'parameter relay' => sub {
        my ($w) = @_;
        my $mail = $w->relayed(sub { is $w->mail('fake'), 250, 'a mail' });
        is $mail->{data}, $ParityWorld::message, 'goes there';
        is complaint("SmtpdRelay $_"), '', $_ for qw(1.2.3.4:25 [::1]:25 mx.test mx.test:2525);
    },
    'parameter relaydomains' => sub {
        my ($w) = @_;
        is join(' ', $w->client('strange')->pipeline($mail, map {"RCPT TO:<x\@$_>"} 'listed.test', 'a.LISTED.test', 'mylisted.test')),
            '250 250 250 550', 'with sub-domains';
        my $before = () = $w->{second}->mails;
        is $w->mail('strange', rcpts => ['x@routed.test']), 250, 'a route';
        ok $w->{second}->wait_for(sub { my @m = $_[0]->mails; @m > $before }, 5), 'of its own';
    },
    'parameter localdomains' => sub {
        my ($w) = @_;
        is join(' ', $w->client('fake')->pipeline($mail, 'RCPT TO:<x@far.test>')), '250 250', 'loopback by default';
        is join(' ', $w->client('strange')->pipeline($mail, 'RCPT TO:<x@far.test>')), '250 550', 'nobody';
        is complaint("SmtpdTrustedClients $_"), '', $_ for qw(10.0.0.0/8 10.0.0.0/255.0.0.0 ::1/128 2001:db8::/32);
        like complaint('SmtpdTrustedClients 10.0.0.0/33'), qr/SmtpdTrustedClients/, 'no network';
    },
    'parameter spamd' => sub {
        my ($w) = @_;
        is complaint('SmtpdScanner clamd [::1]:3310'), '', 'addresses of scanners';
        SKIP: {
            skip 'there is no scanner spamd in this build', 2 if !$w->knows('spamd');
            is complaint('SmtpdScanner spamd [::1]:783'), '', 'spamd has one of them';
            require FakeDaemon;
            my $daemon = FakeDaemon->new;
            $daemon->answer("SPAMD/1.1 0 EX_OK\r\nContent-length: 6\r\nSpam: True ; 12.5 / 5.0\r\n\r\nGTUBE\n");
            my $h = OwnHttpd->new(hosts => { mail => "SmtpdEngine on\nSmtpdRelay discard:\nSmtpdScanner spamd "
                . $daemon->address . "\n" })->start;
            my $c = SMTPClient->new(port => $h->port('mail'));
            $c->cmd('EHLO me.test');
            like $c->mail('a@b.test', 'c@d.test', "Subject: x\r\n\r\nx\r\n"), qr/^55\d$/, 'its verdict refuses the mail';
        }
    },
    'parameter initproc' => sub {
        my ($w) = @_;
        like $w->httpd->log('error.log'), qr/policy: asked in turn/, '/smtp/init';
    },
    'parameter heloproc' => wired(helo => sub { $_[1]->cmd('EHLO refused by helo') ; $_[1]->cmd('HELO refused') if $_[1]->code != 450 }),
    'parameter mailproc' => wired(mail => sub { $_[1]->cmd('EHLO me.test'); $_[1]->cmd('MAIL FROM:<mail@refused.test>') }),
    'parameter rcptproc' => wired(rcpt => sub { $_[1]->cmd('EHLO me.test'); $_[1]->mail('rcpt@refused.test', 'c@d.test', 'x') }),
    'parameter dataproc' => wired(data => sub { $_[1]->cmd('EHLO me.test'); $_[1]->mail('data@refused.test', 'c@d.test', 'x') }),
    'parameter errorproc' => wired(error => sub {
        my ($w, $c) = @_;
        $w->relay->script({ mail => [[reply => '550 no']] });
        $c->cmd('EHLO me.test');
        $c->mail('error@refused.test', 'c@d.test', 'x');
        $w->relay->script({});
    }),
    'parameter nameserver' => sub {
        my ($w) = @_;
        is $w->page('return smtpd.checkdomain("takes.test")', 'dns'), 1, 'is asked';
        my ($nothing, $why) = $w->page('return smtpd.checkdomain("takes.test")', 'nodns');
        ok !defined $nothing && length $why, 'one that is away is no answer';
        is complaint("SmtpdNameServer $_"), '', $_ for '127.0.0.1 [::1]:53';
    },
    'parameter certificate' => sub {
        my ($w) = @_;
        isnt handshake($w, 'tls', SSL_verify_mode => 1, SSL_ca_file => $w->{ca}->file, SSL_verifycn_name => 'localhost',
            SSL_verifycn_scheme => 'smtp'), '', 'SSLCertificateFile is the server\'s';
        ok !grep({ $_ eq 'STARTTLS' } $w->client('drop')->lines), 'no STARTTLS without one';
    },
    'parameter cafile' => sub {
        my ($w) = @_;
        is $w->mail('cafile'), 250, 'a relay whose certificate it has signed';
        is $w->mail('noca'), 451, 'and not without it';
    },
    'parameter capath' => sub { my ($w) = @_; is $w->mail('capath'), 250, 'a relay whose certificate is signed by one there' },
    'parameter ciphers' => sub {
        my ($w) = @_;
        is handshake($w, 'tls12'), 'TLSv1_2 ECDHE-ECDSA-AES128-GCM-SHA256', 'the one that is left';
        is handshake($w, 'tls12', SSL_cipher_list => 'ECDHE-ECDSA-AES256-GCM-SHA384'), '', 'no other';
    },
    'parameter ciphersuites' => sub {
        my ($w) = @_;
        is handshake($w, 'tls13'), 'TLSv1_3 TLS_AES_128_GCM_SHA256', 'the one that is left';
    },
    'parameter protocols' => sub {
        my ($w) = @_;
        is handshake($w, 'tls13', SSL_version => 'TLSv12'), '', 'TLS 1.2 is off';
        isnt handshake($w, 'tls', SSL_version => 'TLSv12'), '', 'and on';
    },
    'parameter segvtimeout' => sub { is complaint('', main => 'CoreDumpDirectory /tmp'), '', 'CoreDumpDirectory' },
    'parameter logging' => sub {
        my ($w) = @_;
        my $file = $w->dir . '/spool/send.log';
        my $before = () = lines_of($file);
        send_one($w, 'fake');
        send_one($w, 'logged');
        ok wait_for { my @now = lines_of($file); @now == $before + 1 }, 'a line where there is SmtpdSendLog, none where not';
        like((lines_of($file))[-1], qr{^\[\d\d/\w{3}/\d{4}(?::\d\d){3} [+-]\d{4}\] \S+ 250 SUCCESS \[127\.0\.0\.1\]:\d+ \d+\.\d{6} \d+ a\@b\.test RCPT: c\@d\.test$},
            'the same fields');
    },
    'parameter logfile' => sub {
        my ($w) = @_;
        ok -s $w->dir . '/spool/send.log', 'the path';
        my $h = OwnHttpd->new(hosts => { mail => "SmtpdEngine on\nSmtpdRelay discard:\nSmtpdSendLog /no/such/folder/x\n" });
        ok !eval { $h->start; 1 }, 'httpd does not start with one that cannot be opened';
        like $@, qr{SmtpdSendLog.*/no/such/folder/x}, 'and says which';
    },
    'parameter logrollfmt' => sub {
        my ($w) = @_;
        my $before = strftime('%Y-%m-%d', gmtime);
        like rotated($w, 'send.log.%Y-%m-%d', 86400), qr/^send\.log\.(?:$before|@{[ strftime('%Y-%m-%d', gmtime) ]})$/, 'a strftime name';
        like rotated($w, 'send.log', 86400), qr/^send\.log\.\d{10}$/, 'without one, a number';
    },
    # The log of this host rolls every second and keeps one old file.
    'parameter logmaxbackup' => sub {
        my ($w) = @_;
        my $until = time + 20;
        my %seen;
        while (keys %seen < 4 && time < $until) {
            $w->page('return smtpd.send("a@b.test", "c@d.test", "x")', 'rolled');
            $seen{$_}++ for glob $w->dir . '/spool/rolled.*';
            sleep 0.1;
        }
        cmp_ok scalar keys %seen, '>=', 4, 'it was rolled';
        ok wait_for { my @left = glob $w->dir . '/spool/rolled.*'; @left <= 2 }, 'old files are purged';
    },
    'parameter logroll' => sub {
        my ($w) = @_;
        my @dates = map { strftime('%Y-%m-%d', localtime $_) } time, time + 5;
        my $dir = File::Temp->newdir('rotated.XXXXXX', TMPDIR => 1);
        open my $to, '|-', $w->rotatelogs, '-l', "$dir/x.%Y-%m-%d", 86400 or die "rotatelogs: $!\n";
        print {$to} "line\n";
        close $to;
        ok scalar(grep { -s "$dir/x.$_" } @dates), 'daily, by local time';
    },
    # The offset puts the day's end an hour into the future, or behind us: the name tells the day.
    'parameter logrollhour' => sub {
        my ($w) = @_;
        my @now = gmtime;
        my $hour = $now[2] + 1;
        my @days = map { strftime('%Y-%m-%d', gmtime time - $_ * 3600) } 0, $hour;
        is rotated($w, 'x.%Y-%m-%d', 86400, -60 * $hour), "x.$days[1]", 'before that hour it is still the day before';
        is rotated($w, 'x.%Y-%m-%d', 86400, -60 * $now[2]), "x.$days[0]", 'and from then on the next';
    },
    'parameter clamav_maxfiles' => clamav_limit('maxfiles'),
    'parameter clamav_maxfilesize' => sub {
        my ($w) = @_;
        SKIP: {
            my $reply = clamav($w, 'maxfilesize=10K oversize=reject', ClamdInstance::mail_with('x' x 30_000));
            skip 'mod_nssmtpd_clamav.so is not built', 1 if $reply eq 'no module';
            like $reply, qr/^552 5\.3\.4 /, 'what is larger';
        }
    },
    'parameter clamav_maxreclevel' => clamav_limit('maxrecursion'),
    'parameter clamav_archivememlim' => clamav_limit('maxscansize'),
    'parameter clamav_dbdir' => sub {
        my ($w) = @_;
        SKIP: {
            my $reply = clamav($w, '', ClamdInstance::mail_with(ClamdInstance::eicar()));
            skip 'mod_nssmtpd_clamav.so is not built', 1 if $reply eq 'no module';
            like $reply, qr/^554 5\.7\.1 Message has a virus: Eicar-Test/, 'the signatures there are used';
        }
    },
    # The last test: httpd begins anew.
    'parameter logrollonsignal' => sub {
        my ($w) = @_;
        my $file = $w->dir . '/spool/send.log';
        send_one($w, 'logged');
        rename $file, "$file.old" or die "$file: $!\n";
        my $length = -s "$file.old";
        $w->httpd->graceful;
        ok wait_for { return -e $file }, 'a plain file that was renamed is begun anew';
        ok wait_for { return eval { $w->page('return smtpd.send("a@b.test", "c@d.test", "x")', 'logged'); 1 } && -s $file },
            'and written to';
    },
    );
}

1;
