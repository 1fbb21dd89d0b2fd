# The engine that asks all scanners at once, whoever they are: what a verdict, a failure, a size
# and a deadline make of a message. Its scanners are made by the test: some of a module built here
# from the public header alone, and daemons that misbehave on order and speak as clamd does.
use strict;
use warnings;
use Apache::Test ();
use File::Copy qw(copy);
use File::Path qw(make_path);
use File::Temp ();
use FakeScanner;
use OwnHttpd;
use SMTPClient;
use TestHost;
use Test::More;
use Time::HiRes qw(time);

my $tree = server_root() . '/../..';
my $build = File::Temp->newdir('scanner.XXXXXX', TMPDIR => 1);
chmod 0755, "$build";
copy(server_root() . '/scanner/mod_test_scanner.c', "$build/mod_test_scanner.c");
my $said = `cd $build && apxs -c -Wc,-Wall -Wc,-Wextra -I $tree mod_test_scanner.c 2>&1`;
my $foreign = "$build/.libs/mod_test_scanner.so";
ok -r $foreign, 'a scanner is built from the public header alone' or BAIL_OUT($said);
unlike $said, qr/warning/, 'without a warning';

my $GOOD = "stream: OK\0";
my $EICAR = "stream: Eicar-Test FOUND\0";
my %fake;

sub fake {
    my ($name, @script) = @_;
    $fake{$name} = FakeScanner->new(script => \@script);
    return '127.0.0.1:' . $fake{$name}->port;
}

my $down = FakeScanner->new;
$down->stop;
my $nobody = '127.0.0.1:' . $down->port;

