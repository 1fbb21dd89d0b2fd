# All four scanners in one host, the real ones: clamd and libclamav, spamd and rspamd. Many mails at
# once through all of them, recipients who want no scan, what scripts and the log are told, mails that
# scripts send, the library's questions; and at last all daemons killed.
use strict;
use warnings;
use Apache::Test ();
use ClamdInstance;
use File::Basename qw(dirname);
use File::Temp ();
use HTTP::Tiny;
use IO::Compress::Zip qw(zip);
use IO::Socket::INET;
use JSON::PP qw(decode_json);
use POSIX qw(strftime);
use RspamdInstance;
use ScriptedHttpd;
use SMTPClient;
use SpamdInstance;
use TestHost qw(server_root slurp wait_for);
use Test::More;

plan skip_all => 'clamd is not installed' unless ClamdInstance::is_there();
plan skip_all => SpamdInstance->missing if SpamdInstance->missing;
plan skip_all => RspamdInstance->missing if RspamdInstance->missing;
my $module = dirname($ENV{MODULE} // server_root() . '/../../build/mod_nssmtpd.so') . '/mod_nssmtpd_clamav.so';
plan skip_all => 'mod_nssmtpd_clamav.so is not built' unless -r $module;
plan tests => 9;

my $temp = File::Temp->newdir('scanners.XXXXXX', TMPDIR => 1);
chmod 0755, "$temp";
my $database = ClamdInstance::signatures("$temp/db");
my $clamd = ClamdInstance->new(database => $database);
my $spamd = SpamdInstance->new->start;
my $rspamd = RspamdInstance->new(password => 'controller-pass')->start;

my %line = (
    clamav => "clamav database=$database",
    clamd  => 'clamd 127.0.0.1:' . $clamd->port,
    spamd  => 'spamd ' . $spamd->address,
    rspamd => 'rspamd ' . $rspamd->address . ' controller=' . $rspamd->controller . ' password=controller-pass',
);

sub host_with {
    my ($more, $key) = @_;
    return "SmtpdRelay maildir:%DIR%/maildir/%u\n$more\n"
        . join '', map {"SmtpdScanner $line{$_} $key\n"} sort keys %line;
}

my $h = ScriptedHttpd->new(
    main => <<"MAIN",
LoadModule nssmtpd_clamav_module $module
SmtpdSpool directory=%DIR%/spool
LogFormat "%{SMTP_RCPT}e %>s spam=%{SMTP_SPAM}e score=%{SMTP_SPAM_SCORE}e virus=%{SMTP_VIRUS}e scan=%{SMTP_SCAN}e" scans
CustomLog %DIR%/scans.log scans
<IfModule mpm_prefork_module>
StartServers 56
ServerLimit 60
MaxRequestWorkers 60
MaxSpareServers 60
</IfModule>
<IfModule !mpm_prefork_module>
StartServers 2
ServerLimit 2
ThreadsPerChild 32
MaxRequestWorkers 64
MaxSpareThreads 64
</IfModule>
MAIN
    hosts => {
        all  => host_with('', ''),
        tag  => host_with('', 'action=tag'),
        lax  => host_with('', 'onerror=accept'),
        send => host_with('SmtpdFlags needhelo viruscheck spamcheck', ''),
        web  => 'LuaMapHandler "^/eval$" %POLICY%/page.lua eval',
    },
);
my $json = server_root() . '/lua/json.lua';
$h->write('page.lua', <<"LUA");
local json = dofile("$json")

-- Runs the Lua code of a request's body for an SMTP host and tells what it returned.
function eval(r)
    assert(smtpd.use(r.args))
    local results = table.pack(assert(load(r:requestbody()))())
    for i = 1, results.n do results[i] = json(results[i]) end
    r:puts("[" .. table.concat(results, ",", 1, results.n) .. "]")
    return apache2.OK
end
LUA
$h->start;

# ---- mails

my $GTUBE = 'XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X';
my $EICAR = ClamdInstance::eicar();
zip(\$EICAR => \my $zip, Name => 'eicar.com') or die 'zip';

# What a sender may say of his mail himself, which no recipient is to believe.
my $FORGED = "X-Spam-Flag: NO\r\nX-Spam-Status: No, forged\r\nX-Spam-Score: -99\r\n"
    . "X-Smtpd-Virus-Status: clean; forged\r\nX-Smtpd-Scan-Status: forged\r\n";
my $serial = 0;

sub head {
    $serial++;
    return "From: a\@b.test\r\nTo: c\@d.test\r\n" . strftime("Date: %a, %d %b %Y %H:%M:%S +0000\r\n", gmtime)
        . "Message-ID: <$serial.2.3.4.5.6.7.8\@b.test>\r\n";
}

my %make = (
    clean  => sub { ClamdInstance::mail_with("harmless $serial", first => head()) =~ s/here it is/.here it is\r\n..\r\n\r\n/r },
    base64 => sub { ClamdInstance::mail_with($EICAR, first => head()) },
    zipped => sub { ClamdInstance::mail_with($zip, first => head(), name => 'file.zip') },
    spam   => sub { head() . "Subject: buy\r\n\r\n$GTUBE\r\n" },
    mixed  => sub { ClamdInstance::mail_with($EICAR, first => head()) =~ s/here it is/$GTUBE/r },
);

# A mail in $c's session: the whole reply.
sub mail_by {
    my ($c, $rcpts, $message, $from) = @_;
    $c->mail($from // 'a@b.test', $rcpts, $message);
    return $c->heard;
}

sub post {
    my ($host, @mail) = @_;
    return mail_by($h->client($host, timeout => 50), @mail);
}

# What arrived for a user, with CRLF, and without what the Maildir added.
sub arrived {
    my ($user) = @_;
    return map { slurp($_) =~ s/\AReturn-Path: .*\nDelivered-To: .*\n//r =~ s/\n/\r\n/gr }
        glob $h->dir . "/maildir/$user/new/*";
}

# The scanners' fields of a mail, sorted and with words for their numbers, and the mail without them.
sub apart {
    my ($mail) = @_;
    my ($head, $body) = $mail =~ /\A(.*?\r\n)(\r\n.*)\z/s;
    my @fields = grep {/^X-S(?:pam|mtpd)-/} my @all = $head =~ /(.*?\r\n)(?![ \t])/gs;
    my @named = sort map { s/\r\n//r =~ s/-?\d+\.\d/N/gr =~ s/tests=\K.*//r } @fields;
    return (\@named, join('', grep { !/^X-S(?:pam|mtpd)-/ } @all) . $body);
}

my @CLEAN_VIRUS = map {"X-Smtpd-Virus-Status: clean; scanner=$_"} qw(clamav clamd);
my @CLEAN_SPAM = ('X-Spam-Score: N', map {"X-Spam-Status: No, score=N required=N scanner=$_ tests="} qw(rspamd spamd));
my @INFECTED = map {"X-Smtpd-Virus-Status: infected; name=Eicar-Test$_"} '.UNOFFICIAL; scanner=clamav',
    '.UNOFFICIAL; scanner=clamd';
my @SPAM = ('X-Spam-Flag: YES', 'X-Spam-Score: N',
    map {"X-Spam-Status: Yes, score=N required=N scanner=$_ tests="} qw(rspamd spamd));

# Lines of the log about mails to a recipient; they are written behind the reply.
sub logged {
    my ($user, $pattern) = @_;
    return wait_for { scalar grep { /^\Q$user\E@/ && $_ =~ $pattern } split /\n/, $h->log('scans.log') };
}

# ---- Lua

my $http = HTTP::Tiny->new(timeout => 50);

sub lua {
    my ($host, $code) = @_;
    my $answer = $http->post('http://127.0.0.1:' . $h->port('web') . "/eval?$host.test:" . $h->port($host),
        { content => $code });
    die "$answer->{status} $answer->{content}" if $answer->{status} != 200;
    return @{ decode_json($answer->{content}) };
}

sub text { my ($octets) = @_; return '"' . $octets =~ s/([^\w ])/sprintf '\\x%02x', ord $1/ger . '"' }

sub counters { my ($c) = lua('all', 'return smtpd.counters()'); return $c }

# By how much counters have grown, once the first of them has grown that much: they may follow a reply.
sub grown {
    my ($before, $name, $by) = @_;
    my $now;
    wait_for { $now = counters(); $now->{$name} - $before->{$name} >= $by };
    return map { $_ => $now->{$_} - $before->{$_} } keys %$now;
}

subtest 'fifty at once' => sub {
    plan tests => 17;
    my %wanted = (clean => '250 2', base64 => '554 5.7.1 Message has a virus: Eicar-Test',
        zipped => '554 5.7.1 Message has a virus: Eicar-Test', spam => '550 5.7.1', mixed => '55[04] 5.7.1');
    my $before = counters();
    my @mails = map { { kind => $_, user => "m$serial", message => $make{$_}->() } } (sort keys %make) x 10;
    for my $m (@mails) {
        $m->{client} = $h->client('all', timeout => 55);
        $m->{ready} = join ' ', $m->{client}->pipeline('MAIL FROM:<a@b.test>', "RCPT TO:<$m->{user}\@d.test>", 'DATA');
    }
    is scalar(grep { $_->{ready} eq '250 250 354' } @mails), 50, 'all are ready to send';
    $_->{client}->send_raw(SMTPClient::stuff(
        $_->{kind} eq 'clean' ? $FORGED . $_->{message} : $_->{message}) . ".\r\n") for @mails;
    $_->{reply} = $_->{client}->read_reply . ' ' . $_->{client}->text for @mails;
    for my $kind (sort keys %wanted) {
        my @wrong = map { $_->{reply} } grep { $_->{kind} eq $kind && $_->{reply} !~ /^$wanted{$kind}/ } @mails;
        is_deeply \@wrong, [], "$kind: ten times $wanted{$kind}";
    }
    my @clean = grep { $_->{kind} eq 'clean' } @mails;
    $_->{arrived} = [arrived($_->{user})] for @mails;
    is scalar(grep { @{ $_->{arrived} } == 1 } @clean), 10, 'the clean ones arrive, once';
    is scalar(grep { $_->{kind} ne 'clean' && @{ $_->{arrived} } } @mails), 0, 'and no other';
    $_->{apart} = [apart($_->{arrived}[0] // "\r\n\r\n")] for @clean;
    is_deeply $clean[0]{apart}[0], [sort @CLEAN_VIRUS, @CLEAN_SPAM], 'with the fields of all four';
    is scalar(grep {"@{ $_->{apart}[0] }" eq "@{ $clean[0]{apart}[0] }"} @clean), 10, 'each of them';
    is scalar(grep { $_->{apart}[1] eq $_->{message} } @clean), 10, 'and as they were sent, to the octet';
    ok logged($mails[0]{user}, qr/ 554 .* virus=Eicar-Test(?:\.UNOFFICIAL)? scan=-$/), 'the log has the virus';
    ok logged($clean[0]{user}, qr/ 250 spam=No score=-?\d+\.\d\d virus=- scan=-$/), 'and that there is none';
    my %by = grown($before, refused => 40);
    is $by{scanned}, 50, 'counted: all were scanned';
    is_deeply [@by{qw(mails refused deferred scan_failed scan_skipped)}], [10, 40, 0, 0, 0], 'and answered';
    ok $by{virus} >= 20 && $by{virus} <= 30 && $by{spam} >= 10 && $by{spam} <= 20 && $by{virus} + $by{spam} >= 40,
        "viruses ($by{virus}) and spam ($by{spam})";
    $_->{client}->quit for @mails;
    is scalar(my @all = glob $h->dir . '/maildir/*/new/*'), 10, 'nothing else arrives anywhere';
};

# Recipients' names say what they do not want.
my $by_name = <<'LUA';
local a = s:getrcpt(-1).address
if a:find("virusless") or a:find("free") then s:unsetflag(-1, "viruscheck") end
if a:find("spamless") or a:find("free") then s:unsetflag(-1, "spamcheck") end
if a:find("careful") then s:setflag(-1, "viruscheck") end
LUA
my $by_sender = 'if s:getfrom():find("free") then s:unsetflag("viruscheck") s:unsetflag("spamcheck") end';
my $what_data_sees = <<'LUA';
local row = { (s:getflag() & smtpd.flag("gotspam")) ~= 0, (s:getflag() & smtpd.flag("gotvirus")) ~= 0 }
for _, rcpt in ipairs(s:getrcpt()) do
    row[#row + 1] = rcpt.flags & smtpd.flag("gotspam") ~= 0
    row[#row + 1] = rcpt.flags & smtpd.flag("gotvirus") ~= 0
    row[#row + 1] = rcpt.score
end
tell(table.unpack(row))
LUA

# What the data script has told, as words: of the session, of each recipient and his score.
sub seen {
    my @rows = map { my ($phase, @row) = @$_; $phase eq 'data' ? [@row] : () } $h->said;
    return join '; ', map {
        join ' ', map { !ref $_ && /^-?\d/ ? ($_ >= 100 ? 'high' : $_ == 0 ? 'none' : 'low') : $_ ? 'yes' : 'no' } @$_
    } @rows;
}

subtest 'recipients who want no scan' => sub {
    my @rows = (
        [base64 => ['user'], '554', undef],
        [base64 => ['user', 'virusless'], '250', [@INFECTED, @CLEAN_SPAM], 'no yes no yes SCORE no no SCORE'],
        [base64 => ['virusless'], '250', [@CLEAN_SPAM]],
        [base64 => ['spamless'], '554', undef],
        [base64 => ['user', 'spamless'], '554', undef],
        [base64 => ['free'], '250', []],
        [base64 => ['free', 'user'], '250', [@INFECTED, @CLEAN_SPAM]],
        [spam => ['user'], '550', undef],
        [spam => ['user', 'spamless'], '250', [@SPAM, @CLEAN_VIRUS], 'yes no yes no high no no none'],
        [spam => ['spamless'], '250', [@CLEAN_VIRUS]],
        [spam => ['virusless', 'user'], '550', undef],
        [spam => ['free'], '250', []],
        [mixed => ['user', 'free'], '250', [@SPAM, @INFECTED], 'yes yes yes yes high no no none'],
        [mixed => ['spamless', 'user'], '554', undef],
        [mixed => ['virusless', 'user'], '550', undef],
        [mixed => ['virusless', 'spamless'], '250', [@SPAM, @INFECTED], 'yes yes yes no high no yes none'],
        [clean => ['user', 'free'], '250', [@CLEAN_VIRUS, @CLEAN_SPAM]],
    );
    $h->script(rcpt => $by_name, data => $what_data_sees);
    for (@rows) {
        my ($kind, $names, $code, $fields, $seen) = @$_;
        subtest "$kind to @$names" => sub {
            my ($before, $message) = (counters(), $make{$kind}->());
            my @users = map {"$_$serial"} @$names;
            unlink $h->policy . '/said';
            like post('all', [map {"$_\@d.test"} @users], $message), qr/^$code /, "gets $code";
            for my $user (@users) {
                my @mails = arrived($user);
                is scalar @mails, $fields ? 1 : 0, $fields ? 'arrives' : 'does not arrive';
                my ($got, $rest) = apart($mails[0] // next);
                is_deeply $got, [sort @$fields], 'marked as it should be';
                ok $rest eq $message, 'and else as it was';
            }
            if (defined $seen) {
                like seen(), qr/\A@{[ $seen =~ s{SCORE}{(?:low|none)}gr ]}\z/, 'what a script sees of it';
            }
            my %by = grown($before, $fields ? 'mails' : 'refused', 1);
            is $by{scanned}, $fields && !@$fields ? 0 : 1, 'counted';
            done_testing;
        };
    }
    done_testing;
};

subtest 'a session that wants no scan' => sub {
    plan tests => 9;
    $h->script(mail => $by_sender, rcpt => $by_name, data => $what_data_sees);
    my $c = $h->client('all', timeout => 50);
    my $message = $FORGED . $make{mixed}->();
    like mail_by($c, "s$serial\@d.test", $message, 'free@b.test'), qr/^250 /, 'nothing is refused';
    ok +(arrived("s$serial"))[0] eq $message, 'nor marked, nor touched';
    ok logged("s$serial", qr/ 250 spam=- score=- virus=- scan=-$/), 'the log has no verdict';
    like mail_by($c, "careful$serial\@d.test", $make{base64}->(), 'free@b.test'), qr/^554 .*Eicar/,
        'but with a recipient who wants it';
    $h->script(mail => 's:setflag("viruscheck") s:setflag("spamcheck")', rcpt => $by_name, data => $what_data_sees);
    like mail_by($c, "t$serial\@d.test", $make{spam}->()), qr/^550 /, 'and when it is on again';
    like mail_by($c, ["u$serial\@d.test", "free$serial\@d.test"], $make{mixed}->()), qr/^250 /, 'marked';
    like mail_by($c, "v$serial\@d.test", $make{clean}->()), qr/^250 /, 'and a clean one behind it';
    like seen(), qr/\Ayes yes .*; no no no no (?:low|none)\z/, 'of which nothing is left then';
    is $c->quit, 221, 'all in one session';
};

subtest 'marked by all four' => sub {
    plan tests => 7;
    $h->script(data => $what_data_sees);
    my $message = $make{mixed}->();
    like post('tag', "w$serial\@d.test", $FORGED . $message), qr/^250 /, 'action=tag lets it in';
    my @mails = arrived("w$serial");
    is scalar @mails, 1, 'once';
    my ($fields, $rest) = apart($mails[0] // "\r\n\r\n");
    is_deeply $fields, [sort @SPAM, @INFECTED], 'with what each has found';
    ok $rest eq $message, 'and else as it was';
    is seen(), 'yes yes yes yes high', 'scripts see it';
    ok logged("w$serial", qr/ 250 spam=Yes score=\d{3,4}\.\d\d virus=Eicar-Test\S* scan=-$/), 'the log has it';
    is scalar(grep { $h->log('error.log') =~ /NS0082: \S+ SmtpdScanner $_: .*passes, marked/ } sort keys %line), 4,
        'and the error log what each of them said';
};

subtest 'questions of scripts' => sub {
    plan tests => 15;
    $h->script;
    my ($version) = lua('all', 'return smtpd.virusversion()');
    like $version, qr/\AClamAV \d+\.\S+.*\nClamAV \d+\.\S+.*\z/, 'virusversion: both' or diag $version;
    ($version) = lua('all', 'return smtpd.spamversion()');
    like $version, qr/SpamAssassin \d+\.\d+\.\d+ \(\d{4}-\d\d-\d\d\)/, 'spamversion: the one';
    like $version, qr/rspamd \d+\.\d+/, 'and the other';
    my $ask = sub { my ($name, $octets) = @_; return lua('all', "return smtpd.check$name(" . text($octets) . ')') };
    for my $row ([data => $EICAR], [archive => $zip], [mail => $make{base64}->()], ['a mail with LF' =>
        $make{zipped}->() =~ s/\r\n/\n/gr], map { ['a mail that begins with a field of its own' => $_] }
        map { $_, s/\r\n/\n/gr } ClamdInstance::mail_with($EICAR, first => "X-Zork: 1\r\n 2\r\n")) {
        like +($ask->(virus => $row->[1]))[0], qr/\AEicar-Test/, "checkvirus: $row->[0]";
    }
    is_deeply [$ask->(virus => $_)], [''], 'checkvirus: nothing' for 'harmless', $make{spam}->();
    my ($word, $score) = $ask->(spam => $make{spam}->());
    is $word, 'Spam', 'checkspam: spam';
    cmp_ok $score, '>=', 100, 'with its score';
    ($word, $score) = $ask->(spam => $make{clean}->() =~ s/\r\n/\n/gr);
    is $word, 'Innocent', 'checkspam: none';
    cmp_ok $score, '<', 5, 'with its score';
};

subtest 'mails that scripts send' => sub {
    plan tests => 10;
    my $send = sub {
        my ($message) = @_;
        my ($ok, $what, $more) = lua('send', 'return smtpd.send("a@b.test", {"x' . $serial . '@d.test"}, '
            . text($message) . ')');
        return $ok ? ($what, undef) : ($more, $what);
    };
    for my $row ([base64 => 554], [zipped => 554], [spam => 550]) {
        my ($result, $why) = $send->($make{ $row->[0] }->());
        is $result->{code} . ' ' . ($result->{phase} // ''), "$row->[1] scan", "$row->[0] is refused";
        is scalar(my @none = arrived("x$serial")), 0, 'and does not arrive';
    }
    my $message = $make{clean}->();
    my ($result, $why) = $send->($message);
    is $result->{code}, 250, 'a clean one is sent' or diag $why;
    my @mails = arrived("x$serial");
    is scalar @mails, 1, 'and arrives';
    my ($fields, $rest) = apart($mails[0] // "\r\n\r\n");
    is_deeply $fields, [sort @CLEAN_VIRUS, @CLEAN_SPAM], 'with the fields of all four';
    ok $rest =~ s/\AReceived: .*?\r\n(?![ \t])//sr eq $message, 'and else as it was' or diag $rest;
};

# A mail of many words that no other one has, the same ones for a seed.
sub mail_of {
    my ($seed) = @_;
    srand $seed;
    my $words = join ' ', map { join '', map { chr 97 + rand 26 } 1 .. 8 } 1 .. 60;
    return head() . "Subject: words\r\n\r\n" . ($words =~ s/(.{1,60}) /$1\r\n/gr) . "\r\n";
}

subtest 'learning' => sub {
    plan tests => 7;
    for my $round (1, 2) { # for rspamd a word counts from its second mail on
        for ([1, 1, 'spam'], [2, 0, 'none']) {
            my ($seed, $is_spam, $what) = @$_;
            is_deeply [lua('all', "return smtpd.trainspam($is_spam, 'c\@d.test', "
                . text(mail_of($seed) . "$round\r\n") . ')')], [JSON::PP::true], "this is $what";
        }
    }
    my ($ok, $why) = lua('all', 'return smtpd.trainspam(2, "c@d.test", "x")');
    ok !$ok && $why, 'two is neither';
    for ([1, 'SPAM|99|999|95|80'], [2, 'HAM|00|05|20']) {
        my ($seed, $rules) = @$_;
        post('tag', "learnt$seed\@d.test", mail_of($seed));
        my @by = ((arrived("learnt$seed"))[0] // '') =~ /^X-Spam-Status: .* scanner=(\w+) tests=.*BAYES_(?:$rules)\b/mg;
        is "@{[ sort @by ]}", 'rspamd spamd', 'both have learnt it';
    }
};

# ---- all daemons killed, each by its id, with the children that it had

sub kill_all {
    my (@pids) = @_;
    kill STOP => @pids;
    my @children = map { -r "/proc/$_/task/$_/children" ? split ' ', slurp("/proc/$_/task/$_/children") : () } @pids;
    kill KILL => @pids, @children;
    return wait_for { !grep { connects($_) } $clamd->port, $spamd->port, $rspamd->port };
}

sub connects { return defined IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $_[0]) }

my $before = counters();

subtest 'every daemon killed' => sub {
    plan tests => 9;
    ok kill_all($clamd->pid, $spamd->pid, $rspamd->pids), 'they are gone';
    my @clients = map { $h->client('all', timeout => 50) } 1 .. 10;
    my $before_them = $serial;
    for my $c (@clients) {
        my $message = $make{clean}->();
        $c->pipeline('MAIL FROM:<a@b.test>', "RCPT TO:<down$serial\@d.test>", 'DATA');
        $c->send_raw(SMTPClient::stuff($message) . ".\r\n");
    }
    my @replies = map { $_->read_reply . ' ' . $_->text } @clients;
    is scalar(grep {/^451 4\.7\.1 /} @replies), 10, 'ten clients are to try again later' or diag "@replies";
    is scalar(my @none = glob $h->dir . '/maildir/down*/new/*'), 0, 'and nothing arrives';
    ok logged("down$serial", qr/ 451 spam=- score=- virus=- scan=-$/), 'the log has no verdict';
    like $h->log('error.log'), qr/NS0080: \S+ SmtpdScanner $_: .*Connection refused.* gets 451/, "${_}'s absence is told"
        for qw(clamd spamd rspamd);
    like post('all', 'v@d.test', $make{base64}->()), qr/^554 .*Eicar/, 'what libclamav finds is refused all the same';
    my %by = grown($before, scan_failed => 30);
    cmp_ok $by{scan_failed}, '>=', 30, 'each failure is counted';
};

subtest 'onerror=accept' => sub {
    plan tests => 10;
    my ($count, $message) = (counters(), $make{clean}->());
    like post('lax', "y$serial\@d.test", $FORGED . $message), qr/^250 /, 'it is let in';
    my @mails = arrived("y$serial");
    is scalar @mails, 1, 'and arrives';
    my ($fields, $rest) = apart($mails[0] // "\r\n\r\n");
    is_deeply $fields, [sort $CLEAN_VIRUS[0], map {"X-Smtpd-Scan-Status: failed; scanner=$_"} qw(clamd rspamd spamd)],
        'marked';
    ok $rest eq $message, 'and else as it was';
    ok logged("y$serial", qr/ 250 spam=- score=- virus=- scan=.*clamd: .*refused/), 'the log says who failed';
    ok logged("y$serial", qr/ scan=.*\b$_: [^;]*refused/), "and names $_" for qw(spamd rspamd);
    my %by = grown($count, mails => 1);
    is "$by{scan_failed} $by{scanned}", '3 1', 'counted';
    like post('lax', "y$serial\@d.test", $make{zipped}->()), qr/^554 .*Eicar/, 'a virus is refused all the same';
    my ($nothing, $why) = lua('all', 'return smtpd.checkspam(' . text($make{spam}->()) . ')');
    like $why, qr/spamd|rspamd|later/, 'checkspam says that nobody can say' or diag $nothing;
};
