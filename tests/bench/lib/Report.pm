# Turns the results of Works.pm into medians and ratios, a table for each work, the table of what is to
# be reached, and a JSON file. Ratios are of figures of the same round; the median of those is shown.
package Report;

use strict;
use warnings;
use JSON::PP ();
use List::Util qw(max min);
use Sessions;
use SmallFile;
use Works;

sub median {
    my @s = sort { $a <=> $b } grep {defined} @_;
    return undef if !@s; # not an empty list: it is a value in hashes
    return @s % 2 ? $s[$#s / 2] : ($s[@s / 2 - 1] + $s[@s / 2]) / 2;
}

sub _column { my ($of, $key) = @_; return map { $_->{$key} } @{ $of->{rounds} // [] } }

# The median over the rounds of one target's figure divided by another's.
sub ratio {
    my ($work, $name, $other, $key) = @_;
    my ($mine, $theirs) = map { $work->{$_}{rounds} // [] } $name, $other;
    my $n = min(scalar @$mine, scalar @$theirs);
    return median(map { $_->[1] && defined $_->[0] ? $_->[0] / $_->[1] : undef }
        map { [$mine->[$_]{$key}, $theirs->[$_]{$key}] } 0 .. $n - 1);
}

# Adds to each target the medians of its figures, and the ratios to all the others.
sub summarize {
    my ($results) = @_;
    for my $work (values %$results) {
        my @names = grep { @{ $work->{$_}{rounds} // [] } } keys %$work;
        for my $name (@names) {
            my $of = $work->{$name};
            my @keys = grep { !ref $of->{rounds}[0]{$_} } keys %{ $of->{rounds}[0] };
            $of->{median} = { map { $_ => median(_column($of, $_)) } @keys };
            next if !defined $of->{median}{rate};
            for my $other (grep { $_ ne $name } @names) {
                $of->{ratio}{$other} = { map { $_ => ratio($work, $name, $other, $_) } qw(rate cpu_ms pss_kib) };
            }
        }
    }
}

sub _number {
    my ($n) = @_;
    return '-' if !defined $n;
    return sprintf $n >= 100 ? '%.0f' : $n >= 10 ? '%.1f' : $n >= 1 ? '%.2f' : '%.3f', $n;
}

my @shown_ratios = qw(floor postfix-proxy nginx-nodelay);
my %columns = (
    mails => [['mails/s', 'rate'], ['through', 'through'],
        ['least', sub { min(_column($_[0], 'rate')) }], ['most', sub { max(_column($_[0], 'rate')) }],
        ['CPU ms', 'cpu_ms'], ['sink ms', 'sink_cpu_ms'], ['PSS MiB', \&_mib], ['others', 'others'],
        map { my $other = $_; ["/$other", sub { $_[0]{ratio}{$other}{rate} }] } @shown_ratios],
    W6 => [['alone/s', 'alone'], ['beside/s', 'beside'], ['of alone', 'of_alone']],
    W7 => [['mails/s', 'rate'], ['CPU ms', 'cpu_ms'], ['p50 ms', sub { 1000 * $_[0]{median}{p50} }],
        ['p99 ms', sub { 1000 * $_[0]{median}{p99} }], ['relay conn.', 'connections'], ['children', 'children'],
        ['ports waiting', 'ports_waiting']],
    dot => [['mails/s', 'rate'], ['CPU ms', 'cpu_ms'], ['p50 ms', sub { 1000 * $_[0]{median}{p50} }],
        ['p99 ms', sub { 1000 * $_[0]{median}{p99} }]],
    TLS => [['plain/s', sub { median(map { $_->{plain}{rate} } @{ $_[0]{rounds} }) }],
        ['TLS/s', sub { median(map { $_->{tls}{rate} } @{ $_[0]{rounds} }) }], ['of plain', 'of_plain'],
        ['CPU plain', sub { median(map { $_->{plain}{cpu_ms} } @{ $_[0]{rounds} }) }],
        ['CPU TLS', sub { median(map { $_->{tls}{cpu_ms} } @{ $_[0]{rounds} }) }]],
    callgrind => [['instructions a mail', 'instructions']],
);

sub _cell { my ($of, $what) = @_; return _number(ref $what ? $what->($of) : $of->{median}{$what}) }

sub table {
    my ($name, $work, @targets) = @_;
    printf "\n%s: %s\n", $name, Works::title($name);
    return _idle_table($work, @targets) if $name eq 'W5';
    my @columns = @{ $columns{$name} // $columns{mails} };
    my @width = map { max(9, 1 + length $_->[0]) } @columns;
    printf "  %-14s" . join('', map {"%${_}s"} @width) . "\n", '', map { $_->[0] } @columns;
    for my $target (grep { $work->{ $_->{name} } } @targets) {
        my $of = $work->{ $target->{name} };
        printf '  %-14s', $target->{name};
        print join '', map { sprintf "%$width[$_]s", _cell($of, $columns[$_][1]) } 0 .. $#columns if $of->{median};
        print _why($of), "\n";
    }
}

# Our main target beside each of the others, as ratios.
sub beside {
    my ($work, @targets) = @_;
    my $of = $work->{event}{ratio} or return;
    printf "  %-28s%9s%9s%9s\n", 'event, as a ratio to', 'rate', 'CPU', 'PSS';
    for my $other (grep { $of->{$_} } map { $_->{name} } @targets) {
        printf "  %-28s%9s%9s%9s\n", "    $other", map { _number($of->{$other}{$_}) } qw(rate cpu_ms pss_kib);
    }
}

sub _why {
    my ($of) = @_;
    return $of->{skipped} ? "  skipped: $of->{skipped}" : $of->{failed} ? "  FAILED: $of->{failed}" : '';
}

sub _idle_table {
    my ($work, @targets) = @_;
    printf "  %-14s%10s%14s%10s%22s\n", '', 'sessions', 'KiB a session', 'PSS MiB', 'new one greeted, ms';
    for my $target (grep { $work->{ $_->{name} } } @targets) {
        my $of = $work->{ $target->{name} };
        for my $r (@{ $of->{rounds} // [] }) {
            printf "  %-14s%10d%14s%10s%11.2f%11.2f\n", $target->{name}, $r->{sessions}, _number($r->{kib}),
                _number($r->{pss_kib} / 1024), 1000 * $r->{greeted}, 1000 * $r->{greeted_last};
        }
        print "  $target->{name}", _why($of), "\n" if _why($of);
    }
}

sub _mib { my ($of) = @_; return $of->{median}{pss_kib} ? $of->{median}{pss_kib} / 1024 : undef }

# --- what is to be reached: text, where the figure comes from, at least or at most, and how much.
sub _rate { my ($w, $other) = @_; return sub { $_[0]{$w}{event}{ratio}{$other}{rate} } }
sub _of   { my ($w, $target, $key) = @_; return sub { $_[0]{$w}{$target}{median}{$key} } }
sub _most_idle {
    my ($key) = @_;
    return sub { my ($last) = (@{ $_[0]{W5}{event}{rounds} // [] })[-1]; return $last && $last->{$key} };
}
sub _flat {
    my ($r) = @_;
    my ($large, $small) = map { $r->{$_}{event}{median}{pss_kib} } qw(W4 W3);
    return $large && $small ? $large / $small : undef;
}
sub _held {
    my ($r) = @_;
    my $m = $r->{W7}{event}{median} or return;
    return $m->{rate} / $m->{wanted};
}
sub _spare_relay_connections {
    my ($r) = @_;
    my $m = $r->{W7}{event}{median} or return;
    return $m->{connections} / (25 * $m->{children});
}

my @aims = (
    ['W1: rate, of the floor',                        _rate('W1', 'floor'),          '>=', 0.5],
    ["W1: rate, of Postfix's proxy filter",           _rate('W1', 'postfix-proxy'),  '>=', 2],
    ['W1: CPU ms a mail',                             _of('W1', 'event', 'cpu_ms'),  '<=', 0.20],
    ['W2: rate, of the floor',                        _rate('W2', 'floor'),          '>=', 0.6],
    ["W2: rate, of Postfix's proxy filter",           _rate('W2', 'postfix-proxy'),  '>=', 3],
    ['W2: CPU ms a mail',                             _of('W2', 'event', 'cpu_ms'),  '<=', 0.10],
    ['W3: rate, of the floor',                        _rate('W3', 'floor'),          '>=', 0.9],
    ['W3: CPU ms a mail',                             _of('W3', 'event', 'cpu_ms'),  '<=', 1.5],
    ['W4: rate, of the floor',                        _rate('W4', 'floor'),          '>=', 0.9],
    ['W4: CPU ms a mail',                             _of('W4', 'event', 'cpu_ms'),  '<=', 40],
    ['W4: peak PSS with 25 MiB, of that with 1 MiB',  \&_flat,                       '<=', 1.2],
    ['W5: sessions that stand',                       _most_idle('sessions'),        '>=', 20000],
    ['W5: the slowest of 40 greetings then, s',       _most_idle('greeted_last'),    '<=', 0.2],
    ['W5: KiB a session',                             _most_idle('kib'),             '<=', 14],
    ['W6: rate beside the slow ones, of W2 alone',    _of('W6', 'event', 'of_alone'), '>=', 0.95],
    ['W7: rate, of the rate wanted',                  \&_held,                       '>=', 0.99],
    ['W7: relay connections, of max (25 a child)',    \&_spare_relay_connections,    '<=', 1],
    ['W7: ports waiting to be free',                  _of('W7', 'event', 'ports_waiting'), '<=', 1000],
    ['dot to 250, p50, s',                            _of('dot', 'event', 'p50'),    '<=', 0.0005],
    ['dot to 250, p99, s',                            _of('dot', 'event', 'p99'),    '<=', 0.005],
    ['TLS W2: rate, of plain W2',                     _of('TLS', 'event-tls', 'of_plain'), '>=', 0.7],
    ['Lua rcpt and data phases, W2: rate, of W2 without',
        sub { $_[0]{W2}{'event-lua'}{ratio}{event}{rate} }, '>=', 0.65],
);

# Prints the table; gives its rows.
sub aims {
    my ($results) = @_;
    print "\nTo reach, with the event MPM\n";
    my @reached;
    for (@aims) {
        my ($text, $figure, $relation, $aim) = @$_;
        my $value = $figure->($results);
        my $met = !defined $value ? undef : $relation eq '>=' ? $value >= $aim : $value <= $aim;
        my $shown = defined $value ? ($value && abs $value < 0.01 ? sprintf '%.5f', $value : _number($value)) : '-';
        printf "  %-52s%10s  %s %-8s%s\n", $text, $shown, $relation, $aim,
            defined $met ? ($met ? 'reached' : 'NOT REACHED') : 'not measured';
        push @reached, { aim => $text, value => $value, relation => $relation, wanted => $aim,
            reached => defined $met ? ($met ? JSON::PP::true : JSON::PP::false) : undef };
    }
    return \@reached;
}

sub write_json {
    my ($file, $data) = @_;
    spew($file, JSON::PP->new->canonical->pretty->encode($data));
}

1;
