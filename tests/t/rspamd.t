# rspamd: a real one for its actions, its changes of the header and what it is told; and a fake one
# that is down, hangs, dies and talks nonsense. The mails go through mod_nssmtpd into Maildirs.
use strict;
use warnings;
use FakeDaemon;
use FreePort;
use OwnHttpd;
use RspamdInstance;
use SpamHttpd;
use Test::More;
use Time::HiRes qw(time);

plan skip_all => RspamdInstance->missing if RspamdInstance->missing;
plan tests => 15;

# A mail's subject says what is to be done with it, and "tell" what is known of it.
my $rspamd = RspamdInstance->new(password => 'controller-pass', lua => <<'LUA')->start;
rspamd_config:register_symbol{ name = 'ASKED', type = 'prefilter', callback = function(task)
    local action = (task:get_subject() or ''):match('please (.*)$')
    if action then task:set_pre_result(action, 'Because you asked') end
end }
local function addresses(list)
    local all = {}
    for _, a in ipairs(list or {}) do all[#all + 1] = a.addr end
    return table.concat(all, ',')
end
rspamd_config:register_symbol{ name = 'TELL', type = 'postfilter', callback = function(task)
    local subject = task:get_subject() or ''
    if subject:find('tell', 1, true) then
        task:set_milter_reply{
            remove_headers = { ['X-Forged'] = 0, ['Received'] = 0, ['X-Told'] = 1 },
            add_headers = {
                ['X-Told'] = table.concat({ tostring(task:get_ip()), task:get_helo() or '-',
                    addresses(task:get_from('smtp')), addresses(task:get_recipients('smtp')),
                    task:get_user() or '-', task:get_queue_id() or '-',
                    tostring(task:get_request_header('MTA-Name')),
                    tostring(task:get_request_header('Deliver-To')) }, ' '),
                ['X-Folded'] = 'one\r\n\ttwo\r\n  three',
                ['X-Two'] = { { value = 'a', order = 1 }, { value = 'b', order = -1 } },
                ['X-Injected: yes\r\nX-Other'] = 'name',
                ['X-Injection'] = 'value\r\nX-Injected: yes\r\n\r\nbody\194\133',
                ['X-Long'] = ('x'):rep(5000),
            },
        }
    end
    local wish = subject:match('milter (.*)$')
    if wish then task:set_milter_reply{ reject = wish } end
end }
LUA
my $fake = FakeDaemon->new;
my $closed = '127.0.0.1:' . FreePort::pick();

my %scanner = (
    plain  => 'rspamd ' . $rspamd->address,
    tag    => 'rspamd ' . $rspamd->address . ' action=tag',
    scores => 'rspamd ' . $rspamd->address . ' reject=1000 tag=10',
    lax    => 'rspamd ' . $rspamd->address . ' quarantine=accept discard=tag user=%r',
    gone   => 'rspamd ' . $rspamd->address . ' quarantine=reject action=discard',
    small  => 'rspamd ' . $rspamd->address . ' maxsize=1K oversize=reject',
    down   => "rspamd $closed",
    open   => "rspamd $closed onerror=accept",
    fake   => 'rspamd ' . $fake->address . ' timeout=2',
    user   => 'rspamd ' . $fake->address . ' user=%u+x/%d',
    named  => 'rspamd ' . $fake->address . "\nHostnameLookups Double",
);
my $h = SpamHttpd->new(scanners => \%scanner, others => ['other@d.test'])->start;

sub mail { return $h->mail(@_) }

sub about { return "${head}Subject: $_[0]\r\n" . ($_[1] // '') . "\r\nSee you at six.\r\n" }

subtest 'a clean mail arrives with the verdict' => sub {
    plan tests => 4;
    my ($reply, $got) = mail('plain', about('hello', "X-Spam-Flag: YES\r\nX-Spam-Status: No, forged\r\n"
        . "X-Spam-Score: -100\r\n"));
    like $reply, qr/^250 2\.0\.0/, 'taken';
    like $got, qr/^X-Spam-Status: No, score=-?[\d.]+ required=15\.0 scanner=rspamd tests=/m, 'status';
    like $got, qr/^X-Spam-Score: -?\d/m, 'score';
    unlike $got, qr/forged|-100|X-Spam-Flag/, 'what the sender says of it is gone';
};

subtest 'GTUBE is refused' => sub {
    plan tests => 4;
    my ($reply, $got) = mail('plain', "${head}Subject: buy\r\n\r\n$gtube\r\n");
    like $reply, qr/^550 5\.7\.1 Gtube pattern/, 'the reply, in its words';
    is $got, '', 'nothing arrives';
    like $h->log('error.log'), qr/spam, 15\.0 of 15\.0, GTUBE/, 'the log says why';
    ($reply, $got) = mail('tag', "${head}Subject: buy\r\n\r\n$gtube\r\n");
    like "$reply $got", qr/^250 .*^X-Spam-Flag: YES$/ms, 'or marked, with action=tag';
};

subtest 'its actions' => sub {
    my @rows = (    # subject, host, reply, what arrives
        ['please no action',     'plain', qr/^250 /, qr/^X-Spam-Status: No,/m],
        ['please greylist',      'plain', qr/^250 /, qr/^X-Spam-Status: No,/m],
        ['please add header',    'plain', qr/^250 /, qr/^X-Spam-Flag: YES\n.*^Subject: please/ms],
        ['please soft reject',   'plain', qr/^451 4\.7\.1 Because you asked/, qr/^\z/],
        ['please reject',        'plain', qr/^550 5\.7\.1 Because you asked/, qr/^\z/],
        ['please reject',        'tag',   qr/^250 /, qr/^X-Spam-Flag: YES$/m],
        ['please soft reject',   'tag',   qr/^451 4\.7\.1 Because you asked/, qr/^\z/],
        ['please quarantine',    'plain', qr/^250 /, qr/^X-Spam-Flag: YES$/m],
        ['please quarantine',    'lax',   qr/^250 /, qr/^X-Spam-Status: No,/m],
        ['please quarantine',    'gone',  qr/^250 /, qr/^\z/],
        ['please discard',       'plain', qr/^550 5\.7\.1 Because you asked/, qr/^\z/],
        ['please discard',       'lax',   qr/^250 /, qr/^X-Spam-Flag: YES$/m],
        ['please discard',       'gone',  qr/^250 /, qr/^\z/],
        ['milter discard',       'plain', qr/^550 5\.7\.1 /, qr/^\z/],
        ['milter quarantine',    'plain', qr/^250 /, qr/^X-Spam-Flag: YES$/m],
        ['please wonder',        'plain', qr/^451 4\.7\.1 /, qr/^\z/],
        ['please rewrite subject', 'plain', qr/^250 /, qr/^Subject: \[SPAM\] please rewrite subject$/m],
    );
    plan tests => 2 * @rows + 2;
    for (@rows) {
        my ($subject, $host, $wanted, $arrives) = @$_;
        my ($reply, $got) = mail($host, about($subject));
        like $reply, $wanted, "$subject, $scanner{$host}";
        like $got, $arrives, 'what arrives';
    }
    like $h->log('error.log'), qr/rspamd: .*unknown action: wonder/, 'the unknown one is in the log';
    like $h->log('error.log'), qr/NS0083: \S+ discarded: .*rspamd/, 'and the discarded one';
};

subtest 'another subject, with octets' => sub {
    plan tests => 3;
    my ($reply, $got) = mail('plain', about("h\xc3\xa4llo please rewrite subject"));
    like $reply, qr/^250 /, 'taken';
    is scalar(() = $got =~ /^Subject:/mg), 1, 'one subject';
    like $got, qr/^Subject: =\?UTF-8\?Q\?=5BSPAM=5D_h=C3=A4llo/m, 'as rspamd encodes it';
};

subtest 'what it is told, and what it does to the header' => sub {
    plan tests => 13;
    my ($reply, $got) = mail('lax', about('tell me', "X-Forged: 1\r\nx-forged: 2\r\nX-Told: you\r\n"
        . "Received: from x by y; Sat, 21 Nov 2026 10:00:00 +0000\r\n"), from => 'me@home.test');
    like $reply, qr/^250 /, 'taken';
    like $got, qr/^X-Told:\ 127\.0\.0\.1\ me\.test\ me\@home\.test\ u$h->{serial}\@d\.test,other\@d\.test
        \ -\ \S+\ lax\.test\ u$h->{serial}\@d\.test$/mx, 'the envelope';
    unlike $got, qr/^X-Forged/mi, 'a field is removed, all of them';
    unlike $got, qr/^X-Told: you/m, 'and one that is replaced';
    like $got, qr/^Received: from x by y/m, 'but not the trace';
    like $got, qr/^X-Folded: one two three$/m, 'folds';
    like $got, qr/^X-Two: [ab]\n(?:.*\n)*?X-Two: [ab]$/m, 'two of a name';
    unlike $got, qr/^X-Injected/m, 'nothing is injected';
    like $got, qr/^X-Injection: value X-Injected: yes body\?\?$/m, 'a value is one line of ASCII';
    like $got, qr/^X-Long: x{900}$/m, 'with an end';
    unlike $got, qr/name$/m, 'a name that is none is left out';
    my @left_out = $h->log('error.log') =~ /NS0090: \S+ rspamd wants .*?: (\S.*)/g;
    is scalar(grep {/^Received$/} @left_out), 1, 'and what is not done is in the log';
    is scalar(grep {/^X-Injected: yes\\+r\\+nX-Other$/} @left_out), 1, 'escaped';
};

subtest 'what it is asked' => sub {
    plan tests => 6;
    $fake->answer("HTTP/1.1 200 OK\r\nContent-Length: 34\r\n\r\n" . '{"action":"no action","score":1.5}');
    my ($reply, $got) = mail('user', about('hello'), from => '', rcpt => ['"a b"@D.test', 'x@d.test']);
    like $reply, qr/^250 /, 'answered';
    my ($question, $message) = ($fake->questions)[0] =~ /\A(.*?\r\n)\r\n(.*)\z/s;
    is_deeply [grep { !/^Queue-Id: \S+\r\n\z/ } $question =~ /(.*?\r\n)/g],
        [map {"$_\r\n"} 'POST /checkv2 HTTP/1.1', 'Host: 127.0.0.1', 'Connection: close',
        'MTA-Name: user.test', 'IP: 127.0.0.1', 'Helo: me.test', 'Deliver-To: a_b+x_d.test', 'From: <>',
        'Rcpt: <"a b"@D.test>', 'Rcpt: <x@d.test>', 'Content-Length: ' . length $message], 'the head';
    is $message, about('hello'), 'the message as it came';
    mail('named', about('hello'));
    like +($fake->questions)[-1], qr/^Hostname: [a-z]/m, 'a known name';
    my @many = map {"recipient.number.$_.of.many\@example-domain-$_.test"} 1 .. 100;
    ($reply) = mail('fake', about('many'), rcpt => \@many);
    like $reply, qr/^250 /, 'to a hundred recipients';
    is scalar(() = ($fake->questions)[-1] =~ /^Rcpt:/mg), 100, 'which are all told';
};

sub http { return "HTTP/1.1 200 OK\r\n$_[0]\r\n$_[1]" }

subtest 'answers that are taken' => sub {
    my $json = '{"action":"reject","score":1e3,"required_score":15,"symbols":{"A":{},"B C":{}}}';
    my $n = length $json;
    my $half = int $n / 2;
    my $chunked = sprintf "%x;x=y\r\n%s\r\n%X\r\n%s\r\n0\r\n\r\n", $half, substr($json, 0, $half),
        $n - $half, substr $json, $half;
    my @rows = (
        ['a length', http("Content-Length: $n\r\n", $json)],
        ['byte by byte', { drip => [http("Content-Length: $n\r\n", $json), 0.002] }],
        ['a length and more behind it', http("content-length:$n\r\n", $json . '}' x 1000)],
        ['up to the end', http('', $json)],
        ['chunked', http("Transfer-Encoding: chunked\r\n", $chunked)],
        ['chunked, byte by byte', { drip => [http("Transfer-Encoding: chunked\r\n", $chunked), 0.002] }],
        ['chunked, with a field behind', http("Transfer-Encoding: chunked\r\n", $chunked =~ s/\r\n\z/X: y\r\n\r\n/r)],
        ['HTTP/1.0', "HTTP/1.0 200 OK\r\n\r\n$json"],
    );
    plan tests => 2 * @rows;
    for (@rows) {
        my ($name, $answer) = @$_;
        $fake->answer($answer);
        my $before = length $h->log('error.log');
        my ($reply) = mail('fake', about('hello'));
        like $reply, qr/^550 5\.7\.1 /, $name;
        like substr($h->log('error.log'), $before), qr/spam, 1000\.0 of 15\.0, A,B\?C/, "$name: the log";
    }
};

subtest 'answers that are not believed' => sub {
    my $ok = '{"action":"no action","score":1}';
    my $no_http = qr/the answer is no HTTP/;
    my $cut = qr/closed the connection in the middle of the answer/;
    my $no_json = qr/the answer is no JSON: /;
    my @rows = (
        ['nothing', '', qr/closed the connection without an answer/],
        ['half a head', "HTTP/1.1 200 OK\r\nContent-Le", $cut],
        ['half a body', http("Content-Length: 32\r\n", '{"action"'), $cut],
        ['half a chunk', http("Transfer-Encoding: chunked\r\n", "20\r\n{\"action\""), $cut],
        ['no last chunk', http("Transfer-Encoding: chunked\r\n", "20\r\n$ok\r\n"), $cut],
        ['a chunk that is too short', http("Transfer-Encoding: chunked\r\n", "5\r\n$ok\r\n0\r\n\r\n"), $no_http],
        ['a size that is none', http("Transfer-Encoding: chunked\r\n", "0x20\r\n$ok\r\n0\r\n\r\n"), $no_http],
        ['a negative size', http("Transfer-Encoding: chunked\r\n", "-1\r\n$ok\r\n0\r\n\r\n"), $no_http],
        ['a huge size', http("Transfer-Encoding: chunked\r\n", "ffffffffffffffff\r\n$ok\r\n0\r\n\r\n"), $no_http],
        ['a large size', http("Transfer-Encoding: chunked\r\n", "7fffffff\r\n$ok\r\n0\r\n\r\n"), $cut],
        ['both lengths', http("Transfer-Encoding: chunked\r\nContent-Length: 32\r\n", $ok), $no_http],
        ['two lengths', http("Content-Length: 32\r\nContent-Length: 3\r\n", $ok), $no_http],
        ['a negative length', http("Content-Length: -1\r\n", $ok), $no_http],
        ['a huge length', http("Content-Length: 99999999999999999999\r\n", $ok), $no_http],
        ['another coding', http("Transfer-Encoding: gzip\r\n", $ok), $no_http],
        ['compressed', http("Content-Encoding: zstd\r\n", $ok), $no_http],
        ['a NUL', http("X: \0\r\n", $ok), $no_http],
        ['a field without a colon', http("X\r\n", $ok), $no_http],
        ['another protocol', "SPAMD/1.1 0 EX_OK\r\n\r\n", $no_http],
        ['HTTP/2', "HTTP/2 200\r\n\r\n$ok", $no_http],
        ['status 400', "HTTP/1.1 400 Bad\r\n\r\n{\"error\":\"no\\nlines\"}", qr/answered 400: no lines;?/],
        ['503 without words', "HTTP/1.1 503 Busy\r\n\r\n", qr/answered 503/],
        ['200 without a body', http("Content-Length: 0\r\n", ''), $no_json],
        ['no JSON', http('', '<html>'), $no_json],
        ['JSON without end', http('', substr $ok, 0, -1), $no_json],
        ['a list', http('', "[$ok]"), qr/no JSON object/],
        ['no score', http('', '{"action":"no action"}'), qr/no action and score/],
        ['a score that is none', http('', '{"action":"no action","score":"1"}'), qr/no action and score/],
        ['a score too large', http('', '{"action":"no action","score":1e999}'), $no_json],
        ['no action', http('', '{"score":1}'), qr/no action and score/],
        ['an action that is none', http('', '{"action":"x\u0001y","score":1}'), qr/unknown action: x\?y/],
        ['depth', http('', '[' x 100_000), $no_json],
        ['depth in an object', http('', '{"action":' x 50_000), $no_json],
        ['octets', join('', map { chr($_ * 7 % 256) } 1 .. 500), $no_http],
        ['an endless head', { endless => "HTTP/1.1 200 OK\r\n" . 'X: y' . 'z' x 1000 . "\r\n" },
            qr/no HTTP|does not end/],
        ['an endless body', { endless => http('', '[') }, qr/the answer does not end/],
        ['endless chunks', { endless => http("Transfer-Encoding: chunked\r\n", "1\r\nx\r\n" x 100) },
            qr/the answer does not end/],
        ['its death', { die => 50 }, qr/reset by peer|without an answer/],
    );
    plan tests => 2 * @rows;
    for (@rows) {
        my ($name, $answer, $why) = @$_;
        $fake->answer($answer);
        my $before = length $h->log('error.log');
        my ($reply) = mail('fake', about('hello'));
        like $reply, qr/^451 4\.7\.1 /, $name;
        like substr($h->log('error.log'), $before), qr/NS0080: \S+ SmtpdScanner rspamd: .*$why/, "$name: why";
    }
};

subtest 'hanging' => sub {
    plan tests => 4;
    for ([hang => 1], [drip => [http('', ' ' x 400), 0.1]]) {
        $fake->answer({@$_});
        my $began = time;
        my ($reply) = mail('fake', about('hello'));
        like $reply, qr/^451 4\.7\.1 /, "$_->[0]: tried again later";
        cmp_ok time - $began, '<', 4, 'after timeout=';
    }
};

subtest 'too large' => sub {
    plan tests => 4;
    my ($reply) = mail('small', about('large') . 'x' x 998 . "\r\n");
    like $reply, qr/^552 5\.3\.4 /, 'by maxsize=, and oversize=reject' or diag $reply;
    my $got;
    $fake->answer({ early => "HTTP/1.1 413 Too much\r\nContent-Length: 0\r\n\r\n" });
    ($reply, $got) = mail('fake', about('large'));
    like $reply, qr/^250 /, 'by its own word, and oversize=accept';
    like $got, qr/^X-Smtpd-Scan-Status: skipped, too large; scanner=rspamd$/m, 'with a word of it';
    ($reply) = mail('plain', about('please reject') . ('x' x 70 . "\r\n") x 20_000);
    like $reply, qr/^550 5\.7\.1 /, 'not too large: 1.4 MB';
};

subtest 'down' => sub {
    plan tests => 5;
    my ($reply, $got) = mail('down', about('hello'));
    like $reply, qr/^451 4\.7\.1 /, 'by default the client tries again';
    is $got, '', 'nothing arrives';
    like $h->log('error.log'), qr/NS0080: .*rspamd: \Q$closed\E: Connection refused/, 'the log';
    ($reply, $got) = mail('open', about('hello'));
    like $reply, qr/^250 /, 'onerror=accept';
    like $got, qr/^X-Smtpd-Scan-Status: failed; scanner=rspamd$/m, 'is marked';
};

subtest 'scores of the configuration' => sub {
    plan tests => 2;
    my ($reply, $got) = mail('scores', "${head}Subject: buy\r\n\r\n$gtube\r\n");
    like $reply, qr/^250 /, 'below reject=: taken';
    like $got, qr/^X-Spam-Flag: YES$/m, 'above tag=: marked';
};

sub teach { return $h->teach('rspamd', address => $rspamd->address, @_) }

subtest 'version' => sub {
    plan tests => 4;
    like teach(verb => 'version'), qr/\Aok rspamd \d+\.\d+(?:\.\d+)?\z/, 'of the real one';
    like teach(verb => 'version', address => $closed), qr/\Ano \Q$closed\E: Connection refused\z/, 'of nobody';
    $fake->answer(http('', "pong\r\n"));
    is teach(verb => 'version', address => $fake->address), 'ok rspamd', 'of one that says none';
    $fake->answer("HTTP/1.1 200 OK\r\nServer: web\r\n\r\nhello");
    like teach(verb => 'version', address => $fake->address), qr/\Ano .*this is not rspamd\z/, 'of a web server';
};

sub mail_of { my ($seed, $more) = @_; return about('words') . words($seed) . ($more // '') }

subtest 'learning' => sub {
    plan tests => 12;
    my @keys = (keys => 'controller=' . $rspamd->controller . ' password=controller-pass');
    my ($spam, $ham) = map { mail_of($_) } 1, 2;
    my (undef, $got) = mail('plain', $spam);
    unlike $got, qr/BAYES_/, 'at first it knows nothing';
    is teach(@keys, verb => 'spam', message => $spam), 'ok ', 'this is spam';
    is teach(@keys, verb => 'ham', message => $ham), 'ok ', 'and this is none';
    teach(@keys, verb => 'spam', message => mail_of(1, "again and again\r\n")); # a word counts from its second mail on
    teach(@keys, verb => 'ham', message => mail_of(2, "again and again\r\n"));
    (undef, $got) = mail('plain', $spam);
    like $got, qr/^X-Spam-Status: .*\bBAYES_SPAM\b/m, 'it knows the one';
    (undef, $got) = mail('plain', $ham);
    like $got, qr/^X-Spam-Status: .*\bBAYES_HAM\b/m, 'and the other';
    is teach(@keys, verb => 'spam', message => $spam), 'ok ', 'to learn again is no error';
    like teach(keys => 'controller=' . $rspamd->controller . ' password=wrong', verb => 'spam',
        message => $spam), qr/\Ano .*: answered 40[13]: Unauthorized\z/, 'without the password it does not';
    $h->write_file('password', "controller-pass\n");
    is teach(keys => 'controller=' . $rspamd->controller . ' password=file:' . $h->dir . '/password',
        verb => 'ham', message => $ham), 'ok ', 'with one in a file it does';
    like teach(keys => "controller=$closed", verb => 'spam'), qr/\Ano \Q$closed\E: Connection refused/, 'nobody';
    $fake->answer(http("Content-Length: 16\r\n", '{"success":true}'));
    is teach(keys => 'controller=' . $fake->address . ' password=p', verb => 'ham', message => "a\r\n",
        rcpt => 'alice'), 'ok ', 'a fake one';
    my ($question) = $fake->questions;
    like $question, qr{\APOST /learnham HTTP/1\.1\r\n}, 'is asked to learn';
    like $question, qr/^Deliver-To: alice\r\n(?:.*\n)*Password: p\r\n(?:.*\n)*\r\na\r\n\z/m, 'for the user';
};

subtest 'what httpd -t says' => sub {
    plan tests => 9;
    for (['rspamd 127.0.0.1:1 passwort=secret', qr/rspamd: passwort= is none of its keys$/m],
         ['rspamd 127.0.0.1 password=', qr/rspamd: password= is to be the controller's password/],
         ['rspamd 127.0.0.1 password=file:/no/secret', qr/rspamd: password= is to be/],
         ['rspamd 127.0.0.1 password=env:NO_SECRET', qr/rspamd: password= is to be/],
         ['rspamd 127.0.0.1 discard=no', qr/rspamd: quarantine= and discard= are reject, tag or accept/]) {
        my ($line, $wanted) = @$_;
        my (undef, $said) = OwnHttpd->new(hosts => { x => "SmtpdEngine on\nSmtpdRelay discard:\n"
            . "SmtpdScanner $line" })->check;
        like $said, $wanted, $line;
        unlike $said, qr/secret/i, 'without the password' if $line =~ /secret/i;
    }
    unlike $h->log('error.log'), qr/controller-pass/, 'nor is it in a log';
};
