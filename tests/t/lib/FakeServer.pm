# What the fakes have in common: one forked process that serves what listens at the private port,
# and a word with it through files. The package that has this as its parent says how, in _serve.
#
#   my $self = $class->SUPER::new(%a); $self->start;     # also stopped when the object goes
#   $self->keep('script', $data); $self->kept('script'); # between the two processes, whole or not at all
#   my ($mail) = $fake->wait_for(sub { $_[0]->mails }, 5);
package FakeServer;

use strict;
use warnings;
use parent 'PrivateServer';
use Carp qw(croak);
use IO::Socket::INET;
use POSIX ();
use Storable qw(nstore retrieve);
use Time::HiRes qw(sleep time);

# The sockets that _serve is given.
sub listeners {
    my ($self) = @_;
    my $listener = IO::Socket::INET->new(LocalAddr => $self->{address} // '127.0.0.1',
        LocalPort => $self->{port}, Listen => 1024, ReuseAddr => 1, Proto => 'tcp');
    return $listener || croak "port $self->{port}: $@";
}

sub start {
    my ($self) = @_;
    my @listeners = $self->listeners;
    return $self->fork_for(sub {
        $SIG{TERM} = sub { POSIX::_exit(0) };
        $SIG{PIPE} = 'IGNORE';
        $self->_serve(@listeners);
    });
}

sub keep {
    my ($self, $name, $data) = @_;
    my $file = "$self->{dir}/$name";
    nstore($data, "$file.new");
    rename "$file.new", $file or croak "$file: $!";
    return $self;
}

# undef if nothing was kept.
sub kept { my $file = "$_[0]{dir}/$_[1]"; return -e $file ? retrieve($file) : undef }

# Asks the block, which is given this object, until it says something true; its last answer.
sub wait_for {
    my ($self, $condition, $seconds) = @_;
    my $deadline = time + ($seconds // 10);
    while (1) {
        my @answer = $condition->($self);
        return wantarray ? @answer : $answer[0] if @answer && $answer[0];
        return if time > $deadline;
        sleep 0.02;
    }
}

1;
