# ClamAV itself, by its daemon and in process, with signatures made here: what is infected is found
# inside attachments and archives, what is clean passes, limits are no silent pass, a daemon may die,
# and new signatures come into use without a gap.
use strict;
use warnings;
use Apache::Test ();
use ClamdInstance;
use File::Basename qw(dirname);
use File::Temp ();
use OwnHttpd;
use SMTPClient;
use TestHost;
use Test::More;
use Time::HiRes qw(sleep time);

plan skip_all => 'clamd is not installed' unless ClamdInstance::is_there();
my $module = dirname($ENV{MODULE} // server_root() . '/../../build/mod_nssmtpd.so') . '/mod_nssmtpd_clamav.so';
plan skip_all => 'mod_nssmtpd_clamav.so is not built' unless -r $module;

my $temp = File::Temp->newdir('clamav.XXXXXX', TMPDIR => 1);
chmod 0755, "$temp";
my $database = ClamdInstance::signatures("$temp/db");
my $clamd = ClamdInstance->new(database => $database, options => "StreamMaxLength 1M\n");
my $other = ClamdInstance->new(database => $database);
my $EICAR = ClamdInstance::eicar();

my $relay = "SmtpdEngine on\nSmtpdRelay maildir:%DIR%/maildir/%d/%u\n";
my %lines = (
    clamd => ['clamd 127.0.0.1:' . $clamd->port . ' oversize=reject'],
    socket => ['clamd unix:' . $clamd->path],
    inside => ["clamav database=$temp/db selfcheck=1"],
    limited => ["clamav database=$temp/db selfcheck=1 maxfilesize=100K maxrecursion=4 oversize=reject"],
    both => ["clamav database=$temp/db selfcheck=1 timeout=20", 'clamd 127.0.0.1:' . $clamd->port],
    spare => ['clamd 127.0.0.1:' . $clamd->port, 'clamd 127.0.0.1:' . $other->port],
    alone => ['clamd 127.0.0.1:' . $other->port],
    lenient => ['clamd 127.0.0.1:' . $other->port . ' onerror=accept'],
);
my $h = OwnHttpd->new(
    main => "LoadModule nssmtpd_clamav_module $module\n"
        . "<IfModule !mpm_prefork_module>\nStartServers 2\nServerLimit 4\nThreadsPerChild 12\nMaxRequestWorkers 24\n"
        . "</IfModule>\n",
    log_level => 'warn nssmtpd:info nssmtpd_clamav:info',
    hosts => { map { $_ => $relay . join '', map {"SmtpdScanner $_\n"} @{ $lines{$_} } } keys %lines },
)->start;

# Again, where a child that is being replaced has said so.
sub post {
    my ($host, $message) = @_;
    my $c;
    for (1 .. 10) {
        $c = SMTPClient->new(port => $h->port($host), timeout => 20);
        next if $c->code == 421 || $c->cmd('EHLO me.test') == 421;
        last if $c->mail('a@b.test', "$host\@x.test", $message) != 421;
    }
    return $c->heard;
}

sub arrived {
    my ($host) = @_;
    return map { slurp($_) } glob $h->dir . "/maildir/x.test/$host/new/*";
}

sub refused {
    my ($host, $message, $name, $what) = @_;
    like post($host, $message), qr/^554 5\.7\.1 Message has a virus: \Q$name\E/, $what;
}

# libclamav adds ".UNOFFICIAL" to the names of signatures that are not its makers'.
for my $host (qw(clamd socket inside)) {
    subtest "$host finds" => sub {
        refused($host, ClamdInstance::mail_with($EICAR), 'Eicar-Test', 'EICAR in an attachment');
        refused($host, ClamdInstance::mail_with($EICAR, first => "Zork: a\r\n"), 'Eicar-Test',
            'below a header field that nobody knows');
        refused($host, "X-Zork: a\r\nContent-Transfer-Encoding: base64\r\n\r\n"
            . MIME::Base64::encode_base64($EICAR, "\r\n"), 'Eicar-Test', 'as the only part of such a mail');
        for my $name (qw(clam.exe clam.zip clam.tar.gz clam.7z clam.exe.bz2 clam.cab clam.tnef clam.ole.doc)) {
            SKIP: {
                my $file = ClamdInstance::testfile($name) // skip "no $name", 1;
                refused($host, ClamdInstance::mail_with($file, name => $name), 'Clam-Test', $name);
            }
        }
        my $name = $host eq 'inside' ? 'clamav' : 'clamd';
        like post($host, ClamdInstance::mail_with('quite harmless ' x 1000)), qr/^250 /, 'nothing in a clean file';
        like post($host, "\r\n"), qr/^250 /, 'nor in a mail that is empty';
        my @mails = arrived($host);
        is scalar @mails, 2, 'which arrive';
        is scalar(grep {/^X-Smtpd-Virus-Status: clean; scanner=$name\r?$/m} @mails), 2, 'with their header field';
        done_testing;
    };
}

subtest 'limits' => sub {
    plan tests => 6;
    like post('clamd', ClamdInstance::mail_with('x' x 1_500_000)), qr/^552 5\.3\.4 /, "clamd's StreamMaxLength";
    like post('limited', ClamdInstance::mail_with('x' x 300_000)), qr/^552 5\.3\.4 /, "libclamav's maxfilesize";
    like post('limited', ClamdInstance::mail_with('x' x 1000)), qr/^250 /, 'what is within';
    like post('limited', ClamdInstance::mail_with(ClamdInstance::nested(9))), qr/^552 5\.3\.4 /, 'and its maxrecursion';
    like $h->log('error.log'), qr/NS0081: .*clamav: too large: $_/, "the log says $_"
        for 'larger than maxfilesize=', 'Heuristics.Limits.Exceeded.MaxRecursion';
};

subtest 'both at once' => sub {
    plan tests => 4;
    refused('both', ClamdInstance::mail_with($EICAR), 'Eicar-Test', 'refused');
    like post('both', ClamdInstance::mail_with('harmless ' x 50_000)), qr/^250 /, 'passes';
    my @mails = arrived('both');
    like $mails[0], qr/^X-Smtpd-Virus-Status: clean; scanner=$_\r?$/m, "$_ has seen it" for qw(clamav clamd);
};

subtest 'many at once through both' => sub {
    plan tests => 2;
    my @clients = map { SMTPClient->new(port => $h->port('both'), timeout => 30) } 1 .. 16;
    for my $c (@clients) {
        $c->cmd($_) for 'EHLO me.test', 'MAIL FROM:<a@b.test>', 'RCPT TO:<many@x.test>', 'DATA';
    }
    for my $i (0 .. $#clients) {
        $clients[$i]->send_raw(ClamdInstance::mail_with($i % 2 ? $EICAR : "harmless $i") . ".\r\n");
    }
    my @codes = map { $_->read_reply } @clients;
    is_deeply \@codes, [(250, 554) x 8], 'each has its own answer';
    is scalar(my @mails = arrived('many')), 8, 'and the clean ones arrive';
};

subtest 'a clamd that dies' => sub {
    plan tests => 7;
    refused('spare', ClamdInstance::mail_with($EICAR), 'Eicar-Test', 'the first of two is asked');
    $clamd->kill_it;
    refused('spare', ClamdInstance::mail_with($EICAR), 'Eicar-Test', 'then the second');
    like $h->log('error.log'), qr/NS0107: .*the next line/, 'the log says so';
    $other->kill_it;
    like post($_, "Subject: x\r\n\r\nx\r\n"), qr/^451 4\.7\.1 /, "none is left: $_" for qw(spare alone);
    like post('lenient', "Subject: x\r\n\r\nx\r\n"), qr/^250 /, 'or let in';
    like((arrived('lenient'))[0], qr/^X-Smtpd-Scan-Status: failed; scanner=clamd\r?$/m, 'with a mark');
};

# ---- the engine in the parent

sub wait_long(&) { my ($condition) = @_; return &wait_for($condition, 40) }
sub lines_of { my ($tag) = @_; return scalar(my @lines = $h->log('error.log') =~ /$tag/g) }

# Restarts are asked for by a signal and done when the children have changed.
sub graceful {
    my $before = join ' ', $h->children;
    my $times = lines_of('resuming normal operations');
    $h->graceful;
    return wait_long { lines_of('resuming normal operations') > $times };
}

subtest 'signatures are loaded once' => sub {
    plan tests => 5;
    is lines_of('NS0085'), 2, 'by the parent, for two sets of limits with whatever timeout, and not on the first pass';
    ok graceful(), 'a restart';
    is lines_of('NS0085'), 2, 'keeps them';
    refused('inside', ClamdInstance::mail_with($EICAR), 'Eicar-Test', 'they work after it');
    ok graceful() && post('inside', ClamdInstance::mail_with($EICAR)) =~ /^554/, 'and after another';
};

subtest 'new signatures' => sub {
    plan tests => 8;
    my $worm = 'a worm ' x 20;
    like post('inside', ClamdInstance::mail_with($worm)), qr/^250 /, 'what is not known passes';
    my $loads = lines_of('NS0087');
    ClamdInstance::signatures("$temp/db", 'Worm-Test' => $worm);
    my ($asked, $failed, @codes) = (0, 0);
    my $found = wait_long {
        my $answer = eval { post('inside', ClamdInstance::mail_with($worm)) } // "died $@";
        $asked++;
        $failed++ if $answer !~ /^(?:250|554)/;
        push @codes, substr $answer, 0, 3;
        return $answer =~ /^554 .*Worm-Test/;
    };
    ok $found, 'is found once the files have changed';
    is $failed, 0, "no mail of $asked was deferred or lost meanwhile" or diag "@codes";
    cmp_ok lines_of('NS0087'), '>', $loads, 'the log says so';
    is lines_of('NS0085'), 2, 'the restart took what was ready';

    spew("$temp/db/broken.ndb", "this is:no:signature\n");
    ok wait_long { lines_of('NS0108') }, 'files that cannot be loaded are said';
    refused('inside', ClamdInstance::mail_with($worm), 'Worm-Test', 'and the signatures there were stay');
    ok kill(0 => $h->pid), 'httpd lives';
};

subtest 'wrong lines' => sub {
    mkdir "$temp/empty";
    my @wrong = (
        ["clamav 127.0.0.1 database=$temp/db" => 'takes no address'], ['clamav database=/no/where' => 'freshclam'],
        ["clamav database=$temp/db colour=red" => 'colour=red'], ["clamav database=$temp/db maxfiles=many" => 'maxfiles='],
        ["clamav database=$temp/db reject=5" => 'spam'],
    );
    plan tests => 2 * @wrong + 2;
    my $make = sub {
        return OwnHttpd->new(main => "LoadModule nssmtpd_clamav_module $module\n",
            hosts => { mail => "SmtpdEngine on\nSmtpdRelay discard:\nSmtpdScanner $_[0]\n" });
    };
    for (@wrong) {
        my ($line, $word) = @$_;
        my ($ok, $said) = $make->($line)->check;
        ok !$ok, "'$line' is refused";
        ok index($said, 'SmtpdScanner clamav') >= 0 && index($said, $word) >= 0, 'and the message says why' or diag $said;
    }
    my $empty = $make->("clamav database=$temp/empty");
    ok !eval { $empty->start }, 'httpd does not start without signatures';
    like $empty->log('error.log'), qr/NS0086: .*freshclam/, 'and says why';
};

done_testing;
