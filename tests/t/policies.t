# The policies of conf/lua, as `make install` puts them there, through the real mod_lua: what plain Lua
# cannot show (tests/lua does the rest). An httpd of its own, with the policies' store in its directory.
use strict;
use warnings;
use Cwd qw(abs_path);
use FakeRelay;
use File::Basename qw(basename dirname);
use File::Temp ();
use HTTP::Tiny;
use OwnHttpd;
use POSIX ();
use SMTPClient;
use TestHost qw(slurp wait_for);
use Test::More;
use Time::HiRes qw(sleep time);

my $tree = abs_path(dirname(__FILE__) . '/../..');
chomp(my $libexec = `apxs -q LIBEXECDIR`);
plan skip_all => 'needs mod_lua' unless -r "$libexec/mod_lua.so";
plan tests => 10;

my $root = File::Temp->newdir('installed.XXXXXX', TMPDIR => 1);
chmod 0755, "$root";
my $said = `$tree/tools/install-conf $root $libexec 2>&1`;
my $installed = $? == 0;
my $lua = "$root/usr/share/nssmtpd/lua";

my $mpm = $ENV{TEST_MPM} // 'event';
my $main = ($mpm eq 'prefork' ? "ServerLimit 8\nStartServers 4\nMaxRequestWorkers 8\n"
    : "ThreadLimit 10\nThreadsPerChild 10\nServerLimit 4\nStartServers 3\nMaxRequestWorkers 40\n")
    . "LuaScope thread\n";
my $relay = FakeRelay->new;
my $mail = "SmtpdEngine on\nSmtpdRelay smtp://127.0.0.1:" . $relay->port . " retry=0 disablereuse=on\n"
    . "SmtpdTrustedClients none\nSmtpdRelayDomains d.test\n";

# What a policy is served by, besides its own functions: store.lua in a page, a ticket a request.
my $page = <<'LUA';
local store = require "store"
function handle(r)
    local db = store.open(r, r.subprocess_env.STORE)
    if r.args == "sweep" then
        local path, folder = db:path("n", "key")
        db.now = db.now + 100000
        db:sweep(folder)
        r:puts(db:count("n", "key"))
        return apache2.OK
    end
    local ticket, why = db:ticket("n", "key", 3600)
    assert(db:put("r", "key", 3600, ticket))
    r:puts(tostring(ticket or why))
    return apache2.OK
end
LUA

my $h = OwnHttpd->new(main => $main, modules => [qw(lua proxy)], log_level => 'warn lua:info nssmtpd:info',
    hosts => {
        grey => $mail . <<CONF,
LuaMapHandler "^/smtp/(rcpt)\$" $lua/greylist.lua \$1
SetEnv GREYLIST_STORE %DIR%/policies
SetEnv GREYLIST_DELAY 2
CONF
        both => $mail . <<CONF,
LuaMapHandler "^/smtp/(\\w+)\$" $lua/policy.lua \$1
SetEnv POLICY_CHAIN "ratelimit greylist"
SetEnv RATELIMIT_STORE %DIR%/policies
SetEnv RATELIMIT_PERIOD 3601
SetEnv RATELIMIT_RCPTS 2
SetEnv GREYLIST_STORE %DIR%/policies
<If "-R '127.0.0.3'">
    SetEnv GREYLIST off
</If>
CONF
        lists => $mail . qq{LuaMapHandler "^/smtp/(data)\$" $lua/senders.lua \$1\n},
        rate => $mail . <<CONF,
LuaMapHandler "^/smtp/(connect|mail|rcpt)\$" $lua/ratelimit.lua \$1
SetEnv RATELIMIT_STORE %DIR%/policies
SetEnv RATELIMIT_MESSAGES 5
CONF
        few => $mail . <<CONF,
LuaMapHandler "^/smtp/(connect|mail|rcpt)\$" $lua/ratelimit.lua \$1
SetEnv RATELIMIT_STORE %DIR%/policies
SetEnv RATELIMIT_CONNECTIONS 5
CONF
        policy => $mail . <<CONF,
LuaMapHandler "^/smtp/(\\w+)\$" $lua/policy.lua \$1
SetEnv POLICY_CHAIN "ratelimit bounces senders"
SetEnv RATELIMIT_STORE %DIR%/policies
SetEnv RATELIMIT_PERIOD 7200
SetEnv POLICY_REFUSED_RCPTS gone\@d.test
SetEnv POLICY_REFUSED_FILES exe
SetEnv POLICY_TAG on
SetEnv POLICY_DUMP %DIR%/policies
CONF
        web => <<CONF,
LuaMapHandler "^/ticket\$" %DIR%/page.lua handle
LuaPackagePath $lua/?.lua
SetEnv STORE %DIR%/policies
LuaMapHandler "^/contact\$" $lua/form.lua handle
<Location "/contact">
    SetEnv FORM_TO office\@d.test
    SetEnv FORM_HOST policy.test:%PORT:policy%
</Location>
CONF
    });
