# Restarts, stops and killed children: no mail is lost, doubled or left without a reply. Each part has
# an httpd of its own with the MPM of TEST_MPM.
use strict;
use warnings;
use FakeRelay;
use File::Temp ();
use IO::Select;
use List::Util qw(max);
use OwnHttpd;
use POSIX ();
use SMTPClient;
use TestHost qw(slurp wait_for);
use Test::More tests => 6;
use Time::HiRes qw(sleep time);

my $small = "ThreadLimit 10\nThreadsPerChild 10\nServerLimit 4\nStartServers 2\nMaxRequestWorkers 40\n"
    . "AsyncRequestWorkerFactor 20\n";
my $prefork = "ServerLimit 60\nStartServers 5\nMaxRequestWorkers 60\n";
my $mpm = $ENV{TEST_MPM} // 'event';
my $main = $mpm eq 'prefork' ? $prefork : $mpm eq 'worker' ? $small =~ s/^Async.*\n//mr : $small;

sub connected {
    my ($h, %a) = @_;
    my $c = SMTPClient->new(port => $h->port('mail'), timeout => 15, %a);
    $c->cmd('EHLO me.test');
    return $c;
}

# One client process: mails in kept sessions until told to end; a line per mail in its file: the id
# and the reply's code, or "cut" if the connection ended without a reply.
sub send_mails {
    my ($h, $name, $file, $until) = @_;
    open my $out, '>', $file or POSIX::_exit(2);
    my ($n, $c) = (0);
    while (time < $until || $n < 3) {
        my $id = "$name-" . ++$n;
        my $code = eval {
            $c ||= connected($h);
            $c->mail('a@b.test', 'c@d.test', "X-Id: $id\r\n\r\n" . 'x' x 200 . "\r\n");
        };
        # The restart may be told between two commands; what follows is sent into a closed connection.
        my $told = $c && "@{ [$c->code] } " . $c->unread =~ /421/ ? 1 : 0;
        $code = defined $code ? $code : $told || ($c && $c->code == 421) ? 421 : "cut ($@)";
        $code =~ s/\s+/ /g;
        print {$out} "$id $code\n";
        undef $c if $code ne '250';
        sleep($n % 4 ? 0.05 : 0.5); # a pause after which it may be told of a restart, or too short for that
    }
    close $out;
    POSIX::_exit(0);
}

