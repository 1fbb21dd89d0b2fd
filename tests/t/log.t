# The logs: a CustomLog line per MAIL command whatever its end, one per session that ended badly
# without any, the variables, and nothing of a client's in any log but escaped.
use strict;
use warnings;
use Cwd qw(abs_path);
use FakeRelay;
use File::Basename qw(dirname);
use TestHost;
use Test::More tests => 12;

my $serial = 0;
sub tag { return sprintf 'log-%d-%d', $$, ++$serial }
sub lines_of { my ($tag) = @_; return log_lines('smtp_log', qr/helo="\Q$tag\E"/) }

# The lines of a session once there are as many as wanted; a line too many shows up when another
# session, which is over later, has its line.
sub lines_when {
    my ($tag, $n) = @_;
    wait_for { my @lines = lines_of($tag); @lines >= $n };
    my $mark = tag();
    my $c = client('smtp_discard', ehlo => $mark);
    $c->mail('', 'c@d.test', '');
    $c->quit;
    wait_for { my @lines = lines_of($mark); scalar @lines };
    return lines_of($tag);
}

# Runs a session; its lines must show these codes and commands, in this order.
sub logged {
    my ($name, $host, $session, @want) = @_;
    subtest $name => sub {
        plan tests => 1;
        my $tag = tag();
        my $c = client($host, ehlo => $tag);
        $session->($c);
        $c->close;
        my @seen = map { /^\d+ \S+ (\S+) "((?:[^"\\]|\\.)*)"/ ? "$1 $2" : "bad line: $_" }
            lines_when($tag, scalar @want);
        s/^2\d\d /2xx / for @want, @seen;
        is_deeply \@seen, \@want, 'lines' or diag explain \@seen;
    };
}

my $mail = 'MAIL FROM:<a@b.test>';
my $relay = FakeRelay->new(port => $ENV{FAKE_RELAY_PORT}, script => {
    rcpt => [[reply => '550 5.1.1 nobody'], [reply => '250 2.1.5 ok']],
    dot => [[reply => '554 5.7.1 spam'], [reply => '250 2.0.0 queued as Q123']],
});

subtest 'one line per MAIL command' => sub {
    plan tests => 11;
    logged('a mail that is taken', 'smtp_discard', sub { $_[0]->mail('a@b.test', 'c@d.test', "x\r\n") },
        "250 $mail");
    logged('three of a session', 'smtp_discard', sub { $_[0]->mail('a@b.test', 'c@d.test', "x\r\n") for 1 .. 3 },
        ("250 $mail") x 3);
    logged('MAIL that is refused', 'smtp_discard', sub { $_[0]->cmd('MAIL FROM:<a b>') }, '553 MAIL FROM:<a b>');
    logged('nested MAIL', 'smtp_discard', sub { $_[0]->pipeline($mail, 'MAIL FROM:<>', 'RSET') },
        '503 MAIL FROM:<>', "250 $mail");
    logged('RSET', 'smtp_discard', sub { $_[0]->pipeline($mail, 'RCPT TO:<c@d.test>', 'RSET') }, "250 $mail");
    logged('QUIT', 'smtp_discard', sub { $_[0]->pipeline($mail, 'QUIT') }, "221 $mail");
    logged('only refused recipients', 'smtp_stranger', sub {
        $_[0]->pipeline($mail, 'RCPT TO:<c@d.test>', 'DATA', 'RSET') }, "550 $mail");
    logged('the client leaves in DATA', 'smtp_discard', sub {
        $_[0]->pipeline($mail, 'RCPT TO:<c@d.test>', 'DATA'); $_[0]->send_raw("half a mess") }, "451 $mail");
    logged('the deadline in DATA', 'smtp_small', sub {
        $_[0]->pipeline($mail, 'RCPT TO:<c@d.test>', 'DATA'); $_[0]->read_reply }, "421 $mail");
    logged('a message too large', 'smtp_small', sub { $_[0]->mail('a@b.test', 'c@d.test', 'x' x 70000) },
        "552 $mail");
    logged('the relay refuses the recipient, then the message, then nothing', 'smtp_fake', sub {
        my ($c) = @_;
        $c->cmd($mail);
        $c->cmd('RCPT TO:<nobody@d.test>');
        $c->cmd('RSET');
        $c->mail('a@b.test', 'c@d.test', "x\r\n") for 1 .. 2;
    }, "550 $mail", "554 $mail", "250 $mail");
};

