# A process and all that comes of it: starting one in a session of its own, the processor time and the
# memory of the whole tree, and its end by process id. Nothing here knows of mail.
#
#   my $p = ProcessTree->start(command => [..], log => $file, env => {..}, port => $listens_there);
#   $p->cpu; $p->pss; $p->stop;           # or ProcessTree->of($pid, ..) for trees others started
package ProcessTree;

use strict;
use warnings;
use Carp qw(croak);
use IO::Socket::INET;
use POSIX ();
use Time::HiRes qw(sleep time);

my $tick = POSIX::sysconf(POSIX::_SC_CLK_TCK());

sub of {
    my ($class, @roots) = @_;
    return bless { roots => \@roots, owner => $$ }, $class;
}

sub start {
    my ($class, %a) = @_;
    defined(my $pid = fork) or croak "fork: $!";
    if (!$pid) {
        POSIX::setsid();
        %ENV = (%ENV, %{ $a{env} // {} });
        chdir $a{directory} or POSIX::_exit(127) if $a{directory};
        open STDIN, '<', '/dev/null';
        open STDOUT, '>>', $a{output} // $a{log};
        open STDERR, '>>', $a{log};
        exec { $a{command}[0] } @{ $a{command} } or POSIX::_exit(127);
    }
    my $self = bless { roots => [$pid], started => $pid, owner => $$, %a }, $class;
    $self->_wait_for_port($a{seconds} // 30) if $a{port};
    return $self;
}

# It listens when a connection is taken, and serves when it says something.
sub _wait_for_port {
    my ($self, $seconds) = @_;
    my $deadline = time + $seconds;
    while (time < $deadline) {
        last if waitpid($self->{started}, POSIX::WNOHANG()) == $self->{started};
        my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $self->{port}, Timeout => 5);
        return if $s && (!$self->{greets} || greeting($s));
        sleep 0.05;
    }
    $self->stop;
    my $said = $self->said;
    croak "$self->{command}[0] does not serve port $self->{port}: $said";
}

# The end of what it wrote.
sub said {
    my ($self) = @_;
    open my $in, '<:raw', $self->{log} or return '';
    my $said = do { local $/; <$in> } // '';
    return length $said > 1500 ? '..' . substr $said, -1500 : $said;
}

sub greeting {
    my ($s) = @_;
    my $line = '';
    local $SIG{ALRM} = sub { die "no greeting\n" };
    alarm 20;
    eval { while ($line !~ /\n\z/) { sysread $s, $line, 512, length $line or last } 1 };
    alarm 0;
    return $line =~ /^220/;
}

# parent => [children] of the whole machine, in one look.
sub _children {
    my %of;
    for my $dir (glob '/proc/[0-9]*') {
        my @stat = _stat($dir) or next;
        push @{ $of{ $stat[1] } }, substr $dir, 6;
    }
    return \%of;
}

# The fields after the command's name: state, ppid, ..; empty when the process is gone.
sub _stat {
    my ($dir) = @_;
    open my $in, '<', "$dir/stat" or return;
    my $line = readline $in;
    return defined $line ? split ' ', $line =~ s/^.*\) //sr : ();
}

sub pids {
    my ($self) = @_;
    my $of = _children();
    my (@all, %seen);
    my @next = @{ $self->{roots} };
    while (defined(my $pid = shift @next)) {
        next if $seen{$pid}++;
        push @all, $pid;
        push @next, @{ $of->{$pid} // [] };
    }
    return @all;
}

# Seconds in user and in kernel mode, those of children that ended and were waited for included.
sub cpu {
    my ($self) = @_;
    my $sum = 0;
    for my $pid ($self->pids) {
        my @stat = _stat("/proc/$pid") or next;
        $sum += $_ for @stat[11 .. 14];
    }
    return $sum / $tick;
}

# KiB, each shared page divided among those that share it.
sub pss {
    my ($self) = @_;
    my $sum = 0;
    for my $pid ($self->pids) {
        open my $in, '<', "/proc/$pid/smaps_rollup" or next;
        while (my $line = <$in>) { $sum += $1 if $line =~ /^Pss:\s+(\d+)/ }
    }
    return $sum;
}

sub stop {
    my ($self) = @_;
    my $pid = delete $self->{started} or return;
    my @tree = $self->pids;
    local $?;
    kill TERM => $pid;
    my $deadline = time + ($self->{grace} // 10);
    until (waitpid($pid, POSIX::WNOHANG()) != 0) {
        if (time > $deadline) { kill KILL => @tree; waitpid $pid, 0; last }
        sleep 0.02;
    }
    # Those that outlived their parent: only what is still the same session, so that no reused id is hit.
    for my $left (@tree) {
        my @stat = _stat("/proc/$left");
        kill KILL => $left if @stat && $stat[3] == $pid;
    }
}

sub DESTROY {
    my ($self) = @_;
    local ($?, $!, $@);
    $self->stop if $self->{owner} == $$;
}

1;
