# parity.t: the subcommands that were good anywhere. Each test gets the ParityWorld.
package ParityCommands;

use strict;
use warnings;
use MIME::Base64 qw(encode_base64);
use MIME::QuotedPrint qw(encode_qp);
use SMTPClient;
use Test::More;
use TestHost qw(wait_for);

my $octets = join '', map { chr } 0 .. 255;
my $all = 'local all = "" for i = 0, 255 do all = all .. string.char(i) end ';

# The code of RCPT for each address, in a session that goes on.
sub rcpts {
    my ($c, @addresses) = @_;
    $c->cmd('RSET');
    $c->cmd('MAIL FROM:<a@b.test>');
    return join ' ', map { $c->cmd("RCPT TO:<$_>") } @addresses;
}

sub encoded {
    my ($type, $want) = @_;
    return sub {
        my ($w) = @_;
        is $w->page("$all return smtpd.encode('$type', all)"), $want, 'all octets';
        is_deeply [$w->page("return smtpd.encode('$type', ''), smtpd.encode('$type', '\\0')")],
            ['', { base64 => 'AA==', hex => '00', qprint => '=00' }->{$type}], 'none, and NUL';
    };
}

sub decoded {
    my ($type, $bad) = @_;
    return sub {
        my ($w) = @_;
        is_deeply [$w->page("$all return smtpd.decode('$type', smtpd.encode('$type', all)) == all")], [1], 'all octets';
        my ($nothing, $why) = $w->page("return smtpd.decode('$type', '$bad')");
        ok !defined $nothing && length $why, "nil and why for $bad";
    };
}

# A host without scanners says so.
sub no_scanner {
    my ($w, $call) = @_;
    my ($nothing, $why) = $w->page("return $call");
    ok !defined $nothing && $why =~ /^no (?:spam |virus )?scanner is configured \(SmtpdScanner\)$/, 'no scanner: nil and why';
}

my $listed = 'x@listed.test';

