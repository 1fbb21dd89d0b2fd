# What scripts change and what they see of all children: the lists of relay permission, the sessions,
# the counters. Each part has an httpd of its own with several children and a web page that runs Lua.
use strict;
use warnings;
use Cwd qw(abs_path);
use File::Basename qw(dirname);
use HTTP::Tiny;
use JSON::PP;
use OwnHttpd;
use SMTPClient;
use TestHost qw(wait_for);
use Test::More tests => 10;

my $mpm = $ENV{TEST_MPM} // 'event';
my $main = $mpm eq 'prefork' ? "ServerLimit 40\nStartServers 20\nMinSpareServers 5\nMaxRequestWorkers 40\n"
    : "ThreadLimit 10\nThreadsPerChild 10\nServerLimit 6\nStartServers 3\nMaxRequestWorkers 60\n"
    . 'MaxSpareThreads 60';
my $pages = abs_path(dirname(__FILE__) . '/lua/http.lua');
my $cpath = dirname($ENV{MODULE} // abs_path(dirname(__FILE__) . '/../../build/mod_nssmtpd.so'));
my $page = qq{LuaPackageCPath $cpath/?.so\nLuaMapHandler "^/lua/(\\w+)\$" $pages \$1\n};
my $stranger = "SmtpdEngine on\nSmtpdRelay discard:\nSmtpdTrustedClients none\n"
    . "SmtpdRelayDomains listed.test sub.listed.test=maildir:%DIR%/maildir/%u\n";

sub start {
    my (%hosts) = @_;
    return OwnHttpd->new(main => $main, modules => ['lua'],
        hosts => { mail => $stranger, web => $page, %hosts })->start;
}

# What the code returns, with the SMTP host in use; each request may be another child's.
sub lua {
    my ($h, $code, $host) = @_;
    $host //= 'mail';
    my $use = qq{assert(smtpd.use("$host.test:} . $h->port($host) . qq{"))\n};
    my $answer = HTTP::Tiny->new(timeout => 30)
        ->post('http://127.0.0.1:' . $h->port('web') . '/lua/eval', { content => $use . $code });
    die "$answer->{status} $answer->{content}" if $answer->{status} != 200;
    my ($ok, @got) = map { JSON::PP::is_bool($_) ? 0 + $_ : $_ } @{ decode_json($answer->{content}) };
    die "$code: $got[0]" if !$ok;
    return wantarray ? @got : $got[0];
}

sub fails_ok {
    my ($h, $code, $pattern) = @_;
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    my ($nothing, $message) = lua($h, "return $code");
    ok !defined $nothing && ($message // '') =~ $pattern, $code or diag $message // 'no message';
}

# Sessions with a MAIL said, in more than one child.
sub sessions {
    my ($h, $n, %a) = @_;
    my @c = map { SMTPClient->new(port => $h->port('mail'), %a) } 1 .. $n;
    $_->pipeline('EHLO me.test', 'MAIL FROM:<a@b.test>') for @c;
    my %children = map { $_->{child} => 1 } @{ lua($h, 'return smtpd.sessions()') };
    cmp_ok scalar(keys %children), '>', 1, "$n sessions in several children";
    return @c;
}

sub rcpt_codes {
    my ($address, @c) = @_;
    my %codes;
    $codes{ $_->cmd("RCPT TO:<$address>") }++ for @c;
    return \%codes;
}

subtest 'relay: every child follows from the next command on' => sub {
    plan tests => 9;
    my $h = start();
    my @c = sessions($h, 20);
    is_deeply rcpt_codes('x@new.test', @c), { 550 => 20 }, 'a domain that is not listed';
    is lua($h, 'return smtpd.relay.add("New.Test")'), 1, 'it is added';
    is_deeply rcpt_codes('x@sub.new.test', @c), { 250 => 20 }, 'all take it at once';
    is_deeply lua($h, 'return smtpd.relay.get()'),
        ['listed.test', "sub.listed.test=maildir:$h->{dir}/maildir/%u", 'New.Test'], 'get';
    is_deeply rcpt_codes('x@listed.test', @c), { 250 => 20 }, 'what was configured stays';
    is lua($h, 'return smtpd.relay.del("new.test")'), 1, 'it is deleted';
    is_deeply rcpt_codes('x@new.test', @c), { 550 => 20 }, 'all refuse it at once';
    lua($h, 'return smtpd.relay.clear()');
    is_deeply rcpt_codes('x@listed.test', @c), { 550 => 20 }, 'clear takes the configured ones too';
};

subtest 'locals: every child follows from the next command on' => sub {
    plan tests => 9;
    my $h = start();
    my @c = sessions($h, 20, local => '127.0.0.2');
    my @other = map { SMTPClient->new(port => $h->port('mail'), local => '127.0.1.1') } 1 .. 3;
    $_->pipeline('EHLO me.test', 'MAIL FROM:<a@b.test>') for @other;
    is_deeply rcpt_codes('x@any.test', @c), { 550 => 20 }, 'strangers';
    is_deeply [lua($h, 'return smtpd.locals.add("127.0.0.0/24"), smtpd.locals.check("127.0.0.2"),
        smtpd.locals.check("127.0.1.1")')], [1, 1, 0], 'their network is added';
    is_deeply rcpt_codes('x@any.test', @c), { 250 => 20 }, 'they are trusted at once';
    is_deeply rcpt_codes('x@any.test', @other), { 550 => 3 }, 'others are not';
    is lua($h, 'return smtpd.locals.del("127.0.0.9/255.255.255.0")'), 1, 'written otherwise, deleted';
    is_deeply rcpt_codes('x@any.test', @c), { 550 => 20 }, 'they are strangers at once';
    is_deeply lua($h, 'return smtpd.locals.get()'), [], 'get';
    my @many = $c[0]->pipeline('RSET', 'MAIL FROM:<a@b.test>', 'RCPT TO:<x@any.test>');
    is_deeply \@many, [250, 250, 550], 'in one write, too';
};

subtest 'words' => sub {
    plan tests => 24;
    my $h = start();
    fails_ok $h, 'smtpd.relay.add("")', qr/empty/;
    fails_ok $h, 'smtpd.relay.add("a.test\\nb.test")', qr/control character/;
    fails_ok $h, 'smtpd.relay.add("a_b!.test")', qr/domain name/;
    fails_ok $h, 'smtpd.relay.add("a.test:")', qr/no route behind/;
    fails_ok $h, 'smtpd.relay.add(("a"):rep(60) .. ("." .. ("a"):rep(60)):rep(20))', qr/1000 octets/;
    fails_ok $h, 'smtpd.relay.del("a.test")', qr/"a\.test" is not in the list/;
    fails_ok $h, 'smtpd.relay.set("a.test", "b.test", "=x")', qr/domain name/;
    fails_ok $h, 'smtpd.locals.add("10.1")', qr/no address or network/;
    fails_ok $h, 'smtpd.locals.add("10.0.0.0/33")', qr/no address or network/;
    fails_ok $h, 'smtpd.locals.add("10.0.0.1\\t10.0.0.0/8")', qr/control character/;
    fails_ok $h, 'smtpd.locals.add("no.such.host.invalid")', qr/cannot|can be resolved/;
    fails_ok $h, 'smtpd.locals.del("10.0.0.1")', qr/not in the list/;
    is_deeply scalar lua($h, 'return smtpd.relay.get()'),
        ['listed.test', "sub.listed.test=maildir:$h->{dir}/maildir/%u"], 'and nothing has changed';

    is_deeply [lua($h, 'return smtpd.locals.set("10.0.0.0/8", "10.1.0.0/16", "localhost", "::1",
        "10.0.0.0/255.0.0.0")')], [1], 'set';
    is_deeply scalar lua($h, 'return smtpd.locals.get()'),
        ['10.1.0.0/16', 'localhost', '::1', '10.0.0.0/255.0.0.0'], 'words as given, none twice';
    is_deeply [lua($h, 'return smtpd.locals.check("127.0.0.1"), smtpd.locals.check("localhost")')],
        [1, 0], 'a name stands for its addresses; check takes addresses';
    lua($h, 'return smtpd.locals.del("10.0.0.0/8")');
    is_deeply scalar lua($h, 'return smtpd.locals.get()'), ['10.1.0.0/16', 'localhost', '::1'],
        'del takes one entry, not those within it';
    lua($h, 'return smtpd.locals.del("LOCALHOST")');
    is_deeply scalar lua($h, 'return smtpd.locals.get()'), ['10.1.0.0/16', '::1'], 'a name by its name';

    is_deeply [lua($h, 'return smtpd.relay.check("x@listed.test"), smtpd.relay.check("x@a.sub.listed.test"),
        smtpd.relay.check("x@other.test") == nil, smtpd.relay.check("no address") == nil')],
        ['', "maildir:$h->{dir}/maildir/%u", 1, 1], 'relay.check as configured';
    lua($h, 'return smtpd.relay.add("sub.listed.test")');
    is_deeply [lua($h, 'return smtpd.relay.check("x@sub.listed.test"), #smtpd.relay.get()')], ['', 2],
        'a new entry for a domain replaces the old one';
    my $bulk = 'local w = {} for i = 1, %d do w[i] = ("d%%05d.example.test"):format(i) end
        return smtpd.relay.set(table.unpack(w))';
    is lua($h, sprintf $bulk, 3000), 1, 'a long list';
    my ($nothing, $why) = lua($h, sprintf $bulk, 4000);
    like $why, qr/would have \d+ octets, and 65536 is the most that fits/, 'too long a list';
    is scalar @{ lua($h, 'return smtpd.relay.get()') }, 3000, 'leaves the list as it was';
    is lua($h, 'return smtpd.relay.check("x@d02999.example.test")'), '', 'which is complete';
};

subtest 'hosts have lists of their own' => sub {
    plan tests => 3;
    my $h = start(other => $stranger);
    lua($h, 'return smtpd.relay.set("only.test")', 'other');
    is_deeply scalar lua($h, 'return smtpd.relay.get()', 'other'), ['only.test'], 'one is changed';
    is_deeply scalar lua($h, 'return smtpd.relay.check("x@listed.test")'), '', 'the other is not';
    my $c = SMTPClient->new(port => $h->port('other'));
    is_deeply [$c->pipeline('EHLO me.test', 'MAIL FROM:<>', 'RCPT TO:<x@listed.test>', 'RCPT TO:<x@only.test>')],
        [250, 250, 550, 250], 'sessions know it';
};

subtest 'restarts' => sub {
    plan tests => 8;
    my $h = start();
    lua($h, 'smtpd.relay.add("new.test") smtpd.locals.add("127.0.0.5")');
    my $old = SMTPClient->new(port => $h->port('mail'));
    $old->pipeline('EHLO me.test', 'MAIL FROM:<a@b.test>');
    my %before = map { $_ => 1 } $h->children;
    my $served = sub {
        my ($host) = grep { !$before{$_} } map { $_->{child} } @{ lua($h, 'return smtpd.sessions()') };
        return $host;
    };
    $h->graceful;
    my $c;
    ok wait_for(sub {
        $c = SMTPClient->new(port => $h->port('mail'));
        $served->();
    }), 'a new child after a graceful restart';
    is_deeply [$c->pipeline('EHLO me.test', 'MAIL FROM:<>', 'RCPT TO:<x@new.test>')], [250, 250, 250],
        'knows the change';
    lua($h, 'smtpd.relay.add("newer.test")');
    is $old->cmd('RCPT TO:<x@newer.test>'), 250, 'an old one hears of new changes';
    is_deeply scalar lua($h, 'return smtpd.locals.get()'), ['127.0.0.5'], 'locals too';

    %before = map { $_ => 1 } $h->children;
    undef $_ for $old, $c;
    $h->signal('HUP');
    ok wait_for(sub {
        my @now = $h->children;
        @now && !grep { $before{$_} } @now;
    }), 'all children are new after a restart';
    ok wait_for(sub { eval { lua($h, 'return 1') } }), 'and serve';
    is_deeply scalar lua($h, 'return smtpd.relay.get()'),
        ['listed.test', "sub.listed.test=maildir:$h->{dir}/maildir/%u"], 'the configuration holds again';
    is_deeply scalar lua($h, 'return smtpd.locals.get()'), [], 'for locals too';
};

subtest 'an entry that lost what it needs' => sub {
    plan tests => 4;
    my $h = start();
    lua($h, 'return smtpd.relay.add("bare.test")');
    $h->{hosts}{mail} =~ s/^SmtpdRelay .*//m;
    $h->{hosts}{mail} =~ s/ listed\.test\b//;
    $h->write_file('httpd.conf', $h->configuration);
    my $c;
    my $code = sub {
        $c = eval { SMTPClient->new(port => $h->port('mail')) } or return 0;
        return ($c->pipeline('EHLO me.test', 'MAIL FROM:<>', 'RCPT TO:<x@bare.test>'))[2];
    };
    is $code->(), 250, 'before the restart it has it';
    $h->graceful;
    ok wait_for(sub { $code->() == 451 }), 'then its mail is deferred, not refused';
    is $c->cmd('RCPT TO:<x@sub.listed.test>'), 250, 'another entry is not concerned';
    like $h->log('error.log'), qr/NS0062: .*bare\.test: there is no SmtpdRelay any more/, 'the log says why';
};

subtest 'routes made at run time' => sub {
    plan tests => 9;
    my $h = start();
    my $maildir = "maildir:$h->{dir}/maildir/made/%d/%u";
    is lua($h, qq{return smtpd.relay.add("routed.test=$maildir")}), 1, 'a Maildir';
    my @c = map { SMTPClient->new(port => $h->port('mail')) } 1 .. 8;
    for my $c (@c) {
        $c->cmd('EHLO me.test');
        $c->mail('a@b.test', 'user@sub.routed.test', "Subject: routed\r\n\r\nx\r\n");
    }
    is scalar(grep { $_->code == 250 } @c), 8, 'takes mail in every child';
    is scalar(() = glob "$h->{dir}/maildir/made/sub.routed.test/user/new/*"), 8, 'and has it';
    is lua($h, 'return smtpd.relay.check("x@routed.test")'), $maildir, 'relay.check says so';
    fails_ok $h, 'smtpd.relay.add("x.test=nothing://host")', qr/^x\.test: .*"nothing"/;
    fails_ok $h, 'smtpd.relay.add("x.test=maildir:")', qr/needs a path/;
    is lua($h, 'return smtpd.relay.check("u@x.test") == nil'), 1, 'and what is wrong is not in the list';
    is lua($h, qq{return smtpd.relay.set("routed.test=discard:")}), 1, 'another for the same domain';
    my ($c) = @c;
    $c->mail('a@b.test', 'user@routed.test', "Subject: routed\r\n\r\nx\r\n");
    is scalar(() = glob "$h->{dir}/maildir/made/routed.test/user/new/*"), 0, 'is the one that holds';
};

# The one session that said EHLO with this name.
sub session_of {
    my ($h, $helo) = @_;
    my @found = grep { $_->{helo} eq $helo } @{ lua($h, 'return smtpd.sessions()') };
    return @found == 1 ? $found[0] : { found => scalar @found };
}

sub shows_ok {
    my ($h, $helo, $wanted, $what) = @_;
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    my $session = session_of($h, $helo);
    is_deeply { map { $_ => $session->{$_} } keys %$wanted }, $wanted, $what;
}

subtest 'sessions' => sub {
    plan tests => 13;
    my $h = start();
    my $c = SMTPClient->new(port => $h->port('mail'), local => '127.0.0.3');
    my ($new) = @{ lua($h, 'return smtpd.sessions()') };
    is_deeply [@$new{qw(client helo user from phase bytes)}], ['127.0.0.3', '', '', '', 'connect', 0], 'greeted';
    $c->cmd('EHLO one.test');
    shows_ok $h, 'one.test', { phase => 'helo', id => $new->{id}, child => $new->{child} }, 'EHLO';
    ok scalar(grep { $_ == $new->{child} } $h->children), 'its child is one';
    $c->cmd('MAIL FROM:<from@b.test>');
    shows_ok $h, 'one.test', { phase => 'mail', from => 'from@b.test', rcpts => [] }, 'MAIL';
    $c->cmd("RCPT TO:<r$_\@listed.test>") for 1 .. 3;
    my $flags = lua($h, 'return smtpd.flag("verified") | smtpd.flag("relay")');
    shows_ok $h, 'one.test', { phase => 'rcpt', rcpt_count => 3, rcpts =>
        [map { { address => "r$_\@listed.test", flags => $flags } } 1 .. 3] }, 'RCPT';
    $c->cmd('RCPT TO:<' . 'x' x 60 . "$_\@listed.test>") for 4 .. 50;
    my $session = session_of($h, 'one.test');
    is $session->{rcpt_count}, 50, 'fifty recipients';
    cmp_ok scalar @{ $session->{rcpts} }, '>', 5, 'of which some are shown';
    cmp_ok scalar @{ $session->{rcpts} }, '<', 50, 'as many as there is room for';
    $c->cmd('DATA');
    $c->send_raw("Subject: x\r\n\r\n" . "0123456789\r\n" x 100);
    ok wait_for(sub { session_of($h, 'one.test')->{bytes} == 1214 }), 'octets of the message';
    $c->send_raw(".\r\n");
    $c->read_reply;
    wait_for { session_of($h, 'one.test')->{phase} eq 'helo' }; # the reply comes first
    shows_ok $h, 'one.test', { phase => 'helo', from => '', rcpts => [], bytes => 0 }, 'after the mail';
    $c->cmd('QUIT');
    ok wait_for(sub { session_of($h, 'one.test')->{found} == 0 }), 'a session that ended is not there';

    my @c = sessions($h, 10);
    my ($victim) = map { $_->{child} } @{ lua($h, 'return smtpd.sessions()') };
    kill KILL => $victim;
    ok wait_for(sub { eval { !grep { $_->{child} == $victim } @{ lua($h, 'return smtpd.sessions()') } } }),
        'nor are those of a killed child';
};

subtest 'counters' => sub {
    plan tests => 3;
    my $h = start(limited => "$stranger\nSmtpdMaxConnections 1\n");
    my @names = qw(connections denied mails deferred refused recipients rcpt_refused bytes);
    my $counters = sub { my $all = lua($h, 'return smtpd.counters()'); [@$all{@names}] };
    # httpd's own look whether both hosts listen is a connection to each, counted when it is taken up.
    wait_for { $counters->()->[0] >= 2 };
    my ($connections) = @{ $counters->() };
    my $c = SMTPClient->new(port => $h->port('mail'));
    $c->pipeline('EHLO me.test', 'MAIL FROM:<a@b.test>', 'RCPT TO:<x@listed.test>', 'RCPT TO:<y@listed.test>',
        'RCPT TO:<x@other.test>', 'RCPT TO:<@>');
    $c->data("Subject: x\r\n\r\nhi\r\n");
    $c->pipeline('MAIL FROM:<a@b.test>', 'RCPT TO:<x@listed.test>', 'DATA');
    $c->send_raw("Subject: bare\nnewline\r\n.\r\n");
    $c->read_reply;
    is $c->code, 550, 'a mail is refused';
    # Nor may those sessions have ended yet.
    wait_for { @{ lua($h, 'return smtpd.sessions()') } == 1 };
    my $held = SMTPClient->new(port => $h->port('limited'));
    SMTPClient->new(port => $h->port('limited'));
    is_deeply $counters->(), [$connections + 3, 1, 1, 0, 1, 2, 2, 18, ], 'they count all children'
        or diag "@{ $counters->() }";
    $h->graceful;
    wait_for { eval { lua($h, 'return 1') } };
    is $counters->()->[2], 1, 'and go on over a graceful restart';
};

subtest 'an open transaction across changes' => sub {
    plan tests => 3;
    my $h = start();
    my $c = SMTPClient->new(port => $h->port('mail'));
    $c->pipeline('EHLO me.test', 'MAIL FROM:<a@b.test>', 'RCPT TO:<x@listed.test>');
    lua($h, 'smtpd.relay.add("new.test")');
    is $c->cmd('RCPT TO:<y@listed.test>'), 250, 'a route that stays is the same one';
    lua($h, 'smtpd.relay.clear()');
    is $c->cmd('RCPT TO:<z@listed.test>'), 550, 'a recipient that is not listed any more';
    is $c->data("Subject: x\r\n\r\nhi\r\n"), 250, 'what was taken is delivered';
};
