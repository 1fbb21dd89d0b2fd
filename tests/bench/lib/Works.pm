# The table of works, and how each is done: rounds in turns over all targets (A B C, C B A, ..), or once
# for each target where time in rounds would tell nothing more. Results are plain data,
# $result{work}{target} = { rounds => [{..}], skipped => why, failed => why }, which Report.pm prints.
package Works;

use strict;
use warnings;
use Callgrind;
use List::Util qw(max min);
use Load;
use POSIX ();
use Sessions;
use Targets;
use Time::HiRes qw(sleep time);

my $m = 1 << 20;
my %small = (octets => 4096, parallel => 20, warm => 40, keep => 1);
my %large = (octets => $m, parallel => 10, warm => 10, keep => 1, watch => 1);
my @rows = (
    # name, what, how, load
    ['W1',  '4 KiB, a connection each mail, 20 parallel', \&rounds, { %small, keep => 0 }],
    ['W2',  '4 KiB, kept connections, 20 parallel',       \&rounds, { %small }],
    ['W3',  '1 MiB, kept connections, 10 parallel',       \&rounds, { %large }],
    ['W4',  '25 MiB, kept connections, 2 parallel',       \&rounds,
        { %large, octets => 25 * $m, parallel => 2, warm => 2 }],
    ['W5',  'idle sessions after EHLO',                   \&idle,   {}],
    ['W6',  'W2 beside 200 senders of an octet a second', \&beside, { %small }],
    ['W7',  'a set rate on kept connections',             \&paced,  { parallel => 20 }],
    ['dot', 'from the dot to its 250, one client, instant relay', \&dot, {}],
    ['TLS', 'W2 with STARTTLS and without, by clients in Perl',   \&tls, { parallel => 20 }],
    ['callgrind', 'instructions of httpd for a mail of W2',       \&count, {}],
);

sub all { return map { $_->[0] } @rows }
sub title { my ($name) = @_; return (map { $_->[1] } grep { $_->[0] eq $name } @rows)[0] }

sub run {
    my ($name, $o) = @_;
    my ($row) = grep { $_->[0] eq $name } @rows;
    my (%result, @started);
    for my $target (grep { $_->{in}{$name} } @{ $o->{targets} }) {
        if ($row->[2] == \&idle || $row->[2] == \&count) { push @started, $target; next }
        my ($t, $why, $bad) = Targets::start($target, $o->{sink});
        $t ? push(@started, $t) : ($result{ $target->{name} }{ $bad ? 'failed' : 'skipped' } = $why);
    }
    $row->[2]->($o, $row->[3], \%result, @started);
    $_->stop for grep { ref ne 'HASH' } @started;
    return \%result;
}

# One target's part, by its row where it is not started yet; what goes wrong there is written down and
# ends its part in this work.
sub _try {
    my ($o, $result, $t, $code) = @_;
    my $name = ref $t eq 'HASH' ? $t->{name} : $t->name;
    return if $result->{$name}{failed};
    $o->{say}->($name);
    my $round = eval { $code->($t) };
    if ($round) { push @{ $result->{$name}{rounds} }, $round; return }
    my $why = ($@ || 'no reason given') =~ s/\s+/ /gr;
    $result->{$name}{failed} = $why;
    my $said = ref $t eq 'HASH' ? '' : $t->said;
    warn "\n$name: $why\n", map { "    $_\n" } grep {length} (split /\n/, $said)[-6 .. -1];
    $t->stop if ref $t ne 'HASH';
    # What it still had for the sink is not to be counted as another's.
    my ($before, $quiet) = (-1, 0);
    while ($quiet < 5) {
        my $now = $o->{sink}->mails;
        $quiet = $now == $before ? $quiet + 1 : 0;
        $before = $now;
        sleep 0.2;
    }
}

# Calls code for all targets, forth in odd rounds and back in even ones.
sub _in_turns {
    my ($o, $result, $targets, $code) = @_;
    for my $n (1 .. $o->{rounds}) {
        _try($o, $result, $_, $code) for $n % 2 ? @$targets : reverse @$targets;
    }
}

# Fills pools and starts processes, and finds how many mails take the seconds that are wanted.
sub _warm {
    my ($o, $load, $t) = @_;
    my $n = $load->{warm};
    for (1 .. 3) {
        my %f = Load::mails($t, $o->{sink}, %$load, watch => 0, mails => $n);
        my $most = $load->{octets} > 1_000_000 ? $load->{parallel} : 2000;
        $t->{mails} = max($load->{warm}, POSIX::ceil($f{through} * $o->{seconds}));
        last if $f{seconds} > 0.5;
        $n = max($n, min($most, POSIX::ceil($f{through} * 0.6)));
    }
    $t->{mails} = $o->{mails} if $o->{mails} && $load->{octets} < 1_000_000;
}