subtest 'sessions without MAIL' => sub {
    plan tests => 4;
    logged('that went well have no line', 'smtp_discard', sub { $_[0]->pipeline('NOOP', 'QUIT') });
    logged('that ended in 5xx have one', 'smtp_discard', sub { $_[0]->cmd('BLURB') }, '500 -');
    logged('that had an error before all was well have none', 'smtp_discard', sub { $_[0]->pipeline('BLURB', 'QUIT') });
    logged('that were cut off have one', 'smtp_small', sub { $_[0]->pipeline(('BLURB') x 6) }, '421 -');
};

subtest 'variables' => sub {
    plan tests => 13;
    my $tag = tag();
    $relay->script({ dot => [[reply => '250 2.0.0 queued as Q123']] });
    my $c = client('smtp_fake', ehlo => $tag);
    my $code = $c->mail('a@b.test', ['c@d.test', 'e@f.test'], "Subject: $tag\r\n\r\nx\r\n");
    is $code, 250, 'a mail';
    my ($line) = lines_when($tag, 1);
    my %v = map { /^(\w+)="?(.*?)"?$/ ? ($1 => $2) : () } split / (?=\w+=)/, $line // '';
    my ($sent) = $relay->wait_for(sub { grep { $_->{data} =~ /Subject: \Q$tag\E/ } $_[0]->mails });
    like $v{id}, qr/^\S{8,}$/, 'SMTP_ID';
    like $sent ? $sent->{data} : '', qr/ id \Q$v{id}\E\b/, 'is that of Received';
    is $v{helo}, $tag, 'SMTP_HELO';
    is $v{from}, 'a@b.test', 'SMTP_FROM';
    is $v{rcpt}, 'c@d.test,e@f.test', 'SMTP_RCPT';
    is $v{n}, 2, 'SMTP_RCPT_COUNT';
    is $v{size}, length("Subject: $tag\r\n\r\nx\r\n"), 'SMTP_SIZE';
    is $v{proto}, 'ESMTP', 'SMTP_PROTOCOL';
    like $v{relay}, qr{^smtp://127\.0\.0\.1:$ENV{FAKE_RELAY_PORT}\b}, 'SMTP_RELAY';
    like $line, qr/reply="250 2\.0\.0 queued as Q123"/, 'SMTP_REPLY is the relay\'s, with its queue id';
    my $port = (split /:/, hostport('smtp_fake'))[1];
    like $line, qr/^$port 127\.0\.0\.1 250 /, 'port, address, code';
    my $old = tag();
    $c = client('smtp_discard');
    $c->cmd("HELO $old");
    $c->mail('', 'c@d.test', '');
    like +(lines_when($old, 1))[0], qr/ proto=SMTP .*from="" |from="" .* proto=SMTP /, 'after HELO, null path';
};

subtest 'what a client says is escaped' => sub {
    plan tests => 6;
    my $c = client('smtp_stranger');
    my $tag = tag();
    $c->cmd("EHLO $tag\"quoted\\back%n%s");
    $c->cmd("MAIL FROM:<$tag\e[31m\@b.test>");
    $c->cmd("MAIL FROM:<$tag\t\x01\x7f\x80\xff%n%n%n\@b.test>");
    $c->cmd("MAIL FROM:<\"$tag \\\"%s\"\@b.test>");
    $c->cmd("RCPT TO:<\"$tag %n \\\" x\"\@elsewhere.test>");
    $c->cmd("RCPT TO:<$tag\e]0;x\a\@elsewhere.test>");
    $c->close;
    my @lines = wait_for { my @l = log_lines('smtp_log', qr/\Q$tag\E.*%s.*b\.test/); scalar @l };
    @lines = log_lines('smtp_log', qr/helo="\Q$tag\E/);
    is scalar(@lines), 3, 'a line for each MAIL';
    like $lines[0], qr/helo="\Q$tag\E\\"quoted\\\\back%n%s"/, 'quotes and backslashes';
    like $lines[0], qr/\\x1b\[31m|\\e\[31m/, 'ESC';
    like $lines[1] // '', qr/\\t\\x01\\x7f\\x80\\xff%n%n%n/, 'other control octets and 8-bit ones';
    my $logs = Apache::Test::vars('t_logs');
    my %octets = map { my $text = slurp("$logs/$_"); $_ => scalar($text =~ /[^\n\x20-\x7e]/) ? 'raw' : 'clean' }
        qw(smtp_log error_log);
    is_deeply \%octets, { smtp_log => 'clean', error_log => 'clean' }, 'no control octet in any log';
    my @errors = log_lines('error_log', qr/\Q$tag\E/);
    like $errors[0] // '', qr/denied: relaying.*\Q$tag\E %n/, 'the recipient of the error log as it was said';
};

# The form that the documentation gives to those who read it by a program.
my $client = qr/\[client 127\.0\.0\.\d+:\d+\] NS\d{4}: denied: /;
sub denials { return scalar(my @lines = log_lines('error_log', qr/$client$_[0]/)) }

sub denied {
    my ($name, $pattern, $host, $session, $n) = @_;
    subtest $name => sub {
        plan tests => 1;
        my $before = denials($pattern);
        my $c = client($host);
        $session->($c);
        $c->close;
        wait_for { denials($pattern) > $before } 3;
        is denials($pattern) - $before, $n, "'denied: ...' with the client's address, $n times";
    };
}
denied('relaying is denied', qr/relaying/, 'smtp_stranger', sub {
    $_[0]->pipeline('EHLO me.test', $mail, 'RCPT TO:<a@x.test>', 'RCPT TO:<b@x.test>', 'RSET') }, 2);
denied('too many errors', qr/too many errors/, 'smtp_small', sub { $_[0]->pipeline(('BLURB') x 6) }, 1);
denied('too many commands', qr/too many commands/, 'smtp_discard', sub {
    eval { $_[0]->pipeline(('NOOP') x 300) } }, 1);
denied('too many connections', qr/too many connections/, 'smtp_counted', sub {
    my @others = map { client('smtp_counted') } 1 .. 3 }, 1);
denied('too many recipients', qr/too many recipients/, 'smtp_small', sub {
    $_[0]->pipeline('EHLO me.test', $mail, map {"RCPT TO:<r$_\@x.test>"} 1 .. 4) }, 1);

# A line has the client's words in it, and who can name another there has him banned.
subtest 'the filter for fail2ban finds the client' => sub {
    plan tests => 2;
    my ($regex) = slurp(dirname(abs_path(__FILE__)) . '/../../conf/fail2ban/nssmtpd.conf') =~ /^failregex = (.*)$/m;
    $regex =~ s/<HOST>/([\\d.]+|[\\da-f:]+)/;
    my $c = client('smtp_stranger', ehlo => tag());
    $c->cmd('MAIL FROM:<"[client 192.0.2.99:1] NS0020: denied: "@b.test>');
    is $c->cmd('RCPT TO:<c@elsewhere.test>'), 550, 'denied';
    my $line = wait_for { (log_lines('error_log', qr/192\.0\.2\.99/))[0] };
    $line =~ s/^\[[^\]]*\]//; # the date is taken off
    is +($line =~ /$regex/)[0], '127.0.0.1', 'the one who was';
};

subtest 'a connection alone is worth no line' => sub {
    plan tests => 2;
    my ($quiet, $mark) = (tag(), tag());
    my $had = my @before = log_lines('error_log', qr/^/); # the same ports may stand there
    my @ports;
    for (1 .. 20) {
        my $c = client('smtp_discard', ehlo => $quiet);
        push @ports, $c->port;
        $c->quit;
    }
    client('smtp_discard', ehlo => $mark)->cmd('MAIL FROM:<a b>');
    wait_for { my @l = lines_of($mark); scalar @l };
    my $clients = join '|', @ports;
    my @since = log_lines('error_log', qr/^/);
    splice @since, 0, $had;
    is scalar(grep { /\[client 127\.0\.0\.1:(?:$clients)\]/ } @since), 0, 'in the error log';
    is scalar(my @mails = lines_of($quiet)), 0, 'in the log of mails';
};

subtest 'nothing crashed' => sub {
    plan tests => 1;
    is scalar(my @lines = log_lines('error_log', qr/exit signal/)), 0, 'no child died';
};