my $dir = $h->dir;
mkdir "$dir/policies" or die $!;
if ($> == 0) {
    my (undef, undef, $uid, $gid) = getpwnam $h->{user};
    chown $uid, $gid, "$dir/policies";
}
$h->write_file('page.lua', $page);
$h->start;
my $web = 'http://127.0.0.1:' . $h->port('web');
my $ua = HTTP::Tiny->new(timeout => 20, max_redirect => 0);

sub post_form {
    my ($fields, $origin) = @_;
    return $ua->post_form("$web/contact", $fields, { headers => { Origin => $origin } });
}

# The code of a mail in a session of its own.
sub send_mail {
    my ($host, $from, $rcpt, $text) = @_;
    return $h->client($host)->mail($from, $rcpt, $text);
}

subtest 'make install' => sub {
    plan tests => 5;
    ok $installed, 'its part after the module' or diag $said;
    is_deeply [map { basename $_ } glob "$lua/*"], [map { basename $_ } glob "$tree/conf/lua/*"], 'every policy';
    ok -x "$root/usr/share/nssmtpd/purge-logs", 'purge-logs';
    SKIP: {
        skip 'is no Debian', 2 if !-d '/etc/apache2/mods-available';
        my $available = "$root/etc/apache2/mods-available";
        like slurp("$available/nssmtpd.load"), qr{^LoadModule nssmtpd_module \Q$libexec\E/mod_nssmtpd\.so$}m, 'load';
        open my $own, '>>', "$available/nssmtpd.conf" or die $!;
        print {$own} "# mine\n";
        close $own;
        `$tree/tools/install-conf $root $libexec`;
        like slurp("$available/nssmtpd.conf"), qr/^# mine$/m, 'a conf that was changed is kept';
    }
};

subtest 'tickets of four clients at once, over all children' => sub {
    plan tests => 4;
    my @pids = map {
        my $i = $_;
        my $pid = fork // die "fork: $!";
        if (!$pid) {
            open my $file, '>', "$dir/tickets.$i" or POSIX::_exit(2);
            my $mine = HTTP::Tiny->new(timeout => 20);
            print {$file} $mine->get("$web/ticket")->{content}, "\n" for 1 .. 50;
            close $file;
            POSIX::_exit(0);
        }
        $pid;
    } 1 .. 4;
    waitpid $_, 0 for @pids;
    my %seen;
    for my $i (1 .. 4) {
        open my $file, '<', "$dir/tickets.$i" or die $!;
        chomp, $seen{$_}++ while <$file>;
    }
    is join(' ', sort { $a <=> $b } keys %seen), join(' ', 1 .. 200), 'each from 1 to 200';
    is scalar(grep { $_ > 1 } values %seen), 0, 'once';
    my @modes = map { sprintf '%o', (stat $_)[2] & 0777 } grep { -d } glob "$dir/policies/*";
    is_deeply [grep { $_ ne '700' } @modes], [], 'the folders are the server\'s alone';
    is $ua->get("$web/ticket?sweep")->{content}, 0, 'sweeping by r:get_direntries';
};

subtest 'greylisting' => sub {
    plan tests => 6;
    my $c = $h->client('grey');
    is $c->cmd('MAIL FROM:<a@b.test>'), 250, 'MAIL';
    my $begun = time;
    is $c->cmd('RCPT TO:<c@d.test>'), 451, 'a stranger is asked to come again';
    like $c->text, qr/^4\.7\.1 Greylisted, please try again in [12] seconds$/, 'and told when';
    is $c->cmd('RCPT TO:<postmaster@d.test>'), 250, 'not for postmaster';
    $c->quit;
    ok wait_for {
        sleep 0.2;
        $c = $h->client('grey');
        $c->cmd('MAIL FROM:<a@b.test>');
        my $code = $c->cmd('RCPT TO:<c@d.test>');
        $c->quit;
        $code == 250;
    }, 'later it passes';
    cmp_ok time - $begun, '>=', 1, 'not at once';
};

subtest 'rates' => sub {
    plan tests => 4;
    my @codes = map { send_mail('rate', 'a@b.test', 'c@d.test', "x\r\n") } 1 .. 6;
    is "@codes", '250 250 250 250 250 451', 'five messages and no sixth';
    my $c = $h->client('rate');
    $c->cmd('MAIL FROM:<a@b.test>');
    like $c->text, qr/^4\.7\.1 Too many messages, please try again in \d+ seconds$/, 'and when to try again';
    # The start of httpd was awaited by connecting, which counts.
    my $n = 0;
    do { $c = SMTPClient->new(port => $h->port('few')); $n++ } until $c->code != 220 || $n == 10;
    is $c->code, 421, 'five connections and no sixth';
    like $c->text, qr/^4\.7\.1 Too many connections/, 'which says why';
};

