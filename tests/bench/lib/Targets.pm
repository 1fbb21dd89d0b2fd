# The table of what is compared, and how one of them is started. A row: the name that options use, what
# it is, how to start it, what must be there first, and in which works it takes part. A start function
# gets { dir, sink, idle } and gives { port, trees, stop, said }; the reason it dies with, or `missing`,
# is printed where the target's figures would stand.
package Targets;

use strict;
use warnings;
use File::Temp ();
use Ours;
use Peers;
use PeerPostfix;

my $all  = 'W1 W2 W3 W4';
my @rows = (
    # name, kind, title, works, start
    ['floor',         'floor', 'smtp-source straight into smtp-sink',   "$all W6", \&floor],
    ['bare',          'peer',  'the same round trips, nothing else', 'W1 W2', \&Peers::bare],
    ['event',         'ours',  'event MPM', "$all W5 W6 W7 dot callgrind", sub { Ours::run($_[0], 'event') }],
    ['worker',        'ours',  'worker MPM',                            $all, sub { Ours::run($_[0], 'worker') }],
    ['prefork',       'ours',  'prefork MPM',                           $all, sub { Ours::run($_[0], 'prefork') }],
    ['event-tls',     'ours',  'event MPM, STARTTLS',                   'TLS', \&Ours::tls],
    ['event-lua',     'ours',  'event MPM, rcpt and data phase in Lua', 'W1 W2', \&Ours::lua],
    ['event-clamd',   'ours',  'event MPM, scanned by clamd',           'W1 W2 W3', \&Ours::clamd],
    ['postfix-proxy', 'peer',  'Postfix, smtpd_proxy_filter',           "$all W5 W6", \&PeerPostfix::proxy_filter],
    ['postfix-queue', 'peer',  'Postfix through its queue',             $all, \&PeerPostfix::queue],
    ['nginx',         'peer',  'nginx mail proxy as shipped',           "$all W5 W6", \&Peers::nginx],
    ['nginx-nodelay', 'peer',  'the same, TCP_NODELAY forced',          "$all W6", \&Peers::nginx_nodelay],
    ['haraka',        'peer',  'Haraka, smtp_forward',                  "$all W5", \&Peers::haraka],
    ['exim',          'peer',  'Exim, cutthrough delivery',             "$all W5", \&Peers::exim],
    ['opensmtpd',     'peer',  'OpenSMTPD through its queue',           $all, \&Peers::opensmtpd],
);

my %missing = (
    'event-lua'   => sub { Ours::knows('lua_request') ? '' : 'this module has no phases in Lua' },
    'event-clamd' => sub {
        return 'this module has no SmtpdScanner' if !Ours::knows('SmtpdScanner');
        return (grep { -x "$_/clamd" } split /:/, $ENV{PATH}) ? '' : 'clamd is not installed';
    },
);
# Servers that give each session a process stand in W5 with as many as a machine bears.
my %most_idle = ('postfix-proxy' => 200, exim => 200, haraka => 5000);

sub all {
    return map {
        my %row;
        @row{qw(name kind title works start)} = @$_;
        $row{in} = { map { $_ => 1 } split ' ', $row{works} };
        $row{missing} = $missing{ $row{name} };
        $row{most_idle} = $most_idle{ $row{name} };
        \%row;
    } @rows;
}

sub floor {
    my ($c) = @_;
    return { port => $c->{sink}->port, trees => [], stop => sub { }, said => sub { '' } };
}

# What runs, to be stopped also when the program is interrupted.
my ($owner, %running) = ($$);
END { if ($$ == $owner) { local $?; $_->stop for values %running } }

# A started target, or nothing and the reason, and whether that is a failure: a peer may be missing, ours not.
sub start {
    my ($row, $sink, $idle) = @_;
    my $why = $row->{missing} ? $row->{missing}->() : '';
    return (undef, $why) if $why;
    my $dir = File::Temp->newdir('bench.XXXXXX', TMPDIR => 1);
    chmod 0755, "$dir";
    my $instance = eval { $row->{start}->({ dir => "$dir", sink => $sink, idle => $idle // 0 }) }
        or return (undef, _short($@ || "no reason given\n"), $row->{kind} eq 'ours');
    $instance->{dir} = $dir;
    $instance->{row} = $row;
    return $running{"$dir"} = bless $instance, 'Targets::Instance';
}

# The whole of it to the terminal, its beginning to the table.
sub _short {
    my ($why) = @_;
    $why =~ s/ at \S+ line \d+\.$//m;
    warn "\n$why" if length $why > 160;
    $why =~ s/\s+/ /g;
    return length $why > 160 ? substr($why, 0, 157) . '...' : $why;
}

package Targets::Instance;

use List::Util qw(sum0);

sub port  { $_[0]{port} }
sub row   { $_[0]{row} }
sub name  { $_[0]{row}{name} }
sub said  { $_[0]{said}->() }
# False for the floor, where nothing stands between load and sink.
sub serves { return scalar @{ $_[0]{trees} } }
sub cpu   { sum0(map { $_->cpu } @{ $_[0]{trees} }) }
sub pss   { sum0(map { $_->pss } @{ $_[0]{trees} }) }

sub stop {
    my ($self) = @_;
    local $?;
    (delete $self->{stop} // return)->();
    delete $running{"$self->{dir}"};
}

1;
