# Through a real Postfix, with the clients that people use: the octets that arrive, the refusals that
# come back, and the queue id in the log. Postfix is started by root only (see tools/test).
use strict;
use warnings;
use Net::SMTP;
use TestHost;
use Test::More;

plan skip_all => 'no Postfix was started: the tests do not run as root' unless $ENV{POSTFIX_MAILDIR};
plan tests => 9;

my ($host, $port) = split /:/, hostport('smtp_postfix');
my $serial = 0;
my $body = "Subject: %s\r\n\r\n.\r\n..\r\n.dot \xe9\xff\r\n \r\n" . 'x' x 900 . "\r\n" . 'y' x 5000 . "\r\n\r\nend\r\n";

sub message { return sprintf $body, $_[0] }
sub tag { return sprintf 'pf-%d-%d', $$, ++$serial }
sub found {
    my ($pattern) = @_;
    return grep { slurp($_) =~ $pattern } glob "$ENV{POSTFIX_MAILDIR}/new/*";
}

# Waits until so many mails match; how many there are.
sub count_when {
    my ($pattern, $n, $seconds) = @_;
    &wait_for(sub { my @files = found($pattern); @files >= $n }, $seconds // 10);
    return scalar(my @files = found($pattern));
}

# Waits for the one file with the subject and compares what follows the added fields.
sub arrived {
    my ($tag, $sent) = @_;
    count_when(qr/^Subject: \Q$tag\E\r?$/m, 1);
    my @files = found(qr/^Subject: \Q$tag\E\r?$/m);
    is scalar(@files), 1, 'it arrived once';
    my ($got) = (@files ? slurp($files[0]) : '') =~ /^(Subject: .*)\z/ms;
    (my $want = $sent) =~ s/\r\n/\n/g;
    ok defined $got && $got eq $want, 'byte for byte' or diag explain [$got, $want];
    return @files ? slurp($files[0]) : '';
}

sub queue_id_logged {
    my ($tag, $file) = @_;
    my ($id) = $file =~ /^Received: from .*\n\s+by relay\.test .* id (\w+)/m;
    my $pattern = defined $id ? qr/reply="250 2\.0\.0 Ok: queued as \Q$id\E"/ : qr/(?!)/;
    ok &wait_for(sub { scalar(my @lines = log_lines('smtp_log', $pattern)) }, 5), 'its queue id is in the log';
}

sub program {
    my ($input, @command) = @_;
    my $file = Apache::Test::vars('t_logs') . '/program';
    spew("$file.in", $input);
    my $said = `@{[join ' ', map {"'$_'"} @command]} < '$file.in' 2>&1`;
    is $?, 0, "$command[0] is content" or diag $said;
    return $said;
}

subtest 'a raw session' => sub {
    plan tests => 4;
    my $tag = tag();
    is client('smtp_postfix', ehlo => 'me.test')->mail('a@b.test', 'c@d.test', message($tag)), 250, 'taken';
    queue_id_logged($tag, arrived($tag, message($tag)));
};

subtest 'swaks' => sub {
    plan tests => 3;
    my $tag = tag();
    my $text = "Subject: $tag\n\n.\nswaks \n";
    program('', 'swaks', '--server', "$host:$port", '--from', 'a@b.test', '--to', 'c@d.test,e@d.test', '--data', $text);
    is count_when(qr/^Subject: \Q$tag\E$/m, 2), 2, 'each recipient has it';
    like slurp((found(qr/^Subject: \Q$tag\E$/m))[0]), qr/\n\n\.\nswaks \n/, 'with its text';
};

subtest 'Net::SMTP' => sub {
    plan tests => 6;
    my $tag = tag();
    my $c = Net::SMTP->new($host, Port => $port, Hello => 'me.test', Timeout => 20);
    ok $c && defined $c->supports('PIPELINING'), 'connected';
    ok $c->mail('a@b.test', Bits => 8) && $c->to('c@d.test') && $c->data && $c->datasend("Subject: $tag\n\n.\nnet\n")
        && $c->dataend, 'sent';
    my $file = arrived($tag, "Subject: $tag\r\n\r\n.\r\nnet\r\n");
    queue_id_logged($tag, $file);
    ok $c->quit, 'QUIT';
};

subtest 'smtp-source' => sub {
    plan tests => 2;
    my $tag = tag();
    program('', 'smtp-source', '-s', 5, '-m', 50, '-l', 10240, '-S', $tag, '-f', 'a@b.test', '-t', 'c@d.test',
        "inet:$host:$port");
    is count_when(qr/^Subject: \Q$tag\E/m, 50, 20), 50, 'fifty mails in five sessions';
};

subtest 'curl' => sub {
    plan tests => 3;
    my $tag = tag();
    program(message($tag), 'curl', '-sS', "smtp://$host:$port/me.test", '--mail-from', 'a@b.test', '--mail-rcpt',
        'c@d.test', '-T', '-');
    arrived($tag, message($tag));
};

subtest 'msmtp' => sub {
    plan tests => 3;
    my $tag = tag();
    (my $text = message($tag)) =~ s/\r\n/\n/g;
    # It cuts lines into pieces of a thousand octets by itself, so that there is no long one here.
    $text =~ s/^y+\n//m;
    program($text, 'msmtp', '-C', '/dev/null', "--host=$host", "--port=$port", '--tls=off', '--auth=off',
        '--from=a@b.test', '--set-from-header=off', '--set-date-header=off', '--set-msgid-header=off', 'c@d.test');
    arrived($tag, $text);
};

subtest 'a recipient whom Postfix refuses' => sub {
    plan tests => 6;
    my $tag = tag();
    my $c = client('smtp_postfix', ehlo => 'me.test');
    $c->cmd('MAIL FROM:<a@b.test>');
    is $c->cmd('RCPT TO:<unknown@relay.test>'), 550, 'the code is Postfix\'s';
    like $c->text, qr/^5\.1\.1 .*no such user here/, 'and so is the text';
    is $c->cmd('RCPT TO:<c@d.test>'), 250, 'another is taken';
    is $c->data(message($tag)), 250, 'and gets the mail';
    arrived($tag, message($tag));
};

subtest 'large mails, several at once' => sub {
    plan tests => 2;
    my $tag = tag();
    my @c = map { client('smtp_postfix', ehlo => 'me.test', timeout => 60) } 1 .. 4;
    $_->pipeline('MAIL FROM:<a@b.test>', 'RCPT TO:<c@d.test>', 'DATA') for @c;
    my $large = "Subject: $tag\r\n\r\n" . ('z' x 76 . "\r\n") x 30000;
    $_->send_raw("$large.\r\n") for @c;
    is_deeply [map { $_->read_reply } @c], [250, 250, 250, 250], 'taken';
    (my $want = $large) =~ s/\r\n/\n/g;
    my $all = sub { grep { substr(slurp($_), -length $want) eq $want } glob "$ENV{POSTFIX_MAILDIR}/new/*" };
    ok &wait_for(sub { my @f = $all->(); @f == 4 }, 20), 'all four arrived whole';
};

subtest 'nothing is tried twice' => sub {
    plan tests => 1;
    my @lines = log_lines('error_log', qr/nssmtpd:error/);
    is scalar(grep {/127\.0\.0\.1:$ENV{POSTFIX_PORT}/} @lines), 0, 'no error about this relay' or diag @lines;
};
