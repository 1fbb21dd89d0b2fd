# What the servers that a test has for itself have in common, real ones and fakes: a private
# directory, a free port of loopback, and processes that are stopped by their ids, by whoever started
# them, at the latest when the object goes.
#
#   package SomeInstance; use parent 'PrivateServer';
#   my $self = $class->SUPER::new(timeout => 30, %a);    # now it has a directory and a port
#   $self->write_file('some.conf', $text);               # below the directory; directories are made
#   $self->user_directories('state');                    # of an unprivileged user where root is the tester
#   $self->spawn(PrivateServer::program('somed'), '-c', "$self->{dir}/some.conf");
#   $self->wait_until(sub { $self->answers });           # croaks with its output and log if it ends before
#   $self->log; $self->output; $self->read_file('some.conf'); $self->pid; $self->stop;
package PrivateServer;

use strict;
use warnings;
use Carp qw(croak);
use File::Basename qw(dirname);
use File::Path qw(make_path);
use File::Temp ();
use FreePort;
use POSIX ();
use SmallFile;
use Time::HiRes qw(sleep time);

# The path of a program, undef if it is not installed.
sub program {
    my ($name) = @_;
    my ($path) = grep { -x } map {"$_/$name"} split(/:/, $ENV{PATH} // ''),
        qw(/usr/sbin /usr/local/sbin /usr/bin /usr/libexec /usr/lib/openldap);
    return $path;
}

sub new {
    my ($class, %a) = @_;
    my $self = bless { timeout => 20, log => 'log', %a, pids => [], owner => $$ }, $class;
    $self->{port} ||= FreePort::pick($self->{address});
    if (!$self->{dir}) {
        $self->{temp} = File::Temp->newdir(lc($class) . '.XXXXXX', TMPDIR => 1);
        $self->{dir} = "$self->{temp}";
        chmod 0755, $self->{dir};
    }
    return $self;
}

sub dir  { $_[0]{dir} }
sub port { $_[0]{port} }
sub pid  { $_[0]{pids}[0] }
sub pids { @{ $_[0]{pids} } }

sub write_file {
    my ($self, $name, $text) = @_;
    make_path(dirname("$self->{dir}/$name"));
    return spew("$self->{dir}/$name", $text);
}

# '' if it is not there.
sub read_file { my $file = "$_[0]{dir}/$_[1]"; return -r $file ? slurp($file) : '' }

sub log    { my ($self, $name) = @_; return $self->read_file($name // $self->{log}) }
sub output { $_[0]->read_file('output') }

sub user_directories {
    my ($self, @names) = @_;
    my @dirs = map {"$self->{dir}/$_"} @names;
    make_path(@dirs);
    return if $> != 0;
    ($self->{user}) = grep { getpwnam $_ } qw(www-data apache nobody);
    my (undef, undef, $uid, $gid) = getpwnam $self->{user};
    $self->{group} = getgrgid $gid;
    chown $uid, $gid, @dirs;
}

# Runs code that does not return in a process of its own.
sub fork_for {
    my ($self, $code) = @_;
    $self->{owner} = $$;
    defined(my $pid = fork) or croak "fork: $!";
    if (!$pid) {
        eval { $code->(); 1 } or print STDERR '# ' . ref($self) . ": $@";
        POSIX::_exit(127);
    }
    unshift @{ $self->{pids} }, $pid;
    return $self;
}

# What a program's process does before it becomes the program.
sub prepare { }

sub spawn {
    my ($self, @command) = @_;
    return $self->fork_for(sub {
        $self->prepare;
        open STDIN, '<', '/dev/null';
        open STDOUT, '>>', "$self->{dir}/output";
        open STDERR, '>&', \*STDOUT;
        exec { $command[0] } @command;
    });
}

# Asks the block until it says that what was started last serves.
sub wait_until {
    my ($self, $serves) = @_;
    my $deadline = time + $self->{timeout};
    until ($serves->()) {
        my $gone = waitpid($self->pid, POSIX::WNOHANG()) != 0;
        shift @{ $self->{pids} } if $gone;
        if ($gone || time > $deadline) {
            $self->stop;
            croak ref($self) . ' did not start: ' . $self->output . $self->log;
        }
        sleep 0.05;
    }
    return $self;
}

# Waits for its end for at most so many seconds; true when it came.
sub wait_end {
    my ($self, $seconds) = @_;
    my $deadline = time + $seconds;
    while (waitpid($self->pid, POSIX::WNOHANG()) == 0) {
        return 0 if time > $deadline;
        sleep 0.01;
    }
    shift @{ $self->{pids} };
    return 1;
}

sub stop {
    my ($self) = @_;
    return if $self->{owner} != $$;
    while (my $pid = $self->pid) {
        kill TERM => $pid;
        $self->wait_end(20) or kill KILL => $pid;
    }
}

sub DESTROY { local ($?, $!, $@); $_[0]->stop }

1;
