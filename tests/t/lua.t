# The library for scripts of web pages: its functions that need no SMTP session, what becomes of
# wrong arguments, and the states that mod_lua keeps.
use strict;
use warnings;
use HTTP::Tiny;
use JSON::PP;
use MIME::Base64 qw(encode_base64);
use TestHost;
use Test::More;

plan tests => 15;

our $base = 'http://' . hostport('http_lua') . '/lua';
my $http = HTTP::Tiny->new(timeout => 60, keep_alive => 1);

# What the code returns, as a list: [true, results ..] or [false, error].
sub lua {
    my ($code) = @_;
    my $answer = $http->post("$base/eval", { content => $code });
    die "$answer->{status} $answer->{content}" if $answer->{status} != 200;
    return decode_json($answer->{content});
}

sub returns_ok {
    my ($code, $wanted, $what) = @_;
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    my ($ok, @got) = @{ lua($code) };
    is_deeply \@got, $wanted, $what // $code;
}

sub raises_ok {
    my ($code, $pattern) = @_;
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    my ($ok, $message) = @{ lua($code) };
    ok !$ok && $message =~ $pattern, $code or diag $message // 'no error';
}

sub fails_ok {
    my ($code, $pattern) = @_;
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    my ($ok, $nothing, $message) = @{ lua($code) };
    ok $ok && !defined $nothing && ($message // '') =~ $pattern, $code or diag $message // 'no message';
}

subtest 'the table' => sub {
    plan tests => 4;
    my @functions = qw(send session encode decode checkemail checkdomain checkspam checkvirus
        trainspam spamversion virusversion flag info sessions counters use);
    my ($ok, @types) = @{ lua('return ' . join ',', map {"type(smtpd.$_)"} @functions) };
    is_deeply \@types, [('function') x @functions], 'its functions';
    ($ok, @types) = @{ lua('local n = {} for _, l in ipairs{"relay", "locals", "local"} do
        for _, f in ipairs{"add", "del", "set", "clear", "get", "check"} do
            n[#n + 1] = type(smtpd[l][f]) end end return n') };
    is_deeply $types[0], [('function') x 18], 'functions of the lists';
    returns_ok 'return smtpd["local"] == smtpd.locals', [JSON::PP::true], 'two names of one list';
    returns_ok 'return require("mod_nssmtpd") == smtpd', [JSON::PP::true], 'require gives the same';
};

subtest 'at file scope' => sub {
    plan tests => 8;
    my $answer = decode_json($http->get("$base/file_scope")->{content});
    is $answer->{encoded}, '6162', 'encode works';
    is $answer->{flag}, 0x100000, 'flag works';
    like $answer->{version}, qr/^\d+\.\d+\.\d+$/, 'info("version") works';
    my $none = qr/no request while a script is being loaded/;
    like $answer->{$_}{2}, $none, "$_ needs a request" for qw(sent used server relay);
    is $answer->{exit}, 'nil', 'os.exit is gone since require';
};

subtest 'encode and decode' => sub {
    plan tests => 13;
    my $all = join '', map {chr} 0 .. 255;
    my $bytes = 'local t = {} for i = 0, 255 do t[#t + 1] = string.char(i) end local all = table.concat(t) ';
    returns_ok "$bytes return smtpd.encode('base64', all)", [encode_base64($all, '')], 'base64 of all octets';
    returns_ok "$bytes return smtpd.encode('hex', all)", [uc unpack 'H*', $all], 'hex of all octets';
    returns_ok "$bytes return smtpd.decode('$_', smtpd.encode('$_', all)) == all", [JSON::PP::true],
        "$_ there and back" for qw(base64 hex qprint);
    returns_ok 'return smtpd.encode("qprint", "J\xfcrgen = \r\n")', ["J=FCrgen =3D=20\r\n"], 'quoted-printable';
    returns_ok 'return smtpd.decode("hex", "4a4B00")', ["JK\0"], 'both cases, NUL';
    returns_ok 'return smtpd.encode("base64", "")', [''], 'nothing';
    fails_ok 'return smtpd.decode("hex", "4x")', qr/this is no hex/;
    fails_ok 'return smtpd.decode("base64", "a#b=")', qr/this is no base64/;
    fails_ok 'return smtpd.encode("rot13", "x")', qr/base64, hex and qprint/;
    raises_ok 'smtpd.encode("hex")', qr/bad argument #2 to 'encode'/;
    raises_ok 'smtpd.decode("hex", {})', qr/bad argument #2 to 'decode' \(string expected, got table\)/;
};

# Addresses as people write them: the first mailbox, or nothing; never a part of what cannot be read.
my @mailboxes = (
    ['joe@x.com'], ['<joe@x.com>', 'joe@x.com'], ['Joe <joe@x.com>', 'joe@x.com'],
    ['joe@x.com (Joe)', 'joe@x.com'], ['(a (nested) one) "Doe, Joe" <joe@x.com>', 'joe@x.com'],
    ['"Joe \" Doe" <joe@x.com> (c)', 'joe@x.com'], ['=?utf-8?q?J=F6?= <joe@x.com>', 'joe@x.com'],
    ['<@r1.test,@r2.test:joe@x.com>', 'joe@x.com'], ['grp: a@x.com, b@y.com;', 'a@x.com'],
    ['a group: Joe <a@x.com>;', 'a@x.com'], ['u@a.com,v@b.com', 'u@a.com'], [', , joe@x.com', 'joe@x.com'],
    ["joe\r\n \@x.com", 'joe@x.com'], ['joe @ x . com', 'joe@x.com'], ['joe(c)@(d)x.com', 'joe@x.com'],
    ['"a b"@x.com'], ['"a@b"@x.com'], ['"a\"b"@x.com'], ['"joe@x.com" <evil@y.com>', 'evil@y.com'],
    ['a%b@c.com'], ['joe@x_y.com'], ['joe@[127.0.0.1]'], ['joe@[IPv6:::1]'], ['joe@x.com.', 'joe@x.com'],
    ['Joe@X.Com'], ['.joe..x@x.com'], ['Empty:; , joe@x.com', 'joe@x.com'],
    map { [$_, undef] } '', ' ', 'joe', '<joe>', '<postmaster>', '<>', '@x.com', 'joe@', 'joe@.x..com',
    '<joe@x.com', 'joe@x.com>', 'joe@x.com>junk', '<joe@x.com> junk', 'a b@x.com', 'a@b@c',
    'a@b.com c@d.com', 'joe@x.com <evil@y.com>', 'junk@ <joe@x.com>', 'joe%x.com', 'Undisclosed:;',
    "joe\@x.com\0", "joe\0\@x.com", 'joe@x.com"', '(joe@x.com', '"joe@x.com',
    'joe@[127.0.0.1', "\xc3\xb6\@x.com", 'a' x 300 . '@x.com', '<a@x.com><b@x.com>', 'a:b:c@d.com:',
    'joe@' . 'x.' x 200 . 'com',
);
subtest 'checkemail' => sub {
    plan tests => scalar @mailboxes;
    for (@mailboxes) {
        my ($text, @rest) = @$_;
        my $code = join '', map { sprintf '\\%03d', ord } split //, $text;
        returns_ok qq{return smtpd.checkemail("$code")}, [@rest ? $rest[0] : $text], "[$text]";
    }
};

subtest 'flag' => sub {
    my %flags = (verified => 1, local => 2, relay => 4, delivered => 8, abort => 16, viruscheck => 32,
        spamcheck => 64, needdomain => 256, segv => 4096, fastproxy => 16384, resolve => 32768,
        needhelo => 65536, gothelo => 131072, gotmail => 262144, gotspam => 524288, gotvirus => 1048576);
    plan tests => 3 + keys %flags;
    returns_ok "return smtpd.flag('$_')", [$flags{$_}] for sort keys %flags;
    returns_ok 'return smtpd.flag("GotVirus")', [1048576], 'in any case';
    fails_ok 'return smtpd.flag("nonsense")', qr/no such flag/;
    raises_ok 'smtpd.flag()', qr/bad argument #1/;
};

my $maildir = 'maildir.test:' . (hostport('smtp_maildir') =~ /(\d+)$/)[0];
subtest 'info and use' => sub {
    plan tests => 8;
    returns_ok 'return smtpd.info("server")', ['discard.test'], 'the first SMTP host';
    returns_ok 'return smtpd.info("relay")', ['discard:'], 'its relay';
    my $port = (hostport('smtp_discard') =~ /(\d+)$/)[0];
    like lua('return smtpd.info("address")')->[1], qr/:$port$/, 'its address';
    like lua('return smtpd.info("version")')->[1], qr/^\d+\.\d+\.\d+$/, 'version';
    fails_ok 'return smtpd.info("nonsense")', qr/version, server, relay and address/;
    my ($ok, $used, $server) = @{ lua("return smtpd.use('$maildir'), smtpd.info('server')") };
    is_deeply [$used, $server], [JSON::PP::true, 'maildir.test'], 'use';
    returns_ok 'return smtpd.info("server")', ['discard.test'], 'the next request begins anew';
    fails_ok 'return smtpd.use("nowhere.test:25")', qr/no such SMTP host/;
};

subtest 'no session in a web page' => sub {
    plan tests => 4;
    fails_ok 'return smtpd.session(...)', qr/no phase of an SMTP session/;
    raises_ok 'smtpd.session()', qr/bad argument #1 to 'session' \(Apache2.Request expected, got no value\)/;
    raises_ok 'smtpd.session({})', qr/Apache2.Request expected, got table/;
    raises_ok 'smtpd.session(io.stdout)', qr/Apache2.Request expected, got FILE/;
};

subtest 'arguments of send' => sub {
    plan tests => 11;
    raises_ok 'smtpd.send()', qr/bad argument #1 to 'send'/;
    raises_ok 'smtpd.send("a@b.c")', qr/bad argument #2 to 'send' \(table expected/;
    raises_ok 'smtpd.send("a@b.c", 1, "x")', qr/bad argument #2 to 'send'/;
    raises_ok 'smtpd.send("a@b.c", {"d@e.f"})', qr/bad argument #3 to 'send' \(string expected/;
    raises_ok 'smtpd.send("a@b.c", {"d@e.f", {}}, "x")', qr/array of strings expected/;
    raises_ok 'smtpd.send("a@b.c", "d@e.f", "x", {})', qr/bad argument #4/;
    raises_ok 'smtpd.send("a@b.c", "d@e.f", "x", "h", "p")', qr/bad argument #5/;
    fails_ok 'return smtpd.send("a@b.c", {}, "x")', qr/no recipient/;
    fails_ok 'return smtpd.send("a@b.c", "d@e.f\0", "x")', qr/NUL/;
    fails_ok 'return smtpd.send("a@b.c", "d@e.f", "x", "")', qr/host has no name/;
    fails_ok 'return smtpd.send("a@b.c", "d@e.f", "x", "h", 65536)', qr/1 to 65535/;
};

subtest 'arguments of the lists' => sub {
    plan tests => 5;
    raises_ok 'smtpd.relay.add()', qr/bad argument #1 to 'add'/;
    raises_ok 'smtpd.locals.del({})', qr/bad argument #1 to 'del'/;
    raises_ok 'smtpd.relay.set("a.test", {})', qr/bad argument #2 to 'set'/;
    fails_ok 'return smtpd.relay.set("a.test", "b\0c")', qr/NUL/;
    returns_ok 'return type(smtpd.relay.get()), type(smtpd.locals.get()), smtpd.locals.check("no address")',
        ['table', 'table', JSON::PP::false], 'get and check';
};

subtest 'what goes on' => sub {
    plan tests => 2;
    returns_ok 'return type(smtpd.sessions())', ['table'], 'sessions';
    returns_ok 'return type(smtpd.counters())', ['table'], 'counters';
};

subtest 'os.exit' => sub {
    plan tests => 3;
    returns_ok 'return os.exit, debug.sethook', [undef, undef], 'gone, and what would lift limits';
    returns_ok 'return coroutine.wrap(function() return os.exit end)()', [undef], 'in coroutines too';
    $http->get("$base/aborted");
    my $heard = qr/attempt to call a nil value \(field 'exit'\)/;
    ok wait_for { log_lines('error_log', $heard) }, 'a script that tries hears it';
};

subtest 'an HTTP request has no limits of ours' => sub {
    plan tests => 1;
    returns_ok 'return (debug.gethook())', [undef], 'no hook';
};

subtest 'a web page cannot pass for a phase' => sub {
    plan tests => 1;
    my $answer = $http->get('http://' . hostport('http_lua') . '/smtp/rcpt');
    is $answer->{status}, 404, 'status';
};

# mod_lua leaves a slot of its stack behind with each call of a state that lives; the state crashes
# at a million. This host has a state per connection, where the growth shows
# in its memory.
subtest 'calls leave nothing behind' => sub {
    plan tests => 2;
    local $base = 'http://' . hostport('http_lua_conn') . '/lua';
    my $used = 'collectgarbage() collectgarbage() return math.floor(collectgarbage("count"))';
    lua($used) for 1 .. 2;
    my $before = lua($used)->[1];
    my $failed = grep { $http->get("$base/nothing")->{status} != 200 } 1 .. 3000;
    is $failed, 0, 'three thousand calls';
    cmp_ok lua($used)->[1], '<', $before + 16, 'KiB of the state';
};

subtest 'many requests at once' => sub {
    plan tests => 1;
    my @children;
    for my $n (1 .. 8) {
        pipe my $in, my $out or die;
        my $pid = fork // die;
        if (!$pid) {
            close $in;
            my $own = HTTP::Tiny->new(timeout => 60);
            my $good = grep {
                $own->post("$base/eval", { content => "smtpd.use('$maildir') return smtpd.info('server'), $n * $_" })
                    ->{content} eq qq([true,"maildir.test",@{[ $n * $_ ]}])
            } 1 .. 50;
            print {$out} $good;
            close $out;
            require POSIX;
            POSIX::_exit(0);
        }
        close $out;
        push @children, [$pid, $in];
    }
    my $sum = 0;
    for (@children) {
        my ($pid, $in) = @$_;
        $sum += <$in> // 0;
        waitpid $pid, 0;
    }
    is $sum, 400, 'each has its own answer';
};