subtest 'graceful restarts under twenty sessions' => sub {
    plan tests => 5;
    my $relay = FakeRelay->new;
    my $h = OwnHttpd->new(main => $main, modules => ['proxy'], hosts => { mail =>
        "SmtpdEngine on\nSmtpdRelay smtp://127.0.0.1:" . $relay->port . " retry=0\n" })->start;
    my $dir = File::Temp->newdir('lifecycle.XXXXXX', TMPDIR => 1);
    my $until = time + 4;
    my @pids = map {
        my $i = $_;
        defined(my $pid = fork) or die "fork: $!";
        send_mails($h, "s$i", "$dir/$i", $until) if !$pid;
        $pid;
    } 1 .. 20;
    for (1 .. 3) { sleep 1; $h->graceful; }
    waitpid $_, 0 for @pids;
    my %said = map { map { /^(\S+) (.*)/ ? ($1 => $2) : () } split /\n/, slurp("$dir/$_") } 1 .. 20;
    my %at_relay;
    $at_relay{ $_->{data} =~ /^X-Id: (\S+)/m ? $1 : '?' }++ for $relay->mails;
    my @taken = grep { $said{$_} eq '250' } keys %said;
    cmp_ok scalar(@taken), '>', 50, scalar(@taken) . ' mails were answered 250';
    is_deeply [grep { ($at_relay{$_} // 0) != 1 } @taken], [], 'each of them is at the relay once';
    is_deeply [grep { ($said{$_} // '') ne '250' } keys %at_relay], [], 'and no other mail';
    is_deeply [map {"$_: $said{$_}"} grep { $said{$_} !~ /^(?:250|421)$/ } sort keys %said], [],
        'no session ended without a reply';
    $h->stop;
    unlike $h->log('error.log'), qr/exit signal/, 'no child crashed';
};

# Each idle session gets its 421 within two seconds of $tell->($h).
sub idle_sessions_are_told {
    my ($name, $tell) = @_;
    subtest $name => sub {
        plan tests => 7;
        my $relay = FakeRelay->new;
        my $h = OwnHttpd->new(main => $main, modules => ['proxy'], hosts => { mail =>
            "SmtpdEngine on\nSmtpdRelay smtp://127.0.0.1:" . $relay->port . " retry=0\n" })->start;
        my @idle = map { connected($h) } 1 .. 10;
        push @idle, SMTPClient->new(port => $h->port('mail'), timeout => 15) for 1 .. 2;
        my $writer = connected($h);
        $writer->pipeline('MAIL FROM:<a@b.test>', 'RCPT TO:<c@d.test>', 'DATA');
        $writer->send_raw("Subject: in hand\r\n\r\nfirst half, ");
        sleep 0.1; # a session is idle when its thread no longer stays for the next command, 20 ms
        my $start = time;
        $tell->($h);
        my (@codes, $slowest);
        for (@idle) {
            push @codes, eval { $_->read_reply . ' ' . $_->text } // "none: $@";
            $slowest = time - $start;
        }
        # The worker MPM closes the sockets itself before it tells anybody that it stops.
        my $told = $mpm eq 'worker' && $name eq 'stop' ? qr/\A(?:421 4\.3\.2|none: )/ : qr/\A421 4\.3\.2/;
        is_deeply [grep { $_ !~ $told } @codes], [], 'idle sessions: 421 4.3.2' or diag explain \@codes;
        cmp_ok $slowest, '<', 2, 'within two seconds';
        is scalar(grep { !$_->expect_eof } @idle), 0, 'and closed';
        my $stops = $name =~ /stop$/;
        my $said = eval { $writer->send_raw("second half\r\n.\r\n")->read_reply } // 'cut';
        $stops ? isnt($said, 250, 'a mail in hand is not taken') : is($said, 250, 'a mail in hand is finished');
        is scalar(my @mails = $relay->mails), $stops ? 0 : 1, 'mails at the relay';
        if ($stops) {
            ok $h->wait_end(10), 'httpd ended';
        }
        else {
            is eval { $writer->read_reply } // 'cut', 421, 'and its session ends then';
        }
        my $new = $stops ? undef : eval { connected($h)->mail('a@b.test', 'c@d.test', "x\r\n") };
        $stops ? unlike($h->log('error.log'), qr/exit signal Seg/, 'no child crashed')
               : is($new, 250, 'the new generation takes mails');
    };
}
idle_sessions_are_told('graceful', sub { $_[0]->graceful });
idle_sessions_are_told('stop', sub { $_[0]->signal('TERM') });

# What ends a child may be that httpd has more than it needs: who sends mail after mail notices nothing,
# whether a thread stays for it between two mails or not (it pauses for longer than one stays). On a busy
# machine a client may pause although it does not mean to: then again.
sub send_on_until_another_is_told {
    my $h = OwnHttpd->new(main => $main, hosts => { mail => "SmtpdEngine on\nSmtpdRelay discard:\n" })->start;
    my ($quick, $slow, $idle) = map { connected($h) } 1 .. 3;
    my (%said, %before, $mails);
    my $longest = 0;
    my $mail = sub {
        $said{ eval { $_[0]->mail('a@b.test', 'c@d.test', "x\r\n") } // 'cut' }++;
        my $now = time;
        $longest = max($longest, $now - ($before{ $_[0] } // $now));
        $before{ $_[0] } = $now;
    };
    my $signs = IO::Select->new($idle->socket);
    my $until = time + 15;
    while (keys %said < 2 && !$signs->can_read(0.05) && time < $until) {
        $mail->($quick) for 1 .. 20;
        $mail->($slow);
        $h->signal('USR1') if $mails++ == 5;
    }
    my $idle_is = eval { $idle->read_reply } // 'cut';
    $mail->($_) for $quick, $slow;
    return $longest < 0.25 ? ($idle_is, \%said, map { eval { $_->read_reply } // 'cut' } $quick, $slow) : ();
}

subtest 'a client in the midst of its mails goes on until it pauses' => sub {
    plan tests => 3;
    my @seen;
    for (1 .. 10) { last if @seen = send_on_until_another_is_told() }
    my ($idle, $said, @then) = @seen;
    is $idle, 421, 'an idle session is told';
    is_deeply [keys %$said], [250], 'the others send on' or diag explain $said;
    is_deeply \@then, [421, 421], 'and are told when they pause';
};

# Sockets of a process, to find the child that serves somebody.
sub sockets {
    my ($pid) = @_;
    return scalar grep { (readlink($_) // '') =~ /^socket:/ } glob "/proc/$pid/fd/*";
}

subtest 'a child that is killed' => sub {
    plan tests => 7;
    my $h = OwnHttpd->new(main => $main, hosts => { mail => "SmtpdEngine on\nSmtpdRelay discard:\n"
        . "SmtpdTrustedClients none\nSmtpdRelayDomains d.test\nSmtpdMaxConnections 30 30\n"
        . "SmtpdSpool memory=1K directory=%DIR%/spool\n" })->start;
    wait_for { my @c = $h->children; @c >= 2 };
    my %before = map { $_ => sockets($_) } $h->children;
    my @c = map { connected($h) } 1 .. 24;
    for (@c) {
        $_->pipeline('MAIL FROM:<>', 'RCPT TO:<c@d.test>', 'DATA');
        $_->send_raw('x' x 5000 . "\r\n");
    }
    my $full = sub {
        my $n = 0;
        for (1 .. 8) { $n++ if eval { SMTPClient->new(port => $h->port('mail'))->code } == 220 }
        return $n;
    };
    cmp_ok $full->(), '<=', 8, 'some places are left';
    ok wait_for { !(my @files = glob $h->dir . '/spool/*') }, 'the spool has no names while mails come';
    my ($victim) = sort { sockets($b) - ($before{$b} // 0) <=> sockets($a) - ($before{$a} // 0) } $h->children;
    kill KILL => $victim;
    my $all_seen = wait_for {
        $_->send_raw('') for ();
        scalar grep { IO::Select->new($_->socket)->can_read(0) } @c;
    };
    ok $all_seen, 'its sessions end';
    my @alive;
    for (grep { !IO::Select->new($_->socket)->can_read(0.2) } @c) {
        push @alive, $_ if eval { $_->send_raw(".\r\n")->read_reply } == 250;
    }
    my $dead = grep { IO::Select->new($_->socket)->can_read(0) && $_->expect_eof } @c;
    is @alive + $dead, scalar @c, scalar(@alive) . " others go on, $dead are dead";
    is_deeply [glob $h->dir . '/spool/*'], [], 'the spool has no file';
    my @again;
    wait_for {
        my $s = eval { SMTPClient->new(port => $h->port('mail')) };
        push @again, $s if $s && $s->code == 220;
        @again + @alive >= 30;
    } 15;
    is @again + @alive, 30, 'the places of the dead are given to others';
    my $more = SMTPClient->new(port => $h->port('mail'));
    is $more->code, 421, 'and not more than those';
};

subtest 'a restart keeps the listener ready for clients that wait' => sub {
    plan tests => 3;
    my $h = OwnHttpd->new(main => $main, hosts => { mail => "SmtpdEngine on\nSmtpdRelay discard:\n" })->start;
    is(SMTPClient->new(port => $h->port('mail'), timeout => 15)->code, 220, 'greeted at first');
    for my $n (1, 2) {
        my $before = () = $h->log('error.log') =~ /resuming normal operations/g;
        $h->graceful;
        wait_for { my $now = () = $h->log('error.log') =~ /resuming normal operations/g; $now > $before } 5;
        my $code = eval { SMTPClient->new(port => $h->port('mail'), timeout => 15)->code } // "none: $@";
        is $code, 220, "greeted after restart $n";
    }
};