subtest 'the sample policy' => sub {
    plan tests => 10;
    is scalar($h->lines(qr/policy: asked in turn: ratelimit, bounces, senders/)), 1, 'init, once';
    my $c = $h->client('policy');
    is $c->cmd('EHLO policy.test'), 550, 'somebody with our name';
    $c->cmd('EHLO me.test');
    $c->cmd('MAIL FROM:<a@b.test>');
    is $c->cmd('RCPT TO:<gone@d.test>'), 550, 'a refused recipient';
    is $c->cmd('RCPT TO:<c@d.test>'), 250, 'and another';
    is $c->data("X-Policy-Sender: forged\r\nList-Id: <l.test>\r\nSubject: =?utf-8?Q?Gr=C3=BC=C3=9Fe?=\r\n\r\nx\r\n"), 250, 'a message';
    my ($got) = $relay->wait_for(sub { grep { $_->{data} =~ /List-Id/ } $_[0]->mails });
    like $got->{data}, qr/^X-Policy-Sender: a\@b\.test\r$/m, 'is tagged';
    like $got->{data}, qr/^X-Policy-List: l\.test\r$/m, 'twice';
    unlike $got->{data}, qr/forged/, 'and not by others';
    my @copies = glob "$dir/policies/*.eml";
    is scalar(@copies), 1, 'a copy of it';
    my $code = send_mail('policy', 'a@b.test', 'c@d.test', join "\r\n", 'Content-Type: multipart/mixed; boundary=b', '',
        '--b', 'Content-Type: application/octet-stream; name="=?utf-8?Q?a=2EEXE?="', '', 'x', '--b--', '');
    is $code, 550, 'an attached program is refused';
};

subtest 'a chain' => sub {
    plan tests => 6;
    my $c = $h->client('both');
    $c->cmd('MAIL FROM:<chain@b.test>');
    is $c->cmd('RCPT TO:<c@d.test>') . ' ' . substr($c->text, 0, 16), '451 4.7.1 Greylisted', 'the second has its word';
    is $c->cmd('RCPT TO:<abuse@d.test>'), 250, 'or none';
    is $c->cmd('RCPT TO:<abuse@d.test>') . ' ' . substr($c->text, 0, 25), '451 4.7.1 Too many recipients',
        'the first reply counts';
    $c = SMTPClient->new(port => $h->port('both'), local => '127.0.0.3');
    $c->cmd('EHLO me.test');
    $c->cmd('MAIL FROM:<chain@b.test>');
    is $c->cmd('RCPT TO:<c@d.test>'), 250, '<If> exempts some from one of them';
    is send_mail('lists', 'bounce-1@l.test', 'c@d.test', "From: a\@b.test\r\nList-Id: <only.test>\r\nPrecedence: list\r\n\r\nx\r\n"),
        250, 'a policy alone';
    is scalar($h->lines(qr/sender: a\@b\.test by=\S+ list=only\.test/)), 1, 'logs who it is from, over which list';
};

subtest 'a bounce' => sub {
    plan tests => 2;
    my $code = send_mail('policy', '', 'c@d.test', join "\r\n",
        'Content-Type: multipart/report; report-type=delivery-status; boundary=b', '', '--b', '', 'text', '--b',
        'Content-Type: message/delivery-status', '', 'Reporting-MTA: dns; mx.test', '',
        'Final-Recipient: rfc822; gone@far.test', 'Action: failed', 'Status: 5.1.1', '--b--', '');
    is $code, 250, 'is taken';
    is scalar($h->lines(qr/bounce: rcpt=gone\@far\.test original=- action=failed status=5\.1\.1/)), 1, 'and its recipient logged';
};

subtest 'what the relay refuses' => sub {
    plan tests => 2;
    $relay->script({ rcpt => [[reply => '550 5.1.1 nobody']] });
    my $c = $h->client('policy');
    $c->cmd('MAIL FROM:<a@b.test>');
    is $c->cmd('RCPT TO:<nobody@d.test>'), 550, 'is the relay\'s word';
    is scalar($h->lines(qr/policy: the relay has no recipient nobody\@d\.test/)), 1, 'and in the log';
    $relay->script({});
};

subtest 'the form' => sub {
    plan tests => 9;
    my $shown = $ua->get("$web/contact");
    is $shown->{status}, 200, 'GET';
    like $shown->{content}, qr/<form method="post"/, 'shows it';
    like $shown->{headers}{'content-security-policy'} // '', qr/default-src 'none'/, 'with its headers';
    my @fields = (name => "J\xc3\xb6rg", email => 'joe@example.com', subject => "hello\r\nBcc: x\@d.test", message => "One\r\n.\r\nTwo");
    my $sent = post_form(\@fields, $web);
    is $sent->{status}, 303, 'POST';
    is $sent->{headers}{location}, '/contact?sent', 'leads back';
    my ($got) = $relay->mails_from('office@d.test');
    is_deeply $got->{rcpts}, ['office@d.test'], 'one recipient';
    like $got->{data}, qr/^Subject: Contact: hello Bcc: x\@d\.test\r$/m, 'no field of the visitor\'s';
    is post_form(\@fields, 'http://evil.test')->{status}, 403, 'from another page';
    is post_form({ @fields, message => 'x' x 70_000 }, $web)->{status}, 413, 'too long';
};

subtest 'without a relay' => sub {
    plan tests => 2;
    undef $relay;
    my $answer = post_form({ name => 'Joe', email => 'joe@example.com', subject => 's', message => 'm' }, $web);
    is $answer->{status}, 503, 'the form says that it did not go';
    like $answer->{content}, qr/try again later/, 'and what to do';
};
