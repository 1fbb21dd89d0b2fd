# What the benchmarks share: an httpd of their own, many sockets at once, senders in processes of
# their own, printing a figure beside its target. The clients and the relay run on the same machine
# and take part of its processors, so figures are compared with each other rather than with others'.
#
#   use Bench;
#   my $h = httpd(main => ..., relay => $port);       # OwnHttpd, event MPM, host 'mail'
#   figure('greeting of a new client', 0.004, 's', '<', 1);
#   finish();                                          # exit status: all targets met
package Bench;

use strict;
use warnings;
use Exporter qw(import);
use IO::Socket::INET;
use OwnHttpd;
use POSIX ();
use PrivateServer;
use SMTPClient;
use Time::HiRes qw(sleep time);

our @EXPORT = qw(httpd figure note finish senders open_many sink median sleep time);

my $missed = 0;

sub httpd {
    my (%a) = @_;
    my $relay = delete $a{relay};
    my $params = delete $a{params} // 'retry=0';
    my $more = delete $a{mail} // '';
    my $to = $relay ? "smtp://127.0.0.1:$relay $params" : 'discard:';
    my %hosts = (mail => "SmtpdEngine on\nSmtpdRelay $to\nSmtpdSpool directory=%DIR%/spool\n$more",
        %{ delete $a{hosts} // {} });
    return OwnHttpd->new(mpm => 'event', modules => ['proxy'], hosts => \%hosts, %a,
        main => "MaxMemFree 8\n" . ($a{main} // ''))->start;
}

# Descriptors that this process and its children may have: starts the program anew with more of them
# where the limit can be raised, dies where it cannot.
sub descriptors_wanted {
    my ($n) = @_;
    chomp(my $limit = `sh -c 'ulimit -n'`);
    return if $limit eq 'unlimited' || $limit >= $n;
    die "this needs $n descriptors and may have only $limit; see ulimit -n\n" if $ENV{BENCH_RAISED}++;
    exec 'sh', '-c', "ulimit -n $n; exec \"\$0\" \"\$@\"", $0, @ARGV;
}

sub note { print "  $_[0]\n" }

sub figure {
    my ($name, $value, $unit, $relation, $target) = @_;
    my $met = !defined $relation ? 1
        : $relation eq '<' ? $value < $target : $relation eq '>' ? $value > $target : $value == $target;
    $missed++ if !$met;
    my $aim = defined $relation ? "   target $relation $target: " . ($met ? 'met' : 'MISSED') : '';
    printf "  %-58s %10s %s%s\n", $name, $value == int $value ? $value : sprintf('%.3f', $value), $unit, $aim;
}

sub finish { exit($missed ? 1 : 0) }

sub median { my @s = sort { $a <=> $b } @_; return $s[@s / 2] }

# An smtp-sink as relay; it is ended with the returned object.
sub sink {
    my $sink = PrivateServer->new;
    my $address = '127.0.0.1:' . $sink->port;
    $sink->spawn('smtp-sink', ($> == 0 ? ('-u', 'nobody') : ()), '-c', $address, 1000);
    return $sink->wait_until(sub { IO::Socket::INET->new(PeerAddr => $address) });
}

# Mails per second of n senders, each a process with one session that sends for so many seconds.
sub senders {
    my ($port, $n, $seconds, $octets) = @_;
    my $message = "Subject: bench\r\n\r\n" . ('x' x 76 . "\r\n") x ($octets / 78);
    my $until = time + $seconds;
    my @from = map {
        pipe my $from, my $to or die "pipe: $!\n";
        defined(my $pid = fork) or die "fork: $!\n";
        if (!$pid) {
            my ($count, $bad) = (0, 0);
            eval {
                my $c = SMTPClient->new(port => $port, timeout => 30);
                $c->cmd('EHLO bench.test');
                while (time < $until) { $c->mail('a@b.test', 'c@d.test', $message) == 250 ? $count++ : $bad++ }
                1;
            } or $bad++;
            syswrite $to, "$count $bad\n";
            POSIX::_exit(0);
        }
        close $to;
        [$from, $pid];
    } 1 .. $n;
    my ($sum, $bad) = (0, 0);
    for (@from) {
        my ($count, $failed) = split ' ', readline($_->[0]) // '0 1';
        waitpid $_->[1], 0;
        $sum += $count;
        $bad += $failed;
    }
    die "$bad senders or mails failed\n" if $bad;
    return $sum / $seconds;
}

# Opens n clients that are greeted and answered these commands; dies when one is not.
sub open_many {
    my ($port, $n, @commands) = @_;
    return map {
        my $c = SMTPClient->new(port => $port, timeout => 60);
        for (@commands) { my $code = $c->cmd($_); die "client: $_: $code\n" if $code !~ /^[23]/ }
        $c;
    } 1 .. $n;
}

1;
