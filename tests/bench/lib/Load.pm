# What is done to a target: mails by smtp-source, counted by the sink; sessions that wait, and clients
# that send an octet a second. What smtp-source cannot (TLS, a set pace, the time of a reply) is in
# Sessions.pm.
#
#   my %figures = Load::mails($target, $sink, mails => 4000, parallel => 20, octets => 4096, keep => 1);
package Load;

use strict;
use warnings;
use IO::Socket::INET;
use List::Util qw(max sum);
use POSIX ();
use ProcessTree;
use Sessions;
use Time::HiRes qw(sleep time);

my ($from, $to) = ('a@bench.test', 'c@bench.test');
our $limit = 300;
my $tick = POSIX::sysconf(POSIX::_SC_CLK_TCK());

# Runs it to its end; looks at the target's memory every half second.
sub _smtp_source {
    my ($target, %a) = @_;
    my $log = File::Temp->new(TMPDIR => 1);
    my $pid = fork // die "fork: $!\n";
    if (!$pid) {
        open STDOUT, '>', '/dev/null';
        open STDERR, '>', "$log";
        exec 'smtp-source', '-s', $a{parallel}, '-m', $a{mails}, '-l', $a{octets}, ($a{keep} ? '-d' : ()),
            '-f', $from, '-t', $to, '-M', 'bench.test', '127.0.0.1:' . $target->port or POSIX::_exit(127);
    }
    my ($began, $next, $pss) = (time, time + 0.5, 0);
    until (waitpid($pid, POSIX::WNOHANG()) == $pid) {
        if (time - $began > $limit) {
            kill TERM => $pid;
            waitpid $pid, 0;
            die "no end within $limit s\n";
        }
        sleep 0.005;
        next if time < $next || !$a{watch};
        my $now = $target->pss;
        $pss = $now if $now > $pss;
        $next = time + 0.5;
    }
    if ($?) {
        my $why = join ' ', map { chomp; $_ } <$log>;
        die 'smtp-source: ' . ($why || "status $?") . "\n";
    }
    return $pss;
}

# A measured run of anything that sends so many mails: dies when the sink has not as many more. The rate
# is that of the clients' 250, and through that of the arrivals: servers with a queue are still at it.
sub measured {
    my ($target, $sink, $mails, $run) = @_;
    my ($had, $sessions) = ($sink->mails, $sink->sessions);
    my @before = ($target->cpu, $sink->process->cpu, _busy());
    my $began = time;
    my $peak = $run->();
    my $answered = time - $began;
    my $has = $sink->wait_for($had + $mails, $limit);
    my $took = time - $began;
    my @after = ($target->cpu, $sink->process->cpu, _busy());
    my @used = map { $after[$_] - $before[$_] } 0 .. $#after;
    my $pss = $target->pss;
    $has - $had == $mails or die "$mails mails were sent and the sink has " . ($has - $had) . "\n";
    return (
        mails => $mails, seconds => $took, rate => $mails / $answered, through => $mails / $took,
        cpu_ms => $target->serves ? 1000 * $used[0] / $mails : undef,
        sink_cpu_ms => 1000 * $used[1] / $mails,
        pss_kib => $target->serves ? ($peak && $peak > $pss ? $peak : $pss) : undef,
        others => max(0, $used[2] - $used[3] - $used[0] - $used[1]) / $took,
        relay_sessions => $sink->sessions - $sessions,
    );
}

# Seconds that the machine's processors were at work, and those of this program and its ended children:
# what is over was done by somebody else, and makes a round worth less.
sub _busy {
    open my $in, '<', '/proc/stat' or die "/proc/stat: $!\n";
    my (undef, @ticks) = split ' ', readline $in;
    my @own = times;
    return (sum(@ticks[0 .. 2, 5, 6]) / $tick, sum(@own));
}

sub mails {
    my ($target, $sink, %a) = @_;
    return measured($target, $sink, $a{mails}, sub { _smtp_source($target, %a) });
}

# A process that opens so many clients and says when all stand, then does `beat` to each once a second
# until it is stopped: a descriptor a session must not be more than one process may have.
sub _held {
    my ($n, $open, $beat) = @_;
    pipe my $stands, my $say or die "pipe: $!\n";
    my $pid = fork // die "fork: $!\n";
    if (!$pid) {
        $SIG{TERM} = 'DEFAULT';
        $SIG{PIPE} = 'IGNORE';
        my @clients = eval { map { $open->($_) } 1 .. $n };
        syswrite $say, @clients == $n ? "$n\n" : $@;
        while (@clients) { $beat->($_) for $beat ? @clients : (); sleep 1 }
        POSIX::_exit(1);
    }
    close $say;
    my $said = readline($stands) // 'it ended';
    my $process = bless { roots => [$pid], started => $pid, owner => $$ }, 'ProcessTree';
    die "clients: $said" if $said ne "$n\n";
    return $process;
}

# Processes that hold sessions which said EHLO and wait; each address has ports of its own to come from.
sub idle {
    my ($port, $n) = @_;
    my @held;
    for (my $left = $n; $left > 0; $left -= 2500) {
        push @held, _held($left < 2500 ? $left : 2500, sub { _greeted($port, '127.0.1.' . (1 + $_[0] % 8)) });
    }
    return @held;
}

sub _greeted {
    my ($port, $address) = @_;
    my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port, Timeout => 30,
        ($address ? (LocalAddr => $address) : ())) or die "session: $@\n";
    Sessions::exchange($s, '', '220');
    Sessions::exchange($s, "EHLO bench.test\r\n", '250');
    return $s;
}

# Seconds from connect to greeting, of so many new clients one after the other.
sub greetings {
    my ($port, $n) = @_;
    return map {
        my $began = time;
        my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port, Timeout => 30)
            or die "new client: $@\n";
        Sessions::exchange($s, '', '220');
        my $took = time - $began;
        Sessions::exchange($s, "QUIT\r\n", '221');
        $took;
    } 1 .. $n;
}

# So many clients in DATA that send an octet a second.
sub slow {
    my ($port, $n) = @_;
    return _held($n, sub {
        my $s = _greeted($port);
        Sessions::exchange($s, "MAIL FROM:<$from>\r\n", '250');
        Sessions::exchange($s, "RCPT TO:<$to>\r\n", '250');
        Sessions::exchange($s, "DATA\r\n", '354');
        return $s;
    }, sub { syswrite $_[0], 'x' });
}

1;