# The work's load, and what a target's row sets of its own.
sub _once_warm {
    my ($o, $load, $t) = @_;
    my %load = (%$load, %{ $t->row->{load} // {} });
    _warm($o, \%load, $t) if !$t->{mails};
    return (%load, mails => $t->{mails});
}

sub rounds {
    my ($o, $load, $result, @targets) = @_;
    _in_turns($o, $result, \@targets, sub {
        my ($t) = @_;
        return { Load::mails($t, $o->{sink}, _once_warm($o, $load, $t)) };
    });
}

sub beside {
    my ($o, $load, $result, @targets) = @_;
    _in_turns($o, $result, \@targets, sub {
        my ($t) = @_;
        my %load = _once_warm($o, $load, $t);
        my %alone = Load::mails($t, $o->{sink}, %load);
        my $slow = Load::slow($t->port, 200);
        my %with = eval { Load::mails($t, $o->{sink}, %load) };
        my $why = $@;
        $slow->stop;
        die $why if $why;
        sleep 0.5;
        return { alone => $alone{rate}, beside => $with{rate}, of_alone => $with{rate} / $alone{rate} };
    });
}

sub idle {
    my ($o, $load, $result, @rows) = @_;
    for my $row (@rows) {
        my @steps = grep { $_ <= ($row->{most_idle} // $_) } @{ $o->{sessions} };
        @steps = ($row->{most_idle}) if !@steps;
        my ($t, $why, $bad) = Targets::start($row, $o->{sink}, $steps[-1]);
        if (!$t) { $result->{ $row->{name} }{ $bad ? 'failed' : 'skipped' } = $why; next }
        my @open = Load::idle($t->port, 50);
        @open = ();
        my $standing = 0;
        sleep 0.5;
        my $base = $t->pss;
        for my $n (@steps) {
            _try($o, $result, $t, sub {
                push @open, Load::idle($t->port, $n - $standing);
                $standing = $n;
                my @greeted = Load::greetings($t->port, 40);
                return { sessions => $n, kib => ($t->pss - $base) / $n, pss_kib => $t->pss,
                    greeted => Sessions::quantile(0.5, @greeted), greeted_last => max(@greeted) };
            });
        }
        @open = ();
        $t->stop;
    }
}

sub _waiting_ports {
    open my $in, '<', '/proc/net/sockstat' or return 0;
    local $/;
    return readline($in) =~ /^TCP:.* tw (\d+)/m ? $1 : 0;
}

sub _times { return (p50 => Sessions::quantile(0.5, @_), p99 => Sessions::quantile(0.99, @_)) }

sub paced {
    my ($o, $load, $result, @targets) = @_;
    my ($rate, $seconds) = @$o{qw(rate hold)};
    for my $target (@targets) {
        _try($o, $result, $target, sub {
            my ($t) = @_;
            my ($connections, $ports, $children, @took) = (0, 0, 0);
            my $ports_before = _waiting_ports();
            my %f = Load::measured($t, $o->{sink}, $rate * $seconds, sub {
                @took = Sessions::run($t->port, %$load, rate => $rate, seconds => $seconds, look => sub {
                    $connections = max($connections, $o->{sink}->connections);
                    $ports = max($ports, _waiting_ports() - $ports_before);
                    $children = max($children, $t->{children}->());
                });
                return 0;
            });
            return { %f, wanted => $rate, connections => $connections, children => $children,
                ports_waiting => $ports, _times(@took) };
        });
    }
}

sub dot {
    my ($o, $load, $result, @targets) = @_;
    _in_turns($o, $result, \@targets, sub {
        my ($t) = @_;
        Sessions::run($t->port, parallel => 1, mails => 100) if !$t->{warm}++;
        my @took;
        my $n = 2000;
        my $run = sub { @took = Sessions::run($t->port, parallel => 1, mails => $n); return 0 };
        my %f = Load::measured($t, $o->{sink}, $n, $run);
        return { %f, _times(@took) };
    });
}

sub tls {
    my ($o, $load, $result, @targets) = @_;
    my $mails = $load->{parallel} * POSIX::ceil(($o->{mails} || 1000 * $o->{seconds}) / $load->{parallel});
    my $run = sub {
        my ($t, $tls) = @_;
        my $n = $t->{warm}{$tls}++ ? $mails : 200;
        my %load = (%$load, mails => $n, tls => $tls);
        return { Load::measured($t, $o->{sink}, $n, sub { Sessions::run($t->port, %load); 0 }) };
    };
    my $turn = 0;
    _in_turns($o, $result, \@targets, sub {
        my ($t) = @_;
        $t->{warm} || $run->($t, $_) for 0, 1;
        my %f = map { $_ => $run->($t, $_) } $turn++ % 2 ? (1, 0) : (0, 1);
        return { plain => $f{0}, tls => $f{1}, of_plain => $f{1}{rate} / $f{0}{rate} };
    });
}

sub count {
    my ($o, $load, $result, @rows) = @_;
    for my $row (@rows) {
        my $why = Callgrind::missing();
        if ($why) { $result->{ $row->{name} }{skipped} = $why; next }
        _try($o, $result, $row, sub { return Callgrind::count($o->{sink}, $o->{keep}) });
    }
}

1;