sub tests {
    return (
    'command flag' => sub {
        my ($w) = @_;
        is_deeply [$w->page('return smtpd.flag("gotvirus"), smtpd.flag("GotVirus")')], [1048576, 1048576], 'in any case';
        is_deeply [$w->page('return smtpd.flag("nonsense")')], [undef, 'there is no such flag'], 'unknown';
    },
    'command info address' => sub {
        my ($w) = @_;
        is $w->page('return smtpd.info("address")'), '127.0.0.1:' . $w->port('drop'), 'where the host listens';
    },
    'command info relay' => sub {
        my ($w) = @_;
        is $w->page('return smtpd.info("relay")', 'fake'), '127.0.0.1:' . $w->relay->port, 'host and port';
        is $w->page('return smtpd.info("relay")', 'cafile') =~ /p%40ss|p\@ss/ ? 'told' : 'hidden', 'hidden', 'no password';
    },
    'command info version' => sub {
        my ($w) = @_;
        like $w->page('return smtpd.info("version")'), qr/^\d+\.\d+\.\d+$/, 'a version';
        unlike(SMTPClient->new(port => $w->port('drop'))->text, qr/\d\.\d/, 'which the greeting does not tell');
    },
    'command info server' => sub {
        my ($w) = @_;
        is $w->page('return smtpd.info("server")', 'fake'), 'fake.test', 'the host\'s name';
        is_deeply [$w->page('return smtpd.info("colour")')], [undef, 'there is version, server, relay and address'], 'unknown';
    },
    'command send' => sub {
        my ($w) = @_;
        my ($ok, $what);
        my $mail = $w->relayed(sub { ($ok, $what) = $w->page('return smtpd.send("a@b.test", {"c@d.test", "e@d.test"},
            "Subject: s\n\n.dot\n")', 'fake') });
        is $ok, 1, 'true';
        is_deeply [$what->{code}, map { "$_->{address} $_->{code}" } @{ $what->{rcpts} }], [250, 'c@d.test 250', 'e@d.test 250'],
            'a result each';
        is_deeply [$mail->{from}, @{ $mail->{rcpts} }], ['a@b.test', 'c@d.test', 'e@d.test'], 'the envelope';
        like $mail->{data}, qr/^Subject: s\r\n\r\n\.dot\r\n\z/m, 'the message';
        $w->{second}->script({ rcpt => [[reply => '550 5.1.1 no']] });
        my @failed = $w->page('return smtpd.send("a@b.test", "c@d.test", "x", "127.0.0.1", ' . $w->{second}->port . ')', 'fake');
        $w->{second}->script({});
        is_deeply [@failed[0, 2]], [undef, { %{ $failed[2] }, phase => 'RCPT', code => 550 }], 'another host, which refuses';
        ok !$w->page('return smtpd.send("a@b.test\r\nDATA", "c@d.test", "x")', 'fake'), 'no injection';
    },
    'command relay add' => sub {
        my ($w) = @_;
        my $c = $w->client('lists');
        is rcpts($c, 'x@new.test'), 550, 'not listed';
        is $w->page('return smtpd.relay.add("New.Test")', 'lists'), 1, 'added';
        is rcpts($c, 'x@new.test', 'x@sub.new.test', 'x@mynew.test'), '250 250 550', 'at once, with sub-domains';
        ok !$w->page('return smtpd.relay.add("no domain")', 'lists'), 'what is none is refused';
    },
    'command relay check' => sub {
        my ($w) = @_;
        is_deeply [$w->page('return smtpd.relay.check("x@sub.LISTED.test"), smtpd.relay.check("x@routed.test"),
            smtpd.relay.check("x@far.test")', 'lists')], ['', 'smtp://127.0.0.1:' . $w->{second}->port, undef],
            'without a route, its route, none';
    },
    'command relay del' => sub {
        my ($w) = @_;
        $w->page('return assert(smtpd.relay.add("gone.test"))', 'lists');
        my $c = $w->client('lists');
        is rcpts($c, 'x@gone.test'), 250, 'listed';
        is $w->page('return smtpd.relay.del("GONE.test")', 'lists'), 1, 'deleted';
        is rcpts($c, 'x@gone.test', $listed), '550 250', 'at once, and only that one';
        ok !$w->page('return smtpd.relay.del("gone.test")', 'lists'), 'once';
    },
    'command relay get' => sub {
        my ($w) = @_;
        my $list = $w->page('smtpd.relay.set("a.test", "b.test:127.0.0.1:25", "c.test=discard:") return smtpd.relay.get()', 'lists');
        is_deeply $list, ['a.test', 'b.test:127.0.0.1:25', 'c.test=discard:'], 'as they were written';
    },
    'command relay set' => sub {
        my ($w) = @_;
        my $c = $w->client('lists');
        is $w->page('return smtpd.relay.set("one.test", "two.test")', 'lists'), 1, 'set';
        is rcpts($c, 'x@one.test', 'x@two.test', 'x@b.test', $listed), '250 250 550 550', 'others are gone';
    },
    'command relay clear' => sub {
        my ($w) = @_;
        my $c = $w->client('lists');
        is $w->page('return smtpd.relay.clear()', 'lists'), 1, 'cleared';
        is rcpts($c, 'x@one.test', 'postmaster@one.test', 'postmaster'), '550 550 250', 'nothing is left';
        $w->page('return smtpd.relay.set("Listed.Test")', 'lists');
    },
    'command local add' => sub {
        my ($w) = @_;
        my $c = $w->client('lists');
        is rcpts($c, 'x@far.test'), 550, 'a stranger';
        is_deeply [$w->page('return smtpd.locals.add("127.0.0.0/24"), smtpd["local"].add("2001:db8::/32"),
            smtpd.locals.add("fd00::1/128")', 'lists')], [1, 1, 1], 'networks';
        is rcpts($c, 'x@far.test'), 250, 'trusted at once';
        ok !$w->page('return smtpd.locals.add("10.0.0.0/33")', 'lists'), 'what is none is refused';
    },
    'command local check' => sub {
        my ($w) = @_;
        is_deeply [$w->page('return smtpd.locals.check("127.0.0.77"), smtpd.locals.check("2001:db8::9"),
            smtpd.locals.check("127.0.1.1"), smtpd.locals.check("no address")', 'lists')], [1, 1, 0, 0], 'a boolean';
    },
    'command local del' => sub {
        my ($w) = @_;
        my $c = $w->client('lists');
        ok !$w->page('return smtpd.locals.del("127.0.0.1")', 'lists'), 'an address is not the network around it';
        is rcpts($c, 'x@far.test'), 250, 'which stays';
        is $w->page('return smtpd.locals.del("127.0.0.0/255.255.255.0")', 'lists'), 1, 'the network, written otherwise';
        is rcpts($c, 'x@far.test'), 550, 'gone at once';
    },
    'command local get' => sub {
        my ($w) = @_;
        is_deeply scalar $w->page('return smtpd.locals.get()', 'lists'), ['2001:db8::/32', 'fd00::1/128'], 'as they were written';
    },
    'command local set' => sub {
        my ($w) = @_;
        my $c = $w->client('lists');
        is $w->page('return smtpd.locals.set("localhost", "10.0.0.0/8")', 'lists'), 1, 'a name and a network';
        is rcpts($c, 'x@far.test'), 250, 'the name\'s addresses are trusted';
        is_deeply scalar $w->page('return smtpd.locals.get()', 'lists'), ['localhost', '10.0.0.0/8'], 'and nobody else';
    },
    'command local clear' => sub {
        my ($w) = @_;
        my $c = $w->client('lists');
        is $w->page('return smtpd.locals.clear()', 'lists'), 1, 'cleared';
        is rcpts($c, 'x@far.test', $listed), '550 250', 'nobody is trusted';
    },
    'command encode base64' => encoded('base64', encode_base64($octets, '')),
    'command encode hex' => encoded('hex', uc unpack 'H*', $octets),
    'command encode qprint' => sub {
        my ($w) = @_;
        encoded('qprint', $w->page("$all return smtpd.encode('qprint', all)"))->($w);
        my $text = $w->page("$all return smtpd.encode('qprint', all)");
        is MIME::QuotedPrint::decode_qp($text), $octets, 'as others read it';
        ok !grep({ length > 76 } split /\r\n/, $text), 'lines of 76';
    },
    'command decode base64' => decoded('base64', '@@@@'),
    'command decode hex' => decoded('hex', 'zz'),
    'command decode qprint' => sub {
        my ($w) = @_;
        is_deeply [$w->page("$all return smtpd.decode('qprint', smtpd.encode('qprint', all)) == all")], [1], 'all octets';
        is $w->page('return smtpd.decode("qprint", "a=3D=\r\nb=\nc  \r\n")'), "a=bc\r\n", 'soft breaks, blanks at a line\'s end';
    },
    'command checkemail' => sub {
        my ($w) = @_;
        is_deeply [$w->page('return smtpd.checkemail("Joe (x) <Joe@X.com>, b@c.test"), smtpd.checkemail("grp: a@x.com, b@y.com;"),
            smtpd.checkemail("joe@x_y.com"), smtpd.checkemail("joe@x y.com"), smtpd.checkemail("joe"), smtpd.checkemail("")')],
            ['Joe@X.com', 'a@x.com', 'joe@x_y.com', undef, undef, undef], 'the first address, whole, or nil';
    },
    'command checkdomain' => sub {
        my ($w) = @_;
        is_deeply [$w->page('return smtpd.checkdomain("takes.test"), smtpd.checkdomain("named.test"), smtpd.checkdomain("null.test"),
            smtpd.checkdomain("nowhere.test")', 'dns')], [1, 1, 0, 0], 'MX, address, null MX, nothing';
        my ($nothing, $why) = $w->page('return smtpd.checkdomain("broken.test")', 'dns');
        ok !defined $nothing && length $why, 'nil and why where DNS fails';
    },
    'command virusversion' => sub {
        my ($w) = @_;
        like $w->page('return smtpd.virusversion()', 'about'), qr{^ClamAV 1\.0\.7/27100/Fri Nov 20$}, 'product and date of its data';
        no_scanner($w, 'smtpd.virusversion()');
    },
    'command spamversion' => sub {
        my ($w) = @_;
        like $w->page('return smtpd.spamversion()', 'about'), qr/\S/, 'what the scanner says';
        no_scanner($w, 'smtpd.spamversion()');
    },
    'command checkspam' => sub {
        my ($w) = @_;
        is_deeply [($w->page('return smtpd.checkspam("Subject: x\n\nx\n")', 'about'))[0, 1]], ['Innocent', 1.5], 'innocent';
        is_deeply [($w->page('return smtpd.checkspam("x", "c@d.test")', 'spam'))[0, 1]], ['Spam', 7.25], 'spam';
        no_scanner($w, 'smtpd.checkspam("x")');
    },
    'command trainspam' => sub {
        my ($w) = @_;
        my ($nothing, $why) = $w->page('return smtpd.trainspam(1, "c@d.test", "x", "", "toe", "error")', 'spam');
        ok !defined $nothing && $why =~ /learn/, 'a scanner that cannot learn says so' or diag $why;
        like $w->raises('return smtpd.trainspam("x", "c@d.test", "x")'), qr/number expected/, 'arguments are checked';
        trains($w);
    },
    'command checkvirus' => sub {
        my ($w) = @_;
        is $w->page('return smtpd.checkvirus("/etc/passwd")', 'finds'), 'Eicar-Test', 'the name';
        my $heard = wait_for { return $w->{finds}->heard($w->{finds}->asked - 1) };
        like $heard, qr{/etc/passwd}, 'of the data itself, never of a file';
        no_scanner($w, 'smtpd.checkvirus("x")');
    },
    'command sessions' => sub {
        my ($w) = @_;
        my $c = $w->client('drop', local => '127.0.0.9');
        $c->cmd('MAIL FROM:<who@b.test>');
        $c->cmd('RCPT TO:<c@d.test>');
        my ($own) = grep { $_->{from} && $_->{from} eq 'who@b.test' } @{ $w->page('return smtpd.sessions()') };
        is_deeply [@$own{qw(client helo rcpt_count)}, $own->{rcpts}[0]{address}], ['127.0.0.9', 'me.test', 1, 'c@d.test'], 'a table each';
        ok $own->{id} && $own->{child} && $own->{phase} && defined $own->{age}, 'and more';
        $c->quit;
        ok wait_for { return !grep { $_->{client} eq '127.0.0.9' } @{ $w->page('return smtpd.sessions()') } }, 'gone when it ends';
        cmp_ok $w->page('return smtpd.counters()')->{connections} // 0, '>', 0, 'counters, which were not there';
    },
    );
}

# With a daemon that learns, where this build has the scanner for it.
sub trains {
    my ($w) = @_;
    SKIP: {
        skip 'there is no scanner spamd in this build', 2 if !$w->knows('spamd');
        require FakeDaemon;
        my $daemon = FakeDaemon->new;
        $daemon->answer("SPAMD/1.5 0 EX_OK\r\nDidSet: local\r\nContent-length: 0\r\n\r\n");
        my $h = OwnHttpd->new(modules => ['lua'], hosts => {
            mail => "SmtpdEngine on\nSmtpdRelay discard:\nSmtpdScanner spamd " . $daemon->address . "\n",
            web => 'LuaMapHandler "^/$" %DIR%/htdocs/learn.lua' });
        $h->write_file('htdocs/learn.lua', "function handle(r) r:puts(tostring((smtpd.trainspam(1, 'c\@d.test', 'Subject: x'))))\nreturn apache2.OK end\n");
        $h->start;
        is +HTTP::Tiny->new->get('http://127.0.0.1:' . $h->port('web') . '/')->{content}, 'true', 'one that can is told';
        like join('', $daemon->questions), qr/^TELL .*^Message-class: spam\r$.*^Subject: x/ms, 'the message and what it is';
    }
}

1;