# What becomes of a mail, by host: its scanners' lines, the reply, and the header it has where it
# arrives, or undef. A second list is what must stand in the error log.
my $CLEAN = qr/^X-Smtpd-Virus-Status: clean; scanner=clamd\r$/m;
my $UNSEEN = qr/^X-Smtpd-Scan-Status: failed; scanner=clamd\r$/m;
my $LARGE = qr/^X-Smtpd-Scan-Status: skipped, too large; scanner=timer\r$/m;
my $FAULT = qr/^451 4\.7\.1 Message cannot be scanned now; try again later$/;
my $OK = qr/^250 2/;
my @cases = (
    [clean => ['clamd ' . fake(clean => { say => $GOOD })], $OK, $CLEAN],
    [infected => ['clamd ' . fake(infected => { say => $EICAR })],
        qr/^554 5\.7\.1 Message has a virus: Eicar-Test$/, undef, qr/NS0082: .*virus Eicar-Test .*is refused/],
    [tagged => ['clamd ' . fake(tagged => { say => $EICAR }) . ' action=tag'], $OK,
        qr/^X-Smtpd-Virus-Status: infected; name=Eicar-Test; scanner=clamd\r$/m, qr/NS0082: .*passes, marked/],
    [discarded => ['clamd ' . fake(discarded => { say => $EICAR }) . ' action=discard'], $OK, undef,
        qr/NS0083: .*discarded: .*virus Eicar-Test; from <a\@b\.test>, 1 recip/],
    [hostile => ['clamd ' . fake(hostile => { say => "stream: a\x07\xe4\r\n250 ok" . 'x' x 600 . " FOUND\0" })],
        qr/^554 5\.7\.1 Message has a virus: a\?\?\?\?250 okx{90,200}$/, undef],
    [down => ["clamd $nobody"], $FAULT, undef, qr/NS0080: .*clamd: \Q$nobody\E: Connection refused .*gets 451/],
    [let_in => ["clamd $nobody onerror=accept"], $OK, $UNSEEN, qr/NS0080: .*passes, unscanned/],
    [hanging => ['clamd ' . fake(hanging => { hang => 1 }) . ' timeout=1'], $FAULT, undef,
        qr/NS0080: .*no answer in time/],
    [deaf => ['clamd ' . fake(deaf => { read => 0, hang => 1 }) . ' timeout=1 onerror=accept'], $OK, $UNSEEN],
    [dying => ['clamd ' . fake(dying => { read => 100 })], $FAULT, undef, qr/NS0080/],
    [resetting => ['clamd ' . fake(resetting => { read => 100, reset => 1 })], $FAULT, undef, qr/NS0080/],
    [silent => ['clamd ' . fake(silent => { })], $FAULT, undef, qr/NS0080: .*without an answer/],
    [cut => ['clamd ' . fake(cut => { say => 'stream: OK' })], $FAULT, undef, qr/NS0080: .*without an answer/],
    [nonsense => ['clamd ' . fake(nonsense => { say => "HTTP/1.0 400 what\r\n\0" })], $FAULT, undef,
        qr/NS0080: .*answered "HTTP/],
    [nameless => ['clamd ' . fake(nameless => { say => "stream: FOUND\0" })], $FAULT, undef,
        qr/NS0080: .*answered "stream: FOUND"/],
    [octets => ['clamd ' . fake(octets => { say => $EICAR, pieces => 1 })], qr/^554 .*Eicar/, undef],
    [dripping => ['clamd ' . fake(dripping => { drip => 0.0002 }) . ' timeout=1'], $FAULT, undef,
        qr/NS0080: .*no answer in time/],
    [endless => ['clamd ' . fake(endless => { read => 0, endless => 'stream: ' })], $FAULT, undef,
        qr/NS0080: .*does not end/],
    [size_error => ['clamd ' . fake(size_error => { read => 100, say => "INSTREAM size limit exceeded. ERROR\0" })
        . ' oversize=reject'], qr/^552 5\.3\.4 Message is too large to be scanned$/, undef, qr/NS0081: .*StreamMaxLength/],
    [too_large => ['timer maxsize=1K oversize=reject'], qr/^552 5\.3\.4 /, undef, qr/NS0081: .*maxsize=1024/],
    [too_large_later => ['timer maxsize=1K oversize=defer'], $FAULT, undef, qr/NS0081/],
    [too_large_spam => ['timer maxsize=1K'], $OK, $LARGE, qr/NS0081: .*passes, unscanned/],
    [too_large_virus => ['sleeper maxsize=1K'], $FAULT, undef],
    [spare => ["clamd $nobody", 'clamd ' . fake(spare => { say => $EICAR })], qr/^554 .*Eicar/, undef,
        qr/NS0107: .*refused; the next line/],
    [spare_hangs => ['clamd ' . fake(spare_hangs => { hang => 1 }) . ' timeout=1',
        'clamd ' . fake(spare_works => { say => $GOOD })], $OK, $CLEAN],
    [both_down => ["clamd $nobody", "clamd $nobody"], $FAULT, undef],
    [spare_idle => ['clamd ' . fake(first => { say => $GOOD }), 'clamd ' . fake(second => { say => $EICAR })],
        $OK, $CLEAN],
    [spam => ['timer verdict=bad score=7.25 found=GTUBE,BAD_DAY'], qr/^550 5\.7\.1 Message looks like spam$/, undef],
    [spam_why => ['timer verdict=bad why=Gtube'], qr/^550 5\.7\.1 Gtube$/, undef],
    [spam_tag => ['timer verdict=tag score=7.25 found=GTUBE,BAD_DAY'], $OK,
        qr/^X-Spam-Flag: YES\r\nX-Spam-Score: 7\.[23]\r\nX-Spam-Status: Yes, score=7\.[23] required=5\.0 scanner=timer tests=GTUBE,BAD_DAY\r$/m],
    [ham => ['timer score=-1.5'], $OK, qr/^X-Spam-Score: -1\.5\r\nX-Spam-Status: No, score=-1\.5 /m],
    [by_score => ['timer score=9 reject=8.5'], qr/^550 5\.7\.1 /, undef],
    [no_score => ['timer verdict=bad score=nan reject=8.5'], $FAULT, undef, qr/NS0080/],
    [below_score => ['timer verdict=bad score=6 reject=8.5 tag=5'], $OK, qr/^X-Spam-Flag: YES\r$/m],
    [below_both => ['timer verdict=bad score=4 reject=8.5 tag=5'], $OK, qr/^X-Spam-Status: No/m],
    [soft => ['timer verdict=defer why=Greylisted'], qr/^451 4\.7\.1 Greylisted$/, undef],
    [large => ['timer verdict=large'], $OK, $LARGE],
    [broken => ['timer verdict=error why=broken'], $FAULT, undef, qr/NS0080: .*timer: broken/],
    [nothing => ['sleeper verdict=nothing'], $FAULT, undef, qr/NS0080: .*without a verdict/],
    [slow_thread => ['sleeper milliseconds=20000 timeout=1'], $FAULT, undef, qr/NS0080: .*no time left/],
    [refusal_wins => ['sleeper verdict=error', 'timer verdict=bad milliseconds=100'], qr/^550 /, undef],
);

my %extra = (
    parallel => [map {"$_ milliseconds=1000"} qw(timer sleeper sleeper2)],
    one_after_no_other => ['timer milliseconds=1000', 'clamd ' . fake(slow => { delay => 1, say => $GOOD })],
    final => ['timer milliseconds=20000', 'sleeper milliseconds=20000',
        'clamd ' . fake(final => { say => $EICAR })],
    unwanted => ['timer verdict=bad milliseconds=100', 'clamd ' . fake(unwanted => { hang => 1 })],
    single => ['timer milliseconds=400 max=1'],
    crowded => ['clamd ' . fake(crowded => { delay => 1, say => $GOOD }) . ' max=1 timeout=2',
        'clamd ' . fake(roomy => { say => $GOOD })],
    hasty => ['clamd ' . fake(hasty => { read => 100, say => $GOOD, hang => 1 })],
    late => ['timer milliseconds=1500 max=1 timeout=2'],
    many => ['sleeper milliseconds=50 max=3', 'timer milliseconds=50 max=5',
        'clamd ' . fake(many => { say => $GOOD }) . ' max=2'],
);
my %lines = (%extra, map { $_->[0] => $_->[1] } @cases);
my $relay = "SmtpdEngine on\nSmtpdRelay maildir:%DIR%/maildir/%d/%u\nSmtpdTimeout scan=30\n";
my $h = OwnHttpd->new(
    main => "LoadModule test_scanner_module $foreign\n"
        . "<IfModule !mpm_prefork_module>\nStartServers 1\nServerLimit 1\nThreadsPerChild 24\nMaxRequestWorkers 24\n"
        . "</IfModule>\n",
    hosts => { map { $_ => $relay . join '', map {"SmtpdScanner $_\n"} @{ $lines{$_} } } keys %lines },
)->start;

my $message = "Subject: hello\r\nX-Spam-Flag: NO\r\nX-Spam-Status: No, forged\r\nX-Spam-Score: -99\r\n"
    . "X-Smtpd-Virus-Status: clean; forged\r\nX-Smtpd-Scan-Status: forged\r\n\r\n" . ('0123456789' x 7 . "\r\n") x 20_000;

# Its whole reply and how long it took.
sub post {
    my ($host, %a) = @_;
    my $c = $a{client} || SMTPClient->new(port => $h->port($host), timeout => 25);
    $c->cmd('EHLO me.test');
    my $began = time;
    $c->mail('a@b.test', "$host\@x.test", $a{message} // $message);
    return ($c->heard, time - $began);
}

sub arrived {
    my ($host) = @_;
    return map { slurp($_) =~ s/\n/\r\n/gr } glob $h->dir . "/maildir/x.test/$host/new/*";
}

for my $case (@cases) {
    my ($host, $lines, $reply, $header, $log) = @$case;
    subtest $host => sub {
        my ($answer, $took) = post($host);
        like $answer, $reply, 'reply';
        cmp_ok $took, '<', 5, 'in time';
        my @mails = arrived($host);
        is scalar @mails, defined $header ? 1 : 0, defined $header ? 'it arrives' : 'nothing arrives';
        if (defined $header && @mails) {
            my ($head, $body) = split /\r\n\r\n/, $mails[0], 2;
            like "$head\r\n", $header, 'with its header';
            my $forged = ($lines->[0] =~ /^timer/) ? 'X-Spam-\w+: (?:NO|No, forged|-99)' : 'X-Smtpd-Virus-Status: clean; forged';
            unlike $head, qr/^(?:$forged|X-Smtpd-Scan-Status: forged)/m, 'and without the forged one';
            ok $body eq ($message =~ /\r\n\r\n(.*)/s)[0], 'and as it was';
        }
        ok scalar($h->lines(qr/$log/)), "and the log says $log" if $log;
        done_testing;
    };
}

subtest 'what a daemon is sent' => sub {
    plan tests => 3;
    my $heard = $fake{clean}->heard(0);
    my ($command, $chunks) = $heard =~ /\A([^\0]*\0)(.*)\z/s;
    my @chunks = unpack '(N/a)*', $chunks;
    is $command, "zINSTREAM\0", 'the command';
    is pop @chunks, '', 'chunks up to an empty one';
    ok join('', @chunks) eq "Received: by mod_nssmtpd\r\n$message", 'the message, which libclamav will take for a mail';
};

subtest 'a daemon that says OK before it has seen all' => sub {
    plan tests => 3;
    my ($answer) = post('hasty', message => "Subject: x\r\n\r\n" . ('x' x 78 . "\r\n") x 400_000);
    like $answer, $FAULT, 'is not believed';
    is scalar(my @mails = arrived('hasty')), 0, 'nothing arrives';
    like $h->log('error.log'), qr/NS0080: .*(?:before it had the whole message|reset by peer)/, 'and the log says why';
};

is $fake{first}->asked . ' ' . $fake{second}->asked, '1 0', 'a spare line is not asked while the first works';

subtest 'scanners that take a second each take a second' => sub {
    plan tests => 4;
    for my $host (qw(parallel one_after_no_other)) {
        my ($answer, $took);
        for (1 .. 5) { # the best of them, for the machine may be busy
            ($answer, $took) = post($host, message => "Subject: x\r\n\r\nx\r\n");
            last if $took < 1.3;
        }
        like $answer, $OK, "$host: taken";
        cmp_ok $took, '<', 1.3, sprintf '%d of them in %.2f s', scalar @{ $lines{$host} }, $took;
    }
};

subtest 'a refusal ends the wait for others' => sub {
    plan tests => 5;
    my ($answer, $took) = post('final');
    like $answer, qr/^554 .*Eicar/, 'refused';
    cmp_ok $took, '<', 3, 'at once, although others have not answered';
    ($answer, $took) = post('unwanted');
    like $answer, qr/^550 /, 'refused';
    cmp_ok $took, '<', 3, 'at once';
    ok wait_for { defined $fake{unwanted}->heard(0) }, 'and the connection to the other is closed';
};

SKIP: {
    skip 'max= counts in a child, and prefork has one for each session', 2 if $h->{mpm} eq 'prefork';
    subtest 'max=: later ones wait' => sub {
        plan tests => 5;
        my ($answers, $took) = at_once('single', 3);
        is_deeply [map {/^(\d+)/} @$answers], [250, 250, 250], 'three mails at once';
        cmp_ok $took, '>', 1.1, 'one after the other';
        ($answers) = at_once('late', 3);
        is_deeply [sort map {/^(\d+)/} @$answers], [250, 451, 451], 'as long as there is time';
        ($answers) = at_once('crowded', 3);
        is_deeply [map {/^(\d+)/} @$answers], [250, 250, 250], 'or go to the next line of that name';
        like $h->log('error.log'), qr/NS0107: .*no place came free in time: max=/, 'and the log says so';
    };

    # The worker MPM has a thread for each session, and there are 24.
    my $n = $h->{mpm} eq 'worker' ? 20 : 50;
    subtest "$n at once" => sub {
        plan tests => 2;
        my ($answers) = at_once('many', $n);
        is scalar(grep {/^250/} @$answers), $n, 'are all taken';
        is scalar(my @mails = arrived('many')), $n, 'and arrive';
    };
}

# All answers, and how long the last took: clients write first, and read then.
sub at_once {
    my ($host, $n) = @_;
    my @clients = map { SMTPClient->new(port => $h->port($host), timeout => 25) } 1 .. $n;
    for my $c (@clients) {
        $c->cmd('EHLO me.test');
        $c->cmd('MAIL FROM:<a@b.test>');
        $c->cmd("RCPT TO:<$host\@x.test>");
        $c->cmd('DATA');
    }
    my $began = time;
    $_->send_raw("Subject: x\r\n\r\nx\r\n.\r\n") for @clients;
    my @answers = map { $_->read_reply . ' ' . $_->text } @clients;
    return (\@answers, time - $began);
}

subtest 'no descriptor and no thread is left behind' => sub {
    plan tests => 2;
    my ($child) = $h->children;
    my $count = sub { my @all = glob "/proc/$child/$_[0]/*"; return scalar @all };
    SKIP: {
        skip 'many children', 2 if $h->{mpm} eq 'prefork';
        skip 'its descriptors are not to be seen', 2 unless $count->('fd');
        my ($before, $threads) = ($count->('fd'), $count->('task'));
        post($_, message => "Subject: x\r\n\r\nx\r\n") for map { ($_) x 3 } qw(final unwanted down clean nothing parallel);
        ok wait_for { $count->('fd') <= $before + 1 }, 'descriptors';
        ok wait_for { $count->('task') <= $threads }, 'threads';
    }
};

# ---- configuration

subtest 'wrong lines' => sub {
    my @wrong = (
        ['' => 'needs the name'], ['clamd=x' => 'needs the name'],
        ['nobody' => 'nobody', 'is no scanner', 'clamd'], ['clamav' => 'LoadModule nssmtpd_clamav_module'],
        ['clamd' => 'address', '127.0.0.1:3310'], ['clamd [::1:3310' => 'no address'],
        ['clamd no.such.host.invalid' => 'cannot be looked up'], ['clamd unix:relative' => 'must begin'],
        ['clamd 127.0.0.1 again' => '"again"', 'address'], ['clamd 127.0.0.1 colour=red' => 'colour=red'],
        ['clamd 127.0.0.1 reject=5' => 'spam'], ['clamd 127.0.0.1 timeout=0' => 'timeout=', '86400'],
        ['clamd 127.0.0.1 timeout=61' => 'SmtpdTimeout scan=60'], ['clamd 127.0.0.1 max=0' => 'max='],
        ['clamd 127.0.0.1 maxsize=big' => 'maxsize='], ['clamd 127.0.0.1 oversize=tag' => 'accept, defer or reject'],
        ['clamd 127.0.0.1 onerror=reject' => 'defer or accept'], ['clamd 127.0.0.1 action=' => 'reject, tag or discard'],
        ['timer reject=much' => 'reject=', 'number'], ['timer reject=nan' => 'reject='],
        ['timer reject=5 tag=6' => 'tag='], ['timer volume=1 x=1' => 'x=1'],
    );
    plan tests => 2 * @wrong;
    for (@wrong) {
        my ($line, @words) = @$_;
        my ($ok, $said) = OwnHttpd->new(main => "LoadModule test_scanner_module $foreign\n",
            hosts => { mail => "SmtpdEngine on\nSmtpdRelay discard:\nSmtpdScanner $line\n" })->check;
        ok !$ok, "'$line' is refused";
        my @missing = grep { index($said, $_) < 0 } 'SmtpdScanner', @words;
        is_deeply \@missing, [], 'and the message says why' or diag $said;
    }
};

subtest 'inheritance' => sub {
    plan tests => 2;
    my $own = OwnHttpd->new(
        main => "LoadModule test_scanner_module $foreign\nSmtpdRelay discard:\nSmtpdScanner timer verdict=bad\n",
        hosts => { heir => "SmtpdEngine on\n", own => "SmtpdEngine on\nSmtpdScanner timer\n" },
    )->start;
    my %code = map { $_ => SMTPClient->new(port => $own->port($_)) } qw(heir own);
    for (values %code) { $_->cmd('EHLO me.test'); $_->mail('a@b.test', 'c@d.test', "Subject: x\r\n\r\nx\r\n"); }
    is $code{heir}->code, 550, 'a host has the lines of the main server';
    is $code{own}->code, 250, 'or its own, and none but them';
};

done_testing;
